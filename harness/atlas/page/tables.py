# SPDX-License-Identifier: MIT
"""The tables of a page: what was swept, scenario by scenario, beyond single interrupts, what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness import units
from harness.atlas import outcome_names, stacked
from harness.atlas.page.data import KINDS, points_of
from harness.atlas.page.figure import bar, chip
from harness.page.markup import Markup, element, join, table
from harness.report_page.words import verdict

__all__ = ["beyond", "cells", "outcomes", "points", "scenarios"]

Run = Mapping[str, Any]
_LISTED = 50  # points of a cell; all are made by page.js


def cells(found: Sequence[Run]) -> Markup:
    """Tabulate the cells: all points covered or not, how fast, what came of it."""
    head = (
        "cell",
        "verdict",
        "deadlock points",
        "instructions",
        "injections",
        "covered",
        "wrong",
        "scenarios",
        "distinct states",
        "injections/s",
        "cores",
        "time",
    )
    rows = []
    for cell in found:
        atlas = cell["atlas"]
        whole = atlas["covered"] == atlas["points"]
        rows.append(
            [
                cell["id"],
                verdict(cell),
                f"{atlas['deadlock_points']:,}",
                f"{atlas['instructions']:,}",
                f"{atlas['points']:,}",
                element(
                    "span", "all" if whole else f"{atlas['covered']:,}", class_="good" if whole else "bad"
                ),
                f"{len(atlas['red']):,}",
                f"{len(atlas['scenarios']):,}",
                f"{atlas['states']:,}",
                units.count(atlas["injections_per_s"]),
                str(atlas["cores"]),
                units.seconds(cell["seconds"]),
            ]
        )
    return table(head, rows, left=2)


def scenarios(cell: Run) -> Markup:
    """Tabulate a cell's scenarios."""
    head = (
        "scenario",
        "",
        "what the arriving call got",
        "what the interrupted call got",
        "path",
        "instructions",
        "injections",
        "covered",
        "states",
        "seconds",
    )
    rows = [
        [
            element("code", each["name"]),
            bar(each["outcomes"]),
            stacked.counts(each["outcomes"]),
            stacked.counts(each["operation_outcomes"]),
            stacked.path(each),
            f"{each['instructions']:,}",
            f"{each['points']:,}",
            "all" if each["covered"] == each["points"] else f"{each['covered']:,}",
            f"{each['states']:,}",
            f"{each['seconds']:.2f}",
        ]
        for each in cell["atlas"]["scenarios"]
    ]
    title = f"{cell['id']}: {len(rows):,} scenarios"
    return element("details", element("summary", title), table(head, rows, left=5, class_="scenarios"))


def beyond(found: Sequence[Run]) -> Markup | None:
    """Say what two interrupts did, and whether accesses alone would have told the same."""
    lines = [
        element("li", element("b", cell["id"]), ": ", element("span", text, class_="" if good else "bad"))
        for cell in found
        for text, good in stacked.beyond(cell["atlas"])
    ]
    if not lines:
        return None
    return join(element("ul", lines), [_pairs(cell) for cell in found if cell["atlas"].get("pairs")])


def _pairs(cell: Run) -> Markup:
    pairs = cell["atlas"]["pairs"]
    rows = [
        [
            element("code", each["name"]),
            each["kinds"],
            each["label"],
            stacked.counts(each["outcomes"]),
            f"{each['firsts']:,}",
            f"{each['points']:,}",
            "all" if each["covered"] == each["points"] else f"{each['covered']:,}",
        ]
        for part in (pairs, pairs["nested"] or {})
        for each in part.get("scenarios", ())
    ]
    head = ("scenario", "interrupts", "", "outcomes", "first places", "injections", "covered")
    return element("details", element("summary", f"{cell['id']}: pairs"), table(head, rows, left=4))


def outcomes(found: Sequence[Run]) -> Markup:
    """Tabulate injections by outcome, everything that was swept."""
    names = outcome_names.sort({name for cell in found for name in cell["atlas"]["outcomes"]})
    rows = [
        [cell["id"], *(f"{cell['atlas']['outcomes'].get(name, 0):,}" for name in names)] for cell in found
    ]
    return table(("cell", *map(outcome_names.said, names)), rows)


def points(cell: Run) -> Markup | None:
    """Tabulate the first points of a cell of atlas.json at which something is wrong, with what replays each."""
    found = [point for kind in KINDS for point in points_of(cell, kind)]
    if not found:
        return None
    rows = [
        [
            chip(point["verdict"]),
            element("code", point["symbol"]),
            point.get("source", ""),
            stacked.why(point),
            element("code", point["replay"]),
            f"{point.get('count', 1):,}",
        ]
        for point in found[:_LISTED]
    ]
    more = f"{cell['id']}: {len(found):,}" + (
        f", of which {_LISTED} are here" if len(found) > _LISTED else ""
    )
    return join(element("p", more), table(("", "at", "source", "what", "replay", "injections"), rows, left=5))
