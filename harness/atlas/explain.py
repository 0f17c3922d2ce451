# SPDX-License-Identifier: MIT
"""One injection once more, looked at closely: where it came, who called whom, and the arena before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.atlas import describe, disassembly, inlining, outcomes, stacks
from harness.atlas.judging import RETURNED, Judgement
from harness.atlas.sweeper import ENDS, Stage

if TYPE_CHECKING:
    from harness.atlas.sweeping import Sweep


@dataclass(frozen=True)
class Place:
    """Where an interrupt comes. Attributes: index: into the trace.  kind.  inside: of the handler before it."""

    index: int
    kind: str
    inside: bool = False


@dataclass(frozen=True)
class Explained:
    """What came of an injection.

    Attributes: address: from the load address.  places: where each interrupt came.  judgement.  end: how the run
        ended.  operation, handler: stacks, innermost first.  before, after: the arena, line by line.  changed:
        what differs, as fields of structures.
    """

    address: int
    places: list[dict[str, Any]]
    judgement: Judgement
    end: str
    operation: list[str]
    handler: list[str]
    before: list[str]
    after: list[str]
    changed: list[str]

    def details(self) -> dict[str, Any]:
        """Return what a red point of an atlas carries besides its name."""
        return {
            "stacks": {"operation": self.operation, "handler": self.handler},
            "before": self.before,
            "after": self.after,
            "changed": self.changed,
        }

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            **asdict(self.judgement),
            "address": self.address,
            "places": self.places,
            "end": self.end,
            **self.details(),
        }


def point(task: Sweep, index: int) -> Explained:
    """Explain one interrupt of the scenario's kind."""
    return explain(task, [Place(index, task.scenario.kind)])


def stages_of(task: Sweep, places: Sequence[Place]) -> list[Stage]:
    """Make stages of places: what follows each is recorded to know where the next one comes.

    Raises: IndexError: a place that there is not, with how many there are.
    """
    made: list[Stage] = []
    for place in places:
        trace = task.trace
        if made:
            what = "handler" if place.inside else "operation"
            trace = task.sweeper.record(task.built.call, made, what)
        if not 0 <= place.index < len(trace):
            raise IndexError(f"{place.index}: allowed is 0 to {len(trace) - 1}")
        made.append(Stage(trace, place.index, place.kind, place.inside))
    return made


def explain(task: Sweep, places: Sequence[Place]) -> Explained:
    """Run with these interrupts and look.

    Raises: IndexError: a place that there is not.
    """
    stages = stages_of(task, places)
    built, sweeper = task.built, task.sweeper
    before = describe.lines(built)
    row = sweeper.run(built.call, stages)
    judgement = task.judge(row, [place.kind for place in places])
    changed = []
    if row["end"] == RETURNED:
        changed = describe.describe(built.arena, sweeper.state_words(int(row["state"])))
    sweeper.run_and_keep(built.call, stages)
    after = describe.lines(built)
    sweeper.restore()
    shown = [_place(task, stage) for stage in stages]
    return Explained(
        address=shown[0]["address"],
        places=shown,
        judgement=judgement,
        end=ENDS[int(row["end"])],
        operation=stacks.at(task.image, stages[0].trace, stages[0].index),
        handler=_handler_stack(task, row),
        before=before,
        after=after,
        changed=changed,
    )


def _place(task: Sweep, stage: Stage) -> dict[str, Any]:
    """Describe where an interrupt came."""
    rip = int(stage.trace.rips[stage.index])
    symbol = task.image.symbol_at(rip)
    code = disassembly.disassembly(task.image.path).at(rip - task.image.base)
    frames = inlining.inlines(task.image.path).at(rip - task.image.base)
    return {
        "index": stage.index,
        "of": len(stage.trace),
        "kind": stage.kind,
        "inside": stage.inside,
        "address": rip - task.image.base,
        "occurrence": stage.trace.occurrence(stage.index),
        "symbol": f"{symbol[0]}+{rip - symbol[1]:#x}" if symbol else "?",
        "text": code.text,
        "source": f"{frames[0].file}:{frames[0].line}" if frames else "?",
    }


def _handler_stack(task: Sweep, row: Any) -> list[str]:
    """Name the handler's frames: of the violation, or where it crashed or got stuck; else what it does."""
    if row["end"] == RETURNED:
        if found := outcomes.stacks(task.built, task.sweeper, row)["handler"]:
            return found
    elif row["rip"]:
        symbol = task.image.symbol_at(int(row["rip"]))
        return [f"{symbol[0]}+{int(row['rip']) - symbol[1]:#x}" if symbol else f"{int(row['rip']):#x}"]
    return [f"{task.scenario.handler.name}: {task.scenario.handler.summary}"]
