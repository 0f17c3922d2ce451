# SPDX-License-Identifier: MIT
"""Comparisons of results that were made up: marks exactly where they must be, whatever the inputs look like."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from comparing import cell, leave, result, span, windows
from hypothesis import given
from hypothesis import strategies as st
from running import SMALL, Done, config, results, run

from harness.comparison.comparing import LOAD_FACTOR, STILL_FACTOR, compare
from harness.comparison.sides import Member, Result, members, pair
from harness.comparison.table import change
from harness.page import complete

RATES = st.lists(st.floats(1e3, 1e9), min_size=6, max_size=16)
STEADY = [1e6] * 8


def side(*cells: dict[str, Any], **more: Any) -> list[Member]:
    return members([Result("made", complete(result(cells, **more)))])


def single(rates: Sequence[float], **more: Any) -> dict[str, Any]:
    """Make a cell that ran once."""
    return cell([span(rates[0])], windows(rates), **more)


def repeated(rates: Sequence[float], first_s: float, every_s: float, **more: Any) -> dict[str, Any]:
    """Make a cell that ran several times, at its moments."""
    runs = [
        span(rate, started=first_s + at * every_s, windows=windows(STEADY)) for at, rate in enumerate(rates)
    ]
    return cell(runs, **more)


def row(found: dict[str, Any], quantity: str, at: int = 0) -> dict[str, Any]:
    (wanted,) = [each for each in found["pairs"][at]["rows"] if each["quantity"] == quantity]
    return dict(wanted)


def mark(found: dict[str, Any], quantity: str = "ops/s") -> str:
    return str(row(found, quantity)["mark"])


@given(RATES, RATES)
def test_single_runs_are_marked_exactly_beyond_windows_and_factor(a: list[float], b: list[float]) -> None:
    found = compare(side(single(a)), side(single(b)))
    gap = max(min(a) / max(b), min(b) / max(a))
    if abs(gap / LOAD_FACTOR - 1) < 1e-6:
        return
    assert found["method"]["kind"] == "windows"
    expected = ("better" if min(b) > max(a) else "worse") if gap > LOAD_FACTOR else ""
    assert mark(found) == expected


@given(RATES)
def test_a_result_compared_with_itself_has_no_mark(rates: list[float]) -> None:
    found = compare(side(single(rates)), side(single(rates)))
    assert found["marks"] == {"better": 0, "worse": 0, "differs": 0}
    assert found["differences"] == []
    assert {each["change"] for each in found["pairs"][0]["rows"]} <= {0.0, None}


@given(st.lists(st.floats(1e3, 1e9), min_size=24, max_size=24, unique=True))
def test_runs_in_turn_are_marked_exactly_where_their_intervals_are_apart(rates: list[float]) -> None:
    a, b = rates[:12], rates[12:]
    found = compare(side(repeated(a, 0.0, 2.0)), side(repeated(b, 1.0, 2.0)))
    assert found["method"]["kind"] == "runs"
    assert found["method"]["chance_of_a_mark"] <= 0.001
    this = row(found, "ops/s")
    assert this["a"]["low"] in a
    assert this["a"]["low"] <= this["a"]["median"] <= this["a"]["high"]
    overlap = this["a"]["low"] <= this["b"]["high"] and this["b"]["low"] <= this["a"]["high"]
    assert bool(this["mark"]) != overlap


def test_a_small_difference_shows_only_where_runs_were_taken_in_turn() -> None:
    a, b = [1e6 + at for at in range(12)], [1.01e6 + at for at in range(12)]
    in_turn = compare(side(repeated(a, 0.0, 2.0)), side(repeated(b, 1.0, 2.0)))
    assert (in_turn["method"]["kind"], mark(in_turn)) == ("runs", "better")
    apart = compare(side(repeated(a, 0.0, 2.0)), side(repeated(b, 100.0, 2.0)))
    assert (apart["method"]["kind"], mark(apart)) == ("windows", "")
    assert "taken in turn" in apart["method"]["why"]
    few = compare(side(repeated(a[:5], 0.0, 2.0)), side(repeated(b[:5], 1.0, 2.0)))
    assert (few["method"]["kind"], mark(few)) == ("windows", "")
    assert few["method"]["why"] == "5 runs on a side, 9 are needed for 7 rows"


def test_the_direction_of_a_mark() -> None:
    fast = [span(1e6, p50=10.0, interrupts={"nmi": 1000, "irq": 0})] * 8
    slow = [span(1e5, p50=100.0, failed=101, interrupts={"nmi": 10, "irq": 0})] * 8
    found = compare(side(cell([fast[0]], fast)), side(cell([slow[0]], slow)))
    assert mark(found, "ops/s") == "worse"
    assert mark(found, "task: p50") == "worse"
    assert mark(found, "task: failed") == "worse"
    assert mark(found, "failed: zone_busy") == "worse"
    assert mark(found, "NMIs handled") == "differs"
    assert mark(found, "most memory in use") == ""
    assert row(found, "task: failed")["change"] is None
    assert change(row(found, "task: failed")) == "from none"
    assert change(row(found, "NMIs handled")) == "-99.0%"
    back = compare(side(cell([slow[0]], slow)), side(cell([fast[0]], fast)))
    assert mark(back, "ops/s") == mark(back, "task: failed") == "better"
    assert change(row(back, "task: failed")) == "to none"
    assert change(row(back, "ops/s")) == "x 10"


def test_what_load_does_not_move_is_marked_sooner() -> None:
    def of(used: int) -> list[Member]:
        spans = [span(1e6, used_bytes=used)] * 8
        return side(cell([spans[0]], spans))

    assert mark(compare(of(1000), of(int(1000 * STILL_FACTOR) + 1)), "most memory in use") == "worse"
    assert mark(compare(of(1000), of(int(1000 * STILL_FACTOR) - 1)), "most memory in use") == ""


def test_a_run_that_fails_since_some_moment_is_not_one_that_always_does() -> None:
    def of(failed: int, start: int) -> list[Member]:
        spans = [span(failed=failed)] * 8
        asked = {"task": {"allocs": 1000 - start, "failures": {"zone_busy": start}}}
        return side(cell([{**spans[0], "start": {"contexts": asked}}], spans))

    always, since, never = of(90_000, 90), of(90_000, 0), of(0, 0)
    for quantity in ("task: failed", "failed: zone_busy"):
        assert mark(compare(never, always), quantity) == "worse"
        assert mark(compare(always, never), quantity) == "better"
        assert mark(compare(never, since), quantity) == mark(compare(since, never), quantity) == ""
    assert row(compare(never, since), "task: failed")["b"]["low"] == 0


def test_a_side_that_had_less_of_its_cores_may_be_slower() -> None:
    fast = [span(4e6, processor_s=2.0)] * 8
    slow = [span(1e6, processor_s=0.5)] * 8  # a quarter of the ops in a quarter of the time
    found = compare(side(cell([fast[0]], fast)), side(cell([slow[0]], slow)))
    assert mark(found) == ""
    assert mark(found, "share of the cores") == ""
    free = [span(1e6, processor_s=2.0)] * 8
    assert mark(compare(side(cell([fast[0]], fast)), side(cell([free[0]], free)))) == "worse"


def test_the_share_of_the_cores_is_a_condition_and_never_marked() -> None:
    def of(used_s: float, first_s: float) -> list[Member]:
        return side(cell([span(processor_s=used_s, started=first_s + 2.0 * at) for at in range(12)]))

    found = compare(of(2.0, 0.0), of(0.2, 1.0))
    assert found["method"]["kind"] == "runs"
    assert (mark(found, "share of the cores"), mark(found, "ops per processor second")) == ("", "better")


def test_the_longest_latency_has_no_interval_and_no_mark() -> None:
    far = single(STEADY, contexts={"task": {"latency_ns": {"max": 10.0**9}}})
    this = row(compare(side(single(STEADY)), side(far)), "task: max")
    assert (this["a"]["median"], this["b"]["median"], this["a"]["low"], this["mark"]) == (
        1013.0,
        1e9,
        None,
        "",
    )


def test_a_windows_quantile_that_is_not_there_leaves_no_interval() -> None:
    a, b = ([span(1e6, p50=value if at else None) for at in range(8)] for value in (1.0, 1000.0))
    found = row(compare(side(cell([span(p50=5.0)], a)), side(cell([span(p50=7.0)], b))), "task: p50")
    assert (found["a"]["median"], found["b"]["median"], found["a"]["low"], found["mark"]) == (
        5.0,
        7.0,
        None,
        "",
    )


# ---- odd inputs

OLD = {
    "ops": 1000,
    "seconds": 1.0,
    "throughput_ops_s": 1e6,
    "processor_s": 1.0,
    "interrupts": {"nmi": {"sent": 5, "handled": 5}},
    "memory": {"peak_bytes": 4096},
    "contexts": {"task": {"allocs": 9, "failures": {"zone_busy": 1}, "latency_ns": {"p50": 1.0, "max": 2.0}}},
}


@pytest.mark.parametrize(
    "cell_json",
    [
        {"id": "kmalloc"},
        {"id": "kmalloc", **OLD},
        {"id": "kmalloc", **OLD, "windows": [], "repeats": []},
        {"id": "kmalloc", **OLD, "windows": None, "repeats": "none", "cpus": "two"},
        {"id": "kmalloc", "ops": 0, "windows": [{}] * 9, "repeats": [{}]},
        {"id": "kmalloc", "contexts": {"task": None}, "windows": [{"contexts": 7}] * 9, "repeats": [None, 3]},
        single([0.0] * 8),
        cell([span(0.0, seconds=0.0, processor_s=0.0, ops=0)], [span(0.0, seconds=0.0, ops=0)] * 8),
    ],
)
def test_results_that_lack_something_are_compared_as_far_as_they_go(
    tmp_path: Path, cell_json: dict[str, Any]
) -> None:
    old = leave(tmp_path / "old", result([cell_json]))
    new = leave(tmp_path / "new", result([single(STEADY)]))
    for a, b in ((old, new), (new, old), (old, old)):
        done = run("compare", a, b, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert run("compare", a, b, "--json", cwd=tmp_path).returncode == 0
    assert "no marks" in run("compare", old, old, cwd=tmp_path).stdout


def test_an_old_result_has_medians_without_intervals() -> None:
    old: dict[str, Any] = {"params": {}, "verdict": "ok", "expected": "ok", "id": "kmalloc", "cpus": 2, **OLD}
    found = compare(side(old), side(single(STEADY)))
    assert row(found, "ops/s")["a"] == {"median": 1e6, "low": None, "high": None, "samples": 1}
    assert row(found, "most memory in use")["a"]["median"] == 4096
    assert row(found, "task: failed")["a"]["median"] == 0.1
    assert sum(found["marks"].values()) == 0


# ---- pairs


def test_cells_are_paired_by_what_varies_and_the_rest_is_named() -> None:
    a = side(*(single(STEADY, params={"design": d, "cpus": 2}) for d in ("kmalloc", "sheaves", "objpool")))
    b = side(*(single(STEADY, params={"cpus": 2, "design": d}) for d in ("sheaves", "kmalloc", "prealloc")))
    found = compare(a, b)
    assert [each["a"] for each in found["pairs"]] == ["design=kmalloc,cpus=2", "design=sheaves,cpus=2"]
    assert found["unpaired"] == {"a": ["design=objpool,cpus=2"], "b": ["cpus=2,design=prealloc"]}


def test_a_key_that_varies_on_one_side_only_is_found_in_the_others_config() -> None:
    a = side(*(single(STEADY, params={"cpus": cpus}) for cpus in (1, 2, 4)))
    pairs, only_a, only_b = pair(a, side(single(STEADY)))  # cpus = 2
    assert [each.name for each in pairs] == ["cpus=2 | kmalloc"]
    assert (only_a, only_b) == (["cpus=1", "cpus=4"], [])


def test_single_cells_are_paired_whatever_differs() -> None:
    a = side(single(STEADY), name="one")
    b = side(single(STEADY, id="sheaves"), name="two", config={"engine": "stress", "design": "sheaves"})
    found = compare(a, b)
    assert [each["name"] for each in found["pairs"]] == ["kmalloc | sheaves"]
    assert {each["key"]: (each["a"], each["b"]) for each in found["differences"]} == {
        "name": (['"one"'], ['"two"']),
        "design": (['"kmalloc"'], ['"sheaves"']),
        "cpus": (["2"], ["not there"]),
        "oracle": (["true"], ["not there"]),
    }


def test_what_differs_is_said_of_config_build_and_machine_and_not_of_the_load() -> None:
    machine = {"cores_allowed": 4, "load_1min": 9.0, "warnings": ["busy"]}
    found = compare(side(single(STEADY)), side(single(STEADY), build={"id": "bb"}, machine=machine))
    assert [each["key"] for each in found["differences"]] == ["build.id", "machine.cores_allowed"]
    assert found["b"]["warnings"] == ["busy"]


def test_scripts_and_atlases_are_compared_number_by_number() -> None:
    def of(points: int) -> list[Member]:
        atlas = {"points": points, "sweep_s": points / 7, "totals": {"deadlock": 3}}
        return side(cell([], atlas=atlas, counters={"got": 23}), config={"engine": "atlas"})

    found = compare(of(100), of(101))
    assert found["pairs"][0]["rows"] == []
    assert found["pairs"][0]["exact"] == [{"key": "atlas.points", "a": 100, "b": 101}]
    assert compare(of(100), of(100))["pairs"][0]["exact"] == []


def test_a_run_of_another_engine_has_no_number_in_common(tmp_path: Path) -> None:
    leave(tmp_path / "script", result([cell([])], config={"engine": "script"}))
    leave(tmp_path / "stress", result([single(STEADY)]))
    said = compared(tmp_path, "script", "stress").stdout
    assert "of different engines: no number is of both" in said
    assert "equal" not in said


# ---- the command


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    slow = [span(1e5, p50=10.0)] * 8
    fast = [span(1e7, p50=10.0)] * 8
    return (
        leave(tmp_path / "slow", result([cell([slow[0]], slow)])),
        leave(tmp_path / "fast", result([cell([fast[0]], fast)])),
    )


def compared(cwd: Path, *arguments: object) -> Done:
    return run("compare", *arguments, cwd=cwd)


def test_the_exit_status_is_0_unless_asked(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    slow, fast = folders
    assert compared(tmp_path, fast, slow).returncode == 0
    assert compared(tmp_path, fast, slow, "--fail-if-worse").returncode == 1
    assert compared(tmp_path, slow, fast, "--fail-if-worse").returncode == 0
    assert compared(tmp_path, slow, slow, "--fail-if-worse").returncode == 0


def test_a_verdict_that_got_worse_fails_too(tmp_path: Path) -> None:
    good = leave(tmp_path / "good", result([single(STEADY)]))
    bad = leave(tmp_path / "bad", result([single(STEADY, verdict="corruption")]))
    done = compared(tmp_path, good, bad, "--fail-if-worse")
    assert done.returncode == 1
    assert "verdict ok | corruption" in done.stdout
    assert "kmalloc: the verdict was as expected in A, and is not in B" in done.stdout
    assert compared(tmp_path, bad, good, "--fail-if-worse").returncode == 0
    expected = leave(tmp_path / "expected", result([single(STEADY, verdict="deadlock", expected="deadlock")]))
    assert compared(tmp_path, good, expected, "--fail-if-worse").returncode == 0


def test_the_table_says_what_a_mark_means(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    slow, fast = folders
    said = compared(tmp_path, slow, fast).stdout
    assert said.startswith("1 cell compared, 7 rows, 2 marks (2 better)")
    assert "config, build and machine are the same" in said
    assert "1 run on a side, 9 are needed for 7 rows" in said
    assert "x 100" in said
    only = compared(tmp_path, slow, fast, "--marked").stdout
    assert "ops/s" in only
    assert "p50" not in only
    assert "most memory" not in only


def test_what_an_older_version_does_not_know_is_one_line(tmp_path: Path) -> None:
    new = leave(tmp_path / "new", result([single(STEADY)]))
    old = leave(tmp_path / "old", result([{"id": "kmalloc", **OLD}], config={"cpus": 4, "gone": 1}))
    said = compared(tmp_path, old, new).stdout
    assert "only A knows of gone\n" in said
    assert "only B knows of engine, design, oracle\n" in said
    assert "no windows in A, of an older version or too short: medians only, and no mark." in said
    assert "not there" not in said
    assert "windows in" not in compared(tmp_path, new, new).stdout


def test_json_is_all_of_stdout(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    found = json.loads(compared(tmp_path, *folders, "--json").stdout)
    assert found["schema"] == "shmalloc-comparison/1"
    assert found["marks"] == {"better": 2, "worse": 0, "differs": 0}


def test_several_folders_are_one_side(tmp_path: Path) -> None:
    a, b = [], []
    for at in range(12):
        for name, rate, list_ in (("a", 1e6, a), ("b", 1.02e6, b)):
            entry = span(rate + at, started=2.0 * at + (name == "b"))
            list_.append(leave(tmp_path / f"{name}{at}", result([cell([entry], windows(STEADY))])))
    found = json.loads(compared(tmp_path, "--a", *a, "--b", *b, "--json").stdout)
    assert (found["method"]["kind"], found["method"]["runs"]) == ("runs", [12, 12])
    assert mark(found) == "better"
    assert found["a"]["folders"] == [str(each) for each in a]


def test_cells_of_one_run(tmp_path: Path) -> None:
    made = [
        single(rates, params={"design": design, "workload.slots": slots})
        for design, rates in (("kmalloc", STEADY), ("sheaves", [1e8] * 8))
        for slots in (64, 128)
    ]
    folder = leave(tmp_path / "one", result(made))
    found = json.loads(
        compared(tmp_path, folder, "--cells", "design=kmalloc", "design=sheaves", "--json").stdout
    )
    assert [each["a"] for each in found["pairs"]] == [made[0]["id"], made[1]["id"]]
    assert [each["b"] for each in found["pairs"]] == [made[2]["id"], made[3]["id"]]
    assert [mark({"pairs": [each]}) for each in found["pairs"]] == ["better"] * 2
    assert [each["key"] for each in found["differences"]] == ["design"]
    one = json.loads(
        compared(tmp_path, folder, "--cells", "design=kmalloc,slots=64", made[3]["id"], "--json").stdout
    )
    assert [(each["a"], each["b"]) for each in one["pairs"]] == [(made[0]["id"], made[3]["id"])]


def test_folders_of_several_configs_are_paired_by_name(tmp_path: Path) -> None:
    for at in ("a", "b"):
        for name in ("one", "two", at):
            leave(tmp_path / at / name, result([single(STEADY)], name=name))
    found = json.loads(compared(tmp_path, "a", "b", "--json").stdout)
    assert len(found["pairs"]) == 2
    assert found["unpaired"] == {"a": ["a: kmalloc"], "b": ["b: kmalloc"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "folders = 0: allowed is two folders"),
        (["slow"], "folders = 1: "),
        (["slow", "fast", "slow"], "folders = 3: "),
        (["slow", "nowhere"], "nowhere"),
        (["slow", "."], "unreadable"),
        (["--a", "slow"], "folders: allowed is"),
        (["slow", "--a", "slow", "--b", "fast"], "folders: allowed is"),
        (["slow", "fast", "--factor", "0.5"], "--factor = 0.5: allowed is 1..1000"),
        (["slow", "fast", "--factor", "nan"], "--factor = nan: "),
        (["slow", "--cells", "design=kmalloc", "cpus=2"], "--cells = 'design=kmalloc': allowed is KEY=VALUE"),
        (["slow", "--cells", "kmalloc", "kmalloc"], "allowed are two selectors that have no cell in common"),
        (["--cells", "a=1", "a=2"], "--cells"),
        (["slow", "empty"], "empty: the file: no result"),
    ],
)
def test_bad_usage_is_2_and_names_what_is_allowed(
    tmp_path: Path, folders: tuple[Path, Path], arguments: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable/result.json").write_text("{")
    done = compared(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_selector_says_what_there_is(tmp_path: Path) -> None:
    made = [single(STEADY, params={"design": design}) for design in ("kmalloc", "sheaves")]
    leave(tmp_path / "one", result(made))
    done = compared(tmp_path, "one", "--cells", "design=kmalloc", "design=objpool")
    assert done.returncode == 2
    assert "no cell is so; there are design=kmalloc, design=sheaves" in done.stderr
    done = compared(tmp_path, "one", "--cells", "design=kmalloc", "cpu=2")
    assert "a key that varies: design" in done.stderr


def test_real_runs_are_compared(tmp_path: Path) -> None:
    """What two runs of the same thing are found to be is chance; what holds however they come out is looked at."""
    path = config(tmp_path, SMALL.replace("ops = 20_000", "duration_s = 0.4"))
    out = results(path, "--set", 'design=["kmalloc", "sheaves"]', "--set", "repeats=2")
    found = json.loads(compared(tmp_path, "out", "out", "--json").stdout)
    assert sum(found["marks"].values()) == 0
    assert found["differences"] == []
    assert [each["a"] for each in found["pairs"]] == [each["id"] for each in out["cells"]]
    for each in found["pairs"]:
        for this in each["rows"]:
            assert this["a"] == this["b"]
            if this["a"]["low"] is not None:
                assert this["a"]["low"] <= this["a"]["median"] <= this["a"]["high"]
    designs = compared(tmp_path, "out", "--cells", "design=kmalloc", "design=sheaves", "--json")
    for this in json.loads(designs.stdout)["pairs"][0]["rows"]:
        if this["mark"]:
            assert this["a"]["high"] < this["b"]["low"] or this["b"]["high"] < this["a"]["low"]
