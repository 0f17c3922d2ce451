# SPDX-License-Identifier: MIT
"""A rig for the checked core: several CPUs in one thread, a handler at a probe site, and what came of it.

An experiment is one operation, the *outer* one, interrupted once at a named site by *nested* operations. Its
`Outcome` says where every object came from, or why there was none, and which counters moved.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from shmalloc import AllocationFailed, Arena, Cpu, DeadlockProved, ops
from shmalloc.counters import event_counters
from shmalloc.program import OpArray, Program

if TYPE_CHECKING:
    from shmalloc.audit import AuditReport
    from shmalloc.program import Line
    from shmalloc.violations import Violation

A_BYTES, B_BYTES = 1024, 2048  # two buckets, one behind the other; a slab of either has 16 objects
PER_SLAB = 16
OFFSET_MASK = (1 << 48) - 1
SLOT_PAGES = 1 << 53

_TELLING = {"pcp_busy", "zone_busy", "irq_work_runs", "lock_waits", "warnings"}
_LETTERS = {"kmalloc-1k": "A", "kmalloc-2k": "B"}
_CONTEXT_OF = {"probe": "task", "nmi": "nmi", "irq": "irq", "other_cpu": "task"}


@dataclass(frozen=True)
class Outcome:
    """What an experiment did.

    Attributes: outer: where its object came from ("A" and "B" are kmalloc-1k and -2k), "freed", or why there
        is none.  nested: the same of each nested operation.  counters: those that moved, over all caches,
        zones and CPUs.
    """

    outer: str
    nested: tuple[str, ...]
    counters: dict[str, int]

    def __str__(self) -> str:
        return f"{self.outer}: {', '.join(self.nested)}"


@dataclass
class Rig:
    """An arena of the checked flavour, whose CPUs are all this thread.

    Attributes: held: objects that a test has allocated and not freed, with the order of pages or None.
        programs: the nested op arrays so far.
    """

    arena: Arena
    cpus: list[Cpu]
    held: dict[int, int | None] = field(default_factory=dict)
    programs: list[OpArray] = field(default_factory=list)

    @classmethod
    @contextmanager
    def create(
        cls, *, cpus: int = 2, bind: int | None = None, flavour: str = "checked", **keys: Any
    ) -> Iterator[Self]:
        """Make an arena, and become all its CPUs, or the first *bind* of them; the first one is current."""
        settings = {"size": "4MiB", "nr_cpus": cpus, "pageblock_order": 5, "nr_slots": 23} | keys
        with Arena.create(flavour=flavour, **settings) as arena:
            bound = [
                Cpu(arena, number, handlers=number == 0) for number in range(cpus if bind is None else bind)
            ]
            assert arena.core.lib.shm_cpu_switch(0) == 0
            rig = cls(arena, bound)
            rig.free_at_start = rig.free_pages()
            try:
                yield rig
            finally:
                rig.lib.shm_probe_disarm()
                for cpu in reversed(bound):
                    cpu.close()

    free_at_start: int = 0

    @property
    def lib(self) -> Any:
        return self.arena.core.lib

    @property
    def cpu(self) -> Cpu:
        """The first CPU."""
        return self.cpus[0]

    # --- what is where -----------------------------------------------------------------------

    def page_of(self, offset: int) -> Any:
        """The struct page of the block that *offset* lies in."""
        memory = self.arena.header.regions[self.lib.REGION_MEMORY].offset
        page = self.arena.item("struct page", "pages", (offset - memory) // self.lib.SHM_PAGE_SIZE)
        if page.flags & self.lib.PG_tail:
            page = self.arena.item("struct page", "pages", page.compound_head)
        return page

    def origin(self, offset: int) -> str:
        """Where an object is: a cache's name (A or B for short), or the zone of a block of pages."""
        page = self.page_of(offset)
        if page.flags & self.lib.PG_slab:
            cache = self.arena.item("struct kmem_cache", "caches", page.slab_cache - 1)
            name = self.arena.core.ffi.string(cache.name).decode()
            return _LETTERS.get(name, name)
        memory = self.arena.header.regions[self.lib.REGION_MEMORY].offset
        block = (offset - memory) // self.lib.SHM_PAGE_SIZE >> self.arena.header.geometry.pageblock_order
        return f"zone {self.arena.item('struct pageblock', 'pageblocks', block).zone}"

    def offset_of(self, item: Any) -> int:
        """Offset of a structure in the arena."""
        ffi = self.arena.core.ffi
        return int(ffi.cast("uintptr_t", ffi.addressof(item))) - self.arena.base

    def telemetry(self, cpu: int = 0) -> Any:
        return self.arena.item("struct shm_telemetry", "telemetry", cpu)

    def per_slab(self, size: int = A_BYTES) -> int:
        """Objects in a slab."""
        return int(self.arena.item("struct kmem_cache", "caches", self.cache_index(size)).oo) & 0xFFFF

    def cache_index(self, size: int = A_BYTES) -> int:
        return int(self.lib.shm_kmalloc_index(size, 0))

    def cache_node(self, size: int = A_BYTES, node: int = 0) -> Any:
        return self.arena.item(
            "struct kmem_cache_node",
            "cache_nodes",
            self.cache_index(size) * self.arena.header.geometry.nr_nodes + node,
        )

    def cache_cpu(self, size: int = A_BYTES, cpu: int = 0) -> Any:
        max_caches = self.arena.header.geometry.max_caches
        return self.arena.item(
            "struct kmem_cache_cpu", "cache_cpus", cpu * max_caches + self.cache_index(size)
        )

    @property
    def has_sheaves(self) -> bool:
        """Whether the arena is one of Linux 7.x."""
        return bool(self.arena.header.geometry.flags & self.lib.SHM_GEO_SHEAVES)

    def sheaves(self, size: int = A_BYTES, cpu: int = 0, *, cache: int | None = None) -> Any:
        """The sheaves of a bucket, or of a cache, on a CPU."""
        index = self.cache_index(size) if cache is None else cache
        at = cpu * self.arena.header.geometry.max_caches + index
        return self.arena.item("struct slub_percpu_sheaves", "cache_sheaves", at)

    def sheaf(self, offset: int) -> Any:
        return self.arena.pointer("struct slab_sheaf", offset)

    def barn(self, size: int = A_BYTES, node: int = 0, *, cache: int | None = None) -> Any:
        index = self.cache_index(size) if cache is None else cache
        return self.arena.item(
            "struct node_barn", "barns", index * self.arena.header.geometry.nr_nodes + node
        )

    def zone(self, index: int = 0) -> Any:
        return self.arena.item("struct zone", "zones", index)

    def cpu_state(self, cpu: int = 0) -> Any:
        return self.arena.item("struct shm_cpu", "cpus", cpu)

    def free_pages(self) -> int:
        """Pages on the buddy's and the page lists, of all zones and CPUs."""
        header = self.arena.header
        zones, pagesets = range(header.nr_zones), range(header.nr_zones * header.geometry.nr_cpus)
        on_lists = sum(self.arena.item("struct per_cpu_pages", "pagesets", at).count for at in pagesets)
        return int(on_lists + sum(self.zone(at).free_pages for at in zones))

    def counters(self) -> Counter[str]:
        """Event counters, summed over the CPUs, and those of the zones."""
        total: Counter[str] = Counter()
        for cpu in range(len(self.cpus)):
            total.update(event_counters(self.arena, cpu))
        for index in range(self.arena.header.nr_zones):
            for name in ("nr_deferred_free", "nr_deferred_drained"):
                total[name] += int(getattr(self.zone(index), name))
        return total

    def telling(self, before: Counter[str]) -> dict[str, int]:
        """Which counters have moved since: those of the caches, and of the rest those that tell of contention."""
        kinds = ("struct kmem_cache_stat", "struct slub_percpu_sheaves")
        cache_events = {name for kind in kinds for name, _ in self.arena.core.ffi.typeof(kind).fields}
        chosen = cache_events | _TELLING | {"nr_deferred_free", "nr_deferred_drained"}
        after = self.counters()
        return {name: after[name] - before[name] for name in sorted(chosen) if after[name] != before[name]}

    def allocs(self) -> dict[str, int]:
        """Allocations of CPU 0 by context; none is not listed."""
        return {name: counts["allocs"] for name, counts in self.cpu.contexts().items() if counts["allocs"]}

    def violations(self) -> list[Violation]:
        return self.arena.violations()

    # --- operations --------------------------------------------------------------------------

    def alloc(self, how: str = "kmalloc", size: int = A_BYTES, *, cpu: int = 0, node: int = -1) -> int:
        """Allocate, by a call of `Cpu` or a design, and hold what was allocated."""
        on = self.cpus[cpu]
        call = getattr(on, how) if hasattr(on, how) else on.design(how).alloc
        offset = int(call(size, node=node))
        self.held[offset] = None
        return offset

    def pages(self, how: str = "alloc_pages", order: int = 0, *, cpu: int = 0) -> int:
        offset = int(getattr(self.cpus[cpu], how)(order))
        self.held[offset] = order
        return offset

    def free(self, offset: int, how: str = "", *, cpu: int = 0) -> None:
        """Free what is held."""
        order = self.held.pop(offset)
        if order is None:
            getattr(self.cpus[cpu], how or "kfree")(offset)
        else:
            getattr(self.cpus[cpu], how or "free_pages")(offset, order)

    def take(self, count: int, size: int = A_BYTES, *, cpu: int = 0, node: int = -1) -> list[int]:
        return [self.alloc(size=size, cpu=cpu, node=node) for _ in range(count)]

    def exhaust(self, node: int) -> list[int]:
        """Take single pages of a node until there are none above its watermark."""
        taken = []
        while True:
            try:
                taken.append(self.cpu.alloc_pages(0, "GFP_KERNEL|__GFP_THISNODE", node))
            except AllocationFailed:
                return taken
            self.held[taken[-1]] = 0

    def irqs_on(self, cpu: int = 0) -> None:
        """Enable a CPU's irqs, which an op has disabled."""
        assert self.lib.shm_cpu_switch(cpu) == 0
        assert self.lib.shm_irq_restore(0) == 0
        assert self.lib.shm_cpu_switch(0) == 0

    def replay(self, *lines: Line, design: str = "kmalloc_nolock", **keys: Any) -> Any:
        return self.cpu.replay(ops(*lines), design=design, **keys)

    # --- interruptions -----------------------------------------------------------------------

    def program(
        self,
        *lines: Line,
        holds: Sequence[int] = (),
        design: str = "kmalloc_nolock",
        orders: Sequence[int] = (),
    ) -> Program:
        """Make a nested op array; its first slots hold these objects, which the task no longer does."""
        words = [offset | 1 << 56 for offset in holds]
        for at, order in enumerate(orders):
            words[at] |= SLOT_PAGES | order << 48
        for offset in holds:
            self.held.pop(offset)
        slots = array("Q", words + [0] * 23)
        made = Program(self.arena.core, ops(*lines), design=design, slots=slots)
        made.check(self.arena)
        self.programs.append(made)
        return made

    def site(self, name: str) -> int:
        return self.arena.core.names("probe").index(name)

    def arm(self, site: str, by: str, program: Program, *, nth: int = 1, other: int = 1) -> None:
        """Have the program run at the nth passing of a site: as a "probe", "nmi", "irq" or "other_cpu"."""
        action = getattr(self.lib, f"PROBE_{by.upper()}")
        assert self.lib.shm_probe_arm(self.site(site), action, nth, program.c, other) == 0

    def interrupt(self, site: str, by: str, *lines: Line, design: str = "kmalloc_nolock") -> None:
        """Have these ops done at the next passing of a site."""
        self.arm(site, by, self.program(*lines, design=design))

    def hits(self, site: str) -> int:
        """How often a site was passed since the last disarm."""
        return int(self.lib.shm_probe_hits(self.site(site)))

    def fired(self) -> int:
        return int(self.lib.shm_probe_fired())

    def disarm(self) -> None:
        """Switch all sites off and set their counts to zero."""
        self.lib.shm_probe_disarm()  # the release flavour has none

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the passings of all sites: nothing is armed, but the sites are on."""
        self.disarm()
        assert self.lib.shm_probe_arm(0, self.lib.PROBE_NONE, 1, self.arena.core.ffi.NULL, 0) == 0
        yield
        self.disarm()

    def outcome_of(self, operation: Callable[[], int | None]) -> str:
        """Do an operation of the task: the origin of its object, "freed", or the reason that there is none."""
        try:
            offset = operation()
        except AllocationFailed as failed:
            return failed.reason
        except DeadlockProved as proved:
            return proved.violation.verdict
        return "freed" if offset is None else self.origin(offset)

    def nested_outcomes(self, program: Program, reasons: Sequence[str]) -> tuple[str, ...]:
        """What became of each op of a program that ran once."""
        left, found = list(reasons), []
        for op in program.ops:
            word = program.slots[op.slot]
            if op.code == self.lib.OP_FREE:
                found.append("freed" if not word else "not freed")
            elif word:
                found.append(self.origin(word & OFFSET_MASK))
            else:
                found.append(left.pop(0) if left else "nothing")
        return tuple(found)

    def failures(self, by: str) -> Counter[str]:
        """Failed allocations, by reason, in the context that nested operations run in."""
        total: Counter[str] = Counter()
        for cpu in self.cpus[1:] if by == "other_cpu" else self.cpus[:1]:
            total.update(cpu.contexts()[_CONTEXT_OF[by]]["failures"])
        return total

    def experiment(
        self, site: str, by: str, outer: Callable[[], int | None], program: Program, *, nth: int = 1
    ) -> Outcome:
        """Interrupt an operation at a site, once."""
        self.disarm()
        self.arm(site, by, program, nth=nth)
        before, failed = self.counters(), self.failures(by)
        result = self.outcome_of(outer)
        assert self.fired() == 1, f"{site} was passed {self.hits(site)} times, and fired {self.fired()} times"
        reasons = list((self.failures(by) - failed).elements())
        if by == "probe" and result not in ("A", "B", "freed") and result in reasons:
            reasons.remove(result)  # the outer one failed in the same context
        self.disarm()
        return Outcome(result, self.nested_outcomes(program, reasons), self.telling(before))

    # --- the end -----------------------------------------------------------------------------

    def report(self, **keys: Any) -> AuditReport:
        from shmalloc.audit import audit  # numpy: not for CPU processes

        return audit(self.arena, **keys)

    def assert_clean(self, **keys: Any) -> None:
        report = self.report(**keys)
        assert report.ok, [str(problem) for problem in report.problems]
        assert not self.violations(), [str(violation) for violation in self.violations()]

    def drain(self) -> None:
        """Free everything that is held, and have every deferred free done."""
        self.disarm()
        self.drain_programs()
        for offset in list(self.held):
            self.free(offset)
        for cpu in self.cpus:
            cpu.run_irq_work()
        self.cpu.memcg_drain()
        self.cpu.flush_all()
        self.cpu.page_cache_drop()
        # Parked pages are found by the next spinning free of a block that the page lists do not take.
        for index in range(self.arena.header.nr_zones):
            if self.zone(index).trylock_free_pages.first:
                self.drain_parked_pages(index)
        for cpu in self.cpus:
            cpu.drain_pages()

    def drain_programs(self) -> None:
        """Free what the slots hold, private and shared ones."""
        for program in self.programs:
            self.cpu.drain(program)
        assert self.lib.shm_drain_shared_slots(0, self.arena.header.geometry.nr_slots) >= 0

    def storm(self, *arguments: Any, **keys: Any) -> Any:
        """See storm.storm; for CPUs in other processes."""
        from storm import storm

        return storm(self, *arguments, **keys)

    def drain_parked_pages(self, zone: int) -> None:
        node = self.zone(zone).node
        gfp = "GFP_KERNEL|__GFP_THISNODE"
        offset = self.cpu.alloc_pages(4, gfp, node)
        self.cpu.free_pages(offset, 4)

    def settle(self) -> None:
        """Nothing is wrong; and when everything is freed, nothing is lost: every page is back."""
        self.assert_clean()
        self.drain()
        for _ in range(2):  # the slabs of one cache may have kept objects of another: their vectors
            for index in range(self.arena.header.nr_caches):
                self.lib.shm_kmem_cache_shrink(index)
        if self.has_sheaves:
            self.settle_sheaves()
            return
        for cpu in self.cpus:
            cpu.drain_pages()
        self.assert_clean(expect_live=False)
        assert self.free_pages() == self.free_at_start

    def settle_sheaves(self) -> None:
        """7.x: the same; what is left are the main sheaves. They need not lie in the pages of the start."""
        caches = range(self.arena.header.nr_caches)
        for _ in range(4):  # a sheaf that is freed is an object of another cache
            self.cpu.flush_all()
            self.cpu.rcu_barrier()
            for index in caches:
                self.lib.shm_kmem_cache_shrink(index)
        for cpu in self.cpus:
            cpu.drain_pages()
        self.assert_clean(expect_live=False)
        totals = self.report().totals
        kinds = [self.arena.item("struct kmem_cache", "caches", index) for index in caches]
        mains = sum(kind.state == self.lib.CACHE_LIVE and kind.sheaf_capacity > 0 for kind in kinds)
        assert totals["kept_sheaves_objects"] == mains * self.arena.header.geometry.nr_cpus
        assert totals["objects_live"] == totals.get("kept_sheaf_objects_objects", 0) == 0
