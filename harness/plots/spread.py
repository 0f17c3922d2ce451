# SPDX-License-Identifier: MIT
"""How far a number of one cell spreads: over its repeats or over time, and what its count alone leaves open."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.memory import Sample
from harness.plots.grid import Row

__all__ = ["PARTS", "Spread", "over_time", "quantile_bounds", "rates", "said", "wilson"]

PARTS = 10  # equal parts of a run whose windows are not recorded
_LEAST_SAMPLES = 2 * PARTS
_Z = 1.959964  # of 95 %

Value = Callable[[Mapping[str, Any]], float | None]


@dataclass(frozen=True)
class Spread:
    """Least and most of a number. Attributes: low, high.  number: of what.  what: repeats, windows or parts."""

    low: float
    high: float
    number: int
    what: str

    def text(self, write: Callable[[float], str]) -> str:
        """Write it."""
        return f"{write(self.low)} to {write(self.high)}"


def over_time(row: Row, value: Value) -> Spread | None:
    """Return least and most of a number over the cell's repeats, or else over its windows; None if it has neither.

    Args: value: of a repeat or of a window, which have the keys of a cell.
    """
    for key in ("repeats", "windows"):
        found = [number for each in row.cell.get(key) or () if (number := value(each)) is not None]
        if len(found) > 1:
            return Spread(min(found), max(found), len(found), key)
    return None


def rates(samples: Sequence[Sample], parts: int) -> list[tuple[float, float]]:
    """Cut samples into parts of about equal time, and count ops in each.

    Returns: of each part its middle, s, and ops a second.  From the last sample in which something was done CPUs
    have finished one after the other: it is not in it.
    """
    working = [at for at, (a, b) in enumerate(itertools.pairwise(samples)) if b.ops > a.ops]
    seen = samples[: working[-1] + 1] if working else []
    parts = min(parts, len(seen) - 1)
    if parts < 1:
        return []
    borders = [seen[round(at * (len(seen) - 1) / parts)] for at in range(parts + 1)]
    return [
        ((a.t_s + b.t_s) / 2, (b.ops - a.ops) / (b.t_s - a.t_s))
        for a, b in itertools.pairwise(borders)
        if b.t_s > a.t_s
    ]


def throughput(row: Row) -> Spread | None:
    """Return the slowest and the fastest of repeats, windows or parts, ops a second."""
    found = over_time(row, lambda each: each.get("throughput_ops_s"))
    if found is not None or len(row.samples) < _LEAST_SAMPLES:
        return found
    speeds = [rate for _, rate in rates(row.samples, PARTS)]
    return Spread(min(speeds), max(speeds), len(speeds), "parts") if len(speeds) > 1 else None


def said(spreads: Iterable[Spread | None]) -> str:
    """Say over what spreads go: "least and most of 12 windows"; "" if there are none."""
    found: dict[str, list[int]] = {}
    for each in spreads:
        if each is not None:
            found.setdefault(each.what, []).append(each.number)
    parts = []
    for what, numbers in found.items():
        few, many = min(numbers), max(numbers)
        words = {"windows": "windows of time", "parts": "parts of the samples", "repeats": "repeats"}[what]
        parts.append(f"{few} {words}" if few == many else f"{few} to {many} {words}")
    return f"least and most of {' or '.join(parts)}" if parts else ""


def wilson(part: int, whole: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson, as if one had nothing to do with the next."""
    if not whole:
        return 0.0, 1.0
    share, square = part / whole, _Z * _Z
    middle = (share + square / (2 * whole)) / (1 + square / whole)
    half = _Z / (1 + square / whole) * math.sqrt(share * (1 - share) / whole + square / (4 * whole * whole))
    return max(0.0, middle - half), min(1.0, middle + half)


def quantile_bounds(share: float, number: int) -> tuple[float, float]:
    """Return the shares between whose quantiles the true one lies with 95 %: the ranks that a binomial allows."""
    half = _Z * math.sqrt(share * (1 - share) / number)
    return max(0.0, share - half), min(1.0, share + half)
