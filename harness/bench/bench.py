# SPDX-License-Identifier: MIT
"""A whole bench: cores, rounds over all rows, storms, and the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from harness.bench import results, surroundings
from harness.bench.measure import Effort, Measured, measure_row, twin
from harness.bench.own import EMPTY
from harness.bench.rows import Row, native_rows
from harness.bench.selection import Selection
from harness.bench.storm import storm
from harness.bench.subjects import Subject
from harness.bench.surroundings import Cores, allowed_pairs
from harness.bench.targets import targets
from harness.machine import build

__all__ = ["Wanted", "bench"]

Told = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """How much is wanted. Attributes: samples: of each subject in each row.  seconds: instead, about so long.

    storm_s: of each subject's storm; 0 = none.
    """

    samples: int = 16
    seconds: float | None = None
    storm_s: float = 1.0
    effort: Effort = field(default_factory=Effort)


def bench(selection: Selection, wanted: Wanted, told: Told) -> dict[str, Any]:
    """Measure. Args: told: is told what is going on, and may raise to end it.  Returns: the result, JSON."""
    line_row = next(row for row in native_rows() if row.lines)
    cores = surroundings.choose(selection.empty, line_row)
    steal = surroundings.steal_ticks()
    found = _measure(selection, wanted, cores, told)
    steal = surroundings.steal_ticks() - steal
    storms = _storms(selection.subjects, wanted.storm_s, cores.one, told)
    records = [record for row in selection.rows for record in results.records(row, found[row.name])]
    everything = [measured for each in found.values() for measured in each.values()]
    model = surroundings.describe(cores, steal)
    peers = sum(subject.kind == "peer" for subject in selection.subjects)
    model["worth"] = [
        *surroundings.worth(
            model, sum(m.taken for m in everything), sum(m.dropped for m in everything), peers
        ),
        *selection.remarks,
    ]
    return {
        "schema": results.SCHEMA,
        "name": "bench",
        "oracle": False,
        "machine": model,
        "build": build(["release"]),
        "effort": {**asdict(wanted.effort), "samples": wanted.samples, "seconds": wanted.seconds},
        "summaries": {row.name: row.summary for row in selection.rows},
        "traces": {row.name: dict(row.notes) for row in selection.rows if row.notes},
        "subjects": [
            {key: str(value) for key, value in asdict(subject).items() if key in _ABOUT}
            for subject in selection.subjects
        ],
        "rows": records,
        "noise": results.noise(selection.rows, found),
        "targets": targets(records),
        "storm": storms,
        "missing": [asdict(missing) for missing in selection.missing],
    }


_ABOUT = ("name", "kind", "sharing", "summary")


def _measure(
    selection: Selection, wanted: Wanted, cores: Cores, told: Told
) -> dict[str, dict[str, Measured]]:
    """Measure round after round over all rows, until there are enough samples, or the time is over."""
    found: dict[str, dict[str, Measured]] = {
        row.name: _unmeasured(row, selection, cores) for row in selection.rows
    }
    started, taken = time.monotonic(), 0
    while True:
        passes = (
            min(wanted.effort.passes, wanted.samples - taken)
            if wanted.seconds is None
            else wanted.effort.passes
        )
        effort = replace(wanted.effort, passes=passes)
        for row in selection.rows:
            for pair in allowed_pairs(cores, row):
                measure_row(row, found[row.name], pair, effort, told, first=not taken)
        taken += passes
        if wanted.seconds is None and taken >= wanted.samples:
            return found
        if wanted.seconds is not None and time.monotonic() - started >= wanted.seconds:
            return found


def _unmeasured(row: Row, selection: Selection, cores: Cores) -> dict[str, Measured]:
    """Set up a row: its subjects, and a second instance of one of them."""
    subjects = selection.subjects_of(row)
    compared = sorted(subjects, key=lambda subject: subject.name != _TWIN)[:1]
    all_of_them = [*subjects, *map(twin, compared)]
    found = {subject.name: Measured(subject) for subject in all_of_them}
    if row.sides > 1 and not cores.pairs:
        for measured in found.values():
            measured.fail("two CPUs need two cores, and this process may use one", broken=False)
    return found


_TWIN = "sheaves"  # in the rows that it is in


def _storms(subjects: Sequence[Subject], seconds: float, core: int, told: Told) -> list[dict[str, Any]]:
    made = []
    for subject in subjects if seconds else ():
        if subject.name == EMPTY:
            continue
        told(f"storm: {subject.name}")
        result = storm(subject, seconds, core=core)
        if subject.runner and result.outcome is None:
            continue  # another way to measure a subject that has had its storm
        made.append(
            {
                "subject": subject.name,
                "kind": subject.kind,
                "outcome": result.outcome,
                "handled": result.handled,
                "inside": result.inside,
                "refused": result.refused,
                "detail": result.detail,
            }
        )
    return made
