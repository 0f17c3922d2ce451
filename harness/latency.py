# SPDX-License-Identifier: MIT
"""Latencies: from the arena's log-linear histograms of ticks to percentiles in nanoseconds, and to their curve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from shmalloc.layout import constants

SUB = constants()["HIST_SUB"]
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
_LEFT = (100, 80, 60, 50, 40, 30, 25, 20, 15)  # percent of a decade of the tail: where a curve has points


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
    found: dict[str, float | None] = dict(
        zip(PERCENTILES, _at(histogram, list(PERCENTILES.values()), tsc_hz), strict=True)
    )
    found["max"] = _longest(histogram, tsc_hz)
    return found


def curve(histogram: np.ndarray[Any, Any], tsc_hz: float) -> list[list[float]]:
    """Return the percentile curve: pairs of a share and of what that share of the ops took at most, ns.

    Nine points for each decade of the tail, p50 and the nines among them, as far as there are ops that make a
    difference: the last but one leaves at least one op out.  The last is 1.0 and the longest.
    Args: as for `summary`.
    Returns: both rise; empty of nothing.
    """
    total = int(histogram.sum(dtype=np.uint64))
    if total == 0 or tsc_hz <= 0:
        return []
    shares = list(_shares(total))
    times = _at(histogram, shares, tsc_hz)
    return [
        *([share, time] for share, time in zip(shares, times, strict=True)),
        [1.0, _longest(histogram, tsc_hz)],
    ]


def _shares(total: int) -> Iterator[float]:
    """Yield shares from 0 up, closer and closer to 1, while they leave one of `total` out."""
    scale = 100
    while scale <= 100 * total:
        for left in _LEFT:
            if left * total >= scale:
                yield round(1 - left / scale, 12)
        scale *= 10


def _at(histogram: np.ndarray[Any, Any], shares: list[float], tsc_hz: float) -> list[float]:
    """Return the middle of the bucket in which each share of the counts is reached, ns."""
    edges = lower_ticks(len(histogram))
    cumulated = np.cumsum(histogram, dtype=np.uint64)
    ranks = np.maximum(1, np.ceil(np.array(shares) * int(cumulated[-1]))).astype(np.uint64)
    buckets = np.searchsorted(cumulated, ranks)
    return [_ns(ticks, tsc_hz) for ticks in (edges[buckets] + edges[buckets + 1] - 1) / 2]


def _longest(histogram: np.ndarray[Any, Any], tsc_hz: float) -> float:
    return _ns(lower_ticks(len(histogram))[int(np.flatnonzero(histogram)[-1]) + 1] - 1, tsc_hz)


def _ns(ticks: float, tsc_hz: float) -> float:
    return round(float(ticks) * 1e9 / tsc_hz, 1)
