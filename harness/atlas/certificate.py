# SPDX-License-Identifier: MIT
"""The certificate of a run: what was covered, with what outcome, by which build; enough to check a sample of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from harness.atlas.keys import MISSED
from harness.problems import ConfigError, Problem

SCHEMA = "shmalloc-certificate/1"
_KEYS: dict[str, type] = {"schema": str, "build": dict, "cells": list, "points": int, "covered": int}
_CELL_KEYS: dict[str, type] = {"id": str, "design": str, "broken": str, "scenarios": list}
_SCENARIO_KEYS: dict[str, type] = {
    "name": str,
    "points": int,
    "covered": int,
    "digest": str,
    "outcomes": list,
}


def of_scenario(name: str, addresses: np.ndarray[Any, Any], names: Sequence[str]) -> dict[str, Any]:
    """Certify one scenario.

    Args: name.  addresses: of the points, from the load address.  names: of their outcomes.
    Returns: name, points, covered, digest, outcomes: [outcome, how many points in a row].
    """
    return {
        "name": name,
        "points": len(names),
        "covered": sum(each != MISSED for each in names),
        "digest": digest(addresses, names),
        "outcomes": [[outcome, len(list(run))] for outcome, run in groupby(names)],
    }


def digest(addresses: np.ndarray[Any, Any], names: Sequence[str]) -> str:
    """Return the SHA-256 of all points of a scenario: index, address, outcome."""
    lines = (
        f"{at} {address:x} {name}\n"
        for at, (address, name) in enumerate(zip(addresses.tolist(), names, strict=True))
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def outcomes(scenario: Mapping[str, Any]) -> list[str]:
    """Return the outcome of every point."""
    return [name for name, count in scenario["outcomes"] for _ in range(count)]


def document(
    run: Mapping[str, Any], build: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Put the certificate of a run together.

    Args: run: its JSON.  build: of the core.  cells: id, design, broken, scenarios, seconds.
    """
    by_cell = {cell["id"]: cell["atlas"] for cell in run["cells"]}
    outcomes: dict[str, int] = {}
    for atlas in by_cell.values():
        for name, count in atlas["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + count
    points = sum(atlas["points"] for atlas in by_cell.values())
    covered = sum(atlas["covered"] for atlas in by_cell.values())
    return {
        "schema": SCHEMA,
        "name": run["name"],
        "verdict": run["verdict"],
        "build": build,
        "machine": {
            key: run["machine"][key] for key in ("system", "architecture", "cpu_model", "cores_allowed")
        },
        "scenarios": sum(len(cell["scenarios"]) for cell in cells),
        "points": points,
        "covered": covered,
        "coverage": f"{covered}/{points}",
        "outcomes": dict(sorted(outcomes.items())),
        "seconds": round(sum(cell["seconds"] for cell in cells), 3),
        "cells": list(cells),
    }


def contradictions(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a certificate says that does not follow from its own points. Args: data: as `read` returns it."""
    points = covered = scenarios = 0
    counts: Counter[str] = Counter()
    for cell in data["cells"]:
        for scenario in cell["scenarios"]:
            names = outcomes(scenario)
            reached = sum(each != MISSED for each in names)
            where = {"cell": cell["id"], "scenario": scenario["name"], "index": None}
            if scenario["covered"] != reached:
                said, is_so = f"{scenario['covered']} covered", f"{reached} in its own list"
                yield {**where, "certified": said, "measured": is_so}
            points, covered, scenarios = points + len(names), covered + reached, scenarios + 1
            counts.update(names)
    found = {
        "scenarios": scenarios,
        "points": points,
        "covered": covered,
        "coverage": f"{covered}/{points}",
        "outcomes": dict(counts),
    }
    for key, value in found.items():
        if data.get(key) != value:
            said, is_so = f"{key} {data.get(key)}", f"{value} in its own lists"
            yield {"cell": "all", "scenario": "all", "index": None, "certified": said, "measured": is_so}


def read(path: Path) -> dict[str, Any]:
    """Read a certificate.

    Raises: ConfigError: there is none, or it is something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), [Problem("", None, f"no certificate: {error}")]) from None
    problems = list(_problems(data))
    if problems:
        raise ConfigError(str(path), problems)
    return dict(data)


def _problems(data: Any) -> Iterator[Problem]:
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        yield Problem("schema", None, f"no certificate of this version; allowed is {SCHEMA}")
        return
    yield from _typed("", data, _KEYS)
    for key in ("id", "compiler", "flags"):
        if not isinstance(dict(data.get("build") or {}).get(key), str):
            yield Problem(f"build.{key}", None, "must be a text")
    for at, cell in enumerate(data["cells"] if isinstance(data.get("cells"), list) else ()):
        here = f"cells[{at}]"
        wrong = list(_typed(f"{here}.", cell, _CELL_KEYS))
        yield from wrong
        for number, scenario in enumerate(() if wrong else cell["scenarios"]):
            yield from _scenario(f"{here}.scenarios[{number}]", scenario)


def _typed(where: str, data: Any, keys: Mapping[str, type]) -> Iterator[Problem]:
    if not isinstance(data, dict):
        yield Problem(where.rstrip("."), None, "must be a table")
        return
    for key, kind in keys.items():
        if not isinstance(data.get(key), kind) or isinstance(data.get(key), bool):
            yield Problem(f"{where}{key}", None, f"must be a {kind.__name__}")


def _scenario(where: str, scenario: Any) -> Iterator[Problem]:
    wrong = list(_typed(f"{where}.", scenario, _SCENARIO_KEYS))
    yield from wrong
    if wrong:
        return
    pairs = scenario["outcomes"]
    sound = all(
        isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and type(pair[1]) is int
        and pair[1] > 0
        for pair in pairs
    )
    if not sound or sum(pair[1] for pair in pairs) != scenario["points"]:
        yield Problem(f"{where}.outcomes", None, "must be [outcome, count] pairs that add up to `points`")
