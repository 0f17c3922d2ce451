# SPDX-License-Identifier: MIT
"""The result of a bench: one record for each row and subject, ratios, noise, targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from harness.bench.measure import AGAIN, Measured
from harness.bench.own import EMPTY, floor_of
from harness.bench.rows import LINES, Line, Row
from harness.estimates import Estimate, differ, ratio

__all__ = ["SCHEMA", "noise", "records", "row_names"]

SCHEMA = "shmalloc-bench-1"

Record = dict[str, Any]
Found = Mapping[str, Measured]


def row_names(row: Row) -> list[str]:
    """Return the names under which a row is in the results: those that tell lines apart have two."""
    return [f"{row.name}_{line}" for line in LINES] if row.lines else [row.name]


def records(row: Row, found: Found) -> Iterator[Record]:
    """Yield the records of a row, in the order of its subjects, second instances left out."""
    lines: Sequence[Line | None] = LINES if row.lines else (None,)
    for name, line in zip(row_names(row), lines, strict=True):
        estimates = {
            subject: measured.estimate(line)
            for subject, measured in found.items()
            if not subject.endswith(AGAIN)
        }
        for subject, own in estimates.items():
            yield _record(name, found[subject], own, line) | _ratios(subject, own, estimates, found)


def _record(row: str, measured: Measured, own: Estimate | None, line: Line | None) -> Record:
    why = measured.why
    if why is None and own is None:
        other = line is not None and measured.bursts
        why = f"no sample met a {line} line" if other else "in no sample the core was ours"
    return {
        "row": row,
        "subject": measured.subject.name,
        "kind": measured.subject.kind,
        "sharing": measured.subject.sharing,
        "ns_median": _rounded(own.median if own else None),
        "ns_low": _rounded(own.low if own else None),
        "ns_high": _rounded(own.high if own else None),
        "samples": own.samples if own else 0,
        "taken": measured.taken,
        "dropped": measured.dropped,
        "refused": measured.refused,
        "pairs": measured.pairs,
        "broken": measured.broken,
        "why": why,
    }


def _rounded(ns: float | None) -> float | None:
    return None if ns is None else round(ns, 3)


def _ratios(
    subject: str, own: Estimate | None, estimates: Mapping[str, Estimate | None], found: Found
) -> Record:
    """Return the ratios to each peer and to the subject's floor, or, where that sits out, to the empty loop."""
    if found[subject].subject.kind == "floor":
        floor = "floor_flag" if estimates.get("floor_flag") and subject != "floor_flag" else EMPTY
    else:
        floor = floor_of(subject) if estimates.get(floor_of(subject)) else EMPTY
    if subject == floor or not estimates.get(floor):
        floor = ""
    peers = [
        name
        for name, estimate in estimates.items()
        if estimate and name != subject and found[name].subject.kind == "peer"
    ]
    return {
        "floor": floor or None,
        "ratio_to_floor": _ratio(own, estimates.get(floor)),
        "ratio_to_peers": {name: _ratio(own, estimates[name]) for name in peers} if own else {},
    }


def _ratio(own: Estimate | None, other: Estimate | None) -> list[float | None] | None:
    if own is None or other is None:
        return None
    return [None if value is None else round(value, 3) for value in ratio(own, other)]


def noise(rows: Sequence[Row], found: Mapping[str, Found]) -> Record:
    """Compare each second instance with the first, and say how wide intervals are.

    Args: found: by the rows' names.
    """
    compared: list[Record] = []
    for row in rows:
        lines: Sequence[Line | None] = LINES if row.lines else (None,)
        for name, line in zip(row_names(row), lines, strict=True):
            for again in (subject for subject in found[row.name] if subject.endswith(AGAIN)):
                first = found[row.name][again.removesuffix(AGAIN)].estimate(line)
                second = found[row.name][again].estimate(line)
                if first and second:
                    compared.append(
                        {
                            "row": name,
                            "subject": again.removesuffix(AGAIN),
                            "ns": _rounded(first.median),
                            "again_ns": _rounded(second.median),
                            "ratio": round(second.median / first.median, 4),
                            "differs": differ(first, second),
                        }
                    )
    estimates = [m.estimate() for each in found.values() for m in each.values()]
    widths = [
        (e.high - e.low) / e.median for e in estimates if e and e.low is not None and e.high is not None
    ]
    known = [each for each in compared if each["differs"] is not None]
    return {
        "rows": compared,
        "compared": len(known),
        "differing": sum(bool(each["differs"]) for each in known),
        "largest_ratio": max((max(c["ratio"], 1 / c["ratio"]) for c in compared), default=None),
        "median_width": round(median(widths), 4) if widths else None,
    }
