# SPDX-License-Identifier: MIT
"""An atlas in the terminal: the talk's picture with numbers, what was swept, what is wrong, one function's map.

Bars are made of the letters of the outcomes, so that they say the same without colour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from harness import units
from harness.atlas import outcome_names, stacked
from harness.atlas.levels import SLIDES
from harness.atlas.sources import Sources
from harness.atlas.stacked import Column
from harness.vocabulary import OK

__all__ = ["function_map", "functions", "parts"]

Run = Mapping[str, Any]

_BAR = 20  # letters
_SHARE = 19  # "1234 of 5678" beside a bar, and what is between columns
_MOST_BAR = 44
_LISTED = 12  # functions of a cell in which something is wrong; the page has all points


def parts(run: Run) -> Iterator[RenderableType]:
    """Yield the pieces of an atlas's report, top down."""
    cells = [cell for cell in run["cells"] if cell.get("atlas")]
    yield from _argument(cells)
    groups = dict(stacked.groups(stacked.columns(cells)))
    if len(groups) > 1:  # what is wrong with a broken one is told below
        groups.pop(stacked.BROKEN, None)
    columns = [column for group in groups.values() for column in group]
    if columns:
        yield Text(f"\n{stacked.question(columns)}", style="bold")
        for name, group in groups.items():
            yield Text(f"\n{name}", style="italic")
            yield _Picture(group)
        yield _legend({name for column in columns for name in column.picture["worst"]})
        yield _outcomes(columns)
    yield _swept(cells)
    yield from _beyond(cells)
    for cell in cells:
        yield from _wrong(cell)


def _argument(cells: Sequence[Run]) -> Iterator[Text]:
    """Say how many instructions of each design are deadlock points: the number that it is all about."""
    width = max((len(cell["id"]) for cell in cells), default=0)
    for cell in cells:
        atlas = cell["atlas"]
        dead, of = atlas["deadlock_points"], atlas["instructions"]
        line = Text(f"{cell['id']:<{width}}  ")
        line.append(f"{dead:,} of {of:,}", style="bold red" if dead else "bold green")
        line.append(" instructions are deadlock points")
        if more := stacked.unpromised(atlas):
            line.append(f", {more} more")
        if wrong := atlas.get("red_points", len(atlas["red"])):
            line.append(f", {wrong:,} point{'s' * (wrong != 1)} wrong", style="bold red")
        line.append(f"  ({stacked.coverage(atlas)})", style="dim")
        yield line


@dataclass(frozen=True)
class _Picture:
    """Levels as rows, who arrives in whom as columns; as many side by side as there is room for."""

    columns: Sequence[Column]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw for a width."""
        named = max(map(len, stacked.levels(self.columns)), default=0) + 3
        most = max(1, (options.max_width - named) // (_BAR + _SHARE))
        for at in range(0, len(self.columns), most):
            shown = self.columns[at : at + most]
            bar = max(_BAR, min(_MOST_BAR, (options.max_width - named) // len(shown) - _SHARE))
            yield self._table(shown, bar)

    def _table(self, columns: Sequence[Column], bar: int) -> Table:
        table = _table("level", left=1)
        for column in columns:
            table.add_column(column.title, no_wrap=True)
            table.add_column("deadlock\nat", justify="right", no_wrap=True)
        for level in stacked.levels(columns):
            cells: list[RenderableType] = []
            for column in columns:
                row = column.level(level)
                cells += [_bar(row["worst"], bar), _share(row)] if row else [Text("-", style="dim"), ""]
            table.add_row(Text(level, style="bold" if level in SLIDES else ""), *cells)
        table.add_section()
        total: list[RenderableType] = []
        for column in columns:
            total += [_bar(column.picture["worst"], bar), _share(column.picture)]
        table.add_row("all levels", *total, style="bold")
        return table


def _share(row: Run) -> Text:
    dead = row["deadlock_points"]
    return Text(f"{dead} of {row['instructions']}", style="bold red" if dead else "")


def _bar(worst: Run, width: int) -> Text:
    """Draw shares of instructions by their worst outcome; what happened at all has a letter at least."""
    bar = Text()
    for outcome, letters in stacked.shares(worst, width):
        bar.append(outcome_names.look(outcome).letter * letters, style=_style(outcome))
    return bar


def _style(outcome: str) -> Style:
    look = outcome_names.look(outcome)
    ink = "#ffffff" if outcome_names.is_verdict(outcome) or outcome == "deferred" else "#000000"
    return Style(color=ink, bgcolor=look.colour, bold=outcome_names.is_verdict(outcome))


def _legend(outcomes: set[str]) -> Text:
    line = Text("instructions by the worst that the arriving call got there:")
    letters: dict[str, list[str]] = {}
    for outcome in outcome_names.sort(outcomes):
        letters.setdefault(outcome_names.look(outcome).letter, []).append(outcome)
    for names in letters.values():
        line.append("  ")
        line.append(_letter(names[0]))
        line.append(f" {outcome_names.said_together(names)}")
    return line


def _outcomes(columns: Sequence[Column]) -> Table:
    """Tabulate the same in numbers: injections by outcome."""
    names = outcome_names.sort({name for column in columns for name in column.outcomes})
    table = _table("injections", *map(outcome_names.said, names), "all", left=1)
    for column in columns:
        found = column.outcomes
        counts = [units.count(found[name]) if found.get(name) else "-" for name in names]
        table.add_row(column.line, *counts, units.count(sum(found.values())))
    return table


def _swept(cells: Sequence[Run]) -> Table:
    table = _table(
        "cell", "verdict", "scenarios", "points", "covered", "states", "injections/s", "cores", "time", left=2
    )
    for cell in cells:
        atlas = cell["atlas"]
        whole = atlas["covered"] == atlas["points"]
        table.add_row(
            cell["id"],
            _verdict(cell),
            str(len(atlas["scenarios"])),
            f"{atlas['points']:,}",
            Text("all" if whole else f"{atlas['covered']:,}", style="" if whole else "bold red"),
            f"{atlas['states']:,}",
            units.count(atlas["injections_per_s"]),
            str(atlas["cores"]),
            units.seconds(cell["seconds"]),
        )
    return table


def _verdict(cell: Run) -> Text:
    if cell["verdict"] == cell["expected"]:
        return Text(cell["verdict"] + ("" if cell["verdict"] == OK else " (as expected)"), style="green")
    return Text(f"{cell['verdict']}, expected {cell['expected']}", style="bold red")


def _beyond(cells: Sequence[Run]) -> Iterator[Text]:
    """Say what two NMIs did, and whether accesses alone would have told the same."""
    for cell in cells:
        for text, good in stacked.beyond(cell["atlas"]):
            yield Text(f"{cell['id']}: {text}", style="" if good else "bold red")


def _wrong(cell: Run) -> Iterator[Text]:
    """Tell what was found, kind by kind, and in which functions: with what replays the first point of each."""
    style = "yellow" if cell["verdict"] == cell["expected"] else "bold red"
    for found in cell["violations"]:
        line = Text(f"\n{cell['id']}: ", style=style)
        yield line.append(found["text"], style="not bold default")
    spots = stacked.spots(cell["atlas"]["red"])
    for spot in spots[:_LISTED]:
        line = Text(f"  {outcome_names.said(spot.verdict)}", style=style)
        many = f"{spot.instructions:,} instruction{'s' * (spot.instructions != 1)}"
        line.append(f" in {spot.function}: {many}, {spot.where}", style="not bold default")
        yield line.append(f"\n    {spot.points[0]['replay']}", style="not bold default")
    if len(spots) > _LISTED:
        yield Text(f"  and in {len(spots) - _LISTED:,} functions more, all in report.html", style="dim")


def functions(cell: Run) -> Table:
    """Tabulate the functions that were executed, the worst first. Args: cell: of atlas.json."""
    table = _table("function", "source", "", "instructions by the worst outcome there", "injections", left=4)
    rows = []
    for function in cell["functions"]:
        worst = Counter(outcome_names.worst(each["outcomes"]) for each in _executed(function))
        rows.append((outcome_names.rank(outcome_names.worst(worst)), function, worst))
    for _, function, worst in sorted(rows, key=lambda row: row[0], reverse=True):
        table.add_row(
            Text(function["name"]),
            Text(function["file"]),
            _bar(worst, _BAR),
            stacked.counts(worst),
            f"{sum(each['points'] for each in function['instructions']):,}",
        )
    return table


def function_map(cell: Run, name: str, lines: Sources | None = None) -> Iterator[RenderableType]:
    """Yield a function's instructions, each with what happened there; what was never executed has no letter.

    Args: cell: of atlas.json.  name: of a function that was executed; of several copies all are shown.
        lines: of source files.
    Raises: KeyError: it was not.
    """
    found = [function for function in cell["functions"] if function["name"] == name]
    if not found:
        raise KeyError(name)
    for function in found:
        yield from _map(cell, function, lines or {})


def _executed(function: Run) -> list[Run]:
    return [each for each in function["instructions"] if each["points"]]


def _map(cell: Run, function: Run, lines: Sources) -> Iterator[RenderableType]:
    instructions = function["instructions"]
    executed = _executed(function)
    said = f"{len(executed)} of {len(instructions)} instructions executed"
    yield Text(f"{function['name']} ({function['file']}), {cell['id']}: {said}", style="bold")
    yield _legend({outcome_names.worst(each["outcomes"]) for each in executed})
    table = _table("", "address", "outcomes", "instruction", left=4)
    before = None
    for each in instructions:
        place = _source(each, lines)
        if place != before:
            table.add_row("", "", "", Text(place, style="cyan"))
            before = place
        table.add_row(
            _letter(outcome_names.worst(each["outcomes"])) if each["points"] else "",
            f"{each['address']:x}",
            stacked.counts(each["outcomes"]),
            Text(f"  {each['text']}"),
            style="" if each["points"] else "dim",
        )
    yield table


def _source(instruction: Run, lines: Sources) -> str:
    """Write an instruction's line, its text if it is at hand, and what it is inlined from."""
    file, number = instruction["file"], instruction["line"]
    text = lines[file][number - 1].strip() if 0 < number <= len(lines.get(file, ())) else ""
    inlined = f"[{' > '.join(instruction['inlined'])}]" if instruction["inlined"] else ""
    return "  ".join(filter(None, (f"{file}:{number}", text, inlined)))


def _letter(outcome: str) -> Text:
    return Text(f" {outcome_names.look(outcome).letter} ", style=_style(outcome))


def _table(*columns: str, left: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for at, name in enumerate(columns):
        table.add_column(name, justify="left" if at < left else "right", overflow="fold", no_wrap=at == 0)
    return table
