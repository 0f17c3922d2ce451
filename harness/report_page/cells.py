# SPDX-License-Identifier: MIT
"""The cells of a run: verdict, what each did, who asked from which context, and the command that runs it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from harness import compare
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
    table,
)
from harness.report_page.words import live, memory, number, places, verdict

__all__ = ["sections"]

Cell = Mapping[str, Any]
_OPEN = 12  # commands that are not folded away
_LATENCIES = {"p50": "p50", "p99": "p99", "p999": "p99.9", "max": "max"}


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Tabulate all cells."""
    named = [(cell, name) for _, cell, name in named_cells(runs)]
    if not named:
        return []
    made = [Section("cells", "Cells", join(_cells(named, places(runs)), _repeats(named), _commands(named)))]
    rows = [row for cell, name in named for row in _contexts(cell, name)]
    if rows:
        made.append(Section("allocations", "Allocations by context", _allocations(rows)))
    return made


# --- cells ---------------------------------------------------------------------------------------


def _at(*path: str) -> Callable[[Cell], Any]:
    """Return what looks up a value in a cell; None if it is not there."""

    def get(cell: Cell) -> Any:
        value: Any = cell
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    return get


_COLUMNS: dict[str, tuple[Callable[[Cell], Any], Callable[[Any], str]]] = {
    "CPUs": (_at("cpus"), number),
    "ops": (_at("ops"), number),
    "ops/s": (lambda cell: None if cell.get("atlas") else cell.get("throughput_ops_s"), number),
    "allocs": (_at("allocs"), number),
    "frees": (_at("frees"), number),
    "failed": (lambda cell: sum(cell["failures"].values()), number),
    "peak memory": (_at("memory", "peak_bytes"), memory),
    "live at the end": (_at("memory", "live_bytes"), live),
    "arena": (_at("memory", "arena_bytes"), memory),
    "seconds": (_at("seconds"), number),
    "processor seconds": (_at("processor_s"), number),
}


def _cells(named: Sequence[tuple[Cell, str]], anchors: Sequence[str]) -> Markup:
    """Tabulate what has a number in any cell."""
    columns = {title: how for title, how in _COLUMNS.items() if any(how[0](cell) for cell, _ in named)}
    rows: list[list[Child]] = [
        [
            element("span", breakable(name), id=anchor),
            verdict(cell),
            *(write(get(cell)) for get, write in columns.values()),
        ]
        for anchor, (cell, name) in zip(anchors, named, strict=True)
    ]
    return table(("cell", "verdict", *columns), rows, left=2)


def _repeats(named: Sequence[tuple[Cell, str]]) -> Markup | None:
    """Tabulate what each repeat of a cell measured, where it ran several times."""
    rows: list[list[Child]] = [
        [
            breakable(name),
            number(repeat.get("repeat")),
            str(repeat.get("verdict", "")),
            "yes" if repeat.get("shown") else "",
            number(repeat.get("seed")),
            number(repeat.get("ops")),
            number(repeat.get("throughput_ops_s")),
            memory(repeat.get("used_bytes")),
            number(repeat.get("seconds")),
        ]
        for cell, name in named
        if len(cell.get("repeats") or ()) > 1
        for repeat in cell["repeats"]
    ]
    if not rows:
        return None
    said = "The numbers of a cell are those of the repeat of median throughput, which is the one shown."
    head = ("cell", "repeat", "verdict", "shown", "seed", "ops", "ops/s", "peak memory", "seconds")
    full = table(head, rows, left=4)
    return details("each repeat", element("p", said, class_="quiet"), full, open=len(rows) <= _OPEN)


def _commands(named: Sequence[tuple[Cell, str]]) -> Markup | None:
    rows = [(breakable(name), copyable(cell["replay"])) for cell, name in named if cell.get("replay")]
    if not rows:
        return None
    return details(
        "again, each cell alone", table(("cell", "command"), rows, left=2), open=len(rows) <= _OPEN
    )


# --- contexts ------------------------------------------------------------------------------------


def _contexts(cell: Cell, name: str) -> Iterator[list[Child]]:
    """Yield a row for each context in which the cell asked for memory."""
    for context, row in cell["contexts"].items():
        failures, allocs = row.get("failures", {}), row.get("allocs", 0)
        failed = sum(failures.values())
        if not allocs + failed:
            continue
        latency = row.get("latency_ns", {})
        designs = [design for design, seen in cell.get("designs", {}).items() if context in seen]
        why = ", ".join(f"{reason} {number(count)}" for reason, count in failures.items() if count)
        yield [
            breakable(name),
            context,
            ", ".join(designs),
            number(allocs),
            number(row.get("frees")),
            number(failed),
            compare.percent(allocs / (allocs + failed)),
            *(number(latency.get(key)) for key in _LATENCIES),
            number(row.get("timed")),
            element("span", why, class_="reasons") if why else None,
        ]


def _allocations(rows: Sequence[Sequence[Child]]) -> Markup:
    said = "Latencies in ns, of the ops that were timed; success is the share of requests that did not come back NULL."
    head = (
        "cell",
        "context",
        "design",
        "allocs",
        "frees",
        "failed",
        "success",
        *_LATENCIES.values(),
        "timed",
    )
    return join(element("p", said, class_="quiet"), table((*head, "why"), rows, left=3, last=1))
