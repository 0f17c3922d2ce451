# SPDX-License-Identifier: MIT
"""What the steps of a script work on: the CPUs that this process is, the objects held, the counters, the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import expression
from harness.script.keys import MOST_TIMES
from harness.script.places import place_of
from shmalloc import designs
from shmalloc.cpu import Cpu
from shmalloc.errors import AllocationFailed, DeadlockProved

if TYPE_CHECKING:
    from harness.script.nested import Nested
    from harness.script.registry import Step
    from shmalloc.arena import Arena
    from shmalloc.cache import KmemCache
    from shmalloc.design_calls import DesignCalls

OFFSET_BITS = 48
SLOT_PAGES = 1 << 53
DESIGN_SHIFT = 56
ANY = ""  # the name of objects that have none


@dataclass(frozen=True)
class Held:
    """Something allocated and not freed. Attributes: offset.  design: that allocated it.  order: of pages, or None."""

    offset: int
    design: str
    order: int | None = None

    @property
    def word(self) -> int:
        """What a slot of a program that holds it contains."""
        word = self.offset | designs.index(self.design) << DESIGN_SHIFT
        return word if self.order is None else word | SLOT_PAGES | self.order << OFFSET_BITS

    @classmethod
    def of_word(cls, word: int) -> Held:
        """Read a slot."""
        order = word >> OFFSET_BITS & 31 if word & SLOT_PAGES else None
        return cls(word & (1 << OFFSET_BITS) - 1, designs.names()[word >> DESIGN_SHIFT], order)


class Scene:
    """A script at work.

    Attributes: arena.  cpus: all this thread.  design: of the cell.  let: the config's.  counters: name ->
        what steps have stored.  held: name -> objects, oldest first.  caches, maps: name -> cache, index.  log: of the
        steps, for the result.  at_end: what undoes the steps, last first.
    """

    def __init__(
        self,
        arena: Arena,
        cpus: int,
        *,
        design: str,
        handler_design: str,
        let: Mapping[str, Any],
        used_designs: Sequence[str] = (),
    ) -> None:
        self.arena = arena
        self.lib = arena.core.lib
        self.cpus = [
            Cpu(arena, number, handlers=number == 0, terminate=number == 0) for number in range(cpus)
        ]
        self.design = design
        self.handler_design = handler_design
        self.let = let
        self.counters: dict[str, float] = {}
        self.held: dict[str, list[Held]] = {}
        self.taken: dict[str, set[int]] = {}  # offsets that were held by that name once
        self.caches: dict[str, KmemCache] = {}
        self.maps: dict[str, int] = {}
        self.nested: list[Nested] = []
        self.log: list[dict[str, Any]] = []
        self.interleaving: list[str] = []
        self.at_end: list[Callable[[], None]] = []
        self.audits = 0
        self.audit: Callable[[], None] = lambda: None
        self._reasons: Counter[str] = Counter()
        self._inside: list[str] = []
        self._last: str | int = ""  # a text, or the last object
        self._calls: dict[tuple[int, str], DesignCalls] = {}
        self._set_up = [designs.index(name) for name in used_designs]
        for index in self._set_up:
            self.cpus[0].run(self.lib.shm_design_setup, index)
        self.become(0)

    def become(self, cpu: int) -> Cpu:
        """Make a CPU the current one, for calls that name none."""
        self.cpus[cpu].run(self.lib.shm_cpu_current)
        return self.cpus[cpu]

    # --- what steps do ------------------------------------------------------------------------

    def value(self, text: str) -> float:
        """Calculate with the counters so far, and `let`.

        Raises: ExpressionError.
        """
        found = expression.value(text, {**self.let, **self.counters})
        if not isinstance(found, int | float):
            raise expression.ExpressionError(f"{text}: is no number")
        return found

    def times(self, step: Step) -> int:
        """Return how often a step is to be done."""
        return self.number(step.repeat)

    def number(self, number: int | str) -> int:
        """Return a number of times: as given, or calculated."""
        if isinstance(number, int):
            return number
        return min(max(0, int(self.value(number))), MOST_TIMES)

    def design_of(self, step: Any) -> str:
        """Return the design that a step uses: its own, or the cell's."""
        return str(getattr(step, "design", "")) or self.design

    def allocate(
        self, step: Any, call: Callable[[DesignCalls], int], order: int | None = None, name: str | None = None
    ) -> int:
        """Allocate once on a step's CPU with its design, and hold what came of it.

        Args: step: has `cpu`, and may have `design` and `as_`.  call: the allocation.  order: of pages.
            name: to hold it by; None = the step's `as`.
        Returns: 1, or 0, and then the reason is noted.
        """
        design = self.design_of(step)
        calls = self.calls(step.cpu, design)
        offset = self.attempt(lambda: call(calls))
        if offset is None:
            return 0
        self.hold(str(getattr(step, "as_", ANY)) if name is None else name, Held(offset, design, order))
        self._last = offset
        return 1

    def calls(self, cpu: int, design: str) -> DesignCalls:
        """Return a design's operations on a CPU."""
        found = self._calls.get((cpu, design))
        if found is None:
            found = self._calls[cpu, design] = self.cpus[cpu].design(design)
        return found

    def attempt(self, call: Callable[[], int]) -> int | None:
        """Call what may be refused. Returns: what it returned; None if it was refused, with the reason noted."""
        try:
            return call()
        except AllocationFailed as failed:
            self._reasons[failed.reason] += 1
        except DeadlockProved as proved:
            self._reasons[str(getattr(proved.violation, "verdict", "deadlock"))] += 1
        return None

    def refused(self, reason: str) -> None:
        """Note that the present step was refused something."""
        self._reasons[reason] += 1

    def note(self, text: str) -> None:
        """Say more about the present step in the interleaving."""
        self._last = text

    def hold(self, name: str, held: Held) -> None:
        """Remember an object by name."""
        self.held.setdefault(name, []).append(held)

    def take(self, name: str, count: int, *, lifo: bool = False) -> list[Held]:
        """Take objects out of what is held: the oldest first, or the youngest."""
        there = self.held.get(name, [])
        taken = there[::-1][:count] if lifo else there[:count]
        self.held[name] = there[: len(there) - len(taken)] if lifo else there[len(taken) :]
        self.taken.setdefault(name, set()).update(held.offset for held in taken)
        return taken

    def free(self, held: Held, cpu: int, design: str = "") -> None:
        """Free an object on a CPU, with the design that allocated it unless another is named."""
        calls = self.calls(cpu, design or held.design)
        if held.order is None:
            calls.free(held.offset)
        else:
            calls.pages_free(held.offset, held.order)

    def cache(self, which: str | int) -> KmemCache:
        """Find a cache by its name, or the kmalloc cache that serves a size."""
        if isinstance(which, int):
            which = self.cpus[0].cache(int(self.lib.shm_kmalloc_index(which, 0))).name
        if which not in self.caches:
            self.caches[which] = self.cpus[0].cache(which)
        return self.caches[which]

    def zones(self, node: int = -1) -> list[Any]:
        """Return the struct zones of a node, or of all (-1)."""
        rows = [self.arena.item("struct zone", "zones", at) for at in range(self.arena.header.nr_zones)]
        return [row for row in rows if node in (-1, row.node)]

    def pageset(self, cpu: int, zone: int) -> Any:
        """Return the struct per_cpu_pages of a CPU, of a zone by its index."""
        cpus = int(self.arena.header.geometry.nr_cpus)
        return self.arena.item("struct per_cpu_pages", "pagesets", zone * cpus + cpu)

    def cache_row(self, name: str | int) -> Any:
        """Return the struct kmem_cache of a name, or of a size."""
        return self.arena.item("struct kmem_cache", "caches", self.cache(name).index)

    # --- the log ------------------------------------------------------------------------------

    def run(self, at: int, step: Step) -> None:
        """Do one step, as often as it says, and write down what came of it."""
        self._reasons.clear()
        self._inside.clear()
        self._last = ""
        results = []
        times = self.times(step)
        if not times:
            return
        for _ in range(times):
            results.append(step.run(self))
            self.collect()
            if self.is_over:
                break
        numbers = [number for number in results if number is not None]
        result = sum(numbers) if numbers else None
        if step.count and result is not None:
            self.counters[step.count] = result
        self.log.append(
            {"step": at, "do": step.do, "cpu": step.cpu, "result": result, "reasons": dict(self._reasons)}
        )
        self._write_line(at, step, times, result)
        self.arena.item("struct shm_cpu", "cpus", 0).ops_done += 1

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, by a verdict or because somebody wants it to."""
        return bool(self.arena.header.stop)

    def _write_line(self, at: int, step: Step, times: int, result: float | None) -> None:
        line = f"step {at}, CPU {step.cpu}: {step}" + (f" x {times}" if times > 1 else "")
        last = place_of(self.arena, self._last) if isinstance(self._last, int) else self._last
        outcome = [] if result is None or (result == 1 and last) else [f"{result:g}"]
        outcome += [last] if last else []
        outcome += [f"{reason} {count}" for reason, count in self._reasons.items()]
        self.interleaving.append(line + (f" -> {', '.join(outcome)}" if outcome else ""))
        self.interleaving += [f"    {inside}" for inside in self._inside]

    def inside(self, text: str) -> None:
        """Write what happened within the present step."""
        self._inside.append(text)

    def collect(self) -> None:
        """Take in what nested programs have done since."""
        for nested in [each for each in self.nested if each.is_done(self)]:
            self.nested.remove(nested)
            nested.collect(self)

    # --- the end ------------------------------------------------------------------------------

    def close_windows(self) -> None:
        """End read-side sections, let irqs and softirqs come again, on every CPU."""
        for cpu in self.cpus:
            while self.arena.item("struct shm_cpu", "cpus", cpu.number).bh_count:
                cpu.run(self.lib.shm_bh_enable)
            for domain in range(self.lib.NR_RCU_DOMAINS):
                while self.arena.item("struct shm_cpu", "cpus", cpu.number).rcu[domain].nesting:
                    cpu.run(self.lib.shm_rcu_read_unlock, domain)
            cpu.run(self.lib.shm_irq_restore, 0)
        self.collect()

    def drain(self) -> int:
        """Undo: probes off, everything freed, deferred work done. Returns: objects freed."""
        if self.arena.flavour == "checked":
            self.cpus[0].run(self.lib.shm_probe_disarm)
        for nested in self.nested:
            nested.give_back(self)
        self.nested.clear()
        for undo in reversed(self.at_end):
            undo()
        freed = 0
        for name in list(self.held):
            for held in self.take(name, len(self.held[name])):
                self.free(held, 0)
                freed += 1
        for cpu in self.cpus:
            cpu.run_irq_work()
        for cpu in self.cpus:
            cpu.run(self.lib.shm_rcu_barrier)
        for index in self._set_up:
            self.cpus[0].run(self.lib.shm_design_teardown, index)
        return freed
