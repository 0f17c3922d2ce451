# SPDX-License-Identifier: MIT
"""Latencies: from the arena's log-linear histograms of ticks to percentiles in nanoseconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from shmalloc.layout import constants

SUB = constants()["HIST_SUB"]
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


def lower_ticks(buckets: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the smallest value of each bucket, shape (buckets + 1,): the last is the end of the last one.

    Below 32 a bucket holds one value; above, each octave has 32 buckets.
    """
    at = np.arange(buckets + 1)
    octave = np.maximum(at // SUB - 1, 0)
    linear = np.where(at < SUB, at, SUB + at % SUB).astype(np.float64)
    return np.ldexp(linear, octave)


def summary(histogram: np.ndarray[Any, Any], tsc_hz: float) -> dict[str, float | None]:
    """Return p50, p99, p999 and max in nanoseconds; of nothing they are null.

    Args: histogram: counts per bucket, shape (buckets,).  tsc_hz: ticks per second.
    Returns: percentiles are the middle of their bucket (off by 1.6 % at most), max is its bucket's end.
    """
    total = int(histogram.sum(dtype=np.uint64))
    if total == 0 or tsc_hz <= 0:
        return {**dict.fromkeys(PERCENTILES), "max": None}
    edges = lower_ticks(len(histogram))
    last = edges[1:] - 1
    cumulated = np.cumsum(histogram, dtype=np.uint64)
    found: dict[str, float | None] = {}
    for name, share in PERCENTILES.items():
        rank = max(1, int(np.ceil(share * total)))
        bucket = int(np.searchsorted(cumulated, rank))
        found[name] = _ns((edges[bucket] + last[bucket]) / 2, tsc_hz)
    found["max"] = _ns(last[int(np.flatnonzero(histogram)[-1])], tsc_hz)
    return found


def _ns(ticks: float, tsc_hz: float) -> float:
    return round(float(ticks) * 1e9 / tsc_hz, 1)
