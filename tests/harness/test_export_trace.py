# SPDX-License-Identifier: MIT
"""Recorded events in Perfetto's format nest and balance on every track, whatever was lost, and say what they said."""

import io
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos
from perfetto_reader import Viewer, check_flows, flat, read

from harness.memory import Sample
from harness.tracing.kernel_text import TEXT_FORMATS, write_text
from harness.tracing.lives import lives
from harness.tracing.perfetto import write_perfetto
from harness.tracing.timeline import CALL, HANDLER, LOCK, Slice, timelines
from shmalloc.trace import RECORD, Events

HZ = 2_500_000_000
CPU = 1000  # uuid of CPU 0's track


def exported(events: Events, **options: Any) -> Viewer:
    file = io.BytesIO()
    write_perfetto(events, file, "t", **options)
    return read(file.getvalue())


# --- single things ------------------------------------------------------------------------------------


def alloc(ts: int, ptr: int = 64, **more: Any) -> dict[str, Any]:
    return {
        "event": "shmalloc:alloc",
        "ts": ts,
        "ptr": ptr,
        "bytes_req": 64,
        "gfp_flags": 0xCC0,
        "dur": 100,
    } | more


def free(ts: int, ptr: int = 64, **more: Any) -> dict[str, Any]:
    return {"event": "shmalloc:free", "ts": ts, "ptr": ptr, "dur": 50} | more


def made(rows: list[dict[str, Any]], **more: Any) -> Events:
    return Events.synthetic(rows, tsc_hz=1_000_000_000, **more)


def test_a_call_an_interrupt_and_what_it_does() -> None:
    """An NMI in the middle of an allocation allocates: three slices, each within the one before."""
    viewer = exported(
        made(
            [
                {
                    "event": "kmem:mm_page_alloc",
                    "ts": 1010,
                    "pfn": 7,
                    "ptr": 28672,
                    "order": 1,
                    "gfp_flags": 0xCC0,
                },
                {
                    "event": "shmalloc:handler_entry",
                    "ts": 1020,
                    "level": 1,
                    "ctx": "nmi",
                    "arg": 0,
                    "call_site": 0x10,
                },
                alloc(1050, level=1, ctx="nmi", dur=20, design="kmalloc_nolock", reason="zone_busy", ptr=0),
                {"event": "shmalloc:handler_exit", "ts": 1060, "level": 1, "ctx": "nmi", "arg": 0, "dur": 41},
                alloc(1100, design="kmalloc"),
            ],
            symbols={0x10: "get_freelist+0x4"},
        )
    )
    (outer,) = viewer.slices[CPU]
    assert (outer.name, outer.category, outer.start, outer.end) == ("alloc kmalloc", "shmalloc", 1000, 1100)
    (handler,) = outer.children
    assert (handler.name, handler.category, handler.start, handler.end) == ("NMI", "interrupt", 1020, 1060)
    assert handler.args["rip"] == "get_freelist+0x4"
    (inner,) = handler.children
    assert (inner.name, inner.start, inner.end) == ("alloc kmalloc_nolock: zone_busy", 1030, 1050)
    assert inner.args["reason"] == "zone_busy"
    (page,) = viewer.instants[CPU]
    assert (page.name, page.category, page.start) == ("mm_page_alloc", "kmem", 1010)
    where = {"ctx": "task", "level": 0}
    assert page.args == {"pfn": "0x7", "order": 1, "migratetype": 0, "gfp_flags": "GFP_KERNEL"} | where


def test_tracks_are_named_for_their_cpus() -> None:
    viewer = exported(made([alloc(1000), alloc(1100, cpu=2)], pids={0: 4711, 2: 4713}))
    process = viewer.tracks[1]
    assert (process.process.pid, process.process.process_name) == (4711, "t")
    threads = {uuid: track.thread for uuid, track in viewer.tracks.items() if track.HasField("thread")}
    assert {(t.pid, t.tid, t.thread_name) for t in threads.values()} == {
        (4711, 4711, "CPU 0"),
        (4711, 4713, "CPU 2"),
    }
    assert all(viewer.tracks[uuid].parent_uuid == 1 for uuid in threads)
    assert set(viewer.clocks.values()) == {1000}


def test_remote_frees_are_flows() -> None:
    """One for each allocation, though the address is the same; a local free is none."""
    viewer = exported(
        made(
            [
                alloc(1000),
                free(2000, cpu=1),
                alloc(3000),
                free(4000),
                alloc(5000, cpu=1),
                free(6000),
            ]
        )
    )
    pairs = check_flows(viewer)
    assert [(a.end, b.end) for a, b in pairs] == [(1000, 2000), (5000, 6000)]


def test_an_address_that_is_given_out_before_its_free_is_recorded() -> None:
    """CPU 1 frees and takes a while to say so; CPU 2 has the address by then."""
    events = made([alloc(1000), alloc(2000, cpu=2), free(2010, cpu=1, dur=200), free(3000, cpu=1)])
    found = lives(events)
    ts = events.records["ts"]
    assert [(int(ts[one.alloc]), int(ts[one.free])) for one in found] == [(1000, 2010), (2000, 3000)]
    check_flows(exported(events))


def test_a_free_that_was_lost_belongs_to_nobody() -> None:
    events = made([alloc(1000), alloc(2000, cpu=2), free(3000, cpu=1)])
    assert [(one.alloc, one.free) for one in lives(events)] == [(1, 2)]
    (pair,) = check_flows(exported(events))
    assert pair[0].end == 2000


def test_flows_of_a_trace_of_kmem_events_only() -> None:
    viewer = exported(
        made(
            [
                {"event": "kmem:kmalloc", "ts": 10, "ptr": 64, "bytes_req": 8, "bytes_alloc": 8},
                {"event": "kmem:mm_page_alloc", "ts": 11, "ptr": 4096, "pfn": 1},
                {"event": "kmem:kfree", "ts": 20, "ptr": 64, "cpu": 1},
                {"event": "kmem:mm_page_free", "ts": 21, "ptr": 4096, "pfn": 1, "cpu": 1},
            ]
        )
    )
    assert [(a.name, b.name) for a, b in check_flows(viewer)] == [
        ("kmalloc", "kfree"),
        ("mm_page_alloc", "mm_page_free"),
    ]


def test_waits_for_locks_are_slices() -> None:
    wait = {"event": "lock:contention_begin", "ptr": 640, "arg": 1}
    viewer = exported(
        made(
            [
                {**wait, "ts": 1010},
                {**wait, "event": "lock:contention_end", "ts": 1040},
                {**wait, "ts": 1050},  # unwound: it has no end
                alloc(1100),
            ]
        )
    )
    (call,) = viewer.slices[CPU]
    first, second = call.children
    assert (first.category, first.start, first.end) == ("lock", 1010, 1040)
    assert first.name.startswith("wait for ")
    assert "not recorded" not in first.args
    assert (second.start, second.end, second.args["not recorded"]) == (1050, 1100, "end")


def test_counters() -> None:
    samples = [(900, Sample(0.0, 4096, 0, 0, 0, 0)), (1000, Sample(0.1, 8192, 0, 0, 0, 0))]
    viewer = exported(made([alloc(1000, ptr=0, reason="zone_busy"), alloc(1200)]), memory=samples)
    names = {track.name: uuid for uuid, track in viewer.tracks.items() if track.HasField("counter")}
    assert viewer.counters[names["memory in use"]] == [(900, 4096), (1000, 8192)]
    assert viewer.counters[names["failed allocations"]] == [(1000, 0), (1000, 1)]
    assert viewer.tracks[names["memory in use"]].counter.unit == protos.CounterDescriptor.UNIT_SIZE_BYTES


def test_losses_are_said_where_a_cpu_begins() -> None:
    viewer = exported(made([alloc(1000), alloc(1100, cpu=1)], lost={0: 3, 1: 0}, overwritten={0: 4, 1: 0}))
    (one,) = viewer.instants[CPU]
    assert (one.name, one.args, one.start) == ("events lost", {"lost": 3, "overwritten": 4}, 1000)
    assert not viewer.instants[CPU + 1]


@pytest.mark.parametrize("kept", [["entry"], ["exit"], ["entry", "exit"]])
def test_half_an_interrupt_is_a_slice(kept: list[str]) -> None:
    rows = {
        "entry": {"event": "shmalloc:handler_entry", "ts": 1010, "level": 1, "arg": 1},
        "call": alloc(1050, level=1, dur=20),
        "exit": {"event": "shmalloc:handler_exit", "ts": 1060, "level": 1, "arg": 1, "dur": 52},
        "outer": alloc(1100, dur=98),
    }
    viewer = exported(made([row for name, row in rows.items() if name in (*kept, "call", "outer")]))
    (outer,) = viewer.slices[CPU]
    assert (outer.start, outer.end) == (1002, 1100)
    (handler,) = outer.children
    assert handler.name == "IRQ"
    assert handler.args.get("not recorded") == {"entry": "end", "exit": "start"}.get("".join(kept))
    assert (handler.start, handler.end) == (
        1008 if kept == ["exit"] else 1010,
        1050 if kept == ["entry"] else 1060,
    )
    assert [one.end for one in handler.children] == [1050]


def test_an_exit_behind_a_gap_is_not_that_of_an_entry_before_it() -> None:
    """The exit says that it was short: what had begun before the gap is another interrupt."""
    handler = {"event": "shmalloc:handler_entry", "level": 1, "arg": 0}
    rows = [{**handler, "ts": 1000, "seq": 1}, alloc(1100, level=1, seq=2)]
    rows.append({**handler, "event": "shmalloc:handler_exit", "ts": 9000, "dur": 200, "seq": 30})
    first, second = exported(made(rows)).slices[CPU]
    assert (first.start, first.end, first.args["not recorded"]) == (1000, 1100, "end")
    assert (second.start, second.end, second.args["not recorded"]) == (8800, 9000, "start")
    rows[-1]["seq"] = 3
    (only,) = exported(made(rows)).slices[CPU]
    assert (only.start, only.end) == (1000, 9000)


def test_an_entry_on_a_level_ends_the_interrupt_before_it() -> None:
    handler = {"event": "shmalloc:handler_entry", "level": 1, "arg": 0}
    rows = [{**handler, "ts": 1000}, {**handler, "ts": 2000, "arg": 1}]
    rows.append({**handler, "event": "shmalloc:handler_exit", "ts": 2100, "arg": 1, "dur": 101})
    first, second = exported(made(rows)).slices[CPU]
    assert (first.name, first.start, first.end) == ("NMI", 1000, 1000)
    assert (second.name, second.start, second.end) == ("IRQ", 2000, 2100)


def test_nothing_at_all() -> None:
    viewer = exported(made([]))
    assert not any(viewer.slices.values())


def test_nanoseconds_keep_the_order() -> None:
    """At 3 GHz, three ticks fall into one nanosecond."""
    rows = [alloc(ts, dur=1, ptr=ts * 64) for ts in range(1001, 1060, 2)]
    viewer = exported(Events.synthetic(rows, tsc_hz=3_000_000_000))
    assert [one.end for one in viewer.slices[CPU]] == [ts // 3 for ts in range(1001, 1060, 2)]


# --- made-up executions -------------------------------------------------------------------------------


@dataclass
class Truth:
    """What really ran: the records, and for each slice its enclosing one, by the record that ends it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    parent: dict[int, int | None] = field(default_factory=dict)


class Machine:
    """One CPU that calls, waits and is interrupted, and records as a CPU does: calls at their end, with their length.

    From the measurement of a length to its record is the shortest time that there is.
    """

    def __init__(self, dice: random.Random, cpu: int, gaps: bool) -> None:
        self.dice, self.cpu, self.gaps = dice, cpu, gaps
        self.now = 1000 + dice.randrange(50)
        self.truth = Truth()
        self.live: list[int] = []

    def tick(self) -> int:
        self.now += self.dice.randrange(2, 40)
        return self.now

    def write(self, level: int, **row: Any) -> int:
        ctx = "task" if not level else self.dice.choice(["irq", "nmi"])
        self.now = self.now + 1 if "dur" in row else self.tick()
        self.truth.rows.append({"ts": self.now, "cpu": self.cpu, "level": level, "ctx": ctx} | row)
        return len(self.truth.rows) - 1

    def maybe(self, level: int) -> list[int]:
        """Perhaps an interrupt. Returns: the slices that ran."""
        if level < 3 and self.dice.random() < 0.25:
            return [self.handler(level + 1)]
        return []

    def gap(self, level: int) -> None:
        """An interrupt between the measurement of a length and its record; whose child it is cannot be seen."""
        if self.gaps:
            self.maybe(level)

    def body(self, level: int) -> list[int]:
        inside = []
        for _ in range(self.dice.randrange(3)):
            inside += self.maybe(level)
            match self.dice.randrange(4):
                case 0:
                    self.write(level, event="kmem:kmalloc", ptr=self.dice.randrange(1, 99) * 64)
                case 1:
                    inside.append(self.lock(level))
        return inside + self.maybe(level)

    def lock(self, level: int) -> int:
        row = {"ptr": self.dice.randrange(1, 9), "arg": 1}
        self.write(level, event="lock:contention_begin", **row)
        inside = self.maybe(level)
        end = self.write(level, event="lock:contention_end", **row)
        return self.known(end, inside)

    def known(self, end: int, inside: list[int]) -> int:
        self.truth.parent[end] = None
        self.truth.parent.update(dict.fromkeys(inside, end))
        return end

    def call(self, level: int) -> int:
        began = self.tick()
        inside = self.body(level)
        dur = self.tick() - began
        self.gap(level)
        event = self.dice.choice(["shmalloc:alloc", "shmalloc:free"])
        end = self.write(level, event=event, dur=dur, ptr=self.dice.randrange(1, 40) * 64)
        return self.known(end, inside)

    def handler(self, level: int) -> int:
        began = self.tick()
        kind = self.dice.randrange(2)
        self.write(level, event="shmalloc:handler_entry", arg=kind)
        inside = []
        for _ in range(self.dice.randrange(3)):
            inside += [self.call(level), *self.maybe(level)]
        dur = self.tick() - began
        self.gap(level)
        return self.known(self.write(level, event="shmalloc:handler_exit", arg=kind, dur=dur), inside)

    def run(self, calls: int) -> Truth:
        for _ in range(calls):
            self.maybe(0)
            self.call(0)
        return self.truth


def by_end(slices: list[Slice], parent: int | None = None) -> dict[int, int | None]:
    """Say which slice is within which, each known by the time of its end."""
    found: dict[int, int | None] = {}
    for one in slices:
        assert one.end not in found
        found[one.end] = parent
        found |= by_end(one.children, one.end)
    return found


def check_nesting(slices: list[Slice], start: int = 0, end: int = 1 << 63) -> None:
    for one in slices:
        assert start <= one.start <= one.end <= end
        check_nesting(one.children, one.start, one.end)
        start = one.end


@given(st.integers(0, 1 << 32), st.integers(1, 12))
def test_what_ran_within_what_is_found(seed: int, calls: int) -> None:
    truth = Machine(random.Random(seed), 0, gaps=False).run(calls)
    line = timelines(Events.synthetic(truth.rows, tsc_hz=HZ))[0]
    check_nesting(line.slices)
    ts = [row["ts"] for row in truth.rows]
    wanted = {ts[end]: None if outer is None else ts[outer] for end, outer in truth.parent.items()}
    assert by_end(line.slices) == wanted
    assert all(not one.lost for one in line.slices)
    kmem = [index for index, row in enumerate(truth.rows) if row["event"] == "kmem:kmalloc"]
    assert line.instants == kmem


@given(st.integers(0, 1 << 32), st.integers(1, 12), st.floats(0, 0.6), st.booleans(), st.integers(1, 3))
def test_nothing_is_out_of_balance_whatever_is_lost(
    seed: int, calls: int, share: float, counted: bool, cpus: int
) -> None:
    """Records vanish from the middle (lost, or overwritten: then seq has a gap), and from both ends."""
    dice = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for cpu in range(cpus):
        mine = Machine(dice, cpu, gaps=True).run(calls).rows
        kept = [dict(row, seq=seq) for seq, row in enumerate(mine, 1) if dice.random() >= share]
        kept = kept[dice.randrange(len(kept) // 2 + 1) : len(kept) - dice.randrange(len(kept) // 4 + 1)]
        if not counted:
            kept = [dict(row, seq=seq) for seq, row in enumerate(kept, 1)]
        rows += kept
    events = Events.synthetic(sorted(rows, key=lambda row: row["ts"]), tsc_hz=HZ)
    lines = timelines(events)
    for line in lines.values():
        check_nesting(line.slices)
    viewer = exported(events)
    check_flows(viewer)
    calls_seen = Counter(
        CPU + row["cpu"] for row in rows if row["event"].startswith("shmalloc:") and "dur" in row
    )
    for cpu, line in lines.items():
        shown = flat(viewer.slices[CPU + cpu])
        ends = Counter(one.end for one in shown)
        mine = [row for row in rows if row["cpu"] == cpu]
        for row in mine:
            if row["event"] in ("shmalloc:alloc", "shmalloc:free", "shmalloc:handler_exit"):
                assert ends[row["ts"] * 1_000_000_000 // HZ] >= 1, "an end is not where it was recorded"
        assert len(shown) >= calls_seen[CPU + cpu]
        points = sum(row["event"] == "kmem:kmalloc" for row in mine)
        assert sum(one.category == "kmem" for one in viewer.instants[CPU + cpu]) == points
        assert {one.lost for one in line.slices} <= {"", "start", "end"}


def test_a_piece_is_written_when_it_is_full() -> None:
    rows = [alloc(1000 + 200 * i, ptr=64 * i + 64) for i in range(5000)]
    viewer = exported(made(rows))
    assert len(viewer.slices[CPU]) == 5000
    assert [one.kind for one in timelines(made(rows[:3]))[0].slices] == [CALL] * 3
    assert {HANDLER, LOCK} == {"handler", "lock"}
    assert np.all(np.diff([one.start for one in viewer.slices[CPU]]) == 200)


@pytest.mark.parametrize("hz", [1, HZ])
def test_whatever_the_columns_hold_it_can_be_written(hz: int) -> None:
    records = np.frombuffer(np.random.default_rng(hz).bytes(500 * RECORD.itemsize), RECORD)
    events = Events(records, hz)
    file, text = io.BytesIO(), io.StringIO()
    write_perfetto(events, file, "t")
    parsed = protos.Trace()
    parsed.ParseFromString(file.getvalue())
    assert len(parsed.packet) > len(events)
    for style in TEXT_FORMATS:
        write_text(events, text, style)
    assert text.getvalue().count("unknown:") > 300
