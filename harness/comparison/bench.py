# SPDX-License-Identifier: MIT
"""Two benches compared: the ratios to the floors, which each bench took in turn with its subjects.

Nanoseconds of two benches are not: of 495 rows of equal benches 17 had intervals apart, of 480 ratios one, by 0.3 %.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.bench.results import SCHEMA
from harness.comparison import comparing, differences
from harness.estimates import Estimate, differ
from harness.problems import ConfigError, Problem

__all__ = ["FILE", "compare", "read"]

FILE = "bench.json"
FACTOR = 1.05
_NAMES = ("row", "subject", "floor")

Bench = Mapping[str, Any]


def read(folder: Path) -> dict[str, Any]:
    """Read the folder of a bench.

    Raises: ConfigError, if it is none.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), [Problem("", None, f"no bench: {error}")]) from None
    if (
        not isinstance(found, dict)
        or found.get("schema") != SCHEMA
        or not isinstance(found.get("rows"), list)
    ):
        raise ConfigError(
            str(path), [Problem("schema", None, f"no bench of this version; allowed is {SCHEMA}")]
        )
    return {"build": {}, "machine": {}, **found, "folder": str(folder)}


def compare(a: Bench, b: Bench) -> dict[str, Any]:
    """Compare two benches. Returns: as `comparing.compare`, a pair for each row of the bench."""
    one, other = dict(_records(a)), dict(_records(b))
    both = [key for key in one if key in other]
    pairs = [
        _pair(
            name, [(subject, one[row, subject], other[row, subject]) for row, subject in both if row == name]
        )
        for name in dict.fromkeys(row for row, _ in both)
    ]
    marks = [row["mark"] for each in pairs for row in each["rows"] if row["mark"]]
    return {
        "schema": comparing.SCHEMA,
        "a": _side(a),
        "b": _side(b),
        "differences": differences.of(differences.setting(a), differences.setting(b)),
        "method": {"kind": "bench", "rows": len(both), "factor": FACTOR},
        "pairs": pairs,
        "unpaired": {
            "a": [" ".join(key) for key in one if key not in other],
            "b": [" ".join(key) for key in other if key not in one],
        },
        "marks": {name: marks.count(name) for name in ("better", "worse", "differs")},
        "verdicts_worse": [],
    }


def _records(bench: Bench) -> Iterator[tuple[tuple[str, str], tuple[str, Estimate]]]:
    """Yield row and subject, its floor and the ratio to it; what has none is left out."""
    for record in bench["rows"]:
        if not isinstance(record, Mapping) or not all(isinstance(record.get(key), str) for key in _NAMES):
            continue
        ratio = record.get("ratio_to_floor")
        if not isinstance(ratio, list) or len(ratio) != 3 or not ratio[0]:
            continue
        median, low, high = ratio
        root = math.sqrt(FACTOR)
        known = low is not None and high is not None
        found = Estimate(
            median, low / root if known else None, high * root if known else None, record["samples"]
        )
        yield (record["row"], record["subject"]), (record["floor"], found)


def _side(bench: Bench) -> dict[str, Any]:
    machine = bench["machine"]
    return {
        "folders": [bench["folder"]],
        "names": ["bench"],
        "loads": [machine.get("load_1min")],
        "warnings": list(machine.get("warnings", ())),
    }


def _pair(name: str, found: list[tuple[str, tuple[str, Estimate], tuple[str, Estimate]]]) -> dict[str, Any]:
    return {
        "name": name,
        "a": name,
        "b": name,
        "runs": [1, 1],
        "verdicts": [[], []],
        "verdict_worse": False,
        "rows": [_row(subject, *a, *b) for subject, a, b in found],
        "exact": [],
        "comparable": True,
    }


def _row(subject: str, floor: str, a: Estimate, other_floor: str, b: Estimate) -> dict[str, Any]:
    same = floor == other_floor
    mark = "" if not (same and differ(a, b)) else "better" if b.median < a.median else "worse"
    return {
        "quantity": f"{subject} / {floor if same else f'{floor} | {other_floor}'}",
        "unit": "ratio",
        "better": "lower",
        "a": vars(a),
        "b": vars(b),
        "change": round(b.median / a.median - 1, 6),
        "mark": mark,
    }
