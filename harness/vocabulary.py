# SPDX-License-Identifier: MIT
"""The closed lists of names that configs, results and expectations are made of.

All of them come from the core: its enumerations, its registry of designs, and the fields of its
counting structures.  Nothing is listed here a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from shmalloc.counters import KINDS
from shmalloc.violations import CONTEXTS

__all__ = ["CONTEXTS", "KINDS", "Vocabulary", "load"]

OK, VACUOUS, BROKEN_RULE, STALL = "ok", "vacuous", "broken_rule", "stall"
DEAD_OWNER, LOST_MEMORY, DEADLOCK, CORRUPTION = "dead_owner", "lost_memory", "deadlock", "corruption"

# structure -> the first of its event fields; from there to its end all are events
_EVENTS = {
    "kmem_cache_stat": "alloc_fastpath",
    "slub_percpu_sheaves": "sheaf_flush",
    "per_cpu_pages": "numa_hit",
    "memcg_cpu": "memcg_stock_hit",
    "shm_telemetry": "irq_work_runs",
    "node": "kswapd_woken",
}
#: Behind the events of a structure, but state.
_STATE = {"vmstat_seen", "expire"}
_ZONE_EVENTS = ("nr_deferred_free", "nr_deferred_drained", "nr_kswapd_wakeups")


@dataclass(frozen=True)
class Vocabulary:
    """The names that exist.

    Attributes: verdicts: mildest first.  reasons: why an allocation failed.  checkers, lock_classes: of
        violations.  designs: name -> contexts it may be called from.  broken: the broken variants, "none"
        first.  counters: structure -> its event fields.
    """

    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    checkers: tuple[str, ...]
    lock_classes: tuple[str, ...]
    designs: Mapping[str, tuple[str, ...]]
    broken: tuple[str, ...]
    counters: Mapping[str, tuple[str, ...]]

    @property
    def counter_names(self) -> tuple[str, ...]:
        """All counters of a result, in the order of their structures."""
        return tuple(name for names in self.counters.values() for name in names)

    def worst(self, verdicts: list[str]) -> str:
        """Return the gravest of some verdicts; of none it is ok."""
        return max(verdicts, key=self.verdicts.index, default=OK)

    def handler_design(self, design: str, kind: str) -> str:
        """Return the design that a handler uses unless the config says otherwise.

        The cell's own if it may be called there; for an NMI else kmalloc_nolock.
        """
        if kind == "nmi" and "nmi" not in self.designs.get(design, ()) and "kmalloc_nolock" in self.designs:
            return "kmalloc_nolock"
        return design


@cache
def load() -> Vocabulary:
    """Ask the compiled core.

    Raises: BuildMissing, StaleBuildError.
    """
    from shmalloc import _binding, designs

    core = _binding.core()
    return Vocabulary(
        verdicts=core.names("verdict"),
        reasons=tuple(name for name in core.names("reason") if name != "none"),
        checkers=core.names("checker"),
        lock_classes=core.names("lock_class"),
        designs={name: designs.info(name).contexts for name in designs.names()},
        broken=core.names("broken"),
        counters=_counters(core.ffi),
    )


def _counters(ffi: Any) -> dict[str, tuple[str, ...]]:
    found = {struct: _from(ffi, struct, first) for struct, first in _EVENTS.items()}
    zone = [name for name, _ in ffi.typeof("struct zone").fields]
    found["zone"] = tuple(name for name in _ZONE_EVENTS if name in zone)
    return found


def _from(ffi: Any, struct: str, first: str) -> tuple[str, ...]:
    fields = ffi.typeof(f"struct {struct}").fields
    names = [name for name, field in fields if field.type.kind == "primitive" and name not in _STATE]
    return tuple(name for name in names[names.index(first) :] if not name.startswith("pad"))
