# SPDX-License-Identifier: MIT
"""Estimates for two sides of a comparison: two that have nothing in common are a mark.

There are two kinds.  Where both sides were run several times *in turn*, the runs of one thing are interchangeable:
which of them is A and which is B is chance.  Order statistics then give intervals of the medians, and the chance
that those of two equal things are apart is a matter of counting, whatever the distribution.

Anywhere else what changed between A's time and B's cannot be told from what differs between A and B, and no
statistics of what was measured helps.  The interval is then the full range of all windows of all runs, widened by a
factor that load, placement of memory and neighbours were seen to make between two runs of the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import median

from harness.estimates import Estimate, interval_rank

__all__ = [
    "CHANCE",
    "FAMILY",
    "LEAST_WINDOWS",
    "bare",
    "chance_apart",
    "coverage",
    "of_runs",
    "of_windows",
    "rank",
    "runs_needed",
    "taken_in_turn",
]

FAMILY = 0.05  # all intervals of a table hold their medians together, but for this
CHANCE = 0.001  # of any mark in a table of equal things, at most: too few runs for that are not used
LEAST_WINDOWS = 6  # the fewest whose range says something
_MOST_RUNS = 64
_AHEAD = 2  # runs


def rank(runs: int, rows: int) -> int:
    """Return k: the k-th smallest and k-th largest of the runs enclose the median, in all rows together.

    1 = the full range, too, where even that does not suffice.
    """
    return max(1, interval_rank(runs, 1 - FAMILY / max(1, rows)))


def coverage(runs: int, at: int) -> float:
    """Return the confidence with which the at-th smallest and largest of the runs enclose the median."""
    missed: float = 2 * sum(math.comb(runs, number) for number in range(at)) / 2**runs
    return max(0.0, 1 - missed)


def chance_apart(a: int, b: int, a_rank: int, b_rank: int) -> float:
    """Return the chance that the intervals of two equal things are apart.

    All orders of the a + b runs are equally likely.  A lies below B if, when A's upper end comes, fewer than b_rank of
    B have come.
    """
    below = sum(
        math.comb(a - a_rank + j, j) * math.comb(a_rank - 1 + b - j, b - j) for j in range(min(b_rank, b + 1))
    )
    above = sum(
        math.comb(b - b_rank + j, j) * math.comb(b_rank - 1 + a - j, a - j) for j in range(min(a_rank, a + 1))
    )
    return min(1.0, (below + above) / math.comb(a + b, a))


def runs_needed(rows: int) -> int:
    """Return how many runs a side needs, so that equal things hardly ever get a mark in so many rows."""
    return next(n for n in range(2, _MOST_RUNS) if rows * chance_apart(n, n, 1, 1) <= CHANCE)


def of_runs(values: Sequence[float | None], at: int) -> Estimate | None:
    """Take the interval between the at-th smallest and largest of the runs' values; each run must have one."""
    known = sorted(value for value in values if value is not None)
    if len(known) < len(values) or 2 * at > len(known):
        return bare(values)
    return Estimate(median(known), known[at - 1], known[-at], len(known))


def bare(values: Sequence[float | None]) -> Estimate | None:
    """Take the median alone."""
    known = [value for value in values if value is not None]
    return Estimate(median(known), None, None, len(known)) if known else None


def of_windows(values: Sequence[float | None], factor: float, also: Sequence[float] = ()) -> Estimate | None:
    """Take the range of all windows' values, each end moved out by the root of the factor.

    So two intervals are apart if all of one side are more than the factor above all of the other.

    Args: also: values that are no windows' and are in the range, too.
    """
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < LEAST_WINDOWS:
        return bare(values)
    root = math.sqrt(factor)
    return Estimate(median(known), min(*known, *also) / root, max(*known, *also) * root, len(known))


def taken_in_turn(a: Sequence[float | None], b: Sequence[float | None]) -> bool:
    """Whether the runs of two sides were taken in turn: neither side was ever more than two of them ahead.

    Args: a, b: when each began; None = it is not known, as of old results.
    """
    if not a or not b or None in a or None in b:
        return False
    order = sorted([(float(t or 0), 1 / len(a)) for t in a] + [(float(t or 0), -1 / len(b)) for t in b])
    ahead = accumulate(step for _, step in order)
    return max(map(abs, ahead)) <= (_AHEAD + 0.5) / min(len(a), len(b))
