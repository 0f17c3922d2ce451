# SPDX-License-Identifier: MIT
"""What the checkers found: where, by whom, the call stack level by level, and the command that shows it again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from harness.page import (
    Child,
    Loaded,
    Markup,
    Section,
    breakable,
    copyable,
    details,
    element,
    join,
    named_cells,
)
from harness.report_page.words import number, places, verdict

__all__ = ["sections"]

Cell = Mapping[str, Any]
_OPEN = 8  # violations of a cell that are not folded away
_REPLAY = re.compile(r"shmalloc (?:replay|run) [^)\n]+")

_CSS = """
.violation { border-left: 3px solid var(--bad); padding: .1rem 0 .1rem .8rem; margin: .8rem 0; }
.stack-of { margin: .2rem 0 .4rem; border-collapse: collapse; }
.stack-of th { font-weight: normal; color: var(--quiet); padding-top: .3rem; border: 0; }
.stack-of tr + tr th { border-top: 1px solid var(--quiet); }
.stack-of td { border: 0; padding-top: 0; padding-bottom: 0; }
"""


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Tell every violation, cell by cell."""
    named = zip(named_cells(runs), places(runs), strict=True)
    told = [_of_cell(cell, name, anchor) for (_, cell, name), anchor in named if cell["violations"]]
    return [Section("violations", "Violations", join(told), css=_CSS)] if told else []


def _of_cell(cell: Cell, name: str, anchor: str) -> Markup:
    found = [_violation(each, is_first=not at) for at, each in enumerate(cell["violations"])]
    rest = found[_OPEN:]
    return join(
        element("h3", element("a", breakable(name), href=f"#{anchor}"), ": ", verdict(cell)),
        element("p", "again, this cell alone: ", copyable(cell["replay"])) if cell.get("replay") else None,
        found[:_OPEN],
        details(f"{len(rest)} more", rest) if rest else None,
    )


def _violation(found: Cell, *, is_first: bool) -> Markup:
    what = element("b", str(found.get("verdict", "")), class_="bad")
    where = ", ".join(_where(found))
    return element(
        "div",
        element("div", what, f" by {found.get('checker', '-')}: ", _text(str(found.get("text", "")))),
        element("div", where, class_="quiet") if where else None,
        _stack(found, shown=is_first),
        class_="violation",
    )


def _text(text: str) -> Markup:
    """Write what was found; commands in it can be copied."""
    parts: list[Child] = []
    at = 0
    for match in _REPLAY.finditer(text):
        parts += [text[at : match.start()], copyable(match[0])]
        at = match.end()
    return join(parts, text[at:])


def _where(found: Cell) -> Iterator[str]:
    if found.get("repeat"):
        yield f"repeat {found['repeat']}"
    if found.get("cpu") is not None:
        yield f"CPU {found['cpu']} in {found.get('context')} (level {found.get('level')})"
        yield f"op {number(found.get('op_index'))}"
    if found.get("lock"):
        yield f"{found.get('lock_class')} lock at {found['lock']:#x}"
    if owner := found.get("owner"):
        yield f"held by CPU {owner.get('cpu')} at level {owner.get('level')}"
    if found.get("object"):
        yield f"object at {found['object']:#x}"


def _stack(found: Cell, *, shown: bool) -> Markup | None:
    """Write the call stack, innermost first; a line where an interrupt came in."""
    frames = found.get("stack") or ()
    if not frames:
        return None
    rows = []
    for at, (level, each) in enumerate(groupby(frames, key=lambda frame: frame.get("level"))):
        said = f"{'interrupted: ' if at else ''}level {level}{_context(found, level)}"
        rows.append(element("tr", element("th", said, colspan=2, scope="colgroup")))
        rows += [
            element(
                "tr",
                element("td", element("code", frame.get("symbol", ""))),
                element("td", element("code", _address(frame)), class_="n quiet"),
            )
            for frame in each
        ]
    body = element("div", element("table", element("tbody", rows), class_="stack-of"), class_="wide")
    return details(f"call stack ({len(frames)} frames)", body, open=shown)


def _context(found: Cell, level: Any) -> str:
    """Name the context of a level, where it is known: the innermost is the violation's, level 0 a task's."""
    if level == found.get("level") and found.get("context"):
        return f", {found['context']}"
    return ", task" if level == 0 else ""


def _address(frame: Cell) -> str:
    return f"{frame['address']:#x}" if isinstance(frame.get("address"), int) else ""
