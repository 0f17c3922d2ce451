# SPDX-License-Identifier: MIT
"""What several sections of a report say in the same words: verdicts, counts, commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from harness.page import Markup, element
from harness.vocabulary import OK

__all__ = ["again", "anchor", "number", "verdict"]


def number(value: Any) -> str:
    """Write a number exactly: a count in groups of three, anything else as JSON has it; of nothing a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def verdict(cell: Mapping[str, Any]) -> Markup:
    """Write a cell's verdict, and the expected one if it is another."""
    good = cell["verdict"] == cell["expected"]
    rest = " (as expected)" if good and cell["verdict"] != OK else ""
    text = f"{cell['verdict']}{rest}" if good else f"{cell['verdict']}, expected {cell['expected']}"
    return element("span", text, class_="good" if good else "bad")


def anchor(run: int, cell: int) -> str:
    """Name the row of a cell on the page. Args: run, cell: their places."""
    return f"cell-{run}-{cell}"


def again(cells: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the command that runs all cells again: a cell's own, without what makes it this cell.

    None, if the result is older than such commands.
    """
    if not cells or not cells[0].get("replay"):
        return None
    words = shlex.split(cells[0]["replay"])
    own = 0 if len(cells) == 1 else 2 * len(cells[0]["params"])
    return shlex.join(words[: len(words) - own])
