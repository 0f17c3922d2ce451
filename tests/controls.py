# SPDX-License-Identifier: MIT
"""Negative controls: a broken variant, the scenario that meets the bug, and the checker that is to catch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rig import Rig


def nmi(rig: Rig, site: str, outer: Callable[[], Any], *lines: Any, **keys: Any) -> None:
    """Interrupt an operation at a site by an NMI."""
    rig.arm(site, "nmi", rig.program(*lines, **keys))
    outer()
    assert rig.fired() == 1


@dataclass(frozen=True)
class Control:
    """A broken variant and who is to catch it.

    Attributes: variant: name.  checker: of the core, or "audit".  verdict: that it gives.  scenario: what is
        done.  says: part of its text.  geometry: of the arena.
    """

    variant: str
    checker: str
    verdict: str
    scenario: Callable[[Rig], None]
    says: str
    geometry: dict[str, Any] = field(default_factory=dict)


def name_of(control: Control) -> str:
    return f"{control.variant}-{control.checker}-{control.scenario.__name__}"


def assert_caught(control: Control) -> None:
    """The scenario on the broken core: the control's checker, and no other, says what is wrong."""
    with Rig.create(broken=control.variant, **control.geometry) as rig:
        control.scenario(rig)
        if control.checker == "audit":
            rig.cpu.run_irq_work()
            report = rig.report(expect_live=None)
            assert report.verdict == control.verdict
            assert any(control.says in problem.text for problem in report.problems), report.problems
            assert [v.verdict for v in rig.violations()] in ([], ["broken_rule"])
        else:
            caught = [v for v in rig.violations() if v.checker == control.checker]
            assert {v.verdict for v in caught} == {control.verdict}
            assert any(control.says in v.text for v in caught)
            # a wait in NMI has broken a rule before it is proved endless
            assert {v.checker for v in rig.violations()} <= {control.checker, "lock_rules"}
            assert rig.arena.header.stop == (0 if control.verdict == "broken_rule" else 2)


def assert_silent(control: Control) -> None:
    """The same on the correct core: nothing is wrong, and nothing is lost."""
    with Rig.create(**control.geometry) as rig:
        control.scenario(rig)
        rig.settle()
