# SPDX-License-Identifier: MIT
"""What reports of scenarios come to: coverage, verdicts, what is listed; and how scenarios are dealt out."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from running import config, run

from harness import matrix, vocabulary
from harness.atlas import check, image, keys, plan, scenario, sweeping
from harness.atlas.engine import Found
from harness.atlas.merge import Merged
from harness.atlas.scenario import ScenarioError
from harness.interruption import Interruption
from harness.problems import CannotRun
from harness.stress import Job

WORDS = vocabulary.load()
NOLOCK, SPINNING = "kmalloc_nolock", "kmalloc"
CODE = {"functions": [], "symbols": {"4096": ["kmalloc_node", 4080]}, "levels": ["kmalloc", "(call)"]}


def job(design: str = NOLOCK, **atlas: Any) -> Job:
    data = {"name": "test", "engine": "atlas", "design": design, "atlas": atlas}
    (cell,) = matrix.expand("test", data, WORDS)
    return Job(cell, Path(), WORDS, Interruption())


def report(names: list[str], design: str = NOLOCK, **more: Any) -> dict[str, Any]:
    """Make a scenario's report, as a worker would: one instruction, executed as often as there are names."""
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    wrong = [name for name in counts if name in WORDS.verdicts and name not in ("ok", "vacuous")]
    kinds = [{"verdict": name, "text": f"about {name}", "operation": "ok", "handler": "ok"} for name in wrong]
    points = [[at, 4096, at + 1, wrong.index(name)] for at, name in enumerate(names) if name in wrong]
    return {
        "name": f"alloc_refill@{design}/aba",
        "operation": "alloc_refill",
        "task_design": design,
        "handler": "aba",
        "handler_design": design,
        "kind": "nmi",
        "points": len(names),
        "covered": len(names) - names.count("vacuous"),
        "instructions": 1,
        "states": 1,
        "outcomes": counts,
        "operation_outcomes": {"ok": 1},
        "path": {},
        "sweep_seconds": 0.01,
        "seconds": 0.1,
        "counts": {"4096": counts},
        "red": {"kinds": kinds, "points": points},
        "certificate": {"name": "x", "points": len(names), "covered": 0, "digest": "", "outcomes": []},
        **more,
    }


def cell(design: str, *reports: dict[str, Any], **found: Any) -> dict[str, Any]:
    """Merge reports into a cell."""
    merged = Merged(job(design), Found(dict(enumerate(reports)), **found), 1)
    merged.annotate(CODE)
    return merged.cell(1.0)


def pairs(outcomes: dict[str, int], label: str = "", which: str = "after") -> dict[str, Any]:
    count = sum(outcomes.values())
    row = {
        "kinds": "",
        "label": label,
        "points": count,
        "covered": count,
        "outcomes": outcomes,
        "digest": "",
        "red": [],
    }
    return {"firsts": 1, "after": {**row, "outcomes": {"ok": count}, "label": ""}, which: row}


def test_all_ok_is_ok() -> None:
    found = cell(NOLOCK, report(["ok", "deferred"]), report(["null:zone_busy"]))
    assert found["verdict"] == "ok"
    assert found["atlas"]["outcomes"] == {"ok": 1, "deferred": 1, "null:zone_busy": 1}
    assert found["atlas"]["totals"]["null_zone_busy"] == found["atlas"]["totals"]["null"] == 1
    assert found["atlas"]["injections_per_s"] == pytest.approx(150, rel=0.5)


def test_a_point_that_was_not_reached_makes_a_cell_vacuous_and_says_which() -> None:
    found = cell(NOLOCK, report(["ok", "vacuous", "ok"]))
    assert (found["verdict"], found["atlas"]["covered"], found["atlas"]["points"]) == ("vacuous", 2, 3)
    assert found["violations"][0]["text"] == "alloc_refill@kmalloc_nolock/aba: 1 of 3 points not reached"


def test_a_scenario_that_came_to_nothing_makes_a_cell_vacuous_and_says_why() -> None:
    found = cell(NOLOCK, report(["ok"]), failed=[("alloc_refill@kmalloc/aba", "does not take its path")])
    assert found["verdict"] == "vacuous"
    assert found["violations"][0]["text"] == "alloc_refill@kmalloc/aba: does not take its path"
    assert found["atlas"]["failed"] == [
        {"scenario": "alloc_refill@kmalloc/aba", "why": "does not take its path"}
    ]


def test_nothing_covered_is_vacuous() -> None:
    assert cell(NOLOCK)["verdict"] == "vacuous"


def test_the_gravest_verdict_of_what_is_promised_counts() -> None:
    found = cell(NOLOCK, report(["ok", "lost_memory"]), report(["deadlock", "corruption"]))
    assert found["verdict"] == "corruption"
    assert found["atlas"]["red_points"] == len(found["atlas"]["red"]) == 3
    assert {entry["symbol"] for entry in found["atlas"]["red"]} == {"kmalloc_node+0x10"}
    assert (
        found["atlas"]["red"][0]["replay"]
        == "shmalloc replay kmalloc_nolock alloc_refill@kmalloc_nolock/aba@1"
    )
    assert found["atlas"]["deadlocks"] == []


def test_where_nothing_is_promised_deadlocks_count_and_nothing_is_red() -> None:
    found = cell(SPINNING, report(["ok", "deadlock", "deadlock", "corruption"], SPINNING))
    atlas = found["atlas"]
    assert (found["verdict"], atlas["red"], atlas["red_points"]) == ("deadlock", [], 0)
    ((dead), (other)) = (*atlas["deadlocks"], *atlas["unpromised"])
    assert (dead["count"], dead["verdict"], dead["index"]) == (2, "deadlock", 1)
    assert (other["count"], other["verdict"]) == (1, "corruption")
    assert (atlas["deadlock_points"], atlas["deadlock_injections"]) == (1, 2)


def test_an_expected_deadlock_is_no_excuse_for_what_was_not_covered() -> None:
    dead = report(["ok", "deadlock"], SPINNING)
    assert cell(SPINNING, dead)["verdict"] == "deadlock"
    assert cell(SPINNING, dead, failed=[("x", "does not take its path")])["verdict"] == "vacuous"
    assert cell(SPINNING, dead, report(["ok", "vacuous"], SPINNING))["verdict"] == "vacuous"


def test_without_a_deadlock_the_gravest_counts_there_too() -> None:
    assert cell(SPINNING, report(["ok", "lost_memory"], SPINNING))["verdict"] == "lost_memory"


def test_pairs_count_nested_nmis_do_not() -> None:
    after = report(["ok"], pairs=pairs({"ok": 3, "corruption": 1}))
    assert cell(NOLOCK, after)["verdict"] == "corruption"
    nested = report(["ok"], pairs=pairs({"ok": 3, "corruption": 1}, keys.STRONGER, "inside"))
    found = cell(NOLOCK, nested)
    assert found["verdict"] == "ok"
    assert found["atlas"]["pairs"]["nested"]["outcomes"] == {"ok": 3, "corruption": 1}
    assert found["violations"] == []
    assert found["atlas"]["pairs"]["nested"]["labels"] == [keys.STRONGER]


def test_a_death_is_the_cells_verdict() -> None:
    found = cell(NOLOCK, report(["ok"]), deaths=[("dead_owner", "alloc_refill@kmalloc/aba: killed")])
    assert (found["verdict"], found["violations"][0]["checker"]) == ("dead_owner", "supervisor")


def test_red_points_are_listed_up_to_a_limit_and_every_instruction_is() -> None:
    many = report(["lost_memory"] * 3000)
    other = report(["ok"], red={"kinds": many["red"]["kinds"], "points": [[7, 8192, 1, 0]]})
    atlas = cell(NOLOCK, many, other)["atlas"]
    assert atlas["red_points"] == 3001
    assert len(atlas["red"]) == 2000
    assert {entry["address"] for entry in atlas["red"]} == {4096, 8192}


# --- dealing ---------------------------------------------------------------------------------------


def test_unknown_kinds_of_scenarios_first_then_those_that_take_longest() -> None:
    deal = plan.deal(job(operations=["alloc_fastpath", "alloc_refill"], task=[NOLOCK]).config)
    assert deal.total == len(deal.waiting) > 10
    dealt = deal.orders()
    first, second = next(dealt), next(dealt)
    assert {first["scenario"].partition("@")[0], second["scenario"].partition("@")[0]} == {
        "alloc_fastpath",
        "alloc_refill",
    }
    deal.finish(first["number"], 100, 0.1)
    deal.finish(second["number"], 500, 0.9)
    third = next(dealt)
    assert third["scenario"].startswith(second["scenario"].partition("@")[0])
    assert deal.estimate() > 600
    rest = [order["number"] for order in dealt]
    assert sorted([first["number"], second["number"], third["number"], *rest]) == list(range(deal.total))


def test_pairs_of_irqs_are_swept_besides_the_kinds_that_are_asked_for() -> None:
    chosen = job(operations=["alloc_refill"], pairs=["alloc_refill@kmalloc_nolock/alloc_same:irq"]).config
    of_irqs = [each.name for each in plan.scenarios(chosen) if each.kind == "irq"]
    assert of_irqs == ["alloc_refill@kmalloc_nolock/alloc_same:irq"]
    assert [order["scenario"] for order in plan.deal(chosen).orders() if order["pairs"]] == of_irqs


def test_totals_name_every_outcome_as_conditions_can() -> None:
    found = check.totals({"null:zone_busy": 2, "null:pcp_busy": 1, "error:EBUSY": 4, "ok": 8}, WORDS)
    assert (found["null"], found["null_zone_busy"], found["error"], found["ok"]) == (3, 2, 4, 8)
    assert found["deadlock"] == found["deferred"] == 0


# --- scenarios that are none, machines that cannot --------------------------------------------------


def test_a_scenario_that_does_not_take_its_path_is_an_error_of_the_scenario() -> None:
    chosen = scenario.find(NOLOCK, "alloc_fastpath@kmalloc_nolock/aba")
    wrong = dataclasses.replace(
        chosen, operation=dataclasses.replace(chosen.operation, path={"alloc_slab": "== 7"})
    )
    with pytest.raises(ScenarioError, match="alloc_slab grew by 0, expected == 7"):  # noqa: SIM117
        with sweeping.prepared(wrong, "none", WORDS):
            pass


def test_a_machine_that_cannot_is_3_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot() -> None:
        raise CannotRun("the trap flag is not honoured")

    monkeypatch.setattr(image, "machine_check", cannot)
    text = 'engine = "atlas"\n[atlas]\noperations = ["alloc_fastpath"]\n'
    done = run("run", config(tmp_path, text), "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "the trap flag is not honoured" in done.stderr
    assert not (tmp_path / "results").exists()
