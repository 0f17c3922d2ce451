# SPDX-License-Identifier: MIT
"""Conditions and expectations."""

from typing import Any

import pytest

from harness import expect, expression, matrix, vocabulary
from harness.config import Cell
from harness.expression import ExpressionError, Outcome
from harness.results import blank_cell, passed, run_verdict

WORDS = vocabulary.load()
CELL: dict[str, Any] = {
    "allocs": 23,
    "frees": 0,
    "verdict": "ok",
    "violations": [1, 2],
    "failures": {"zone_busy": 101, "pcp_busy": 0},
    "contexts": {"nmi": {"latency_ns": {"p99": None, "max": 7.5}}},
}


@pytest.mark.parametrize(
    ("text", "holds", "measured"),
    [
        ("allocs", True, 23),
        ("frees", False, 0),
        ("failures.zone_busy > 100", True, 101),
        ("failures.zone_busy > 101", False, 101),
        ("failures.zone_busy / allocs < 5", True, 101 / 23),
        ("0 < failures.zone_busy <= 101", True, 0),
        ("allocs and frees", False, {"allocs": 23, "frees": 0}),
        ("allocs or frees", True, {"allocs": 23, "frees": 0}),
        ("not frees", True, 0),
        ("not (allocs > 22 and frees == 0)", False, {"allocs": 23, "frees": 0}),
        ("allocs / frees > 0", False, None),
        ("contexts.nmi.latency_ns.p99 < 1000", False, None),
        ("contexts.nmi.latency_ns.max < 1000", True, 7.5),
        ("max(allocs, frees) == 23", True, 23),
        ("min(allocs, frees) - 1 == -1", True, -1),
        ("abs(frees - allocs) == 23", True, 23),
        ('verdict == "ok"', True, "ok"),
        ('verdict != "ok"', False, "ok"),
        ("violations == 2", True, 2),
        ("allocs > 1e1", True, 23),
    ],
)
def test_conditions(text: str, holds: bool, measured: object) -> None:
    assert expression.evaluate(text, CELL) == Outcome(holds, measured)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "allocs >",
        "__import__('os')",
        "allocs.__class__",
        "open('x')",
        "[1, 2]",
        "lambda: 1",
        "allocs if frees else 1",
        "f'{allocs}'",
        "allocs ** 9999",
        "cells",
        "cells['design=kmalloc']",
        "failures['zone_busy']",
        "failures",
        "allocs.more",
        "nothing",
        "verdict + 1 > 2",
        "verdict > 2",
        "verdict",
        "max(allocs, key=1)",
        "allocs := 1",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        expression.evaluate(text, CELL)


def test_an_unknown_name_is_said_with_those_that_exist() -> None:
    (said,) = expect.mistakes("failures.zone_bsy > 0", WORDS)
    assert "failures.zone_bsy" in said
    assert "did you mean zone_busy?" in said
    assert all(reason in said for reason in WORDS.reasons)


@pytest.mark.parametrize(
    "text",
    [
        "interrupts.nmi.in_slow_path > 0",
        "counters.alloc_slowpath",
        "counters.pcp_refill",
        "counters.irq_work_runs",
        "counters.nr_deferred_free",
        "contexts.nmi.failures.list_lock_busy < 0.5 * contexts.nmi.allocs",
        "memory.peak_bytes <= memory.arena_bytes",
        'cells["design=kmalloc"].throughput_ops_s > cells["design=kmalloc_nolock"].throughput_ops_s',
    ],
)
def test_the_names_of_results_are_known_before_the_run(text: str) -> None:
    assert expect.mistakes(text, WORDS) == []


def make(data: dict[str, Any]) -> tuple[Cell, ...]:
    return matrix.expand("test", {"name": "test", **data}, WORDS)


def result(cell: Cell, **values: Any) -> dict[str, Any]:
    expected = expect.expected_verdict(cell.config)
    return {**blank_cell(WORDS), "id": cell.id, "expected": expected, **values}


def run_of(cells: tuple[Cell, ...], results: list[dict[str, Any]]) -> dict[str, Any]:
    return {"cells": results, "expectations": expect.judge(cells, results)}


def test_a_verdict_may_be_expected_of_some_cells() -> None:
    cells = make(
        {
            "design": ["kmalloc", "kmalloc_nolock"],
            "expect": [{"verdict": "deadlock", "cell": {"design": "kmalloc"}}],
        }
    )
    assert [expect.expected_verdict(cell.config) for cell in cells] == ["deadlock", "ok"]
    good = run_of(cells, [result(cells[0], verdict="deadlock"), result(cells[1])])
    assert passed(good)
    assert good["expectations"] == [
        {"text": "verdict is deadlock", "kind": "test", "measured": "deadlock", "holds": True}
    ]
    assert run_verdict(good["cells"], WORDS) == "ok"


def test_a_negative_control_that_did_not_fail_proves_nothing() -> None:
    cells = make({"expect": [{"verdict": "deadlock"}]})
    bad = run_of(cells, [result(cells[0], verdict="ok")])
    assert not passed(bad)
    assert run_verdict(bad["cells"], WORDS) == "vacuous"


def test_the_runs_verdict_is_that_of_the_worst_unexpected_cell() -> None:
    cells = make({"cpus": [1, 2, 3]})
    verdicts = ("stall", "corruption", "ok")
    results = [result(cell, verdict=verdict) for cell, verdict in zip(cells, verdicts, strict=True)]
    assert run_verdict(results, WORDS) == "corruption"


def test_a_condition_holds_if_it_does_in_every_cell_that_is_selected() -> None:
    cells = make({"cpus": [1, 2, 3], "expect": [{"condition": "allocs > 10", "cell": {"cpus": [1, 2]}}]})
    for allocs, holds in (((11, 12, 0), True), ((11, 9, 0), False)):
        results = [result(cell, allocs=number) for cell, number in zip(cells, allocs, strict=True)]
        run = run_of(cells, results)
        assert run["expectations"][0]["holds"] is holds
        assert run["expectations"][0]["measured"] == {"cpus=1": allocs[0], "cpus=2": allocs[1]}
        assert passed(run) is holds


def test_a_claim_leaves_the_exit_status_alone() -> None:
    cells = make({"expect": [{"text": "fast", "condition": "throughput_ops_s > 9", "kind": "claim"}]})
    run = run_of(cells, [result(cells[0], throughput_ops_s=3.0)])
    assert run["expectations"] == [{"text": "fast", "kind": "claim", "measured": 3.0, "holds": False}]
    assert passed(run)


def test_a_claimed_verdict_is_not_the_expected_one() -> None:
    (cell,) = make({"expect": [{"verdict": "deadlock", "kind": "claim"}]})
    assert expect.expected_verdict(cell.config) == "ok"


def test_cells_may_be_compared() -> None:
    condition = 'cells["design=kmalloc"].allocs > cells["design=kmalloc_nolock"].allocs'
    cells = make({"design": ["kmalloc", "kmalloc_nolock"], "expect": [{"condition": condition}]})
    run = run_of(cells, [result(cells[0], allocs=9), result(cells[1], allocs=8)])
    assert run["expectations"] == [{"text": condition, "kind": "test", "measured": 9, "holds": True}]


def test_an_expectation_about_no_cell_of_the_run_is_open() -> None:
    cells = make(
        {"design": "kmalloc", "expect": [{"condition": "allocs", "cell": {"design": "kmalloc_nolock"}}]}
    )
    run = run_of(cells, [result(cells[0])])
    assert run["expectations"][0]["holds"] is None
    assert passed(run)


def test_what_must_happen_is_measured() -> None:
    (cell,) = make({"must_happen": ["allocs", "interrupts.nmi.handled > 5"]})
    found = expect.must_happen(cell.config, result(cell, allocs=3))
    assert found == [
        {"condition": "allocs", "measured": 3, "holds": True},
        {"condition": "interrupts.nmi.handled > 5", "measured": 0, "holds": False},
    ]


def test_selectors_reach_into_tables() -> None:
    (cell,) = make({"interrupts": {"nmi": {"rate_hz": 5.0, "program": "burst"}}})
    assert expect.matches({"interrupts": {"nmi": {"program": "burst"}}}, cell.config)
    assert expect.matches({"interrupts.nmi.rate_hz": 5.0, "cpus": 2}, cell.config)
    assert not expect.matches({"interrupts.nmi.rate_hz": 6.0}, cell.config)


def test_a_list_in_a_selector_names_designs_one_by_one() -> None:
    assert expect.selector_problems({"design": ["kmalloc", "kmalloc_nolock"]}, WORDS) == []
    (problem,) = expect.selector_problems({"design": ["kmalloc", "slob"]}, WORDS)
    assert "'slob'" in problem
