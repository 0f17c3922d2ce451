# SPDX-License-Identifier: MIT
"""What stands above everything: the verdict and why, what was run, and how to run it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.page import Loaded, Markup, copyable, element, join, table
from harness.report_page.words import again, anchor, number
from harness.results import passed
from shmalloc.units import format_bytes

__all__ = ["header", "title"]

Run = Mapping[str, Any]


def title(runs: Sequence[Loaded]) -> str:
    """Name the page."""
    return " | ".join(each.label for each in runs)


def header(runs: Sequence[Loaded]) -> Markup:
    """Say how it ended."""
    if len(runs) == 1:
        return join(_headline(runs[0].run, runs[0].label), _why(runs[0].run, 0), _setting(runs[0].run))
    good = all(passed(each.run) for each in runs)
    return join(
        element("h1", f"{len(runs)} runs: ", _passed(good)),
        _side_by_side(runs),
        [_why(each.run, at, f"{each.label}: ") for at, each in enumerate(runs)],
    )


def _passed(good: bool) -> Markup:
    return element("span", "passed" if good else "FAILED", class_="good" if good else "bad")


def _headline(run: Run, label: str) -> Markup:
    count = len(run["cells"])
    return element(
        "h1",
        f"{label}: ",
        _passed(passed(run)),
        element("small", f" verdict {run['verdict']}, {count} cell{'s' * (count != 1)}"),
    )


def _why(run: Run, at: int, before: str = "") -> Markup | None:
    """List what did not go as expected."""
    cells = [
        element(
            "li",
            f"{before}cell ",
            element("a", cell["id"], href=f"#{anchor(at, place)}"),
            f": {cell['verdict']}, expected {cell['expected']}",
        )
        for place, cell in enumerate(run["cells"])
        if cell["verdict"] != cell["expected"]
    ]
    tests = [
        element("li", f"{before}test does not hold: {entry['text']}")
        for entry in run["expectations"]
        if entry["holds"] is False and entry["kind"] != "claim"
    ]
    return element("ul", cells, tests, class_="bad") if cells or tests else None


def _setting(run: Run) -> Markup:
    """Say what was run, on what, and how to do it again."""
    command = again(run["cells"])
    return join(
        element("p", _what(run)),
        element("p", _where(run), class_="quiet"),
        [element("p", warning, class_="bad") for warning in run["machine"].get("warnings", ())],
        element("p", "again: ", copyable(command)) if command else None,
    )


def _what(run: Run) -> str:
    config = run["config"]
    designs = config.get("design", [])
    words = [
        f"engine {config.get('engine', 'stress')}",
        f"design {', '.join(designs) if isinstance(designs, list) else designs}",
        f"{config['cpus']} CPUs" if "cpus" in config else "",
        f"{config['duration_s']} s a cell" if config.get("duration_s") else "",
        f"{number(config['ops'])} ops a cell" if config.get("ops") else "",
    ]
    return ", ".join(filter(None, words))


def _where(run: Run) -> str:
    machine, build = run["machine"], run["build"]
    memory = machine.get("memory_bytes")
    words = [
        f"seed {run['seed']}",
        f"{build.get('flavour', '')} build {build.get('id', '')}",
        f"{machine.get('cores_allowed', '-')} cores ({machine.get('cpu_model') or machine.get('architecture', '-')})",
        f"{format_bytes(memory)} of memory" if memory else "",
        str(machine.get("system", "")),
    ]
    return ", ".join(filter(None, words))


def _side_by_side(runs: Sequence[Loaded]) -> Markup:
    head = ("run", "", "verdict", "cells", "what", "where", "again")
    rows = []
    for each in runs:
        command = again(each.run["cells"])
        rows.append(
            [
                each.label,
                _passed(passed(each.run)),
                each.run["verdict"],
                number(len(each.run["cells"])),
                _what(each.run),
                _where(each.run),
                copyable(command) if command else "-",
            ]
        )
    return table(head, rows, left=7)
