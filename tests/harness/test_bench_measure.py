# SPDX-License-Identifier: MIT
"""Rounds of a row, with runners that answer from a script: what counts, what is dropped, and whose turn it is."""

import sys
from pathlib import Path

import pytest

from harness.bench import measure, results, surroundings
from harness.bench.bench import Wanted, _measure
from harness.bench.measure import Effort, Measured, measure_row, twin
from harness.bench.rows import Row
from harness.bench.selection import Selection
from harness.bench.subjects import Subject
from harness.bench.surroundings import Cores

RUNNER = Path(__file__).resolve().parent / "bench_subjects" / "fake_runner.py"
ROW = Row("pair_64", "", "pair", bytes=64)
EFFORT = Effort(passes=4, burst=3, microseconds=1.0, check_pairs=10)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def subject(name: str, log: Path) -> Subject:
    return Subject(
        name, "peer", Path("no.so"), name, options=str(log), runner=(sys.executable, "-S", str(RUNNER))
    )


def measured(log: Path, *names: str, row: Row = ROW, effort: Effort = EFFORT) -> dict[str, Measured]:
    found = {name: Measured(subject(name, log)) for name in names}
    measure_row(row, found, [0], effort)
    return found


def lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def test_each_pass_is_one_burst_of_each_subject(log: Path) -> None:
    found = measured(log, "ten", "twenty", "drifts")
    runs = [name for name, what in lines(log) if what == "run"]

    assert [set(runs[at : at + 3]) for at in range(0, 12, 3)] == [{"ten", "twenty", "drifts"}] * 4
    assert len({tuple(runs[at : at + 3]) for at in range(0, 12, 3)}) > 1  # in an order that changes
    assert [ns for ns, _ in found["drifts"].bursts] == [11.0, 12.0, 13.0, 14.0]
    assert found["ten"].estimate() and found["twenty"].estimate()


def test_a_round_starts_and_ends_every_process_and_only_the_first_verifies(log: Path) -> None:
    found = measured(log, "ten", "twenty")
    measure_row(ROW, found, [0], EFFORT, first=False)
    said = [what for name, what in lines(log) if name == "ten"]

    assert [said.count(what) for what in ("start", "check", "run", "end")] == [2, 1, 8, 2]
    assert len(found["ten"].bursts) == 8


def test_samples_in_which_others_had_the_core_are_dropped_and_counted(log: Path) -> None:
    disturbed = measured(log, "disturbed")["disturbed"]

    assert [ns for ns, _ in disturbed.bursts] == [10.0] * 4
    assert (disturbed.taken, disturbed.dropped) == (12, 8)
    assert (disturbed.pairs, disturbed.refused) == (400, 0)  # refusals among them do not count either
    assert disturbed.why is None


def test_a_burst_that_has_no_other_samples_is_taken_again_but_not_for_ever(log: Path) -> None:
    never = measured(log, "never_ours")["never_ours"]

    assert never.bursts == [] and never.taken == never.dropped == 3 * EFFORT.burst * EFFORT.passes
    record = next(results.records(ROW, {"never_ours": never}))
    assert record["ns_median"] is None and record["why"] == "in no sample the core was ours"


def test_bursts_with_stolen_time_are_dropped_whole(log: Path) -> None:
    stolen = measured(log, "stolen")["stolen"]

    assert [ns for ns, _ in stolen.bursts] == [10.0] * 4
    assert stolen.dropped == 4 * EFFORT.burst


@pytest.mark.parametrize(
    ("name", "why", "broken"),
    [
        ("cannot", "not today", False),
        ("faulty", "gives out memory that is not its own to give: two owners", True),
        ("nonsense", "its runner answered", True),
        ("killed", "its runner ended with SIGKILL: a word before it dies", True),
        ("refuses", "refused 24 of 1,200 requests", False),
    ],
)
def test_what_fails_is_out_of_the_row_and_the_others_go_on(
    log: Path, name: str, why: str, broken: bool
) -> None:
    found = measured(log, "ten", name, "twenty")

    assert found[name].why is not None and why in found[name].why
    assert (found[name].broken, found[name].bursts) == (broken, [])
    assert len(found["ten"].bursts) == len(found["twenty"].bursts) == 4
    records = {record["subject"]: record for record in results.records(ROW, found)}
    assert records[name]["ns_median"] is None and records[name]["why"] == found[name].why
    assert records["ten"]["ratio_to_peers"] == {"twenty": [0.5, None, None]}


def test_lines_are_told_apart_and_moves_between_them_dropped(log: Path) -> None:
    row = Row("pc", "", "pair", bytes=64, lines=True)
    moves = measured(log, "moves", row=row, effort=Effort(12, 3, 1.0, 10))
    near, far = results.records(row, moves)

    assert (near["row"], far["row"]) == ("pc_near", "pc_far")
    assert (near["ns_median"], far["ns_median"]) == (30.0, 90.0)
    assert near["samples"] + far["samples"] == 12
    assert moves["moves"].dropped > 0


def test_a_line_that_was_never_met_says_so(log: Path) -> None:
    row = Row("pc", "", "pair", bytes=64, lines=True)
    only = Measured(subject("ten", log))
    only.bursts = [(30.0, "near")] * 7
    near, far = results.records(row, {"ten": only})

    assert near["ns_median"] == 30.0
    assert far["ns_median"] is None and far["why"] == "no sample met a far line"


def test_a_thing_compared_with_itself_shows_no_difference(log: Path) -> None:
    one = Measured(subject("ten", log), bursts=[(10.0 + at, None) for at in range(9)])
    same = Measured(twin(one.subject), bursts=[(10.5 + at, None) for at in range(9)])
    noise = results.noise([ROW], {"pair_64": {"ten": one, "ten_again": same}})

    assert (noise["compared"], noise["differing"]) == (1, 0)
    assert noise["rows"][0] == {
        "row": "pair_64", "subject": "ten", "ns": 14.0, "again_ns": 14.5, "ratio": 1.0357, "differs": False,
    }  # fmt: skip
    same.bursts = [(20.0 + at, None) for at in range(9)]
    assert results.noise([ROW], {"pair_64": {"ten": one, "ten_again": same}})["differing"] == 1
    assert [record["subject"] for record in results.records(ROW, {"ten": one, "ten_again": same})] == ["ten"]


def selection(log: Path, *names: str, rows: tuple[Row, ...] = (ROW,)) -> Selection:
    from dataclasses import replace

    subjects = tuple(replace(subject(name, log), rows=tuple(row.name for row in rows)) for name in names)
    return Selection(
        tuple(replace(row, kind="python") for row in rows), subjects, (), subjects[0]
    )  # runners of their own are for rows of their own


def test_rounds_go_over_all_rows_until_there_are_enough_samples(log: Path) -> None:
    rows = (ROW, Row("other", "", "pair", bytes=64))
    wanted = Wanted(samples=10, effort=EFFORT)
    told: list[str] = []
    found = _measure(selection(log, "ten", "twenty", rows=rows), wanted, Cores(0, (), ()), told.append)

    assert {row: {name: len(each.bursts) for name, each in of.items()} for row, of in found.items()} == {
        row.name: {"ten": 10, "twenty": 10, "ten_again": 10} for row in rows
    }
    order = list(dict.fromkeys(text.partition(":")[0] for text in told))
    assert order == ["pair_64", "other"]
    starts = [text.partition(":")[0] for text in told if text.endswith("ten starts")]
    assert starts == ["pair_64", "other"] * 3  # a round over all rows, then the next


def test_time_that_is_over_ends_it_after_a_round(log: Path) -> None:
    found = _measure(
        selection(log, "ten"),
        Wanted(samples=10**6, seconds=1e-6, effort=EFFORT),
        Cores(0, (), ()),
        lambda _: None,
    )

    assert len(found["pair_64"]["ten"].bursts) == EFFORT.passes


def test_one_core_cannot_have_two_sides(log: Path) -> None:
    row = Row("pc", "", "pair", bytes=64, sides=2)
    found = _measure(
        selection(log, "ten", rows=(row,)), Wanted(effort=EFFORT), Cores(0, (), ()), lambda _: None
    )

    assert found["pc"]["ten"].why == "two CPUs need two cores, and this process may use one"
    assert not log.exists()  # nothing was started for it


def test_being_told_may_end_it_and_no_process_stays(log: Path) -> None:
    class Enough(Exception):
        pass

    def told(text: str) -> None:
        if "pass 2" in text:
            raise Enough

    found = {name: Measured(subject(name, log)) for name in ("ten", "twenty")}
    with pytest.raises(Enough):
        measure_row(ROW, found, [0], EFFORT, told)  # tests/leaks.py sees what would stay

    assert len(found["ten"].bursts) == 1


@pytest.mark.parametrize(
    ("model", "taken", "dropped", "peers", "said"),
    [
        ({}, 100, 0, 1, None),
        ({"cores_allowed": 1}, 100, 0, 1, "one core"),
        ({}, 100, 0, 0, "no peer"),
        ({"governor": "schedutil"}, 100, 0, 1, "frequency scaling (schedutil)"),
        ({"boost": True}, 100, 0, 1, "boost is on"),
        ({"hypervisor": True, "governor": None}, 100, 0, 1, "a virtual machine that does not tell its clock"),
        ({"steal_ticks": 7}, 100, 0, 1, "7 ticks were given to other machines"),
        ({}, 100, 25, 1, "25% of the samples were dropped"),
        ({"warnings": ["busy: load 9"]}, 100, 0, 1, "busy: load 9"),
    ],
)
def test_what_the_numbers_are_worth_is_said(
    model: dict[str, object], taken: int, dropped: int, peers: int, said: str | None
) -> None:
    quiet = {
        "cores_allowed": 8, "governor": "performance", "boost": False, "hypervisor": False, "steal_ticks": 0,
        "warnings": [],
    }  # fmt: skip
    sentences = surroundings.worth({**quiet, **model}, taken, dropped, peers)

    assert [sentence for sentence in sentences if said and sentence.startswith(said)] == sentences
    assert bool(sentences) == (said is not None)


def test_near_and_far_pairs_are_measured_only_where_lines_differ() -> None:
    lines_row, other = Row("pc", "", "handover", sides=2, lines=True), Row("two", "", "both", sides=2)
    cores = Cores(3, ((2, 3), (7, 3)), (40.0, 180.0))

    assert surroundings.allowed_pairs(cores, ROW) == [(3,)]
    assert surroundings.allowed_pairs(cores, lines_row) == ((2, 3), (7, 3))
    assert surroundings.allowed_pairs(cores, other) == ((2, 3),)
    assert [measure.line_of(ns) for ns in cores.lines_ns] == ["near", "far"]
