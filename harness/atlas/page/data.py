# SPDX-License-Identifier: MIT
"""The data of a page: atlas.json's maps and points, each string and each instruction once.

Cells of one build share their disassembly, and points their stacks; written out for every cell they would be
ten times the size.  page.js reads the same form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.atlas import outcome_names, stacked
from harness.atlas.sources import Sources

__all__ = ["pack", "unpack"]

POINT_TEXTS = ("scenario", "symbol", "source", "verdict", "text", "operation", "handler", "replay")
POINT_NUMBERS = ("index", "address", "occurrence", "count")
POINT_LINES = ("operation", "handler", "changed", "before", "after")  # the first two are stacks
KINDS = ("red", "deadlocks", "unpromised", "pairs")


class _Once:
    """Things numbered in the order in which they first came."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, thing: Any) -> int:
        return self.numbers.setdefault(thing, len(self.numbers))


def pack(maps: Sequence[tuple[Mapping[str, Any], Sources]]) -> dict[str, Any]:
    """Pack cells of atlas.json, each with the source lines of what it ran; those that are needed go along.

    Returns: strings; looks: of each outcome [its string, CSS class, letter, how it is said], best first;
        code: [address, text, file, line, [inlined], level, source line]; cells: functions [name, file, start, size,
        [[code, points, [outcome, count, ...]]]], and points.
    """
    cells = [cell for cell, _ in maps]
    strings, code = _Once(), _Once()
    looks = {
        outcome: [
            strings(outcome),
            css_class(outcome),
            outcome_names.look(outcome).letter,
            outcome_names.said(outcome),
        ]
        for outcome in outcome_names.sort(outcomes_of(cells))
    }
    packed = [
        {
            "id": cell["id"],
            "functions": [_function(function, lines, strings, code) for function in cell["functions"]],
            **{kind: [_point(point, strings) for point in points_of(cell, kind)] for kind in KINDS},
        }
        for cell, lines in maps
    ]
    return {
        "strings": list(strings.numbers),
        "looks": list(looks.values()),
        "code": [[*row[:4], list(row[4]), *row[5:]] for row in code.numbers],
        "cells": packed,
    }


def _source(row: Mapping[str, Any], lines: Sources) -> str:
    """Return the source line of an instruction, or nothing."""
    found = lines.get(row["file"], ())
    return found[row["line"] - 1].strip() if 0 < row["line"] <= len(found) else ""


def css_class(outcome: str) -> str:
    """Name the class that an outcome has on the page."""
    return "o-" + "".join(letter if letter.isalnum() else "-" for letter in outcome)


def outcomes_of(cells: Iterable[Mapping[str, Any]]) -> set[str]:
    """Collect the outcomes that there are anywhere in some cells of atlas.json."""
    found: set[str] = set()
    for cell in cells:
        found.update(cell["atlas"]["outcomes"])
        for function in cell["functions"]:
            for row in function["instructions"]:
                found.update(row["outcomes"])
        for kind in KINDS:
            found.update(point["verdict"] for point in points_of(cell, kind))
    return found


def points_of(cell: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """List points of a cell of atlas.json. Args: kind: of KINDS; "pairs": of the second of two interrupts."""
    if kind != "pairs":
        return list(cell["atlas"].get(kind) or ())
    pairs = cell["atlas"].get("pairs") or {}
    found = [*pairs.get("red", ()), *(pairs.get("nested") or {}).get("red", ())]
    return [{**point, **_place(cell, point["address"])} for point in found]


def _place(cell: Mapping[str, Any], address: int) -> dict[str, str]:
    """Name an instruction's place."""
    for function in cell["functions"]:
        if 0 <= (offset := address - function["start"]) < function["size"]:
            rows = function["instructions"]
            source = next((f"{row['file']}:{row['line']}" for row in rows if row["address"] == address), "")
            return {"symbol": f"{function['name']}+{offset:#x}", "source": source}
    return {"symbol": f"{address:#x}", "source": ""}


def _function(function: Mapping[str, Any], lines: Sources, strings: _Once, code: _Once) -> list[Any]:
    rows = []
    for row in function["instructions"]:
        chain = tuple(strings(name) for name in row["inlined"])
        place = (
            row["address"],
            strings(row["text"]),
            strings(row["file"]),
            row["line"],
            chain,
            strings(row["level"]),
            strings(_source(row, lines)),
        )
        counts = [part for name, count in row["outcomes"].items() for part in (strings(name), count)]
        rows.append([code(place), row["points"], counts])
    return [strings(function["name"]), strings(function["file"]), function["start"], function["size"], rows]


def _point(point: Mapping[str, Any], strings: _Once) -> list[Any]:
    lines = {**point, "operation": (), "handler": (), **(point.get("stacks") or {})}
    texts = {**point, "text": stacked.why(point)}
    return [
        *(strings(texts.get(name, "")) for name in POINT_TEXTS),
        *(point.get(name, 1 if name in ("occurrence", "count") else 0) for name in POINT_NUMBERS),
        *([strings(line) for line in lines.get(name) or ()] for name in POINT_LINES),
    ]


def unpack(packed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was packed: id, functions, red, deadlocks and pairs of each cell, as in atlas.json."""
    strings = packed["strings"]
    return [
        {
            "id": cell["id"],
            "functions": [
                {
                    "name": strings[name],
                    "file": strings[file],
                    "start": start,
                    "size": size,
                    "instructions": [_instruction(packed, *row) for row in rows],
                }
                for name, file, start, size, rows in cell["functions"]
            ],
            **{kind: [_unpacked_point(point, strings) for point in cell[kind]] for kind in KINDS},
        }
        for cell in packed["cells"]
    ]


def _instruction(packed: Mapping[str, Any], number: int, points: int, counts: list[int]) -> dict[str, Any]:
    strings = packed["strings"]
    address, text, file, line, chain, level, _ = packed["code"][number]
    return {
        "address": address,
        "text": strings[text],
        "file": strings[file],
        "line": line,
        "inlined": [strings[name] for name in chain],
        "level": strings[level],
        "points": points,
        "outcomes": {strings[name]: count for name, count in zip(counts[::2], counts[1::2], strict=True)},
    }


def _unpacked_point(point: list[Any], strings: Sequence[str]) -> dict[str, Any]:
    texts, rest = point[: len(POINT_TEXTS)], point[len(POINT_TEXTS) :]
    numbers, lines = rest[: len(POINT_NUMBERS)], rest[len(POINT_NUMBERS) :]
    operation, handler, changed, before, after = ([strings[line] for line in each] for each in lines)
    return {
        **{name: strings[text] for name, text in zip(POINT_TEXTS, texts, strict=True)},
        **dict(zip(POINT_NUMBERS, numbers, strict=True)),
        "stacks": {"operation": operation, "handler": handler},
        "changed": changed,
        "before": before,
        "after": after,
    }
