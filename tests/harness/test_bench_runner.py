# SPDX-License-Identifier: MIT
"""The runner on trial: what a broken subject does is found and named, and no subject takes the bench with it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.bench import measure, own, rows, runner
from harness.bench.peers.building import build
from harness.bench.rows import Row
from harness.bench.runner import Failed, Runner
from harness.bench.subjects import Subject

SOURCE = Path(__file__).resolve().parent / "bench_subjects" / "broken.c"
TRACE = Path(__file__).resolve().parents[2] / "configs" / "traces" / "git.npz"
ROWS = {row.name: row for row in (*rows.native_rows(), rows.trace_row(TRACE))}
CORES = sorted(os.sched_getaffinity(0))
PAIRS = 2003

Started = Callable[[str, str], Runner]


@pytest.fixture(scope="module")
def plugin() -> Path:
    if not shutil.which("gcc"):
        pytest.skip("the broken subjects are built with gcc, and there is none")
    return build(SOURCE, ["-Wall", "-Wextra", "-Werror"])


def subject(plugin: Path, name: str) -> Subject:
    return Subject(name, "peer", plugin, name)


def cores_for(row: Row) -> list[int]:
    if row.sides > len(CORES):
        pytest.skip(f"the row has two sides, and this process may use {len(CORES)} core")
    return CORES[: row.sides]


def checked(what: Subject, name: str, pairs: int = PAIRS) -> runner.Check:
    row = ROWS[name]
    with measure.ops_file(row) as ops, Runner(what, row, cores_for(row), ops) as one:
        one.ready()
        return one.check(pairs)


@pytest.mark.parametrize("name", ["pair_64", "lifo64_256", "mix_256", "pc_fixed", "two_cpus_64"])
def test_sound_subject_passes(plugin: Path, name: str) -> None:
    check = checked(subject(plugin, "sound"), name)

    assert check.fault is None and check.refused == 0
    assert check.pairs >= PAIRS


@pytest.mark.parametrize("name", ["lifo64_256", "mix_256", "pc_fixed"])
@pytest.mark.parametrize("broken", ["twice", "overlapping", "scribbling"])
def test_memory_with_two_owners_is_found(plugin: Path, broken: str, name: str) -> None:
    assert "second owner" in (checked(subject(plugin, broken), name).fault or "")


def test_misaligned_object_is_found(plugin: Path) -> None:
    assert "aligned" in (checked(subject(plugin, "misaligned"), "pair_64").fault or "")


def test_refusals_are_counted(plugin: Path) -> None:
    check = checked(subject(plugin, "refusing"), "pair_64", 999)

    assert (check.pairs, check.refused, check.fault) == (
        999,
        500,
        None,
    )  # next goes on by two where it grants


@pytest.mark.parametrize(
    ("name", "row", "why"),
    [
        ("small", "lifo64_256", "100 bytes at most, the row asks for 256"),
        ("fixed", "mix_256", "of one size, the row has several"),
        ("alone", "pc_fixed", "one thread owns it"),
        ("own", "pc_fixed", "by the side that allocated it only"),
        ("monday", "pair_64", "monday: it is Monday"),
        ("future", "pair_64", "another version of subject.h"),
        ("nobody", "pair_64", "no such subject"),
    ],
)
def test_what_cannot_do_a_row_says_so(plugin: Path, name: str, row: str, why: str) -> None:
    with pytest.raises(Failed, match=why) as failed:
        checked(subject(plugin, name), row)

    assert not failed.value.broken


def test_file_that_is_no_plugin_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.so"
    wrong.write_text("no")

    with pytest.raises(Failed, match=r"wrong\.so"):
        checked(subject(wrong, "sound"), "pair_64")
    with pytest.raises(Failed, match=r"wrong\.so"):
        runner.entries(wrong)


def test_crash_is_named(plugin: Path) -> None:
    with pytest.raises(Failed, match="SIGSEGV") as failed:
        checked(subject(plugin, "crashing"), "pair_64")

    assert failed.value.broken


def test_crash_of_the_other_process_is_noticed(plugin: Path) -> None:
    with pytest.raises(Failed, match="side 1 has died") as failed:
        checked(subject(plugin, "dying"), "pc_fixed")

    assert failed.value.broken


def test_hanging_subject_is_ended(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "ANSWER_S", 0.5)

    with pytest.raises(Failed, match="did not answer within") as failed:
        checked(subject(plugin, "hanging"), "pair_64")

    assert failed.value.broken


@pytest.mark.parametrize("name", ["pair_64", "lifo64_64", "mix_256", "pc_fixed", "two_cpus_64"])
def test_a_burst_has_as_many_samples_as_asked_for(plugin: Path, name: str) -> None:
    row = ROWS[name]
    with measure.ops_file(row) as ops, Runner(subject(plugin, "sound"), row, cores_for(row), ops) as one:
        one.ready()
        burst = one.run(3, 20.0)

    assert len(burst.ns) == len(burst.pairs) == len(burst.switches) == len(burst.refused) == 3
    assert all(ns > 0 for ns in burst.ns) and all(pairs > 0 for pairs in burst.pairs)
    assert (burst.line_ns > 0) == (row.sides == 2)


def test_bursts_of_refusals_say_so(plugin: Path) -> None:
    row = ROWS["pair_64"]
    with Runner(subject(plugin, "refusing"), row, CORES[:1], None) as one:
        one.ready()
        burst = one.run(2, 20.0)

    assert 0.45 < sum(burst.refused) / sum(burst.pairs) < 0.55


def test_trace_is_measured_in_whole_passes() -> None:
    row = ROWS["trace_git"]
    assert row.ops is not None
    empty = next(each for each in own.own() if each.name == own.EMPTY)
    with measure.ops_file(row) as ops, Runner(empty, row, CORES[:1], ops) as one:
        one.ready()
        burst = one.run(2, 1.0)

    assert {pairs % (row.ops.size // 2) for pairs in burst.pairs} == {0}


def checked_or_sits_out(what: Subject, name: str) -> runner.Check | None:
    try:
        return checked(what, name)
    except Failed as failed:
        if failed.broken:
            raise
        return None


@pytest.mark.parametrize(
    "name", ["lifo64_64", "lifo512_1024", "mix_4096", "pc_mixed", "pc_fixed", "two_cpus", "trace_git"]
)
def test_every_subject_of_the_package_hands_out_distinct_objects(name: str) -> None:
    row = ROWS[name]
    done = set()
    for each in own.own():
        if each.name == own.EMPTY:
            continue
        check = checked_or_sits_out(each, name)
        if check is None:
            continue
        assert check.fault is None, f"{each.name}: {check.fault}"
        assert check.refused < check.pairs / 2, f"{each.name} refused {check.refused} of {check.pairs}"
        done.add(each.name)

    assert {"kmalloc", "kmalloc_nolock", "sheaves"} <= done, row


def test_the_empty_loop_is_caught_where_it_is_taken_for_an_allocator() -> None:
    empty = next(each for each in own.own() if each.name == own.EMPTY)

    assert "second owner" in (checked(empty, "mix_4096", 20011).fault or "")


def test_commands_and_arguments_that_are_none_are_refused(plugin: Path) -> None:
    with Runner(subject(plugin, "sound"), ROWS["pair_64"], CORES[:1], None) as one:
        one.ready()
        with pytest.raises(Failed, match="at most 64 samples"):
            one.run(65, 20.0)
    with (
        pytest.raises(Failed, match="no such row"),
        Runner(subject(plugin, "sound"), Row("x", "", "python", bytes=8), CORES[:1], None) as one,
    ):
        one.ready()
