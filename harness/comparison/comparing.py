# SPDX-License-Identifier: MIT
"""Two sides as one comparison, which is JSON: pairs of cells, a row for each quantity, marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from harness.comparison import exact, intervals
from harness.comparison.differences import differences
from harness.comparison.quantities import CORES, Quantity, named, value
from harness.comparison.sides import Member, Pair, Run, pair
from harness.estimates import Estimate, differ

__all__ = ["LOAD_FACTOR", "SCHEMA", "STILL_FACTOR", "Options", "compare"]

SCHEMA = "shmalloc-comparison/1"
# What two single runs of the same thing were seen to differ by, on a virtual machine shared with compilers, beyond
# the ranges of their windows and the ratio of the processor time that they got: 2.1 in 25,000 pairs of rows for what
# load moves (the median of interrupt handlers), 1.03 for the rest.
LOAD_FACTOR, STILL_FACTOR = 3.0, 1.25


@dataclass(frozen=True)
class Options:
    """How to compare.

    Attributes: steady: runs that were not taken in turn count as if they had been: nothing has changed between.
        load_factor: `LOAD_FACTOR`, or what the user knows better.
    """

    steady: bool = False
    load_factor: float = LOAD_FACTOR


@dataclass(frozen=True)
class _Paired:
    """A pair with the runs of its sides. Attributes: pair.  a, b.  rows: what can be said of both."""

    pair: Pair
    a: Sequence[Run]
    b: Sequence[Run]
    rows: Sequence[Quantity]


@dataclass(frozen=True)
class _Method:
    """What the intervals of a comparison are.

    Attributes: kind: "runs" or "windows".  rows: in all pairs, that may get a mark.  why: windows: why not runs.
        in_turn: whether the runs alternated.  chance: runs: at most that of any mark between equal things.
    """

    kind: str
    rows: int
    why: str
    in_turn: bool
    chance: float | None = None


def compare(
    a: Sequence[Member], b: Sequence[Member], apart_in: Sequence[str] = (), options: Options | None = None
) -> dict[str, Any]:
    """Compare two sides.

    Args: a, b: their cells.  apart_in: keys in which the sides are to differ, so that cells are not paired by them.
    """
    options = options or Options()
    pairs, only_a, only_b = pair(a, b, apart_in)
    paired = [_paired(each) for each in pairs]
    method = _method(paired, options)
    shown = [_pair_json(each, method, options) for each in paired]
    marks = [row["mark"] for each in shown for row in each["rows"] if row["mark"]]
    return {
        "schema": SCHEMA,
        "a": _side_json(a),
        "b": _side_json(b),
        "differences": differences(a, b),
        "method": _method_json(method, paired, options),
        "pairs": shown,
        "unpaired": {"a": only_a, "b": only_b},
        "marks": {name: marks.count(name) for name in ("better", "worse", "differs")},
        "verdicts_worse": [each["name"] for each in shown if each["verdict_worse"]],
    }


def _paired(of: Pair) -> _Paired:
    a = [run for member in of.a for run in member.runs()]
    b = [run for member in of.b for run in member.runs()]
    spans = [span for run in (*a, *b) for span in (run.whole, *run.windows)]
    return _Paired(of, a, b, list(dict.fromkeys(named(spans))) if _is_measured(of) else [])


def _is_measured(of: Pair) -> bool:
    """Whether the numbers of the cells come out differently each time, unlike those of scripts and atlases."""
    return all(exact.is_measured(member) for member in (*of.a, *of.b))


def _method(paired: Sequence[_Paired], options: Options) -> _Method:
    with_rows = [each for each in paired if each.rows]
    rows = sum(sum(quantity.marked for quantity in each.rows) for each in with_rows)
    if not with_rows:
        return _Method("windows", 0, "", in_turn=False)
    in_turn = all(intervals.taken_in_turn(_starts(each.a), _starts(each.b)) for each in with_rows)
    fewest = min(min(len(each.a), len(each.b)) for each in with_rows)
    chance = sum(sum(quantity.marked for quantity in each.rows) * _chance(each, rows) for each in with_rows)
    if chance <= intervals.CHANCE and (in_turn or options.steady):
        return _Method("runs", rows, "", in_turn, chance)
    if chance > intervals.CHANCE:
        needed = intervals.runs_needed(rows)
        why = f"{_number(fewest, 'run')} on a side, {needed} are needed for {rows} rows"
        return _Method("windows", rows, why, in_turn)
    return _Method("windows", rows, "the runs of A and B were not taken in turn", in_turn)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _starts(runs: Sequence[Run]) -> list[float | None]:
    found = [run.whole.get("started") for run in runs]
    return [float(each) if isinstance(each, int | float) else None for each in found]


def _chance(each: _Paired, rows: int) -> float:
    a, b = len(each.a), len(each.b)
    return intervals.chance_apart(a, b, intervals.rank(a, rows), intervals.rank(b, rows))


def _side_json(side: Sequence[Member]) -> dict[str, Any]:
    results = {member.result.source: member.result.run for member in side}
    return {
        "folders": list(results),
        "names": list(dict.fromkeys(run["name"] for run in results.values())),
        "loads": [run["machine"].get("load_1min") for run in results.values()],
        "warnings": list(
            dict.fromkeys(w for run in results.values() for w in run["machine"].get("warnings", ()))
        ),
    }


def _method_json(method: _Method, paired: Sequence[_Paired], options: Options) -> dict[str, Any]:
    with_rows = [each for each in paired if each.rows]
    runs = [min((len(side(each)) for each in with_rows), default=0) for side in (_a, _b)]
    ranks = [intervals.rank(number, method.rows) for number in runs]
    of_runs = method.kind == "runs"
    return {
        "kind": method.kind,
        "rows": method.rows,
        "runs": runs,
        "in_turn": method.in_turn,
        "why": method.why,
        "family": intervals.FAMILY,
        "without_windows": [
            name
            for name, side in (("a", _a), ("b", _b))
            if not of_runs and any(not run.windows for each in with_rows for run in side(each))
        ],
        "coverage": [round(intervals.coverage(n, k), 6) for n, k in zip(runs, ranks, strict=True)]
        if of_runs
        else None,
        "chance_of_a_mark": None if method.chance is None else float(f"{method.chance:.2g}"),
        "factor": None if of_runs else round(_root(options.load_factor, runs), 3),
        "still_factor": None if of_runs else round(_root(STILL_FACTOR, runs), 3),
    }


def _a(each: _Paired) -> Sequence[Run]:
    return each.a


def _b(each: _Paired) -> Sequence[Run]:
    return each.b


def _root(factor: float, runs: Sequence[int]) -> float:
    """Each further run on both sides has seen more of what the factor stands for."""
    return float(factor ** (1 / max(1, min(runs))))


def _pair_json(each: _Paired, method: _Method, options: Options) -> dict[str, Any]:
    a, b = each.pair.a, each.pair.b
    verdicts = [_verdicts(a), _verdicts(b)]
    rows = [_row(quantity, each, method, options) for quantity in each.rows]
    return {
        "name": each.pair.name,
        "a": a[0].id,
        "b": b[0].id,
        "runs": [len(each.a), len(each.b)],
        "verdicts": verdicts,
        "verdict_worse": _as_expected(a) and not _as_expected(b),
        "rows": [row for row in (*rows, *_maxima(each)) if row["a"] or row["b"]],
        "exact": exact.rows(a, b),
        "comparable": len({exact.is_measured(member) for member in (*a, *b)}) == 1,
    }


def _verdicts(side: Sequence[Member]) -> list[str]:
    return list(dict.fromkeys(str(member.cell["verdict"]) for member in side))


def _as_expected(side: Sequence[Member]) -> bool:
    return all(member.cell["verdict"] == member.cell["expected"] for member in side)


def _row(quantity: Quantity, each: _Paired, method: _Method, options: Options) -> dict[str, Any]:
    if method.kind == "runs":
        a, b = (
            intervals.of_runs(
                [value(quantity, run.whole, run.cores) for run in runs],
                intervals.rank(len(runs), method.rows),
            )
            for runs in (each.a, each.b)
        )
    else:
        factor = _factor(quantity, each, options)
        a, b = (_of_windows(quantity, runs, factor) for runs in (each.a, each.b))
    marked = quantity.marked and a is not None and b is not None and differ(a, b)
    return {
        "quantity": quantity.name,
        "unit": quantity.unit,
        "better": quantity.better,
        "a": _interval_json(a),
        "b": _interval_json(b),
        "change": _change(a, b),
        "mark": _mark(quantity, a, b) if marked else "",
    }


def _of_windows(quantity: Quantity, runs: Sequence[Run], factor: float) -> Estimate | None:
    windows = [value(quantity, window, run.cores) for run in runs for window in run.windows]
    starts = [value(quantity, run.start, run.cores) for run in runs] if quantity.start else []
    also = [start for start in starts if start is not None]
    found = intervals.of_windows(windows, factor, also) if all(run.windows for run in runs) else None
    if found is None or found.low is None:
        return intervals.bare([value(quantity, run.whole, run.cores) for run in runs])
    return _share(found) if quantity.unit == "share" else found


def _share(found: Estimate) -> Estimate:
    """A share is 1 at most."""
    return replace(found, high=None if found.high is None else max(found.median, min(1.0, found.high)))


def _factor(quantity: Quantity, each: _Paired, options: Options) -> float:
    """Return how far apart equal things may be, beyond their windows."""
    runs = (len(each.a), len(each.b))
    if not quantity.load:
        return _root(STILL_FACTOR, runs)
    return _root(options.load_factor, runs) * _ratio_of_cores(each)


def _ratio_of_cores(each: _Paired) -> float:
    """Return how much more of its cores one side had than the other."""
    had = []
    for runs in (each.a, each.b):
        known = [value(CORES, window, run.cores) for run in runs for window in run.windows]
        had.append(median([share for share in known if share] or [1.0]))
    return max(had) / min(had)


def _interval_json(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else vars(found)


def _change(a: Estimate | None, b: Estimate | None) -> float | None:
    """Return by which share B's median differs from A's; from nothing there is no share."""
    if a is None or b is None or not a.median:
        return None
    return round(b.median / a.median - 1, 6)


def _mark(quantity: Quantity, a: Estimate | None, b: Estimate | None) -> str:
    assert a is not None and b is not None
    if not quantity.better:
        return "differs"
    return "better" if (b.median > a.median) == (quantity.better == "higher") else "worse"


def _maxima(each: _Paired) -> list[dict[str, Any]]:
    """Write the longest latencies: of extremes there is no interval, and so no mark."""
    rows = []
    for context in dict.fromkeys(q.path[1] for q in each.rows if q.path[0] == "latency"):
        found = [_maximum(side, context) for side in (each.pair.a, each.pair.b)]
        a, b = (None if most is None else Estimate(most, None, None, 1) for most in found)
        rows.append(
            {
                "quantity": f"{context}: max",
                "unit": "ns",
                "better": "lower",
                "a": _interval_json(a),
                "b": _interval_json(b),
                "change": _change(a, b),
                "mark": "",
            }
        )
    return rows


def _maximum(side: Sequence[Member], context: str) -> float | None:
    known = []
    for member in side:
        of_context = member.cell["contexts"].get(context)
        latency = of_context.get("latency_ns") if isinstance(of_context, dict) else None
        most = latency.get("max") if isinstance(latency, dict) else None
        known += [float(most)] if isinstance(most, int | float) else []
    return max(known, default=None)
