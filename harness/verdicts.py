# SPDX-License-Identifier: MIT
"""Violations as JSON, and the verdict that a cell gets from them.

A process that dies of a fault of its own (SIGSEGV, SIGBUS, SIGILL, ...) followed a wrong pointer or ran wrong
code: that is `corruption`. One that was ended from outside, or that ended without finishing, is `dead_owner`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.vocabulary import BROKEN_RULE, CORRUPTION, DEAD_OWNER, OK, Vocabulary

if TYPE_CHECKING:
    from shmalloc._binding import Core
    from shmalloc.arena import Arena
    from shmalloc.audit import AuditReport
    from shmalloc.violations import Violation

_FAULTS = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGSYS,
}
_NO_CPU = 0xFFFFFFFF
_LEVEL_SHIFT, _BYTE = 16, 0xFF  # of a lock word
_OUTSIDE = {"audit", "supervisor"}


@dataclass(frozen=True)
class Incident:
    """What the parent saw: a death or a stall.

    Attributes: verdict.  text: who, of what, and what the CPU was doing.  cpu: its number, or None.
        context, op_index: of the CPU.
    """

    verdict: str
    text: str
    cpu: int | None = None
    context: str | None = None
    op_index: int = 0


def death_verdict(returncode: int) -> str:
    """Return the verdict on a process that should still be there."""
    return CORRUPTION if returncode < 0 and -returncode in _FAULTS else DEAD_OWNER


def death_text(returncode: int) -> str:
    """Say how a process ended."""
    if returncode >= 0:
        return f"ended with status {returncode}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"was killed by signal {-returncode}"


def entry(verdict: str, checker: str, text: str, **more: Any) -> dict[str, Any]:
    """Make one violation's JSON; what is not known is null, 0 or empty."""
    blank: dict[str, Any] = {
        "verdict": verdict,
        "checker": checker,
        "cpu": None,
        "context": None,
        "level": 0,
        "lock_class": "none",
        "lock": 0,
        "owner": None,
        "object": 0,
        "op_index": 0,
        "text": text,
        "stack": [],
    }
    return {**blank, **more}


def of_core(arena: Arena) -> list[dict[str, Any]]:
    """Write what the core recorded, oldest first, stacks by symbol."""
    table = arena.header.violations
    owners = [int(table[at].owner) for at in range(len(table)) if table[at].ready]
    return [
        _of_core(found, owner, arena.core) for found, owner in zip(arena.violations(), owners, strict=False)
    ]


def _of_core(found: Violation, owner: int, core: Core) -> dict[str, Any]:
    level = owner >> _LEVEL_SHIFT & _BYTE
    return entry(
        found.verdict,
        found.checker,
        found.text,
        cpu=None if found.cpu == _NO_CPU else found.cpu,
        context=None if found.cpu == _NO_CPU else found.context,
        level=found.level,
        lock_class=found.lock_class,
        lock=found.lock,
        owner=None if found.owner_cpu is None else {"cpu": found.owner_cpu, "level": level},
        object=found.object,
        op_index=found.op_index,
        stack=_stack(found, core),
    )


def _stack(found: Violation, core: Core) -> list[dict[str, Any]]:
    from shmalloc.symbols import symbols

    names = symbols(core.path).names([(frame.level, frame.address) for frame in found.stack])
    return [
        {"level": frame.level, "address": frame.address, "symbol": name}
        for frame, name in zip(found.stack, names, strict=True)
    ]


def of_audit(report: AuditReport, when: str) -> list[dict[str, Any]]:
    """Write an audit's problems. Args: when: "before the drain" or "after the drain"."""
    return [
        entry(problem.verdict, "audit", f"{problem.where}: {problem.text} ({when})")
        for problem in report.problems
    ]


def of_incident(incident: Incident) -> dict[str, Any]:
    """Write what the parent saw."""
    return entry(
        incident.verdict,
        "supervisor",
        incident.text,
        cpu=incident.cpu,
        context=incident.context,
        op_index=incident.op_index,
    )


def judge(violations: Sequence[dict[str, Any]], vocabulary: Vocabulary) -> str:
    """Return the verdict of violations.

    The first verdict that stops a run is the run's, and the core's comes first: a death or a stall that
    the parent sees may follow from it. Among equals the worst counts. A broken rule stops nothing.
    """
    stopping = [violation for violation in violations if violation["verdict"] != BROKEN_RULE]
    by_core = [violation for violation in stopping if violation["checker"] not in _OUTSIDE]
    if found := by_core or stopping:
        return vocabulary.worst([violation["verdict"] for violation in found])
    return BROKEN_RULE if violations else OK
