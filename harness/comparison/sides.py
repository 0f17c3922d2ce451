# SPDX-License-Identifier: MIT
"""The two sides of a comparison: the runs of each cell, and which cells belong together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.page import load
from harness.problems import ConfigError, Problem, dig, shown

__all__ = ["Member", "Pair", "Result", "Run", "chosen", "members", "pair", "read"]

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """One result.json. Attributes: source: its folder, as it was named.  run: its JSON."""

    source: str
    run: Mapping[str, Any]

    @property
    def cores(self) -> float | None:
        """Cores that the run might use."""
        found = self.run["machine"].get("cores_allowed")
        return float(found) if isinstance(found, int) and found > 0 else None


@dataclass(frozen=True)
class Run:
    """One run of a cell.

    Attributes: whole: as an entry of `repeats`.  windows.  cores: that its CPUs could have.
    """

    whole: Mapping[str, Any]
    windows: Sequence[Mapping[str, Any]]
    cores: float

    @property
    def start(self) -> Mapping[str, Any]:
        """Its first moments, as a window that knows of requests only; empty if it was too short, or is old."""
        found = self.whole.get("start")
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True)
class Member:
    """A cell of one side. Attributes: result.  cell: its JSON."""

    result: Result
    cell: Cell

    @property
    def id(self) -> str:
        """The cell's name in its run."""
        return str(self.cell["id"])

    def value(self, path: str) -> Any:
        """Return what the cell has for a key of the config: its own, where the key varies."""
        if path in self.cell["params"]:
            return self.cell["params"][path]
        return dig(self.result.run["config"], path.split("."))

    def runs(self) -> Iterator[Run]:
        """Yield its runs; a cell of an older version is one."""
        cpus = self.cell.get("cpus")
        wanted = float(cpus) if isinstance(cpus, int) and cpus > 0 else 1.0
        cores = min(wanted, self.result.cores or wanted)
        own = _list(self.cell.get("windows"))
        for entry in _list(self.cell.get("repeats")) or [_as_entry(self.cell)]:
            yield Run(entry, _list(entry["windows"]) if "windows" in entry else own, cores)


def _list(found: Any) -> list[Mapping[str, Any]]:
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _as_entry(cell: Cell) -> dict[str, Any]:
    """Write a cell that knows of no repeats as one."""
    handled = {kind: row.get("handled") for kind, row in cell["interrupts"].items() if isinstance(row, dict)}
    return {**cell, "used_bytes": cell["memory"].get("peak_bytes"), "interrupts": handled}


def read(folder: Path) -> list[Result]:
    """Read the folder of a run, or of several configs that were run together.

    Raises: ConfigError, if there is no result in it.
    """
    if (folder / "result.json").is_file() or not folder.is_dir():
        return [Result(str(folder), load(folder).run)]
    below = sorted(path.parent for path in folder.glob("*/result.json"))
    if not below:
        raise ConfigError(
            str(folder),
            [Problem("", None, "no result: allowed is a folder with result.json, or with such folders")],
        )
    return [Result(str(path), load(path).run) for path in below]


def members(results: Sequence[Result]) -> list[Member]:
    """List all cells."""
    return [Member(result, cell) for result in results for cell in result.run["cells"]]


def chosen(all_: Sequence[Member], selector: str) -> tuple[list[Member], list[str]]:
    """Return the cells that a selector is about, and the keys that it names.

    Args: selector: ``design=kmalloc,cpus=2``: keys that vary, or their last parts; or the name of a cell.
    Raises: ConfigError, if it is malformed or about none.
    """
    named = [member for member in all_ if member.id == selector]
    if named:
        return named, list(named[0].cell["params"])
    axes = list(dict.fromkeys(path for member in all_ for path in member.cell["params"]))
    wanted = {}
    for part in selector.split(","):
        key, equals, value = part.partition("=")
        paths = [path for path in axes if path == key.strip() or path.rpartition(".")[2] == key.strip()]
        if not equals or len(paths) != 1:
            raise _bad_selector(
                part, f"allowed is KEY=VALUE with a key that varies: {', '.join(axes) or 'none does'}"
            )
        wanted[paths[0]] = value.strip()
    found = [m for m in all_ if all(_same(m.value(path), text) for path, text in wanted.items())]
    if not found:
        raise _bad_selector(
            selector, f"no cell is so; there are {', '.join(dict.fromkeys(m.id for m in all_))}"
        )
    return found, list(wanted)


def _bad_selector(text: str, allowed: str) -> ConfigError:
    return ConfigError("command line", [Problem("--cells", shown(text), allowed)])


def _same(value: Any, text: str) -> bool:
    plain = str(value).lower() if isinstance(value, bool) else str(value)
    return text in (plain, json.dumps(value))


@dataclass(frozen=True)
class Pair:
    """Cells that belong together. Attributes: name.  a, b: of each side, one for each result that has it."""

    name: str
    a: tuple[Member, ...]
    b: tuple[Member, ...]


def pair(
    a: Sequence[Member], b: Sequence[Member], apart: Sequence[str] = ()
) -> tuple[list[Pair], list[str], list[str]]:
    """Pair the cells of two sides: those that have the same for every key that varies, in runs of the same name.

    Runs of different names are paired where each side has one name, cells where each side has one cell.

    Args: apart: keys in which the sides are to differ.
    Returns: pairs, the names of those left over in A, and in B.
    """
    axes = sorted({path for member in (*a, *b) for path in member.cell["params"]} - set(apart))
    by_name = len(_names(a)) > 1 or len(_names(b)) > 1
    of_a, of_b = _by_key(a, axes, by_name), _by_key(b, axes, by_name)
    if len(of_a) == len(of_b) == 1:
        (left,), (right,) = of_a.values(), of_b.values()
        return [Pair(_label(left, right, by_name), tuple(left), tuple(right))], [], []
    pairs = [
        Pair(_label(left, of_b[key], by_name), tuple(left), tuple(of_b[key]))
        for key, left in of_a.items()
        if key in of_b
    ]
    return (
        pairs,
        [_said(left[0], by_name) for key, left in of_a.items() if key not in of_b],
        [_said(right[0], by_name) for key, right in of_b.items() if key not in of_a],
    )


def _names(side: Sequence[Member]) -> set[str]:
    return {str(member.result.run["name"]) for member in side}


def _by_key(side: Sequence[Member], axes: Sequence[str], by_name: bool) -> dict[str, list[Member]]:
    found: dict[str, list[Member]] = {}
    for member in side:
        key = json.dumps([member.value(path) for path in axes], sort_keys=True, default=str)
        found.setdefault(f"{member.result.run['name']} {key}" if by_name else key, []).append(member)
    return found


def _said(member: Member, by_name: bool) -> str:
    """Name a cell, behind its run where there are several."""
    return f"{member.result.run['name']}: {member.id}" if by_name else member.id


def _label(left: Sequence[Member], right: Sequence[Member], by_name: bool) -> str:
    one, other = _said(left[0], by_name), _said(right[0], by_name)
    return one if one == other else f"{one} | {other}"
