# SPDX-License-Identifier: MIT
"""Words of an arena by what they mean, and what a run of a scenario is decoded to."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from atlas_runs import ROW, Runs

from harness import vocabulary
from harness.atlas import classes, describe, outcomes, scenario
from harness.atlas.classes import IGNORE, OUTCOME, STATE
from shmalloc import layout


@contextmanager
def runs(name: str, design: str = "kmalloc_nolock") -> Iterator[Runs]:
    with scenario.find(design, name).build() as built:
        yield Runs(built)


def cpu_slab(of: Runs) -> list:
    return [of.built.staging.cpu_slab().lock]


def page_lists(of: Runs) -> list:
    return [of.built.staging.pageset().lock, of.built.staging.zone().lock]


# --- classes ---------------------------------------------------------------------------------------


def test_every_field_of_the_table_exists() -> None:
    for struct in classes.TABLE:
        assert classes.struct_classes(struct).max() <= IGNORE
    for struct, names in vocabulary.load().counters.items():
        found = classes.struct_classes(struct)
        for name in names:
            wanted = IGNORE if name.endswith("_cycles") else OUTCOME  # times are never the same
            assert found[describe.offsets(struct)[name] // 4] == wanted


def test_a_field_that_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(classes.TABLE, "zone", {"luck": IGNORE})
    classes._named.cache_clear(), classes.struct_classes.cache_clear()
    with pytest.raises(ValueError, match="struct zone has no luck"):
        classes.struct_classes("zone")
    monkeypatch.undo()
    classes._named.cache_clear(), classes.struct_classes.cache_clear()


def test_words_by_class() -> None:
    with runs("alloc_refill@kmalloc/alloc_same") as of:
        arena, found = of.built.arena, classes.classes(of.built)
        assert found.shape == (arena.size_bytes // 4,)

        def at(region: str, *path: str) -> int:
            field = arena.region(region)
            for part in path:
                field = field[part]
            return (field.__array_interface__["data"][0] - arena.base) // 4

        assert found[at("cpus", "defer_objects", "first")] == STATE
        assert found[at("cpus", "wait_seq")] == IGNORE
        assert found[at("cpus", "levels", "reason")] == OUTCOME
        assert found[at("cpus", "levels", "rip")] == IGNORE
        assert found[at("cpus", "levels", "ctx")] == STATE  # of the task
        assert found[at("cache_cpus", "tid")] == STATE
        assert found[at("cache_stats", "alloc_fastpath")] == OUTCOME
        assert found[at("pagesets", "vmstat_seen")] == STATE
        assert found[at("pagesets", "pgalloc")] == OUTCOME
        assert found[at("telemetry", "latency")] == IGNORE
        assert (found[arena.header.regions[arena.core.lib.REGION_PAGES].offset // 4 :][:16] == STATE).all()


def test_levels_above_the_task_are_left_over() -> None:
    found = classes.struct_classes("shm_cpu")
    level = layout.dtype("shm_level")
    first = describe.offsets("shm_cpu")["levels"] // 4
    assert found[first] == STATE
    assert found[first + level.itemsize // 4] == IGNORE


def test_two_runs_of_one_point_are_equal() -> None:
    with runs("alloc_refill@kmalloc/free_remote") as of:
        first, second = of.interrupted(), of.interrupted()
        for words in (of.state_words, of.outcome_words):
            assert np.array_equal(words(first["state"]), words(second["state"]))
            assert len(words(first["state"]))


# --- words as fields -------------------------------------------------------------------------------


def test_a_difference_as_lines() -> None:
    with runs("alloc_refill@kmalloc/free_remote") as of:
        row = of.interrupted()
        lines = describe.describe(of.built.arena, of.state_words(row["state"]))
        assert "cache_cpus[0, kmalloc-1k].tid: 8 -> 10" in lines
        assert "pages[1].counters: inuse 2, objects 4, frozen -> inuse 4, objects 4, frozen" in lines
        assert sum(line.startswith("oracle begins") for line in lines) == 2
        lines = describe.describe(of.built.arena, of.outcome_words(row["state"]))
        assert "telemetry[0].counts[kmalloc_nolock, nmi].frees: 0 -> 1" in lines
        assert lines[-1].startswith("slot 0 of the handler: object ")
        assert lines[-1].endswith("(kmalloc-1k) -> empty")


def test_halves_of_a_field_are_one_line() -> None:
    with runs("alloc_fastpath@kmalloc/alloc_same") as of:
        state = of.add(lambda: setattr(of.built.staging.cpu_slab(), "tid", 1 << 40 | 5))
        assert len(of.state_words(state)) == 2
        (line,) = describe.describe(of.built.arena, of.state_words(state))
        assert line.endswith("-> 0x10000000005")


def test_an_arena_as_lines() -> None:
    with runs("alloc_refill@kmalloc/free_remote") as of:
        of.built.staging.cpu_slab().lock.word = 1
        lines = describe.lines(of.built)
        assert any("lock held by CPU 0, level 0" in line for line in lines)
        assert any(line.startswith("cache_nodes[kmalloc-1k, 0]: nr_slabs 2") for line in lines)


# --- outcomes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "held", "operation", "handler", "text"),
    [
        ("alloc_fastpath@kmalloc/alloc_same", None, "ok", "ok", "operation: alloc ok; nmi: alloc ok"),
        ("alloc_fastpath@kmalloc/alloc_same", cpu_slab, "ok", "other_bucket", "nmi: alloc other_bucket"),
        ("alloc_fastpath@kmalloc/aba", None, "ok", "ok", "nmi: 2 x alloc ok, free ok"),
        (
            "alloc_fastpath@kmalloc/alloc_other",
            page_lists,
            "ok",
            "null:zone_busy",
            "nmi: alloc null:zone_busy",
        ),
        ("alloc_fastpath@kmalloc/free_own", None, "ok", "ok", "nmi: free ok"),
        ("alloc_fastpath@kmalloc/free_own", cpu_slab, "ok", "deferred", "nmi: free deferred"),
        ("alloc_fastpath@kmalloc/alloc_free", None, "ok", "ok", "nmi: alloc ok, free ok"),
        (
            "alloc_fastpath@kmalloc/pages",
            page_lists,
            "ok",
            "null:zone_busy",
            "nmi: pages null:zone_busy, 2 x free deferred",
        ),
        ("alloc_fastpath@kmalloc/map_update", None, "ok", "ok", "nmi: map update ok"),
        ("alloc_fastpath_irq@kmalloc/alloc_same", None, "ok", "ok", "operation: alloc ok; nmi: alloc ok"),
        ("alloc_refill@kmalloc/alloc_same:irq", None, "ok", "ok", "operation: alloc ok; irq: alloc ok"),
    ],
)
def test_what_is_got(name: str, held, operation: str, handler: str, text: str) -> None:
    with runs(name) as of:
        row = of.interrupted(None if held is None else lambda: held(of))
        found = outcomes.decode(of.built, of, row)
        assert (found.operation, found.handler, found.verdict) == (operation, handler, "ok"), found
        assert found.name == handler
        assert text in found.text


def test_an_operation_that_nobody_interrupts() -> None:
    with runs("alloc_refill@kmalloc/alloc_same") as of:
        found = outcomes.decode(of.built, of, of.run(of.built.call))
        assert (found.operation, found.handler, found.verdict) == ("ok", "none", "ok")


def test_an_op_that_finds_nothing_does_not_count() -> None:
    with runs("alloc_fastpath@kmalloc/pages") as of:
        of.built.watched[0][1] = 0  # the page that is to be freed is not there
        of.__post_init__()
        found = outcomes.decode(of.built, of, of.interrupted())
        assert found.text.endswith("nmi: pages ok, free none, free ok")
        assert found.handler == "ok"


def test_an_error_of_the_operation_is_not_the_handlers() -> None:
    with runs("map_update_full@bpf_mem_alloc/map_update", "bpf_mem_alloc") as of:
        found = outcomes.decode(of.built, of, of.interrupted())
        assert (found.operation, found.handler) == ("error:E2BIG", "ok")


def test_a_deadlock_has_its_stacks() -> None:
    with runs("alloc_fastpath@kmalloc/alloc_other", "kmalloc") as of:
        row = of.interrupted(lambda: page_lists(of)[1:])
        found = outcomes.decode(of.built, of, row)
        assert found.verdict == found.name == "deadlock"
        assert "zone" in found.text
        stacks = outcomes.stacks(of.built, of, row)
        assert any("rmqueue" in frame for frame in stacks["handler"])


@pytest.mark.parametrize(
    ("end", "verdict", "text"),
    [(1, "vacuous", "never executed"), (2, "stall", "still running"), (3, "corruption", "crashed")],
)
def test_a_run_that_does_not_return(end: int, verdict: str, text: str) -> None:
    with runs("alloc_fastpath@kmalloc/alloc_same") as of:
        row = np.zeros(1, ROW)[0]
        row["end"], row["state"], row["outcome"] = end, 0xFFFFFFFF, 0xFFFFFFFF
        row["rip"] = of.lib.shm_text_base() + 0x5000
        found = outcomes.decode(of.built, of, row)
        assert found.verdict == verdict
        assert text in found.text


# --- negative controls: each by a hand that does what no allocator may ------------------------------


def doctored(of: Runs, change, row=None) -> outcomes.Outcome:
    """Decode a run into whose end something is written."""
    row = of.interrupted() if row is None else row
    of.load(of.found[row["state"]])
    change()
    of.found[row["state"]] = of.now()
    of.restore()
    return outcomes.decode(of.built, of, row)


def test_an_object_that_nobody_was_given() -> None:
    with runs("alloc_fastpath@kmalloc/alloc_same") as of:
        found = doctored(of, lambda: of.built.watched[0].__setitem__(0, 0))
        assert found.verdict == "lost_memory"
        assert "nobody was given it" in found.text


def test_an_object_that_two_were_given() -> None:
    with runs("alloc_fastpath@kmalloc/alloc_same") as of:
        row = of.interrupted()
        slot = of.found[row["state"]][len(of.words)]
        row["value"] = int(slot)
        assert outcomes.decode(of.built, of, row).verdict in ("corruption", "lost_memory")


def test_a_wait_for_a_lock() -> None:
    with runs("alloc_fastpath@kmalloc/alloc_same") as of:
        telemetry = of.built.arena.item("struct shm_telemetry", "telemetry", 0)
        found = doctored(of, lambda: setattr(telemetry, "lock_waits", telemetry.lock_waits + 1))
        assert found.verdict == "broken_rule"
        assert "1 waits for a lock" in found.text


def test_more_retries_than_interrupts() -> None:
    with runs("alloc_fastpath@kmalloc/alloc_same") as of:
        stats = of.built.arena.region("cache_stats")

        def retry(times: int):
            def change() -> None:
                stats["cmpxchg_double_cpu_fail"][0, 3] += times

            return change

        assert doctored(of, retry(1)).verdict == "ok"
        assert doctored(of, retry(2)).verdict == "stall"
