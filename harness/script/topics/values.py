# SPDX-License-Identifier: MIT
"""Numbers: reading quantities, calculating facts, auditing in the middle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.problems import unknown
from harness.script.keys import Refused, Words, an_expression, key
from harness.script.registry import Step, quantities, quantity, step

if TYPE_CHECKING:
    from harness.script.scene import Scene


@step("fact")
class Fact(Step):
    """Store a value calculated from counters that earlier steps stored, and from `let`."""

    name: str = key(defines="counters")
    value: str = key(check=an_expression)

    def run(self, scene: Scene) -> float:
        """Calculate and store it."""
        found = scene.value(self.value)
        scene.counters[self.name] = found
        return found

    def __str__(self) -> str:
        return f"fact {self.name} = {self.value}"


def _is_quantity(value: Any, _words: Words) -> None:
    if value not in quantities():
        raise Refused(unknown("quantity", value, list(quantities())))


def _check_places(scene: Scene, keys: Mapping[str, Any]) -> None:
    """Refuse a node or a possible CPU that the arena has not: there would be nothing to add up."""
    geometry = scene.arena.header.geometry
    for name, number in (("node", geometry.nr_nodes), ("of", geometry.nr_cpus)):
        value = keys.get(name, 0)
        if isinstance(value, int) and not -1 <= value < number:
            raise Refused(f"{name} = {value}: allowed is 0..{number - 1}")


@step("read")
class Read(Step):
    """Read a quantity; its own keys stand beside `what`."""

    what: str = key(check=_is_quantity)
    extra: dict[str, Any] = key()

    @classmethod
    def extra_keys(cls, table: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """Return the keys of the quantity that a table names, and those that must be given."""
        found = quantities().get(str(table.get("what")))
        return (found.keys, (*found.required, "count")) if found else ({}, ())

    def run(self, scene: Scene) -> float:
        """Read it."""
        _check_places(scene, self.extra)
        return quantities()[self.what].read(scene, self.extra)

    def __str__(self) -> str:
        return " ".join([f"read {self.what}", *(f"{name} = {value}" for name, value in self.extra.items())])


@step("audit")
class Audit(Step):
    """Account for every page and every object, now."""

    def run(self, scene: Scene) -> None:
        """Have the parent audit."""
        scene.audit()


@step("pagemap")
class Pagemap(Step):
    """Keep what each page and each object is now, for the arena map of the report."""

    label: str = key("")

    def run(self, scene: Scene) -> None:
        """Have the parent look, while nothing moves."""
        scene.audit()


@quantity("counter")
def counter(scene: Scene, *, name: str, cpu: int = -1) -> int:
    """One of the kernel's event counters, of one CPU or of all, over all caches and zones."""
    from shmalloc.counters import event_counters

    possible = int(scene.arena.header.geometry.nr_cpus)
    chosen = range(possible) if cpu < 0 else [cpu]
    counts = [event_counters(scene.arena, each) for each in chosen]
    if name not in counts[0]:
        raise Refused(f"name = {name!r}: " + unknown("counter", name, list(counts[0])))
    return sum(each[name] for each in counts)


@quantity("failures")
def failures(scene: Scene, *, reason: str, context: str = "") -> int:
    """Failed allocations of a reason, of one context or of all."""
    counts = [cpu.contexts() for cpu in scene.cpus]
    if context and context not in counts[0]:
        raise Refused(f"context = {context!r}: " + unknown("context", context, list(counts[0])))
    if reason not in (reasons := scene.arena.core.names("reason")):
        raise Refused(f"reason = {reason!r}: " + unknown("reason", reason, reasons))
    chosen = [context] if context else list(counts[0])
    return sum(each[name]["failures"].get(reason, 0) for each in counts for name in chosen)


@quantity("cpu.deferred_objects")
def deferred_objects(scene: Scene, *, cpu: int = 0) -> int:
    """Objects that wait on a CPU's list for its irq work to free them."""
    count, at = 0, int(scene.arena.item("struct shm_cpu", "cpus", cpu).defer_objects.first)
    while at and count < 1 << 20:
        at = int(scene.arena.pointer("uint64_t", at)[0])
        count += 1
    return count
