# SPDX-License-Identifier: MIT
"""Which scenarios a cell has, and in which order they are dealt out: the longest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from harness.atlas import scenario

if TYPE_CHECKING:
    from harness.atlas.scenario import Scenario
    from harness.config import Config

_IRQ = ":irq"  # at the end of a scenario's name


def scenarios(config: Config) -> list[Scenario]:
    """List the scenarios that a cell selects, in a fixed order; those of IRQs whose pairs it wants are among them."""
    chosen = config.atlas
    every = scenario.scenarios(
        config.design,
        scenario.Selection(
            operations=tuple(chosen.operations),
            handlers=tuple(chosen.handlers),
            task=tuple(chosen.task),
            kinds=scenario.KINDS,
        ),
    )
    of_irqs = [pattern for pattern in chosen.pairs if pattern.endswith(_IRQ)]
    return [each for each in every if each.kind in chosen.kinds or has_pairs(each.name, of_irqs)]


def has_pairs(name: str, patterns: list[str]) -> bool:
    """Whether a scenario's pairs are swept, too."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass
class Task:
    """A scenario to be dealt. Attributes: scenario.  number: its place in the plan.  pairs: two NMIs, too."""

    scenario: Scenario
    number: int
    pairs: bool = False

    @property
    def like(self) -> tuple[str, str, bool]:
        """What decides roughly how long it takes."""
        return self.scenario.operation.name, self.scenario.task_design, self.pairs


@dataclass
class Deal:
    """The tasks of a cell, while workers ask for them.

    How long a scenario takes shows only when one of its kind has been swept: such are dealt first, and then
    those whose kin took longest.

    Attributes: waiting.  seconds, points: of each kind of task that is known.  done, points_done: tasks
        finished, and the points in them.  total: tasks.
    """

    waiting: list[Task]
    seconds: dict[tuple[str, str, bool], float] = field(default_factory=dict)
    points: dict[tuple[str, str, bool], int] = field(default_factory=dict)
    done: int = 0
    points_done: int = 0
    total: int = 0
    _out: dict[int, Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.total = len(self.waiting)

    def orders(self) -> Iterator[dict[str, Any]]:
        """Deal all tasks, each when it is asked for."""
        while self.waiting:
            task = self._next()
            yield {"do": "sweep", "number": task.number, "scenario": task.scenario.name, "pairs": task.pairs}

    def _next(self) -> Task:
        asked = {task.like for task in self._out.values()}
        task = max(self.waiting, key=lambda each: (self._rank(each, asked), -each.number))
        self.waiting.remove(task)
        self._out[task.number] = task
        return task

    def _rank(self, task: Task, asked: set[tuple[str, str, bool]]) -> float:
        if task.pairs:
            return float("inf")
        if task.like in self.seconds:
            return self.seconds[task.like]
        return 0.0 if task.like in asked else float("inf")

    def finish(self, number: int, points: int, seconds: float) -> None:
        """Note that a task is done."""
        task = self._out.pop(number)
        self.seconds[task.like] = max(seconds, self.seconds.get(task.like, 0.0))
        self.points[task.like] = max(points, self.points.get(task.like, 0))
        self.done += 1
        self.points_done += points

    def estimate(self) -> int:
        """Return how many points there are in all, as far as anybody knows."""
        known = sum(self.points.values()) / len(self.points) if self.points else 0.0
        open_tasks = [*self.waiting, *self._out.values()]
        return self.points_done + round(sum(self.points.get(task.like, known) for task in open_tasks))


def deal(config: Config) -> Deal:
    """Make the tasks of a cell."""
    return Deal(
        [
            Task(each, number, pairs=has_pairs(each.name, config.atlas.pairs))
            for number, each in enumerate(scenarios(config))
        ]
    )
