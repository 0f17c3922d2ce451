# SPDX-License-Identifier: MIT
"""Quantiles that may be compared: of a clock that goes in steps, the quantile itself goes in steps, too.

The time stamp counters of some machines count in steps of ten nanoseconds.  Half of all latencies below the
step or a little more than half then make medians that are a step apart, every time, although next to nothing
has changed.  Mid-quantiles (Parzen; Ma, Genton, Parzen 2011) take each value for the middle of its own mass and
go straight from one value to the next: a small change of the distribution is a small change of the quantile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.latency import PERCENTILES, lower_ticks

__all__ = ["mid_quantiles"]

Array = np.ndarray[Any, Any]


def mid_quantiles(histogram: Array, tsc_hz: float) -> dict[str, float | None]:
    """Return p50, p99 and p999 in nanoseconds, between the steps of clock and histogram.

    Args: histogram: counts per bucket, shape (buckets,).  tsc_hz: ticks per second.
    Returns: null for a quantile beyond which not even one sample is to be expected.
    """
    used = np.flatnonzero(histogram)
    counts = histogram[used].astype(np.float64)
    total = counts.sum()
    if not len(used) or tsc_hz <= 0:
        return dict.fromkeys(PERCENTILES)
    edges = lower_ticks(len(histogram))
    middles = (edges[used] + edges[used + 1] - 1) / 2
    below = (np.cumsum(counts) - counts / 2) / total
    wanted: Mapping[str, float] = PERCENTILES
    return {
        name: _ns(float(np.interp(share, below, middles)), tsc_hz)
        if total * (1 - share) >= 1 - 1e-9
        else None
        for name, share in wanted.items()
    }


def _ns(ticks: float, tsc_hz: float) -> float:
    return round(ticks * 1e9 / tsc_hz, 2)
