# SPDX-License-Identifier: MIT
"""The folder of a run, read again: what a page is made of, of this version or an older one."""

from __future__ import annotations

import csv
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.memory import Sample
from harness.problems import ConfigError, Problem, shown
from harness.results import SCHEMA

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Loaded", "complete", "load", "named_cells"]

_WHOLE: dict[str, Any] = {"name": "", "verdict": "", "seed": None}
_PARTS: dict[str, type] = {
    "build": dict,
    "machine": dict,
    "config": dict,
    "expectations": list,
    "cells": list,
}
_CELL_PARTS: dict[str, type] = {
    "params": dict,
    "violations": list,
    "must_happen": list,
    "failures": dict,
    "contexts": dict,
    "interrupts": dict,
    "memory": dict,
    "counters": dict,
    "numa": dict,
    "audits": dict,
}
_CONDITION: dict[str, Any] = {"condition": "", "measured": None, "holds": None}
_EXPECTATION: dict[str, Any] = {"text": "", "kind": "test", "measured": None, "holds": None}
_ALLOWED: dict[type, str] = {dict: "allowed is a table", list: "allowed is a list"}


@dataclass(frozen=True)
class Loaded:
    """A run and what it left.

    Attributes: folder.  label: tells it from the others of a page.  run: result.json; what an older version did
        not write is empty (`complete`), and no number is made up.  samples: of each cell, by its id.
        atlas: atlas.json, if there is one.
    """

    folder: Path
    label: str
    run: dict[str, Any]
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    atlas: dict[str, Any] | None = None

    def arrays(self, name: str) -> Mapping[str, np.ndarray[Any, Any]] | None:
        """Read arrays/NAME.npz; None if there is no such file.

        Raises: ConfigError, if it is damaged.
        """
        import numpy as np

        path = self.folder / "arrays" / f"{name}.npz"
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                return dict(found)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise _damaged(path, error) from None


def named_cells(runs: Sequence[Loaded]) -> Iterator[tuple[Loaded, dict[str, Any], str]]:
    """Yield every cell of all runs with the name it has on a page: its id, behind its run's where there are several."""
    for loaded in runs:
        for cell in loaded.run["cells"]:
            yield loaded, cell, cell["id"] if len(runs) == 1 else f"{loaded.label}: {cell['id']}"


def complete(run: Mapping[str, Any]) -> dict[str, Any]:
    """Give a result the tables and lists that its version did not write yet, empty."""
    whole = {**_WHOLE, **{key: kind() for key, kind in _PARTS.items()}, **run}
    whole["expectations"] = [{**_EXPECTATION, **entry} for entry in whole["expectations"]]
    whole["cells"] = [_complete_cell(cell) for cell in whole["cells"]]
    return whole


def _complete_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    whole = {"verdict": "", **{key: kind() for key, kind in _CELL_PARTS.items()}, **cell}
    whole["must_happen"] = [{**_CONDITION, **entry} for entry in whole["must_happen"]]
    whole.setdefault("expected", whole["verdict"])
    return whole


def load(folder: Path, label: str | None = None) -> Loaded:
    """Read the folder of a run. Args: label: default: the run's name.

    Raises: ConfigError, if it is none, or damaged.
    """
    path = folder / "result.json"
    run = _json(path)
    if run.get("schema") != SCHEMA:
        raise ConfigError(
            str(path), [Problem("schema", None, f"no result of this version; allowed is {SCHEMA}")]
        )
    if problems := list(_misshapen(run)):
        raise ConfigError(str(path), problems)
    whole = complete(run)
    atlas = folder / "atlas.json"
    return Loaded(
        folder,
        str(whole["name"]) if label is None else label,
        whole,
        _samples(folder / "samples.csv"),
        _json(atlas) if atlas.is_file() else None,
    )


def _misshapen(run: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what is not of the type that all versions have."""
    for key, kind in _PARTS.items():
        if not isinstance(run.get(key, kind()), kind):
            yield Problem(key, shown(run[key]), _ALLOWED[kind])
    cells = run.get("cells", [])
    for at, cell in enumerate(cells if isinstance(cells, list) else ()):
        if not isinstance(cell, dict) or not isinstance(cell.get("id"), str):
            yield Problem(f"cells[{at}]", shown(cell), "allowed is a table with a text `id`")
            continue
        for key, kind in _CELL_PARTS.items():
            if not isinstance(cell.get(key, kind()), kind):
                yield Problem(f"cells[{at}].{key}", shown(cell[key]), _ALLOWED[kind])


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(str(path), [Problem("", None, f"no result: {error}")]) from None
    if not isinstance(data, dict):
        raise ConfigError(str(path), [Problem("", None, "no result: not a JSON object")])
    return data


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _samples(path: Path) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    if not path.is_file():
        return found
    names = [each.name for each in fields(Sample)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                t_s, *counts = (float(row[name] or 0) for name in names)
                found[row["cell"]].append(Sample(t_s, *map(int, counts)))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise _damaged(path, error) from None
    return found


def _damaged(path: Path, error: Exception) -> ConfigError:
    return ConfigError(str(path), [Problem("", None, f"damaged: {type(error).__name__}: {error}")])
