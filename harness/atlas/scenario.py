# SPDX-License-Identifier: MIT
"""Scenarios: an operation of a design, and a handler that an interrupt runs inside it."""

from __future__ import annotations

import importlib
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Self

from harness.atlas.call import Call
from harness.atlas.handlers import HANDLERS, Handler
from harness.atlas.operations import Operation, all_operations
from harness.atlas.staging import Request, ScenarioError, Staging, geometry
from shmalloc._binding import core as load_core
from shmalloc.arena import Arena

if TYPE_CHECKING:
    from harness.atlas.staging import Line
    from shmalloc.program import Program

__all__ = ["Built", "Scenario", "ScenarioError", "Selection", "find", "scenarios"]

#: The task under a design that is called in handlers: the talk's picture has kmalloc there, too.
TASKS: Mapping[str, tuple[str, ...]] = {
    "kmalloc_nolock": ("kmalloc", "kmalloc_nolock"),
    "try_kmalloc": ("kmalloc", "try_kmalloc"),
}
KINDS = ("nmi", "irq")

_CONDITION = re.compile(r"(==|!=|>=|<=|>|<) (-?\d+)")
_HOLDS: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Selection:
    """Which scenarios. Attributes: patterns of names, any of which will do."""

    operations: Sequence[str] = ("*",)
    handlers: Sequence[str] = ("*",)
    task: Sequence[str] = ("*",)
    kinds: Sequence[str] = ("nmi",)


@dataclass(frozen=True)
class Scenario:
    """One operation and one handler. Attributes: kind: of the interrupt."""

    operation: Operation
    task_design: str
    handler: Handler
    handler_design: str
    kind: str = "nmi"

    @property
    def name(self) -> str:
        """``alloc_refill@kmalloc/alloc_same``, and ``:irq`` behind it if it is an irq that comes."""
        suffix = "" if self.kind == "nmi" else f":{self.kind}"
        return f"{self.operation.name}@{self.task_design}/{self.handler.name}{suffix}"

    def build(self, broken: str = "none", kind: str | None = None, times: int = 1) -> Built:
        """Make a fresh arena and bring it into the start state.

        Args: broken: a broken variant, instead of the core as it should be.  kind: of the interrupt; None = the
            scenario's.  times: interrupts in one run: each has slots of its own, and objects to free.
        Raises: ScenarioError: the start state cannot be arranged.
        """
        load_core(broken=broken)
        keys = {**self.handler.geometry, **self.operation.geometry}
        arena = Arena.create(geometry(keys), broken=broken)
        try:
            return Built(self, arena, kind or self.kind, times)
        except BaseException:
            arena.__exit__(None, None, None)
            raise


class Built:
    """A scenario's start state, and what is to be called in it.

    As a context manager it is taken down at the end.

    Attributes: scenario.  operation.  handler.  arena.  staging.  request.  call: that is swept.
        programs: kind -> program of interrupts; in irq context the irq's is the operation itself.
        watched: their slots, 64-bit words, in the same order.
    """

    def __init__(self, scenario: Scenario, arena: Arena, kind: str, times: int) -> None:
        self.scenario = scenario
        self.operation = scenario.operation
        self.handler = scenario.handler
        self.arena = arena
        self.staging = Staging(
            arena, scenario.task_design, scenario.handler_design, size=scenario.operation.size
        )
        self.operation.before(self.staging)
        kinds = ("nmi",) if kind == "nmi" else ("irq", "nmi")
        slots = [[self._prepared() for _ in range(times)] for _ in kinds]
        self.request: Request = self.operation.arrange(self.staging)
        self.programs = {each: self._program(each, held) for each, held in zip(kinds, slots, strict=True)}
        self.call: Call = self._in_irq() if self.operation.context == "irq" else self.request.call
        self.watched = [program.slots for program in self.programs.values()]
        self.staging.cpus[0].run(self.staging.lib.shm_cpu_current)

    def _prepared(self) -> Mapping[int, int]:
        self.staging.slots = {}
        self.handler.prepare(self.staging)
        return self.staging.slots

    def _program(self, kind: str, slots: Sequence[Mapping[int, int]]) -> Program:
        """Set a program that has its ops once for each time, each with slots behind those of the one before."""
        design = self.scenario.handler_design
        lines = self.handler.ops(self.staging, design)
        width = 1 + max((fields["slot"] for _, fields in lines if "slot" in fields), default=0)
        repeated = [_shifted(line, width * time) for time in range(len(slots)) for line in lines]
        filled = {width * time + slot: word for time, held in enumerate(slots) for slot, word in held.items()}
        return self.staging.program(kind, repeated, design, filled, per_interrupt=len(lines))

    def _in_irq(self) -> Call:
        """Leave the request to the program of an irq that is pending, and ask for irqs to be enabled."""
        stage, request = self.staging, self.request
        assert request.line is not None, f"{self.operation.name} is no op of a program"
        slots = {0: request.frees}
        self.programs["irq"] = stage.program("irq", [request.line], stage.task_design, slots)
        stage.cpus[0].run(stage.lib.shm_irq_save)
        row = self.arena.item("struct shm_cpu", "cpus", 0)
        row.irq_pending |= int(stage.lib.IRQ_PENDING_PROGRAM)
        return Call("shm_irq_restore", (0,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the arena down, with all that it holds."""
        for kind in KINDS:
            self.staging.cpus[0].set_program(kind, None)
        self.arena.__exit__(None, None, None)

    def counters(self) -> dict[str, int]:
        """Return all that paths may be proved by."""
        return self.staging.counters()

    def check_path(
        self,
        before: Mapping[str, int],
        after: Mapping[str, int],
        functions: Iterable[str] | None = None,
    ) -> dict[str, int]:
        """See whether a run that nobody has interrupted took the operation's path.

        Args: functions: that were executed; None = nobody has looked.
        Returns: how much each counter of the path has grown.
        Raises: ScenarioError: naming each counter, what it should have done and what it did.
        """
        path = self.operation.path
        wrong = [f"there is no counter {name}" for name in path if name not in after]
        grown = {name: after[name] - before[name] for name in path if name in after}
        wrong += [
            f"{name} grew by {growth}, expected {path[name]}"
            for name, growth in grown.items()
            if not holds(path[name], growth)
        ]
        if functions is not None:
            seen = set(functions)
            wrong += [f"{name}() was not executed" for name in self.operation.functions if name not in seen]
        if wrong:
            raise ScenarioError(f"{self.scenario.name} does not take its path: {'; '.join(wrong)}")
        return grown


def _shifted(line: Line, slots: int) -> Line:
    """Move an op to slots further behind; of a map op the slot is a key."""
    name, fields = line
    if name.startswith("map_") or "slot" not in fields:
        return line
    return (name, {**fields, "slot": fields["slot"] + slots})


def holds(condition: str, value: int) -> bool:
    """Say whether a value meets a condition such as ``">= 1"``."""
    match = _CONDITION.fullmatch(condition)
    assert match, f"{condition!r} is no condition"
    return _HOLDS[match[1]](value, int(match[2]))


@cache
def _subsets() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Map designs to operations to handlers, where not everything is crossed with everything.

    A handler's name may have a kind behind it, as in ``free_own:irq``: then it comes as that alone.
    """
    try:
        module = importlib.import_module("harness.atlas.subsets")
    except ModuleNotFoundError:
        return {}
    found: Mapping[str, Mapping[str, tuple[str, ...]]] = module.SUBSETS
    return found


def tasks(design: str) -> tuple[str, ...]:
    """Return the designs that the task uses under a design."""
    return TASKS.get(design, (design,))


def everywhere() -> tuple[str, ...]:
    """Return the handlers that are crossed with everything where nothing is listed."""
    return tuple(name for name, handler in HANDLERS.items() if not handler.listed)


def _crossed(design: str) -> Iterable[Scenario]:
    subset = _subsets().get(design)
    for operation in all_operations().values():
        names = everywhere() if subset is None else subset.get(operation.name, ())
        for task in tasks(design):
            if task not in operation.designs:
                continue
            for entry in names:
                name, _, only = entry.partition(":")
                for kind in [only] if only else HANDLERS[name].kinds:
                    if kind == "nmi" or operation.context == "task":  # else irqs are masked
                        yield Scenario(operation, task, HANDLERS[name], design, kind)


@cache
def _all(design: str) -> Mapping[str, Scenario]:
    return {scenario.name: scenario for scenario in _crossed(design)}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def scenarios(design: str, selection: Selection | None = None) -> list[Scenario]:
    """List the scenarios of a cell, always in the same order."""
    chosen = selection or Selection()
    return [
        each
        for each in _all(design).values()
        if _matches(each.operation.name, chosen.operations)
        and _matches(each.handler.name, chosen.handlers)
        and _matches(each.task_design, chosen.task)
        and each.kind in chosen.kinds
    ]


def find(design: str, name: str) -> Scenario:
    """Return the scenario of a name.

    Raises: KeyError: the design has none of that name.
    """
    return _all(design)[name]


def operation_names(design: str) -> tuple[str, ...]:
    """List the operations of a cell."""
    return tuple(dict.fromkeys(each.operation.name for each in _all(design).values()))


def handler_names(design: str) -> tuple[str, ...]:
    """List the handlers of a cell."""
    return tuple(dict.fromkeys(each.handler.name for each in _all(design).values()))
