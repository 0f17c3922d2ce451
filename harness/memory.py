# SPDX-License-Identifier: MIT
"""Samples of a running arena: memory in use, and what has been done so far.

Memory is counted where all of it comes from, the zones: what is on no buddy list and no pageset is held by
somebody, be it as slabs, pools, caches of a design or pages that wait for a lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.vocabulary import KINDS

if TYPE_CHECKING:
    from shmalloc.arena import Arena

SAMPLE_PERIOD_S = 0.02
MOST_SAMPLES = 1024  # of a cell; from there on every second one goes and the period doubles


@dataclass(frozen=True)
class Sample:
    """One look. Attributes: t_s: since the start.  used_bytes: memory not on buddy or pcp lists.
    ops, nmi, irq, failures: so far.
    """

    t_s: float
    used_bytes: int
    ops: int
    nmi: int
    irq: int
    failures: int


class Sampler:
    """Looks at an arena from the parent, every `period_s`.

    Attributes: period_s: it doubles as a run gets long, so that the samples stay below `MOST_SAMPLES`.
        samples: in order.  peak_bytes: the most memory in use that any look saw, those dropped since included.
    """

    def __init__(self, arena: Arena) -> None:
        self._page_bytes = int(arena.core.lib.SHM_PAGE_SIZE)
        self._zones = arena.region("zones")
        self._pagesets = arena.region("pagesets")
        self._cpus = arena.region("cpus")
        self._telemetry = arena.region("telemetry")
        self._since_s = 0.0
        self._t_s = 0.0
        self.period_s = SAMPLE_PERIOD_S
        self.peak_bytes = 0
        self.samples: list[Sample] = []
        self.last()

    def tick(self, elapsed_s: float) -> Sample | None:
        """Let time pass; take a sample when it is time."""
        self._t_s += elapsed_s
        self._since_s += elapsed_s
        if self._since_s < self.period_s:
            return None
        self._since_s = 0.0
        if len(self.samples) >= MOST_SAMPLES:
            del self.samples[1::2]
            self.period_s *= 2
        self.last()
        return self.samples[-1]

    def last(self) -> None:
        """Take one more sample, whatever the time."""
        sample = self.look()
        self.peak_bytes = max(self.peak_bytes, sample.used_bytes)
        self.samples.append(sample)

    def look(self) -> Sample:
        """Look now. The counts are read while they change, so a sample is off by what is in flight."""
        free = int(self._zones["free_pages"].sum()) + int(self._pagesets["count"].sum())
        handled = self._telemetry["interrupts"]["handled"].sum(axis=0)
        nmi, irq = (int(handled[at]) for at in range(len(KINDS)))
        return Sample(
            t_s=round(self._t_s, 4),
            used_bytes=max(0, int(self._zones["managed_pages"].sum()) - free) * self._page_bytes,
            ops=int(self._cpus["ops_done"].sum()),
            nmi=nmi,
            irq=irq,
            failures=int(self._telemetry["counts"]["failures"].sum()),
        )
