# SPDX-License-Identifier: MIT
"""Steps that run inside an interrupt: an op array for the core, and what came of it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from harness.script.places import place_of
from harness.script.scene import Held, Scene
from shmalloc import ops

if TYPE_CHECKING:
    from harness.script.registry import Step
    from shmalloc.program import Line

_CONTEXTS = ("task", "softirq", "irq", "nmi")


@dataclass
class _Op:
    """One op. Attributes: text: what it does.  slot: that it fills or empties, or None.  allocates.
    step: that it is part of.
    """

    text: str
    slot: int | None
    allocates: bool
    step: Any


class Nested:
    """A program made of nested steps.

    Attributes: label: where and as what it runs.  design: that serves it.  context: that its failures are
        counted in, or None for the one that it interrupts.  cpu: that runs it.
    """

    def __init__(
        self, scene: Scene, steps: Sequence[Step], *, label: str, design: str, cpu: int, context: str | None
    ) -> None:
        self.label = label
        self.design = design
        self.context = context
        self.cpu = cpu
        self.steps = steps
        self.scene = scene
        self._lines: list[Line] = []
        self._ops: list[_Op] = []
        self._names: dict[int, str] = {}  # slot -> name of what it holds or held
        self._start: dict[int, Held] = {}  # what was put into slots
        self._by_name: dict[str, list[int]] = {}
        self._step: Any = None
        for step in steps:
            self._step = step
            for _ in range(scene.times(step)):
                step.nest(self)
        self.slots = array("Q", [0] * max(1, len(self._names)))
        for slot, held in self._start.items():
            self.slots[slot] = held.word
        self.ops = ops(*(self._lines or ["nop"]))
        self.armed = (0, "")  # hits of the site at which it fires, the site; "" = an interrupt sent
        self._said_end = False
        self._failed_before = self._failures()

    # --- what the steps' nest() call ----------------------------------------------------------

    def line(self, code: str, fields: Mapping[str, Any] | None = None, text: str = "") -> None:
        """Add an op that uses no slot."""
        self._lines.append((code, fields or {}))
        self._ops.append(_Op(text or code, None, False, self._step))

    def allocate(self, code: str, fields: Mapping[str, Any], name: str, text: str) -> None:
        """Add an op that allocates into a fresh slot."""
        slot = self._new_slot(name)
        self._lines.append((code, {**fields, "slot": slot}))
        self._ops.append(_Op(text, slot, True, self._step))

    def free(self, name: str, count: int, *, lifo: bool = False, code: str = "free") -> None:
        """Add ops that free objects: those of this program, then those that the script holds."""
        slots = self._by_name.get(name, [])
        mine = slots[::-1][:count] if lifo else slots[:count]
        self._by_name[name] = [slot for slot in slots if slot not in mine]
        for held in self.scene.take(name, count - len(mine), lifo=lifo):
            slot = self._new_slot(name, track=False)
            self._start[slot] = held
            mine = [*mine, slot]
        for slot in mine:
            self._lines.append((code, {"slot": slot}))
            self._ops.append(_Op(f"{code} {name or 'an object'}", slot, False, self._step))

    def cache(self, name: str | int) -> int:
        """Return the index of a cache, as ops name it."""
        return self.scene.cache(name).index

    def _new_slot(self, name: str, *, track: bool = True) -> int:
        slot = len(self._names)
        self._names[slot] = name
        if track:
            self._by_name.setdefault(name, []).append(slot)
        return slot

    # --- afterwards ---------------------------------------------------------------------------

    def _failures(self) -> Counter[str]:
        cpu, found = self.scene.cpus[self.cpu], Counter[str]()
        for context, counts in cpu.contexts(self.design).items():
            if self.context in (None, context):
                found.update(counts["failures"])
        return found

    def is_done(self, scene: Scene) -> bool:
        """Whether it has run."""
        hits, site = self.armed
        if site:
            passed = scene.lib.shm_probe_hits(scene.arena.core.names("probe").index(site))
            if passed < hits:
                return False
        return self.context != "irq" or not scene.arena.item("struct shm_cpu", "cpus", self.cpu).irq_pending

    def collect(self, scene: Scene) -> None:
        """Write down what came of each op, count, and hold what it holds."""
        reasons = list((self._failures() - self._failed_before).elements())
        failed = sum(op.allocates and not self._filled(op) and not self._freed_later(op) for op in self._ops)
        done: Counter[str] = Counter()
        by = f", by {self.design}" if any(op.slot is not None for op in self._ops) else ""
        scene.inside(f"{self.label}{by}:")
        texts = []
        for op in self._ops:
            text, ok = self._outcome(scene, op, reasons, failed)
            texts.append(text)
            if op.step.count:
                done[op.step.count] += ok
                scene.counters[op.step.count] = done[op.step.count]
        for text, same in groupby(texts):
            times = len(list(same))
            scene.inside(f"    {text}" + (f" (x {times})" if times > 1 else ""))
        if scene.is_over and not self._said_end:
            scene.inside("    which does not come back")
        self.give_back(scene)

    def _filled(self, op: _Op) -> bool:
        return op.slot is not None and bool(self.slots[op.slot])

    def _freed_later(self, op: _Op) -> bool:
        return any(other.slot == op.slot and not other.allocates for other in self._ops)

    def _outcome(self, scene: Scene, op: _Op, reasons: list[str], failed: int) -> tuple[str, bool]:
        if op.slot is None:
            return op.text, True
        if not op.allocates:
            return (op.text, True) if not self._filled(op) else (f"{op.text} -> not freed", False)
        if self._filled(op):
            return f"{op.text} -> {place_of(scene.arena, Held.of_word(self.slots[op.slot]).offset)}", True
        if self._freed_later(op) and len(reasons) <= failed:
            return f"{op.text} -> an object, freed below", True
        if reasons:
            return f"{op.text} -> NULL: {reasons.pop(0)}", False
        if scene.is_over and not self._said_end:
            self._said_end = True
            return f"{op.text} -> does not come back", False
        return f"{op.text} -> not reached", False

    def give_back(self, scene: Scene) -> None:
        """Let the script hold what the slots hold."""
        for slot, name in self._names.items():
            if word := self.slots[slot]:
                scene.hold(name, Held.of_word(word))
                self.slots[slot] = 0
