# SPDX-License-Identifier: MIT
"""Medians, and intervals for them that assume nothing of the distribution: from order statistics alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CONFIDENCE", "Estimate", "differ", "estimate", "interval_rank", "ratio"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A median with its interval.

    Attributes: median.  low, high: its interval, with CONFIDENCE if `estimate` has made it; None = too few
        samples to say.  samples: their number.
    """

    median: float
    low: float | None
    high: float | None
    samples: int


def interval_rank(samples: int, confidence: float = CONFIDENCE) -> int:
    """Return k: the k-th smallest and the k-th largest sample enclose the median at least with this confidence.

    Each sample is below the median with probability 1/2, so how many are follows the binomial distribution;
    the interval misses only if fewer than k are on one side. 0 = even the whole range does not suffice.
    """
    rank, below = 0, 0
    for number in range(samples // 2):
        below += math.comb(samples, number)
        if 2 * below > (1 - confidence) * 2**samples:
            break
        rank = number + 1
    return rank


def estimate(samples: Sequence[float]) -> Estimate:
    """Estimate the median of what was sampled. Args: samples: at least one."""
    ordered = sorted(samples)
    half = len(ordered) // 2
    median = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    rank = interval_rank(len(ordered))
    if not rank:
        return Estimate(median, None, None, len(ordered))
    return Estimate(median, ordered[rank - 1], ordered[-rank], len(ordered))


def ratio(of: Estimate, to: Estimate) -> tuple[float, float | None, float | None]:
    """Return the ratio of two medians, and the bounds that their intervals leave it."""
    middle = of.median / to.median
    if of.low is None or of.high is None or to.low is None or to.high is None:
        return middle, None, None
    return middle, of.low / to.high, of.high / to.low


def differ(one: Estimate, other: Estimate) -> bool | None:
    """Tell whether two medians differ: their intervals do not even share an end. None: there are no intervals."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None
    return one.high < other.low or other.high < one.low
