# SPDX-License-Identifier: MIT
"""Recorded events: which there are, what they say, and that their number is the arena's own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from rig import A_BYTES, Rig
from windows import cpu_slab, recording

from shmalloc import Arena, Cpu, ShmallocError, ops
from shmalloc.errors import AllocationFailed, GeometryError, Unsupported
from shmalloc.trace import FLAGS, NO_CACHE, NO_PFN, Events

TRACED: dict[str, Any] = {"size": "16MiB", "trace_bytes": 1 << 20}
SMALL: dict[str, Any] = {"trace_bytes": 4096}
PLACES = 64  # of SMALL


def told(events: Events, *globs: str) -> list[str]:
    """Names of the events, in order; without their group."""
    return [events.name(record).partition(":")[2] for record in events.select(*globs or ("*",))]


def only(events: Events, name: str) -> dict[str, Any]:
    """Fields of the only event of its name."""
    (record,) = events.select(name)
    return dict(events.items(record)) | {column: record[column] for column in ("ctx", "level", "cache")}


# --- what is emitted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["6.18", "7.0"])
def test_kmalloc_and_kfree(flavour: str, kernel: str) -> None:
    with Rig.create(flavour=flavour, kernel=kernel, **TRACED) as rig:
        rig.free(rig.alloc("kmalloc"))
        assert rig.arena.trace.on() == []
        taken = rig.cpu.kmalloc(1000, "GFP_KERNEL|__GFP_ZERO")
        rig.cpu.kfree(taken)
        events = rig.arena.trace.read()
        assert told(events) == ["kmalloc", "alloc", "kfree", "free"]
        kmalloc, alloc, kfree, free = (only(events, name) for name in told(events))
        assert (kmalloc["bytes_req"], kmalloc["bytes_alloc"]) == (1000, 1024)
        assert kmalloc["ptr"] == alloc["ptr"] == kfree["ptr"] == free["ptr"] == taken
        assert kmalloc["gfp_flags"] & rig.lib.GFP_KERNEL == rig.lib.GFP_KERNEL and kmalloc["node"] == -1
        assert alloc["design"] == free["design"] == "kmalloc" and alloc["reason"] == "none"
        assert kmalloc["call_site"] == alloc["call_site"] and kfree["call_site"] == free["call_site"]
        assert free["dur"] > 0 and 0 < alloc["dur"] < events.tsc_hz
        assert {record["ctx"] for record in events} == {0} and np.all(np.diff(events.records["ts"]) > 0)
        assert events.records["seq"].tolist() == [1, 2, 3, 4]


def test_kmalloc_nolock_emits_none_but_its_pages_do(flavour: str) -> None:
    """Mirrors: mm/slub.c (no trace_kmalloc in kmalloc_nolock), mm/page_alloc.c alloc_frozen_pages_nolock."""
    with Rig.create(flavour=flavour, **TRACED) as rig:
        rig.arena.trace.on(["kmem:*"])
        taken = rig.alloc("kmalloc_nolock")
        rig.free(taken, "kfree_nolock")
        events = rig.arena.trace.read()
        assert told(events)[-1] == "mm_page_alloc" and all(
            name.startswith("mm_page_") for name in told(events)
        )
        page = only(events, "mm_page_alloc")
        memory = rig.arena.header.regions[rig.lib.REGION_MEMORY].offset
        assert page["pfn"] == (taken - memory) >> 12 & ~((1 << page["order"]) - 1)


def test_objects_of_a_named_cache(flavour: str) -> None:
    with Rig.create(flavour=flavour, **TRACED) as rig, rig.cpu.kmem_cache_create("mine", 1000) as cache:
        rig.arena.trace.on(["kmem:*"])
        cache.free(cache.alloc("GFP_ATOMIC"))
        events = rig.arena.trace.read()
        made = only(events, "kmem_cache_alloc")
        assert (made["name"], made["bytes_req"], made["bytes_alloc"]) == ("mine", 1000, 1000)
        assert only(events, "kmem_cache_free")["name"] == "mine"
        assert "kfree" not in told(events)


def test_pages(flavour: str) -> None:
    """Refills go by the zone's lock, drains too; a request that fails is told without a page."""
    with Rig.create(flavour=flavour, **TRACED) as rig:
        rig.cpu.free_pages(rig.cpu.alloc_pages(0))  # its pageblock is claimed
        rig.cpu.drain_pages()
        rig.arena.trace.on(["kmem:*"])
        taken = rig.cpu.alloc_pages(0)
        before = rig.counters()
        rig.cpu.free_pages(taken)
        rig.cpu.drain_pages()
        assert rig.counters()["pcp_drain"] > before["pcp_drain"]
        events = rig.arena.trace.read()
        moved = events.select("mm_page_alloc_zone_locked")
        assert np.all(moved["flags"] & FLAGS["percpu_refill"])
        assert sorted(moved["pfn"]) == sorted(events.select("mm_page_pcpu_drain")["pfn"])
        assert only(events, "mm_page_alloc")["pfn"] == only(events, "mm_page_free")["pfn"]
        rig.arena.trace.read(consume=True)
        rig.arena.trace.off()
        while True:
            try:
                rig.cpu.alloc_pages(0, "GFP_NOWAIT")
            except AllocationFailed:
                break
        rig.arena.trace.on(["mm_page_alloc"])
        with pytest.raises(AllocationFailed):
            rig.cpu.alloc_pages_nolock(0)
        nothing = only(rig.arena.trace.read(), "mm_page_alloc")
        assert nothing["pfn"] == NO_PFN and nothing["order"] == 0
        with pytest.raises(AllocationFailed):
            rig.cpu.alloc_pages_nolock(5)  # refused before there is anything to tell
        assert len(rig.arena.trace.read()) == 1


def test_a_fallback_names_both_types() -> None:
    with Rig.create(**TRACED) as rig:
        rig.arena.trace.on(["mm_page_alloc_extfrag"])
        rig.cpu.alloc_pages(0, "GFP_KERNEL")  # all of a fresh zone is movable
        told_of = only(rig.arena.trace.read(), "mm_page_alloc_extfrag")
        assert (told_of["alloc_migratetype"], told_of["fallback_migratetype"]) == (0, 1)
        assert told_of["fallback_order"] > told_of["alloc_order"] == 0 and told_of["change_ownership"]


def test_a_handler_and_what_it_does(flavour: str) -> None:
    with Rig.create(flavour=flavour, **TRACED) as rig:
        rig.free(rig.alloc("kmalloc_nolock", 64))
        rig.arena.trace.on(["shmalloc:*"])
        rig.cpu.set_program("nmi", ops(("alloc", {"size": 64}), "free"))
        rig.cpu.interrupt("nmi")
        events = rig.arena.trace.read()
        assert told(events) == ["handler_entry", "alloc", "free", "handler_exit"]
        assert {int(r["level"]) for r in events} == {1} and {events.contexts[r["ctx"]] for r in events} == {
            "nmi"
        }
        entry, leaving = only(events, "handler_entry"), only(events, "handler_exit")
        assert entry["kind"] == leaving["kind"] == "nmi" and leaving["dur"] > 0
        assert "shm_send_interrupt" in events.symbol(events.select("handler_entry")[0])
        assert "run_op" in events.symbol(events.select("alloc")[0])
        rig.cpu.set_program("nmi", None)


def test_what_is_left_to_irq_work(flavour: str) -> None:
    with Rig.create(flavour=flavour, **TRACED) as rig:
        state = cpu_slab(rig)
        rig.arena.trace.on(["shmalloc:*"])
        rig.free(state.elsewhere[0], "kfree_nolock")
        events = rig.arena.trace.read()
        expected = ["defer_free", "irq_work_queue", "handler_entry", "irq_work_entry", "free_deferred"]
        assert told(events) == [*expected, "irq_work_exit", "handler_exit", "free"]
        assert only(events, "defer_free")["ptr"] == only(events, "free_deferred")["ptr"] == state.elsewhere[0]
        assert only(events, "irq_work_entry")["func"] == "free_deferred"
        entry = events.select("handler_entry")[0]
        assert entry["flags"] & FLAGS["called"] and entry["pending"] == rig.lib.IRQ_PENDING_WORK


def test_a_failure_has_its_reason(flavour: str) -> None:
    with Rig.create(flavour=flavour, **TRACED) as rig:
        rig.arena.trace.on(["shmalloc:alloc"])
        with pytest.raises(AllocationFailed):
            rig.cpu.kmalloc_nolock(10_000)
        failed = only(rig.arena.trace.read(), "alloc")
        assert (failed["ptr"], failed["reason"], failed["bytes_req"]) == (0, "size_limit", 10_000)
        assert failed["cache"] == NO_CACHE


def test_bulk_calls_tell_of_each_object() -> None:
    with Rig.create(**TRACED) as rig, rig.cpu.kmem_cache_create("bulk", 96) as cache:
        rig.arena.trace.on()
        objects = cache.alloc_bulk(23)
        cache.free_bulk(objects)
        events = rig.arena.trace.read()
        made, freed = events.select("alloc"), events.select("free")
        assert set(made["ptr"]) == set(freed["ptr"]) == set(objects) and len(made) == len(freed) == 23
        assert np.all(made["flags"] & FLAGS["bulk"]) and np.count_nonzero(made["dur"]) == 1
        assert not {"kmem_cache_alloc", "kmem_cache_free"} & set(told(events))  # as in the kernel


# --- the arena's counters are the oracle ------------------------------------------------------------------


def oracle(arena: Arena) -> Counter[str]:
    """What the arena itself has counted of what leaves events."""
    tele, pagesets, stats = (arena.region(name) for name in ("telemetry", "pagesets", "cache_stats"))
    counts, found = tele["counts"], Counter[str]()
    for design, name in enumerate(arena.core.names("design")):
        for ctx in range(4):
            one = counts[:, design, ctx]
            found[f"allocs {name} {ctx}"] = int(one["allocs"].sum())
            found[f"frees {name} {ctx}"] = int(one["frees"].sum())
            for number, reason in enumerate(arena.core.names("reason")):
                found[f"failed {name} {ctx} {reason}"] = int(one["failures"][:, number].sum())
    for key in ("pgalloc", "pgfree"):
        found[key] = int(pagesets[key].sum())
    found["extfrag"] = int(pagesets["fallback_claim"].sum() + pagesets["fallback_steal"].sum())
    found["defer_free"] = int(stats["defer_free"].sum())
    found["defer_deactivate"] = int(stats["defer_deactivate"].sum())
    found["irq_work"] = int(tele["irq_work_runs"].sum())
    found["lock_waits"] = int(tele["lock_waits"].sum())
    found["nmis"] = int(tele["interrupts"]["handled"][:, 0].sum())
    found["parked"] = int(arena.region("zones")["nr_deferred_free"].sum())
    found["drained"] = int(arena.region("zones")["nr_deferred_drained"].sum())
    return +found


def events_counted(events: Events) -> Counter[str]:
    """The same, of the events."""
    found: Counter[str] = Counter()
    for record in events.select("shmalloc:alloc"):
        name = f"{events.value(record, 'design')} {record['ctx']}"
        found[f"allocs {name}" if record["ptr"] else f"failed {name} {events.value(record, 'reason')}"] += 1
    for record in events.select("shmalloc:free"):
        found[f"frees {events.value(record, 'design')} {record['ctx']}"] += int(record["ret"] == 0)
    for key, name in (("pgalloc", "mm_page_alloc"), ("pgfree", "mm_page_free")):
        blocks = events.select(name)
        found[key] = int((1 << blocks["order"][blocks["pfn"] != NO_PFN].astype(int)).sum())
    for key, name in {
        "extfrag": "mm_page_alloc_extfrag",
        "defer_free": "defer_free",
        "defer_deactivate": "defer_deactivate_slab",
        "irq_work": "irq_work_entry",
        "lock_waits": "contention_begin",
        "parked": "park_page",
        "drained": "drain_parked_page",
    }.items():
        found[key] = len(events.select(name))
    entries = events.select("handler_entry")
    found["nmis"] = int((entries["arg"] == events.kinds.index("nmi")).sum())
    return +found


@pytest.mark.parametrize("design", ["kmalloc", "kmalloc_nolock", "try_kmalloc", "sheaves"])
def test_the_events_of_a_storm_are_those_the_arena_has_counted(flavour: str, design: str) -> None:
    kernel = "7.0" if design == "sheaves" else "6.18"
    keys = {"size": "160MiB", "trace_bytes": 32 << 20, "reserve": "sparse"}
    with Rig.create(flavour=flavour, kernel=kernel, **keys) as rig:
        assert rig.arena.trace.on() == []
        before = oracle(rig.arena)
        rig.storm(design, rounds=1)
        after, events = oracle(rig.arena), rig.arena.trace.read()
        (state, other) = rig.arena.trace.states()
        assert (state.lost, state.overwritten, other.events) == (0, 0, 0) and state.events == len(
            events
        ) > 10_000
        assert events_counted(events) == after - before
        # what nolock designs emit of group kmem are pages only
        if design in ("kmalloc_nolock", "try_kmalloc"):
            assert not len(events.select("kmalloc", "kfree"))
        else:
            tasks = events.records["ctx"] < 3
            made = events.records["id"] == events.number("kmalloc")
            assert (made & tasks & (events.records["ptr"] != 0)).sum() > 1000
        rig.arena.trace.off()
        rig.drain_programs()


@pytest.mark.parametrize("mode", ["overwrite", "discard"])
def test_what_does_not_fit_is_counted_exactly(flavour: str, mode: str) -> None:
    with Rig.create(flavour=flavour, size="32MiB", **SMALL) as rig:
        rig.arena.trace.on(["shmalloc:*"], mode)
        before = oracle(rig.arena)
        rig.storm("kmalloc_nolock")
        made = oracle(rig.arena) - before
        (state, _) = rig.arena.trace.states()
        events = rig.arena.trace.read()
        assert state.events > PLACES and state.there == len(events) == PLACES
        assert state.events == state.there + state.taken + state.overwritten + state.lost
        assert (state.overwritten if mode == "discard" else state.lost) == 0
        calls = sum(n for name, n in made.items() if name.split()[0] in ("allocs", "frees", "failed"))
        assert state.events > calls  # and handlers, deferred frees
        seq = events.records["seq"]
        first = 1 if mode == "discard" else state.events - PLACES + 1
        assert seq.tolist() == list(range(first, first + PLACES))
        assert events.lost[0] == state.lost and events.overwritten[0] == state.overwritten
        rig.arena.trace.off()
        rig.drain_programs()


def test_what_is_taken_makes_room() -> None:
    with Rig.create(**SMALL) as rig:
        rig.arena.trace.on(["shmalloc:alloc", "shmalloc:free"], "discard")
        for number in range(1, 6):
            for _ in range(PLACES):
                rig.free(rig.alloc())
            taken = rig.arena.trace.read(consume=True)
            assert len(taken) == PLACES
            (state, _) = rig.arena.trace.states()
            assert (state.taken, state.lost, state.there) == (number * PLACES, number * PLACES, 0)
        assert len(rig.arena.trace.read()) == 0


def test_a_reader_that_comes_late_is_told() -> None:
    with Rig.create(**SMALL) as rig:
        rig.arena.trace.on(["shmalloc:alloc"])
        for _ in range(5):
            rig.alloc()
        assert len(rig.arena.trace.read(consume=True)) == 5
        for _ in range(PLACES + 23):
            rig.free(rig.alloc())
        events = rig.arena.trace.read(consume=True)
        (state, _) = rig.arena.trace.states()
        assert (len(events), events.overwritten[0], state.overwritten) == (PLACES, 23, 23)
        assert state.events == 5 + PLACES + 23 and state.taken == 5 + PLACES


# --- off, and filters --------------------------------------------------------------------------------------


def test_off_there_is_nothing() -> None:
    with Rig.create(**TRACED) as rig:
        rig.free(rig.alloc())
        assert rig.arena.trace.events == () and len(rig.arena.trace.read()) == 0
        rig.arena.trace.on()
        rig.free(rig.alloc())
        there = len(rig.arena.trace.read())
        assert there and rig.arena.trace.off() == []
        rig.free(rig.alloc())
        assert len(rig.arena.trace.read()) == there and rig.arena.trace.events == ()


def test_first_attempts_are_off_only_for_what_they_would_leave() -> None:
    """Seen at a probe site that lies on the way of the first attempt as well: by who has called it."""
    with Rig.create(**TRACED) as rig:
        rig.arena.trace.on(["kmem:mm_*", "shmalloc:handler_*"])
        assert set(rig.arena.trace.events) >= {"kmem:mm_page_alloc", "shmalloc:handler_exit"}
        for _ in range(23):
            rig.free(rig.alloc())
        assert set(told(rig.arena.trace.read())) <= {
            "mm_page_alloc",
            "mm_page_alloc_zone_locked",
            "mm_page_alloc_extfrag",
        }
        rig.arena.trace.on(["kfree"])
        rig.free(rig.alloc())
        assert told(rig.arena.trace.read())[-1] == "kfree"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((["kmem:*", "kmaloc"],), r"events = 'kmaloc': matches no event; there are kmem:kmalloc, "),
        ((["*"], "ring"), r"mode = 'ring': allowed are overwrite, discard"),
    ],
)
def test_bad_arguments_are_named(arguments: Any, says: str) -> None:
    with Rig.create(**TRACED) as rig, pytest.raises(ValueError, match=says):
        rig.arena.trace.on(*arguments)


def test_an_arena_without_rings_says_so() -> None:
    with Rig.create() as rig:
        assert rig.arena.trace.places == 0 and rig.arena.trace.states() == []
        for call in (rig.arena.trace.on, rig.arena.trace.read):
            with pytest.raises(Unsupported, match="made without rings; make it with trace_bytes"):
                call()
        assert rig.arena.region("trace").size == 0


@pytest.mark.parametrize("bytes_", [1, 4095, 6000, 2048, 1 << 31, -1, "64K"])
def test_a_ring_is_a_power_of_two(bytes_: Any) -> None:
    with pytest.raises(GeometryError, match=rf"trace_bytes = '?{bytes_}'?: allowed is "):
        Arena.create(size="8MiB", pageblock_order=5, trace_bytes=bytes_)


# --- an interrupt in the middle, and what a broken ring makes of it -------------------------------------------

INNER = [("alloc", {"size": 64}), "free"]


def interrupted(rig: Rig, site: str, pairs: int) -> Events:
    """An allocation's event is interrupted at *site* by an NMI with so many pairs of events."""
    rig.free(rig.alloc("kmalloc_nolock", 64))
    recording(rig)
    rig.arena.trace.on(["shmalloc:alloc", "shmalloc:free"])
    rig.arm(site, "nmi", rig.program(*INNER * pairs))
    rig.alloc()
    assert rig.fired() == 1
    return rig.arena.trace.read()


@pytest.mark.parametrize(("site", "nested_first"), [("trace_place", True), ("trace_filling", False)])
@pytest.mark.parametrize("pairs", [1, 20, 31])
def test_an_interrupt_within_a_write(site: str, nested_first: bool, pairs: int) -> None:
    with Rig.create(**SMALL) as rig:
        events = interrupted(rig, site, pairs)
        assert len(events) == 1 + 2 * pairs and events.lost[0] == 0
        levels = events.records["level"].tolist()
        assert levels == ([1] * 2 * pairs + [0] if nested_first else [0] + [1] * 2 * pairs)
        assert np.all(np.diff(events.records["ts"]) > 0)


def test_what_is_being_written_is_never_written_over() -> None:
    """The ring goes round under an NMI: its own events are lost, counted, and the interrupted one stays."""
    with Rig.create(**SMALL) as rig:
        events = interrupted(rig, "trace_filling", 50)
        assert len(events) == PLACES and events.lost[0] == 100 - (PLACES - 1)
        assert int(events.records[0]["level"]) == 0 and int(events.records[0]["bytes_req"]) == A_BYTES


def wrong(variant: str, site: str, pairs: int) -> bool:
    """Whether a broken ring shows: events that are neither there nor counted, or the interrupted one is not whole."""
    with Rig.create(broken=variant, **SMALL) as rig:
        events = interrupted(rig, site, pairs)
        (state, _) = rig.arena.trace.states()
        whole = [r for r in events if r["level"] == 0 and r["bytes_req"] == A_BYTES and r["ptr"]]
        there = min(1 + 2 * pairs, PLACES)
        return (
            state.events != 1 + 2 * pairs
            or len(events) != there
            or len(whole) != 1
            or not np.all(np.diff(events.records["ts"]) > 0)
        )


@pytest.mark.parametrize(
    ("variant", "site", "pairs"),
    [
        ("trace_plain_add", "trace_place", 1),
        ("trace_early_commit", "trace_filling", 50),
        ("trace_in_flight", "trace_filling", 50),
    ],
)
def test_a_broken_ring_shows(variant: str, site: str, pairs: int) -> None:
    assert wrong(variant, site, pairs)
    assert not wrong("none", site, pairs)


@pytest.mark.parametrize(("variant", "believed"), [("none", 3), ("trace_torn_read", 9)])
def test_a_reader_that_does_not_look_at_the_number_believes_all(variant: str, believed: int) -> None:
    with Rig.create(broken=variant, **SMALL) as rig:
        rig.arena.trace.on(["shmalloc:alloc"])
        for _ in range(9):
            rig.alloc()
        torn(rig.arena, 3)
        assert len(rig.arena.trace.read()) == believed


# --- input that may be anything ------------------------------------------------------------------------------


def records_of(arena: Arena, cpu: int = 0) -> np.ndarray[Any, Any]:
    """The places of a CPU's ring, writable."""
    from shmalloc.layout import dtype

    region = arena.header.regions[arena.core.lib.REGION_TRACE]
    slots = arena.header.geometry.nr_cpus + arena.header.geometry.nr_nodes
    begin = region.offset + cpu * (region.bytes // slots) + arena.core.ffi.sizeof("struct shm_trace_ring")
    window = arena.buffer[begin : begin + arena.header.geometry.trace_bytes]
    return np.frombuffer(window, dtype("shm_trace_event"))


def torn(arena: Arena, place: int) -> None:
    """Make a record one that is being written."""
    records_of(arena)["seq"][place] = 0


def test_a_record_that_is_being_written_ends_what_is_there() -> None:
    with Rig.create(**SMALL) as rig:
        rig.arena.trace.on(["shmalloc:alloc"])
        for _ in range(9):
            rig.alloc()
        torn(rig.arena, 5)
        assert len(rig.arena.trace.read()) == 5
        (state, _) = rig.arena.trace.states()
        assert state.there == 9


def test_any_bytes_can_be_read() -> None:
    """Rings are input: whatever they hold, reading ends, and what no table has a name for is a number."""
    rng = np.random.default_rng(23)
    with Rig.create(**SMALL) as rig:
        ring = rig.arena.region("trace")
        for _ in range(101):
            raw = records_of(rig.arena)
            raw.view(np.uint8)[:] = rng.integers(0, 256, raw.nbytes, dtype=np.uint8)
            head = int(rng.integers(0, 3 * PLACES))
            ring["head"][0], ring["tail"][0] = head, int(rng.integers(0, 2 * PLACES))
            first = max(head - PLACES, 0)
            for at in range(first, head):
                raw["seq"][at % PLACES] = at + 1
            for record in rig.arena.trace.read():
                assert isinstance(rig.arena.trace.read().items(record), list)
                break
        for head, tail in ((2**64 - 1, 0), (2**64 - 1, 2**64 - 1), (0, 2**64 - 1), (5, 2**63)):
            ring["head"][0], ring["tail"][0] = head, tail
            rig.arena.trace.read()
            rig.arena.trace.read(consume=True)
        ring["head"][0], ring["tail"][0] = 0, 0
        del ring, raw


def test_events_without_rings_are_a_hostile_header() -> None:
    from shmalloc.errors import HostileArena

    with Rig.create() as rig:
        rig.arena.header.trace.events = 1
        try:
            with pytest.raises(HostileArena):
                Arena.attach(rig.arena.name, flavour="checked")
        finally:
            rig.arena.header.trace.events = 0


def test_the_consumer_is_one_at_a_time() -> None:
    with Rig.create(**SMALL) as rig:
        rig.arena.header.trace.consumer = 1  # init is always alive
        with pytest.raises(ShmallocError, match="process 1 is taking its events"):
            rig.arena.trace.read(consume=True)
        rig.arena.header.trace.consumer = 0x7FFFFFFF  # and this one has died
        assert len(rig.arena.trace.read(consume=True)) == 0
        assert rig.arena.header.trace.consumer == 0


def test_a_cpu_that_is_nobodys_is_not_waited_for() -> None:
    with Arena.create(size="8MiB", pageblock_order=5, **SMALL) as arena:
        assert arena.trace.on() == []
        with Cpu(arena, 2) as cpu:
            cpu.kfree(cpu.kmalloc(64))
        assert arena.trace.off() == []
        assert arena.trace.read().pids[2] > 0 and len(arena.trace.read().select("kfree")) == 1
