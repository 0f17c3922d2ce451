# SPDX-License-Identifier: MIT
"""Is the arena sound after an injection, and can it go on?  Asked once of every distinct state.

What is pending is served as the CPU would serve it, and the arena audited. Then each CPU allocates from every
cache in use, and pages until there are none, and frees all of it, the interrupted CPU last. At the end
everything that is live is freed, what CPUs and layers keep goes back, and as much memory must be free as when
the start state itself is taken down like that.

Imports numpy: not for CPU processes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from harness.atlas.classes import IGNORE, STATE, WORD_BYTES, word_classes
from harness.vocabulary import LOST_MEMORY, OK
from shmalloc import designs
from shmalloc.audit import View, audit
from shmalloc.audit.objpool import ring_objects
from shmalloc.audit.pools import area_elements, region_of
from shmalloc.gfp import parse
from shmalloc.program import OpArray, ops
from shmalloc.violations import read_violations

if TYPE_CHECKING:
    from shmalloc.arena import Arena
    from shmalloc.audit import AuditReport, Problem
    from shmalloc.violations import Violation

__all__ = ["Aftermath", "Verdict", "check_state"]

WMARK_HIGH = 2
_SHOWN = 3  # problems of an audit
_MOST_OBJECTS = 128  # of one cache, by one CPU
_MOST_PAGES = 4096
_ALL_CACHES = 0xFFFFFFFF
_ROUNDS = 2  # the slabs of one cache may have kept objects of another one
_SHEAF_ROUNDS = 4
_KMALLOC_LIKE = ("kmalloc", "try_kmalloc", "kmalloc_nolock", "sheaves", "no_prealloc")
_TASK, _ATOMIC, _NO_WAIT = "GFP_KERNEL", "GFP_ATOMIC|__GFP_NOWARN", "GFP_NOWAIT|__GFP_NOWARN"


@dataclass(frozen=True)
class Verdict:
    """What was found. Attributes: verdict: of the closed list.  text: what is wrong, or ""."""

    verdict: str
    text: str = ""


_of_built: WeakKeyDictionary[Any, Aftermath] = WeakKeyDictionary()


def check_state(built: Any, sweeper: Any, state: int) -> Verdict:
    """Check one distinct state of a sweep; the arena is at the snapshot again afterwards.

    Args: built: the scenario.  sweeper: at rest.  state: its number in the sweeper.
    """
    after = _of_built.get(built)
    if after is None:
        after = _of_built[built] = Aftermath(built)
    sweeper.load_state(state)
    try:
        found = after.take_down(built.staging.release)
    finally:
        sweeper.restore()
    if not found.ideal:
        try:
            after.learn(built.staging.release)
        finally:
            sweeper.restore()
    return after.judge(found)


class Wrong(Exception):
    """Something was found. Attributes: verdict."""

    def __init__(self, verdict: str, text: str) -> None:
        super().__init__(text)
        self.verdict = Verdict(verdict, text)


@dataclass(frozen=True)
class Taken:
    """An arena that was taken down. Attributes: verdict: of what was met on the way.  left: what is not free."""

    verdict: Verdict
    left: Mapping[str, int]

    @property
    def ideal(self) -> bool:
        """Whether nothing is wrong, and all memory is free."""
        return self.verdict.verdict == OK and not self.left


class Aftermath:
    """Takes the arena of a scenario down, all of whose CPUs are this thread."""

    def __init__(self, built: Any) -> None:
        self.arena: Arena = built.arena
        self.lib = built.arena.core.lib
        names = (built.scenario.task_design, built.scenario.handler_design)
        self._design_names = tuple(dict.fromkeys(names))
        self._header = built.arena.header
        self._view = View.of(built.arena)
        self._windows = [_windows(cpu) for cpu in self._cpus]
        self._expected: Mapping[str, int] | None = None
        self._plans: dict[tuple[Any, ...], list[tuple[OpArray, Any]]] = {}
        self._all_free: set[bytes] = set()

    # --- the ways in --------------------------------------------------------------------------

    def take_down(self, release: Callable[[], None]) -> Taken:
        """Check the arena as it is now, and have all memory come back.

        Args: release: undoes what the start state keeps, besides memory.
        """
        try:
            release()
            self._close_windows()
            self._serve()
            self._audit("after the operation", expect_live=None)
            self._all_allocate()
            self._free_all()
            return Taken(Verdict(OK), self._left())
        except Wrong as wrong:
            return Taken(wrong.verdict, {})

    def learn(self, release: Callable[[], None]) -> None:
        """Take the start state down, where the arena is now, and remember what is left then.

        Raises: ValueError, if it is not sound: the scenario is wrong, unless the core is.
        """
        if self._expected is None:
            found = self.take_down(release)
            if found.verdict.verdict != OK and self.arena.core.broken == "none":
                raise ValueError(f"the start state: {found.verdict.verdict}: {found.verdict.text}")
            self._expected = found.left

    def judge(self, found: Taken) -> Verdict:
        """Compare what is left with what the start state leaves."""
        expected = self._expected or {}
        wrong = [
            f"{name.replace('_', ' ')}: {found.left.get(name, 0)} instead of {expected.get(name, 0)}"
            for name in dict.fromkeys([*expected, *found.left])
            if found.left.get(name, 0) != expected.get(name, 0)
        ]
        if found.verdict.verdict != OK or not wrong:
            return found.verdict
        return Verdict(LOST_MEMORY, f"with everything freed: {', '.join(wrong)}")

    # --- as the CPU would go on ---------------------------------------------------------------

    @cached_property
    def _cpus(self) -> list[Any]:
        count = self._header.geometry.nr_cpus
        return [self.arena.item("struct shm_cpu", "cpus", number) for number in range(count)]

    def _become(self, cpu: int) -> None:
        self._call("shm_cpu_switch", cpu)

    def _call(self, function: str, *arguments: Any) -> int:
        """Call the core. Raises: Wrong, if it fails or a verdict was met."""
        result = int(getattr(self.lib, function)(*arguments))
        self._look_for_violations(function)
        if result < 0:
            raise Wrong(LOST_MEMORY, f"{_call_text(function, arguments)} failed with {result}")
        return result

    def _look_for_violations(self, doing: str) -> None:
        if self._header.nr_violations:
            first = read_violations(self.arena)[0]
            raise Wrong(first.verdict, f"{doing.removeprefix('shm_')}: {_without_verdict(first)}")

    def _close_windows(self) -> None:
        """End what the scenario itself has left open: irqs off, bottom halves off, read-side sections."""
        for number, (cpu, window) in enumerate(zip(self._cpus, self._windows, strict=True)):
            if _windows(cpu) == (0, 0, 0, 0) or _windows(cpu) != window:
                continue
            self._become(number)
            for _ in range(cpu.bh_count):
                self._call("shm_bh_enable")
            for domain in range(self.lib.NR_RCU_DOMAINS):
                for _ in range(cpu.rcu[domain].nesting):
                    self._call("shm_rcu_read_unlock", domain)
            if cpu.irqs_disabled:
                self._call("shm_irq_restore", 0)

    def _serve(self) -> None:
        """Do what is pending on every CPU: interrupts, irq_work, works of memcgs."""
        for number, cpu in enumerate(self._cpus):
            if cpu.state != self.lib.CPU_ONLINE:
                continue
            self._become(number)
            self._call("shm_run_irq_work")
            if self._header.geometry.max_memcgs:
                self._call("shm_memcg_run_work")
        self._become(0)

    def _audit(self, when: str, *, expect_live: bool | None) -> AuditReport:
        report = audit(self._view, expect_live=expect_live)
        if not report.ok:
            worst = [problem for problem in report.problems if problem.verdict == report.verdict]
            rest = [problem for problem in report.problems if problem.verdict != report.verdict]
            shown = [_without_verdict(problem) for problem in worst[:_SHOWN]]
            shown += [str(problem) for problem in rest[: _SHOWN - len(shown)]]
            more = len(report.problems) - len(shown)
            raise Wrong(report.verdict, f"{when}: " + "; ".join(shown) + (f"; {more} more" if more else ""))
        return report

    # --- the other CPUs -----------------------------------------------------------------------

    def _all_allocate(self) -> None:
        """Have each CPU allocate what it can get, and free it; the first one last."""
        plans = self._plans_now()
        for cpu in [*range(1, len(self._cpus)), 0]:
            if self._cpus[cpu].state != self.lib.CPU_ONLINE:
                continue
            self._become(cpu)
            plenty = self._pages_above_watermarks()
            for _, replay in plans:
                self._call("shm_replay", replay)
            if plenty and not any(np.frombuffer(held.slots, np.uint64).any() for held, _ in plans):
                raise Wrong(LOST_MEMORY, f"CPU {cpu} is refused everything, and {plenty} pages are to be had")
            for held, _ in plans:
                self._call("shm_drain_slots", held.slots_pointer, len(held.slots))
        self._become(0)

    def _pages_above_watermarks(self) -> int:
        """Count the pages that even a request which may not wait could have."""
        zones = self._view.zones
        high = zones["wmark"][:, WMARK_HIGH].astype(np.int64) + zones["lowmem_reserve"].max(axis=1).astype(
            np.int64
        )
        return int(np.maximum(zones["free_pages"].astype(np.int64) - high, 0).sum())

    def _plans_now(self) -> list[tuple[OpArray, Any]]:
        """Return the arrays that take from every cache in use, and then all pages."""
        caches = self._caches_in_use()
        key = tuple(caches)
        if key not in self._plans:
            lines: list[Any] = []
            for cache, count in caches:
                lines += [("cache_alloc", {"cache": cache, "gfp": _ATOMIC})] * count
            lines += [("pages_alloc", {"order": 0, "gfp": _NO_WAIT})] * min(
                self._header.nr_pages, _MOST_PAGES
            )
            plans = [self._plan("kmalloc", lines)]
            plans += [
                self._plan(name, [("alloc", {"size": self._size_of(name)})] * _MOST_OBJECTS)
                for name in self._design_names
                if name not in _KMALLOC_LIKE
            ]
            self._plans[key] = plans[::-1]
        return self._plans[key]

    def _plan(self, design: str, lines: Sequence[Any]) -> tuple[OpArray, Any]:
        numbered = [(code, {**fields, "slot": at}) for at, (code, fields) in enumerate(lines)]
        core = self.arena.core
        held = OpArray(core, ops(*numbered), array("Q", bytes(8 * len(lines))))
        keys = {
            "ops": held.ops,
            "nr_ops": held.nr_ops,
            "slots": held.slots_pointer,
            "nr_slots": len(held.slots),
            "design": designs.index(design),
            "flags": core.lib.SHM_REPLAY_PATTERN,
        }
        return held, core.ffi.new("struct shm_replay *", keys)

    def _size_of(self, design: str) -> int:
        pooled = design in ("prealloc", "objpool")
        return int(self._header.geometry.pool_size) if pooled else 64

    def _caches_in_use(self) -> list[tuple[int, int]]:
        """List (cache, objects to take): what its slabs have and one slab more, within bounds."""
        slabs = self._view.cache_nodes["nr_slabs"].sum(axis=1)
        rows = self._view.caches
        live = rows["state"] == self.lib.CACHE_LIVE
        found = []
        for cache in np.flatnonzero(live & (slabs > 0)).tolist():
            per_slab = int(rows["oo"][cache]) & 0xFFFF
            found.append((cache, min(per_slab * (int(slabs[cache]) + 1), _MOST_OBJECTS)))
        return found

    # --- everything back ----------------------------------------------------------------------

    def _free_all(self) -> None:
        for number in self._live_maps():
            self._call("shm_map_destroy", number)
        for function, arguments in self._frees():
            self._call(function, *arguments)
        self._serve()
        self._call("shm_quiesce")
        self._tear_down()
        if self._header.geometry.max_memcgs:
            self._call("shm_memcg_drain")
        if self._view.nodes["nr_lru"].any():
            self._call("shm_page_cache_drop")
        self._flush()
        self._unpark()
        self._call("shm_drain_all_pages")

    def _live_maps(self) -> list[int]:
        if not self._header.geometry.max_maps:
            return []
        return np.flatnonzero(self.arena.region("maps")["state"] == self.lib.MAP_LIVE).tolist()

    def _frees(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the call that frees each live object; what it is of is seen from where it lies."""
        lib, pages = self.lib, self._view.pages
        caches = self._view.caches
        memory = int(self._header.regions[lib.REGION_MEMORY].offset)
        for offset in self._live_objects(memory):
            pfn = (offset - memory) >> lib.SHM_PAGE_SHIFT
            if pages["flags"][pfn] & lib.PG_tail:
                pfn = int(pages["compound_head"][pfn])
            flags, within = int(pages["flags"][pfn]), offset - memory - (pfn << lib.SHM_PAGE_SHIFT)
            if flags & lib.PG_slab:
                row = caches[pages["slab_cache"][pfn] - 1]
                behind = (within - int(row["red_left_pad"])) % int(row["size"])
                yield "shm_design_free", (self._design("bpf_mem_alloc" if behind else "kmalloc"), offset)
            elif flags & lib.PG_large:
                yield "shm_design_free", (self._design("kmalloc" if not within else "bpf_mem_alloc"), offset)
            elif offset in self._pools:
                yield "shm_design_free", (self._design(self._pools[offset]), offset)
            else:
                yield "shm_free_pages", (offset, int(pages["order"][pfn]))

    def _design(self, name: str) -> int:
        return designs.index(name)

    def _live_objects(self, memory: int) -> list[int]:
        """Return the offsets where owned objects begin."""
        words = self._view.start
        at = np.flatnonzero(words)
        if not len(at):
            return []
        bits = np.unpackbits(words[at].view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        row, bit = np.nonzero(bits)
        found: list[int] = (memory + (at[row] * 64 + bit) * 8).tolist()
        return found

    @cached_property
    def _pools(self) -> dict[int, str]:
        """Map each element of prealloc's pool and each object of objpool to the design."""
        view = self._view
        found = dict.fromkeys(ring_objects(view), "objpool") if self._header.objpool.capacity else {}
        area = region_of(view, "POOLS", "shm_pool")["area"][0]
        return found | dict.fromkeys(area_elements(view, area).tolist(), "prealloc")

    def _tear_down(self) -> None:
        """Take the designs down that were set up. Counts of allocations are no part of a state: they are made even."""
        ready = int(self._header.designs_ready)
        counts = self.arena.region("telemetry")["counts"]
        counts["allocs"], counts["frees"] = 0, 0
        for index in range(self.lib.SHM_MAX_DESIGNS):
            if ready >> index & 1:
                self._call("shm_design_teardown", index)

    def _flush(self) -> None:
        sheaves = bool(self._header.geometry.flags & self.lib.SHM_GEO_SHEAVES)
        for _ in range(_SHEAF_ROUNDS if sheaves else _ROUNDS):
            self._call("shm_flush_all", _ALL_CACHES)
            if sheaves:
                self._call("shm_rcu_barrier")
            slabs = self._view.cache_nodes["nr_slabs"].sum(axis=1)
            for cache in np.flatnonzero(slabs).tolist():
                self._call("shm_kmem_cache_shrink", cache)

    def _unpark(self) -> None:
        """Have parked pages found: by a spinning free of a block that the page lists do not take."""
        zones = self._view.zones
        for zone in np.flatnonzero(zones["trylock_free_pages"]["first"]).tolist():
            gfp = parse(f"{_TASK}|__GFP_THISNODE|__GFP_NORETRY")
            block = self._call(
                "shm_alloc_pages", gfp, int(zones["node"][zone]), self.lib.PCP_COSTLY_ORDER + 1
            )
            if not block:
                raise Wrong(LOST_MEMORY, f"no block can be had of zone {zone} with everything freed")
            self._call("shm_free_pages", block, self.lib.PCP_COSTLY_ORDER + 1)

    # --- what is left -------------------------------------------------------------------------

    def _left(self) -> Mapping[str, int]:
        """Audit the arena with everything freed. Returns: what is not free.

        An arena that is all free, and equal to one that was audited, is not audited again.
        """
        sheaves = self._header.geometry.flags & self.lib.SHM_GEO_SHEAVES
        digest = b"" if sheaves else self._digest()  # there something is left in memory always
        if digest in self._all_free:
            return {}
        totals = self._audit("with everything freed", expect_live=False).totals
        left = {name: count for name, count in totals.items() if name.startswith("kept_") and count}
        pages = totals["pages_total"] - totals["pages_free"] - totals["pages_pcp"]
        if pages and not sheaves:  # sheaves may lie in more slabs than in the start state
            left["pages_not_free"] = pages
        if not left:
            self._all_free.add(digest)
        return left

    def _digest(self) -> bytes:
        """Return what tells arenas apart in which no object is left: all state but the memory itself."""
        pages = self._view.pages
        orders = np.where(pages["flags"], pages["order"], 0)  # that of a page within a block is left over
        told = np.frombuffer(self.arena.buffer, np.uint32)[self._told_by]
        return blake2b(told.tobytes() + orders.tobytes(), digest_size=16).digest()

    @cached_property
    def _told_by(self) -> NDArray[np.intp]:
        """The words of the state outside of page memory, but those that count up: tids and random numbers."""
        classes = word_classes(self.arena).copy()
        classes[int(self._header.regions[self.lib.REGION_MEMORY].offset) // WORD_BYTES :] = IGNORE
        view = self._view
        for field in (view.cache_cpus["tid"], view.cpus["random"], view.pages["order"]):
            at = view.offsets(field).ravel().astype(np.int64) // WORD_BYTES
            for half in range(field.dtype.itemsize // WORD_BYTES):
                classes[at + half] = IGNORE
        return np.flatnonzero(classes == STATE)


def _without_verdict(found: Violation | Problem) -> str:
    """Write what was found; what it is is said already."""
    return str(found).removeprefix(f"{found.verdict}: ")


def _windows(cpu: Any) -> tuple[int, int, int, int]:
    nesting = [int(domain.nesting) for domain in cpu.rcu]
    return int(cpu.irqs_disabled), int(cpu.bh_count), nesting[0], nesting[1]


def _call_text(function: str, arguments: Sequence[Any]) -> str:
    shown = ", ".join(str(argument) for argument in arguments if isinstance(argument, int))
    return f"{function.removeprefix('shm_')}({shown})"
