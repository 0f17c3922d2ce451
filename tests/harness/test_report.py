# SPDX-License-Identifier: MIT
"""The report and the progress lines: what a person reads."""

import io
from typing import Any

import pytest

from harness import progress, report, units, vocabulary
from harness.memory import Sample
from harness.progress import Goal
from harness.results import blank_cell
from harness.verdicts import entry

WORDS = vocabulary.load()


def cell(**values: Any) -> dict[str, Any]:
    made = {**blank_cell(WORDS), "id": "design=kmalloc", "design": "kmalloc", "cpus": 2, "latency_sample": 61}
    return {**made, "replay": "shmalloc run x.toml", "must_happen": [], **values}


def run(*cells: dict[str, Any], expectations: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {
        "name": "storm",
        "verdict": "ok",
        "seed": 23,
        "build": {"flavour": "release", "id": "abc"},
        "machine": {"cores_allowed": 2, "cpu_model": "a processor", "architecture": "x86_64", "warnings": []},
        "expectations": expectations or [],
        "cells": list(cells),
    }


def test_a_cell_is_readable_at_a_glance() -> None:
    good = cell(ops=1_234_567, throughput_ops_s=2e6, seconds=0.6)
    good["contexts"]["nmi"].update(allocs=101, failures={"zone_busy": 7, "pcp_busy": 0})
    good["contexts"]["nmi"]["latency_ns"] = {"p50": 50.0, "p99": 990.0, "p999": 12_345.0, "max": 2e7}
    good["interrupts"]["nmi"].update(sent=23, handled=22, in_allocator=7, in_slow_path=3)
    good["designs"] = {"kmalloc_nolock": {"nmi": {}}}
    lines = report.text(run(good)).splitlines()
    assert lines[0] == "storm: passed, verdict ok, 1 cell"
    (allocations,) = [line.split() for line in lines if "zone_busy" in line]
    columns = "design=kmalloc nmi kmalloc_nolock 101 50 990 12us 20ms 7 zone_busy 7"
    assert allocations == columns.split()
    assert ["design=kmalloc", "NMI", "23", "22", "7", "3"] in [line.split() for line in lines]
    assert any(
        line.split()[:6] == ["design=kmalloc", "ok", "2", "1.23M", "2.00M", "0.6"] for line in lines if line
    )
    assert "of one op in 61" in report.text(run(good))


def test_what_was_wrong_is_told_with_stack_and_replay() -> None:
    violation = entry(
        "deadlock",
        "deadlock",
        "waits for a lock that it holds itself",
        cpu=1,
        context="nmi",
        level=1,
        lock_class="zone",
        lock=0x5B00,
        owner={"cpu": 1, "level": 0},
        stack=[{"level": 1, "address": 16, "symbol": "rmqueue+0x10"}],
    )
    text = report.text(run(cell(verdict="deadlock", violations=[violation])))
    assert "storm: FAILED" in text
    assert "deadlock, expected ok" in text
    assert "waits for a lock that it holds itself" in text
    assert "CPU 1 in nmi (level 1)" in text
    assert "zone lock at 0x5b00, held by CPU 1 at level 0" in text
    assert "rmqueue+0x10" in text
    assert "again, this cell alone: shmalloc run x.toml" in text


def test_more_cpus_than_cores_is_said() -> None:
    assert "more CPUs (16) than cores (2)" in report.text(run(cell(cpus=16)))
    assert "more CPUs" not in report.text(run(cell()))


def test_expectations_and_what_did_not_happen_are_listed() -> None:
    unmet = [{"condition": "interrupts.nmi.handled", "measured": 0, "holds": False}]
    expectations = [
        {"text": "is fast", "kind": "claim", "measured": {"a": 1.0, "b": 2.0}, "holds": False},
        {"text": "works", "kind": "test", "measured": 3, "holds": True},
    ]
    text = report.text(run(cell(verdict="vacuous", must_happen=unmet), expectations=expectations))
    assert "did not happen: interrupts.nmi.handled (measured 0)" in text
    assert "claim: is fast: does not hold (measured a: 1, b: 2)" in text
    assert "test: works: holds (measured 3)" in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9999, "9999"), (12_345, "12.3k"), (1_234_567, "1.23M"), (123e6, "123M"), (2e9, "2.00G")],
)
def test_counts(number: float, text: str) -> None:
    assert units.count(number) == text


@pytest.mark.parametrize(("number", "text"), [(1.25, "1.2 s"), (61, "1:01"), (3723, "1:02:03")])
def test_seconds(number: float, text: str) -> None:
    assert units.seconds(number) == text


def sample(t_s: float, ops: int) -> Sample:
    return Sample(t_s=t_s, used_bytes=2_000_000, ops=ops, nmi=23, irq=7, failures=101)


def test_progress_says_rate_interrupts_failures_elapsed_and_time_to_go() -> None:
    text = progress.line(Goal("storm [1/2]", 10.0, 0), sample(1.0, 1_000_000), sample(2.0, 3_000_000))
    for part in (
        "storm [1/2]",
        "2.00M ops/s",
        "23 NMIs",
        "7 IRQs",
        "101 failures",
        "2.0 s elapsed",
        "ETA 8.0 s",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("goal", "eta_s"),
    [(Goal("", 0, 0), None), (Goal("", 10, 0), 8), (Goal("", 0, 400), 6), (Goal("", 10, 400), 6)],
)
def test_the_limit_that_comes_first_decides(goal: Goal, eta_s: float | None) -> None:
    assert progress.eta_s(goal, sample(2.0, 100)) == eta_s


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    shown = progress.choose(stream)
    assert isinstance(shown, progress.Plain)
    shown.begin(Goal("storm [1/1]", 1.0, 0))
    shown.update(sample(0.5, 1))
    shown.end("deadlock", "ok")
    shown.close()
    assert stream.getvalue() == "storm [1/1]: deadlock (expected ok)\n"


def test_progress_on_a_terminal_leaves_the_verdict_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    shown = progress.choose(stream)
    shown.begin(Goal("storm [1/1]", 1.0, 0))
    shown.end("ok", "ok")
    shown.close()
    assert stream.getvalue().endswith("storm [1/1]: ok\n")
    assert isinstance(progress.choose(stream, quiet=True), progress.Silent)
