# SPDX-License-Identifier: MIT
"""What `shmalloc top` makes of an arena: every number beside a known one, and frames of every size."""

import json
from pathlib import Path

import numpy as np
import pytest
from rig import Rig
from running import ENDLESS, config, run, running

from harness.top import sections, slabtop, tables, words
from harness.top.figures import figures
from harness.top.look import Interval, Look, grown
from harness.top.memory_sections import memcgs, zones
from harness.top.observed import Observed
from harness.top.screen import keys_of
from harness.top.view import SECTIONS, Seen, View
from shmalloc import Arena, Cpu, ops, procfs
from shmalloc.errors import NotAnArena

ALLOCS, FREES = 101, 23
SIZES = [(columns, rows) for columns in (1, 2, 7, 40, 80, 200) for rows in (1, 2, 3, 5, 10, 24, 100)]


def _watched(rig: Rig) -> Observed:
    return Observed.attach(rig.arena.name)


# --- reading only --------------------------------------------------------------------------------


def test_an_arena_that_is_looked_at_cannot_be_written() -> None:
    with Rig.create() as rig:
        seen = _watched(rig)
        cpus = seen.region("cpus")
        assert not cpus.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            cpus["ops_done"] = 1
        with pytest.raises(TypeError):
            seen.buffer[0] = 1
        del cpus
        seen.close()


def test_a_look_leaves_every_byte_as_it_was() -> None:
    with Rig.create() as rig:
        rig.take(ALLOCS)
        before = bytes(rig.arena.buffer)
        seen = _watched(rig)
        made = Seen.of(Interval(Look.at(seen)))
        made.as_json("o")
        seen.close()
        assert bytes(rig.arena.buffer) == before


def test_looking_takes_no_memory_of_a_sparse_arena() -> None:
    with Arena.create(size="256MiB", nr_cpus=1, reserve="sparse") as arena, Cpu(arena, 0) as cpu:
        cpu.kfree(cpu.kmalloc(64))
        path = Path("/dev/shm") / arena.name[1:]
        before = path.stat().st_blocks
        seen = Observed.attach(arena.name)
        for _ in range(3):
            Seen.of(Interval(Look.at(seen)))
        seen.close()
        assert path.stat().st_blocks - before < 256  # blocks of 512 bytes; the tables alone are 32,000


def test_what_is_no_arena_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAnArena, match="no such segment"):
        Observed.attach("nothing-of-that-name")
    with pytest.raises(ValueError, match="name ="):
        Observed.attach("a/b")


def test_an_arena_that_was_unlinked_is_over_and_can_still_be_read() -> None:
    with Rig.create() as rig:
        seen = _watched(rig)
        assert seen.why_over() is None
        rig.take(ALLOCS)
        rig.arena.unlink()
        assert seen.why_over() == f"{rig.arena.name} has ended"
        assert figures(Interval(Look.at(seen)))["allocs"] == ALLOCS
        seen.close()


# --- numbers ---------------------------------------------------------------------------------------


def test_an_interval_counts_exactly_what_was_done_in_it() -> None:
    with Rig.create() as rig:
        rig.take(37)
        seen = _watched(rig)
        before = Look.at(seen)
        taken = rig.take(ALLOCS, cpu=0)
        rig.take(7, cpu=1)
        for offset in taken[:FREES]:
            rig.free(offset)
        found = figures(Interval(Look.at(seen), before))
        seen.close()
        assert (found["allocs"], found["frees"], found["failures"]) == (ALLOCS + 7, FREES, 0)
        assert 0 < found["slow_path_share"] < 1
        assert found["free_pages"] + found["pcp_pages"] == rig.free_pages()
        assert found["slab_pages"] > 0


def test_the_first_interval_is_since_the_start() -> None:
    with Rig.create() as rig:
        rig.take(ALLOCS)
        seen = _watched(rig)
        look = Look.at(seen)
        seen.close()
        assert figures(Interval(look))["allocs"] == ALLOCS
        assert Interval(look).seconds == look.age_s > 0


def test_failures_are_counted_by_reason_and_context() -> None:
    with Rig.create() as rig:
        seen = _watched(rig)
        before = Look.at(seen)
        rig.exhaust(0)
        interval = Interval(Look.at(seen), before)
        (row,) = sections.failures(interval).rows
        assert (row["reason"], row["failures"], row["task"], row["nmi"]) == ("below_watermark", 1, 1, 0)
        assert row["failures_s"] == pytest.approx(1 / interval.seconds)
        (zone,) = zones(interval).rows
        assert zone["free"] == int(rig.zone().free_pages)
        assert [zone[f"order{at}"] for at in range(11)] == [
            int(rig.zone().free_area[at].nr_free) for at in range(11)
        ]
        assert zone["min"] <= zone["low"] <= zone["high"]
        seen.close()


def test_contexts_and_designs_are_told_apart() -> None:
    with Rig.create() as rig:
        rig.take(ALLOCS)
        rig.alloc("kmalloc_nolock")
        seen = _watched(rig)
        rows = sections.contexts(Interval(Look.at(seen))).rows
        seen.close()
        found = {(row["design"], row["context"]): row["allocs"] for row in rows}
        assert found["all", "task"] == ALLOCS + 1
        assert (found["kmalloc", "task"], found["kmalloc_nolock", "task"]) == (ALLOCS, 1)
        assert found["all", "nmi"] == 0


def test_cpus_say_what_they_are_and_who_does_it() -> None:
    with Rig.create(cpus=3, bind=2) as rig:
        seen = _watched(rig)
        before = Look.at(seen)
        rig.take(ALLOCS, cpu=1)
        interval = Interval(Look.at(seen), before)
        rows = sections.cpus(interval).rows
        seen.close()
        assert [row["state"] for row in rows] == ["online", "online", "offline"]
        assert [row["context"] for row in rows] == ["task", "task", "-"]
        assert rows[0]["allocs_s"] == 0
        assert rows[1]["allocs_s"] * interval.seconds == pytest.approx(ALLOCS)


def test_a_cpu_whose_process_is_gone_is_dead() -> None:
    with Rig.create() as rig:
        cpu, seen = rig.cpu_state(1), _watched(rig)
        pid, cpu.pid = cpu.pid, 2**22 - 1
        look = Look.at(seen)
        cpu.pid = pid
        seen.close()
        section = sections.cpus(Interval(look))
        assert [row["state"] for row in section.rows] == ["online", "dead"]
        assert [section.is_bad(row) for row in section.rows] == [False, True]


def test_a_cpu_that_waits_says_for_what_and_who_has_it() -> None:
    with Rig.create() as rig:
        zone, cpu = rig.zone(), rig.cpu_state()
        offset = rig.offset_of(zone.lock)
        seen = _watched(rig)
        for waiting, word, said in (
            (offset | 1 << 56, 2, f"zone at {offset:#x}, held by CPU 1"),
            (offset, 0, f"zone at {offset:#x}, free"),
            ((1 << 56) - 1, 0, f"something at {(1 << 56) - 1:#x}"),
        ):
            cpu.waiting_for, zone.lock.word = waiting, word
            rows = sections.cpus(Interval(Look.at(seen))).rows
            cpu.waiting_for, zone.lock.word = 0, 0
            assert [row["waiting_for"] for row in rows] == [said, ""]
        seen.close()


def test_ops_and_latencies_are_those_of_the_interval() -> None:
    with Rig.create() as rig:
        line = ops(("alloc", {"size": 64, "slot": 0, "gfp": "GFP_KERNEL"}), ("free", {"slot": 0}))
        rig.cpu.replay(line, design="kmalloc", slots=bytearray(8), max_ops=2 * ALLOCS, sample=1)
        seen = _watched(rig)
        before = Look.at(seen)
        rig.cpu.replay(line, design="kmalloc", slots=bytearray(8), max_ops=2 * FREES, sample=1)
        interval = Interval(Look.at(seen), before)
        seen.close()
        found = figures(interval)
        assert (found["ops"], found["allocs"], found["frees"]) == (2 * FREES, FREES, FREES)
        assert int(interval.histograms().sum()) == FREES  # allocations are what is timed
        assert found["latency_ns"]["task"] == found["latency_ns"]["all"]
        assert found["latency_ns"]["nmi"] == {"p50": None, "p99": None, "p999": None, "max": None}
        assert 0 < found["latency_ns"]["task"]["p50"] <= found["latency_ns"]["task"]["p99"]


def test_counters_that_wrap_or_are_set_back() -> None:
    before = np.array([5, 2**32 - 3, 900], np.uint32)
    assert grown(before, np.array([12, 4, 7], np.uint32)).tolist() == [7, 7, 7]
    assert grown(np.array([900], np.uint64), np.array([7], np.uint64)).tolist() == [7]


def test_caches_are_those_of_slabinfo_and_their_totals_their_sums() -> None:
    with Rig.create() as rig:
        taken = rig.take(ALLOCS) + rig.take(50, 64)
        for offset in taken[::3]:
            rig.free(offset)
        seen = _watched(rig)
        look, text = Look.at(seen), procfs.slabinfo(rig.arena)
        seen.close()
        rows = slabtop.caches(look.slabs, "n").rows
        said = {line.split()[0]: line.split() for line in text.splitlines()[2:]}
        assert {row["name"] for row in rows} == set(said)
        for row in rows:
            words_of = said[row["name"]]
            shown = [
                row[key]
                for key in ("active", "objects", "object_bytes", "objects_per_slab", "pages_per_slab")
            ]
            assert shown == [int(number) for number in words_of[1:6]]
            assert row["slabs"] == int(words_of[-2])
        totals = slabtop.totals(look.slabs)
        assert totals["objects"] == [sum(row[key] for row in rows) for key in ("active", "objects")]
        assert totals["objects"][0] < totals["objects"][1]
        assert totals["bytes"][1] == sum(row["objects"] * row["object_bytes"] for row in rows)
        assert totals["caches"] == [sum(row["objects"] > 0 for row in rows), len(rows)]
        head = slabtop.totals_lines(totals)
        assert head[0].startswith(f" Active / Total Objects (% used)    : {totals['objects'][0]} / ")
        assert len({line.index(" : ") for line in head}) == 1


@pytest.mark.parametrize("key", slabtop.SORT_KEYS)
def test_each_sort_key_sorts(key: str) -> None:
    column = dict(
        zip(
            "abclvnopsu",
            (
                *("active", "objects_per_slab", "bytes", "slabs", "active_slabs", "name", "objects"),
                *("pages_per_slab", "object_bytes", "use"),
            ),
            strict=True,
        )
    )[key]
    with Rig.create() as rig:
        rig.take(ALLOCS), rig.take(300, 64), rig.take(5, 4096)
        seen = _watched(rig)
        values = [row[column] for row in slabtop.caches(Look.at(seen).slabs, key).rows]
        seen.close()
    assert values == sorted(values, reverse=key != "n")
    assert len(set(values)) > 1


def test_memcgs_are_shown_with_their_limits() -> None:
    with Rig.create(max_memcgs=4) as rig:
        rig.cpu.memcg_create("web", max_bytes=100 * 4096)
        seen = _watched(rig)
        (row,) = memcgs(Interval(Look.at(seen))).rows
        seen.close()
        assert (row["memcg"], row["max_bytes"], row["high_bytes"]) == ("web", 100 * 4096, None)


# --- any state ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_records_hold_there_is_a_frame(seed: int) -> None:
    """Half-written values: every record that is looked at is overwritten with noise, but the header."""
    with Rig.create(max_memcgs=4) as rig:
        rig.take(ALLOCS)
        rig.irqs_on()
        seen = _watched(rig)
        before = Look.at(seen)
        random = np.random.default_rng(seed)
        kept = {name: rig.arena.region(name).copy() for name in _NOISY}
        try:
            for name in _NOISY:
                _overwrite(rig.arena.region(name), random)
            now = Look.at(seen)
        finally:
            for name, records in kept.items():
                rig.arena.region(name)[...] = records
        seen.close()
    made = Seen.of(Interval(now, before))
    json.loads(made.as_json("o"))
    for key in SECTIONS:
        for line in View(section=key).frame(made, 120, 40):
            assert line.text.isascii() and line.text.isprintable()


_NOISY = (
    "telemetry",
    "cache_stats",
    "cpus",
    "zones",
    "pagesets",
    "nodes",
    "memcgs",
    "caches",
    "cache_nodes",
    "pages",
)


def _overwrite(records: np.ndarray, random: np.random.Generator) -> None:
    noise = np.frombuffer(random.bytes(records.nbytes), np.uint8)
    records[...] = np.frombuffer(noise.tobytes(), records.dtype).reshape(records.shape)


def test_caches_come_and_go() -> None:
    with Rig.create() as rig:
        seen = _watched(rig)
        for round_ in range(3):
            name = f"round{round_}"
            cache = rig.cpu.kmem_cache_create(name, 200)
            offset = cache.alloc()
            (row,) = [row for row in slabtop.caches(Look.at(seen).slabs, "n").rows if row["name"] == name]
            assert row["objects"] == row["objects_per_slab"] * row["slabs"] > 0
            cache.free(offset)
            cache.destroy()
            assert name not in {slab.name for slab in Look.at(seen).slabs}
        seen.close()


def test_a_running_arena_can_be_looked_at_over_and_over(tmp_path: Path) -> None:
    with running(config(tmp_path, ENDLESS)) as a_run:
        a_run.until_busy()
        seen = Observed.attach(a_run.segment.name)
        first = before = Look.at(seen)
        added = 0
        for _ in range(50):
            now = Look.at(seen)
            made = Seen.of(Interval(now, before))
            added += made.figures["allocs"]
            for row in slabtop.caches(now.slabs, "o").rows:
                assert 0 <= row["active"] <= row["objects"]
            View(section="all").frame(made, 120, 400)
            before = now
        assert added == figures(Interval(before, first))["allocs"] > 0
        assert [row["state"] for row in sections.cpus(Interval(before, first)).rows][:2] == ["online"] * 2
        seen.close()


# --- frames and keys ---------------------------------------------------------------------------------


@pytest.fixture
def seen() -> Seen:
    with Rig.create() as rig:
        rig.take(ALLOCS)
        watched = _watched(rig)
        made = Seen.of(Interval(Look.at(watched)))
        watched.close()
    return made


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_a_frame_fits_any_terminal(seen: Seen, columns: int, rows: int) -> None:
    for section in SECTIONS:
        view = View(section=section)
        for key in ("down", "pgdn", "right", "h", "h"):
            frame = view.frame(seen, columns, rows)
            assert len(frame) <= rows
            assert all(len(line.text) <= columns for line in frame)
            view.press(key)


def test_a_small_terminal_shows_a_table_with_its_titles(seen: Seen) -> None:
    texts = [line.text for line in View().frame(seen, 40, 10)]
    assert texts[0].startswith("/shmalloc-")
    titles = next(at for at, text in enumerate(texts) if "OBJS ACTIVE" in text)
    assert len(texts) - titles > 3


def test_scrolling_goes_to_the_last_line_and_no_further(seen: Seen) -> None:
    view = View(sort="n")
    frame = view.frame(seen, 100, 20)
    titles = next(at for at, line in enumerate(frame) if "OBJS" in line.text)
    for _ in range(100):
        view.press("pgdn")
        frame = view.frame(seen, 100, 20)
    assert "OBJS" in frame[titles].text
    names = [row["name"] for row in slabtop.caches(seen.interval.now.slabs, "n").rows]
    assert frame[-1].text.split()[-1] == names[-1]
    assert len(frame) == 20
    view.press("home")
    assert view.frame(seen, 100, 20)[titles + 1].text.split()[-1] == names[0]


def test_keys_choose_sections_sorting_and_pauses() -> None:
    view = View()
    for number, name in enumerate(SECTIONS, 1):
        view.press(str(number))
        assert view.section == name
    view.press("\t")
    assert view.section == SECTIONS[0]
    view.press("backtab")
    assert view.section == SECTIONS[-1]
    for key in slabtop.SORT_KEYS:
        view.press(key)
        assert view.sort == key
    view.press("P")
    assert view.paused
    view.press("P")
    view.press("x")
    view.press("8")
    assert not (view.paused or view.quits)
    view.press("q")
    assert view.quits


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"aq", ["a", "q"]),
        (b"\x1b[A\x1bOB\x1b[5~", ["up", "down", "pgup"]),
        (b"\x1b[Zq", ["backtab", "q"]),
        (b"\x1b[1;5Aq", ["q"]),
        (b"\x1b[200~", []),
        (b"\x1b", []),
        (b"\x1b[", []),
        (b"\xff\x00", ["\xff", "\x00"]),
    ],
)
def test_keys_are_told_apart(typed: bytes, keys: list[str]) -> None:
    assert keys_of(typed) == keys


def test_names_cannot_speak_to_the_terminal() -> None:
    assert words.clean("a\x1b[2Jb\u00e9\n") == "a?[2Jb??"


def test_a_rate_that_is_rare_is_not_nothing() -> None:
    assert [words.rate(number) for number in (0, 0.34, 9.94, 9.96, 12345, None)] == [
        "0",
        "0.3",
        "9.9",
        "10",
        "12.3k",
        "-",
    ]


def test_an_empty_table_says_so() -> None:
    made = tables.Section("x", "x", [tables.Column("A", "a")], [], "nothing")
    assert tables.lines(made) == ["A", "nothing"]


# --- once ----------------------------------------------------------------------------------------------


def test_once_prints_all_sections(tmp_path: Path) -> None:
    with Rig.create() as rig:
        rig.take(ALLOCS)
        done = run("top", rig.arena.name, "-o", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for title in (
            "Active / Total Objects",
            "OBJS ACTIVE",
            "WAITS FOR",
            "DESIGN",
            "REASON",
            "MANAGED",
            "MEMCG",
        ):
            assert title in done.stdout
        assert "\x1b" not in done.stdout
        found = json.loads(run("top", rig.arena.name, "-o", "--json", "-s", "n", cwd=tmp_path).stdout)
    assert (found["arena"], found["allocs"]) == (rig.arena.name, ALLOCS)
    assert [row["name"] for row in found["caches"]] == sorted(row["name"] for row in found["caches"])
    assert {"cpus", "contexts", "failures", "zones", "memcgs", "totals", "latency_ns"} <= set(found)


def test_once_with_a_delay_is_of_that_time(tmp_path: Path) -> None:
    with Rig.create() as rig:
        rig.take(ALLOCS)
        found = json.loads(run("top", rig.arena.name, "-o", "-d", "0.01", "--json", cwd=tmp_path).stdout)
    assert found["allocs"] == 0
    assert found["seconds"] < found["age_s"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-s", "x"], "-s = x: allowed is one of a, b, c, l, v, n, o, p, s, u"),
        (["-d", "0"], "-d = 0: allowed are seconds, 0.01 to 86400"),
        (["-d", "nan"], "-d = nan: allowed are seconds"),
        (["-d", "soon"], "-d = soon: allowed are seconds"),
        (["--json"], "--json = without -o: allowed is -o --json"),
        ([], "no terminal: allowed is a terminal; use -o"),
    ],
)
def test_bad_usage_says_what_is_allowed(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run("top", "some-arena", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_no_such_arena_is_an_error(tmp_path: Path) -> None:
    done = run("top", "no-such-arena", "-o", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such segment" in done.stderr
