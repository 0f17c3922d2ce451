# SPDX-License-Identifier: MIT
"""The figures of one interval: what `stat` prints a line of, and `top` has in its head."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness import latency
from harness.top.look import Interval, total
from harness.vocabulary import CONTEXTS, KINDS

_FAST, _SLOW = ("alloc_fastpath", "free_fastpath"), ("alloc_slowpath", "free_slowpath")
PERCENTILES = (*latency.PERCENTILES, "max")


def figures(interval: Interval) -> dict[str, Any]:
    """Return counts of the interval, and what there is at its end.

    Returns: seconds; ops, allocs, frees, failures, nmi, irq, in_slow_path (interrupts), lock_waits: counts of
        the interval.  slow_path_share: of allocations and frees in slabs, None if there were none.
        latency_ns: of all contexts together, and by context.  free_pages, pcp_pages, slab_pages: now.
    """
    now, counts = interval.now, interval.counts()
    handled = interval.interrupts("handled").sum(axis=0)
    return {
        "arena": now.name,
        "age_s": round(now.age_s, 6),
        "seconds": round(interval.seconds, 6),
        "ops": total(interval.ops()),
        "allocs": total(counts["allocs"]),
        "frees": total(counts["frees"]),
        "failures": total(counts["failures"]),
        **{kind: int(handled[at]) for at, kind in enumerate(KINDS)},
        "in_slow_path": total(interval.interrupts("in_slow_path")),
        "free_pages": total(now.zones["free_pages"]),
        "pcp_pages": max(0, int(now.pagesets["count"].sum(dtype=np.int64))),
        "slab_pages": total(now.nodes["nr_slab_pages"]),
        "slow_path_share": slow_path_share(interval),
        "lock_waits": total(interval.telemetry("lock_waits")),
        "latency_ns": latencies(interval),
    }


def slow_path_share(interval: Interval) -> float | None:
    """Return the share of allocations and frees in slabs that took the slow path; None of none."""
    fast, slow = (sum(total(interval.cache_events(name)) for name in names) for names in (_FAST, _SLOW))
    return round(slow / (fast + slow), 6) if fast + slow else None


def latencies(interval: Interval) -> dict[str, dict[str, float | None]]:
    """Return the percentiles of the interval, of ops in all contexts together and in each."""
    histograms, tsc_hz = interval.histograms(), interval.now.tsc_hz
    return {
        "all": latency.summary(histograms.sum(axis=0), tsc_hz),
        **{name: latency.summary(histograms[at], tsc_hz) for at, name in enumerate(CONTEXTS)},
    }
