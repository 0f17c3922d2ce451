# SPDX-License-Identifier: MIT
"""Two interrupts in one operation: the second comes anywhere in what really ran after the first."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.atlas.keys import MISSED, STRONGER
from harness.atlas.sweeper import Stage
from harness.atlas.sweeping import Sweep, Tell, shared
from shmalloc import designs

if TYPE_CHECKING:
    from harness.atlas.judging import Judgement

AFTER, INSIDE = "after", "inside"
_MOST_RED = 1000


@dataclass
class _Count:
    """What came of one way to place the second interrupt. Attributes: promised: by the design, that it is ok."""

    promised: bool
    points: int = 0
    covered: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    red: list[dict[str, Any]] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, first: int, index: int, address: int, judged: Judgement, replay: str) -> None:
        self.points += 1
        self.covered += judged.name != MISSED
        self.outcomes[judged.name] += 1
        self.digest.update(f"{first} {index} {address:x} {judged.name}\n".encode())
        if not judged.is_ok and self.promised and judged.name != MISSED and len(self.red) < _MOST_RED:
            self.red.append(
                {
                    "points": replay,
                    "address": address,
                    "verdict": judged.verdict,
                    "text": judged.text,
                    "operation": judged.operation,
                    "handler": judged.handler,
                }
            )

    def as_json(self, kinds: str, label: str) -> dict[str, Any]:
        return {
            "kinds": kinds,
            "label": label,
            "points": self.points,
            "covered": self.covered,
            "outcomes": dict(sorted(self.outcomes.items())),
            "digest": self.digest.hexdigest(),
            "red": self.red,
        }


def sweep(task: Sweep, tell: Tell, which: Collection[str]) -> dict[str, Any]:
    """Interrupt at every access to shared memory, and again at every access of the path that was then taken.

    The path is recorded anew for each first interrupt.

    Args: task: built for as many interrupts.  which: AFTER the first handler another interrupt of its kind;
        INSIDE it an NMI.
    Returns: for each of them points, covered, outcomes, red, digest; firsts: first places.
    """
    kind = task.scenario.kind
    contexts = designs.info(task.scenario.handler_design).contexts
    counts = {each: _Count(promised=(kind if each == AFTER else "nmi") in contexts) for each in which}
    firsts = shared(task, task.trace)
    for first in firsts:
        stage = Stage(task.trace, first, kind)
        if AFTER in which:
            rest = task.sweeper.record(task.built.call, (stage,))
            _second(task, counts[AFTER], stage, rest, kind, first, is_inside=False)
        if INSIDE in which:
            handler = task.sweeper.record(task.built.call, (stage,), "handler")
            _second(task, counts[INSIDE], stage, handler, "nmi", first, is_inside=True)
        tell(0)
    labels = {AFTER: "", INSIDE: STRONGER if kind == "nmi" else "an NMI within an IRQ within a task"}
    kinds = {AFTER: f"{kind}, then {kind}", INSIDE: f"nmi in {kind}"}
    found = {each: count.as_json(kinds[each], labels[each]) for each, count in counts.items()}
    return {"firsts": len(firsts), **found}


def _second(
    task: Sweep, count: _Count, stage: Stage, trace: Any, kind: str, first: int, *, is_inside: bool
) -> None:
    indices = np.array(shared(task, trace), dtype=np.uint32)
    if not len(indices):
        return
    rows = task.sweeper.sweep(task.built.call, trace, indices, kind, before=(stage,), inside=is_inside)
    addresses, found = task.relative(trace), task.judge.names(rows, (stage.kind, kind))
    for judged, index in zip(found, indices.tolist(), strict=True):
        replay = f"{first}{'^' if is_inside else '+'}{index}"
        count.add(first, index, int(addresses[index]), judged, replay)
