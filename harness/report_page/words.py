# SPDX-License-Identifier: MIT
"""What several sections of a report say in the same words: numbers, verdicts, commands, configs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.page import Loaded, Markup, element
from harness.vocabulary import OK

__all__ = ["again", "anchor", "flat", "memory", "number", "passed_or_not", "places", "verdict"]

_KIB = 1024
_WHOLE = 1000  # from here on a measured value has no digits behind the point


def number(value: Any) -> str:
    """Write a count exactly, a measured value with what it is worth, four digits; of nothing a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= _WHOLE else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def plural(count: int, what: str) -> str:
    """Write a count and what it counts: "1 cell", "2 cells"."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def live(size_bytes: int | None) -> str:
    """Write a sum of objects' sizes, exactly; all of them in bytes, so that a column has one unit."""
    return "-" if size_bytes is None else f"{size_bytes:,} B"


def memory(size_bytes: int | None) -> str:
    """Write a size exactly: of whole KiB, which pages are, in those."""
    if size_bytes is None:
        return "-"
    kib, rest = divmod(size_bytes, _KIB)
    return f"{size_bytes:,} B" if rest else f"{kib:,} KiB"


def verdict(cell: Mapping[str, Any]) -> Markup:
    """Write a cell's verdict, and the expected one if it is another."""
    good = cell["verdict"] == cell["expected"]
    rest = " (as expected)" if good and cell["verdict"] != OK else ""
    text = f"{cell['verdict']}{rest}" if good else f"{cell['verdict']}, expected {cell['expected']}"
    return element("span", text, class_="good" if good else "bad")


def passed_or_not(good: bool) -> Markup:
    """Write how a run ended."""
    return element("span", "passed" if good else "FAILED", class_="good" if good else "bad")


def anchor(run: int, cell: int) -> str:
    """Name the row of a cell on the page. Args: run, cell: their places."""
    return f"cell-{run}-{cell}"


def places(runs: Sequence[Loaded]) -> list[str]:
    """Name the rows of all cells, in the order of `named_cells`."""
    return [anchor(run, cell) for run, each in enumerate(runs) for cell in range(len(each.run["cells"]))]


def again(cells: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the command that runs all cells again: a cell's own, without what makes it this cell.

    None, if there is none: the result is older than such commands.
    """
    if not cells or not cells[0].get("replay"):
        return None
    try:
        words = shlex.split(cells[0]["replay"])
    except ValueError:  # not by us
        return None
    own = 0 if len(cells) == 1 else 2 * len(cells[0]["params"])
    return shlex.join(words[: len(words) - own])


def flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of a config as dotted paths, each with its value."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
