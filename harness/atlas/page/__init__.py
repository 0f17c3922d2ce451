# SPDX-License-Identifier: MIT
"""An atlas as sections of a report: the talk's picture, what was swept, maps of functions, points that are wrong.

What has a number of its own is written as HTML; the maps of functions and the points that are wrong are data
in the page, from which page.js makes what is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from harness.atlas import outcome_names, sources, stacked
from harness.atlas.page import tables
from harness.atlas.page.data import css_class, outcomes_of, pack
from harness.atlas.page.figure import figure, legend
from harness.atlas.picture import ALL
from harness.atlas.sources import Sources
from harness.atlas.stacked import ASKED
from harness.page import Loaded, Markup, Section, element, join, named_cells
from harness.report_page.words import verdict
from shmalloc import _binding

__all__ = ["DATA", "sections"]

DATA = "atlas-data"  # the element that holds what data.py packs
Run = Mapping[str, Any]

_ASKED = "An NMI before every instruction, in which a call of the same size arrives (handler alloc_same)."
_ALL = (
    "The same over everything that a handler did: allocate, free, both, pages, until there is nothing left."
)
_IRQ = "An IRQ before every instruction, which comes when it is not masked."


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Show the atlases of some runs; those without one have no part in it."""
    found = {id(cell): {**cell, "id": name} for _, cell, name in named_cells(runs) if cell.get("atlas")}
    if not found:
        return []
    parts = [(each, [found[id(cell)] for cell in each.run["cells"] if id(cell) in found]) for each in runs]
    parts = [(each, cells) for each, cells in parts if cells]
    maps = [(cell, lines) for each, cells in parts for cell, lines in _maps(each, cells)]
    names = outcomes_of([cell for cell, _ in maps])
    names.update(name for cell in found.values() for name in cell["atlas"]["outcomes"])
    style = _text("page.css") + _colours(names)
    made = [
        Section("atlas", "Reentry picture", _pictures(parts), css=style),
        Section("atlas-swept", "What was swept", join(_swept(*part) for part in parts), css=style),
    ]
    if not maps:
        return made
    packed = json.dumps(pack(maps), separators=(",", ":"), ensure_ascii=False).encode()
    return [
        *made,
        Section(
            "atlas-map",
            "Maps of functions",
            _map([cell for cell, _ in maps], names),
            css=style,
            js=_text("page.js"),
            packed={DATA: packed},
        ),
        Section(
            "atlas-wrong",
            "Wrong and deadlock points",
            _wrong([cell for cell, _ in maps]),
            css=style,
        ),
    ]


def _maps(loaded: Loaded, cells: Sequence[Run]) -> list[tuple[Run, Sources]]:
    """Return the cells of atlas.json under the names of *cells*, and the source lines of what was run there."""
    known = {cell["id"]: cell for cell in (loaded.atlas or {}).get("cells", ())}
    own = [cell["id"] for cell in loaded.run["cells"] if cell.get("atlas")]
    build = loaded.run["build"].get("id")
    lines = sources.find() if build == _binding.core().build_id else {}
    return [
        ({**known[name], "id": cell["id"]}, lines)
        for name, cell in zip(own, cells, strict=True)
        if name in known
    ]


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _colours(outcomes: set[str]) -> str:
    """Write the style of each outcome: the colours of outcome_names, one for each ground."""
    light, dark = [], []
    for name in outcome_names.sort(outcomes):
        look, selector = outcome_names.look(name), f".{css_class(name)}"
        light.append(f"{selector}{{--c:{look.colour};--t:{_ink(look.colour)}}}")
        light.append(f".bar {selector}{{background-image:var(--{look.pattern})}}")
        dark.append(f"{selector}{{--c:{look.dark};--t:{_ink(look.dark)}}}")
    return "\n".join([*light, "@media screen and (prefers-color-scheme: dark){", *dark, "}", ""])


def _ink(ground: str) -> str:
    """Return black or white, whichever has the greater contrast with a colour."""
    linear = []
    for at in (1, 3, 5):
        share = int(ground[at : at + 2], 16) / 255
        linear.append(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4)
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#fff"


def _pictures(parts: Sequence[tuple[Loaded, Sequence[Run]]]) -> Markup:
    """Say how many instructions of each cell are deadlock points, and draw who got what where."""
    made, number = [], 0
    for loaded, found in parts:
        made += [element("h3", loaded.label)] if len(parts) > 1 else []
        made.append(_argument(loaded.run, found))
        for handler, kind, title in ((ASKED, "nmi", _ASKED), (ALL, "nmi", _ALL), (ALL, "irq", _IRQ)):
            drawn = []
            for name, columns in stacked.groups(stacked.columns(found, handler, kind)):
                if name == stacked.BROKEN and (handler, kind) == (ALL, "nmi"):
                    continue  # drawn already: always with all handlers
                number += 1
                drawn.append(figure(columns, f"{name.capitalize()}. {title}", f"atlas-figure-{number}"))
            if drawn and (handler, kind) != (ASKED, "nmi"):
                drawn = [element("details", element("summary", title), drawn)]
            made += drawn
    return join(made)


def _argument(run: Run, found: Sequence[Run]) -> Markup:
    """Say what was done, and the number that it is all about, for each cell."""
    points = sum(cell["atlas"]["points"] for cell in found)
    covered = sum(cell["atlas"]["covered"] for cell in found)
    right = [cell for cell in found if cell.get("broken", "none") == "none"]
    tiles = [_tile(cell) for cell in right or found]  # what is broken on purpose is in the tables
    kinds = {each["kind"] for cell in found for each in cell["atlas"]["scenarios"]}
    what = "An interrupt" if "irq" in kinds else "An NMI"
    said = (
        f"{what} was delivered before every instruction of every scenario, each time from the same state: {covered:,} "
        f"of {points:,} injections, and what came of each was checked."
    )
    return join(
        element("p", said, class_=None if covered == points else "bad"),
        [element("p", f"{cell['id']}: {text}", class_="bad") for cell in found for text in _failed(cell)],
        element("div", tiles, class_="tiles"),
    )


def _failed(cell: Run) -> list[str]:
    """Say which scenarios proved nothing."""
    return [f"{each['scenario']}: {each['why']}" for each in cell["atlas"].get("failed", ())]


def _tile(cell: Run) -> Markup:
    atlas = cell["atlas"]
    dead, of = atlas["deadlock_points"], atlas["instructions"]
    wrong = atlas.get("red_points", len(atlas["red"]))
    more = stacked.unpromised(atlas)
    return element(
        "a",
        element("b", cell["id"]),
        element("span", f"{dead:,}", class_="big bad" if dead else "big good"),
        element("span", f"of {of:,} instructions are deadlock points", class_="where"),
        element("span", f"{more} more", class_="where") if more else None,
        element("span", f"{wrong:,} point{'s' * (wrong != 1)} wrong", class_="bad") if wrong else None,
        element("span", verdict(cell), class_="note"),
        href="#atlas-wrong" if dead or wrong else "#atlas-map",
        data_cell=cell["id"],
        class_="tile",
    )


def _swept(loaded: Loaded, found: Sequence[Run]) -> Markup:
    """Tabulate what was done, scenario by scenario, and say how to do a part of it again."""
    beyond = tables.beyond(found)
    flags = ((loaded.atlas or {}).get("build") or {}).get("flags")
    return join(
        tables.cells(found),
        tables.outcomes(found),
        join(element("h3", "Two interrupts, and accesses only"), beyond) if beyond else None,
        element("h3", "Scenarios"),
        element(
            "p",
            "OPERATION@INTERRUPTED DESIGN/HANDLER; the path is what the operation's counters grew by.",
            class_="quiet",
        ),
        [tables.scenarios(cell) for cell in found],
        element(
            "p",
            "certificate.json in the run's folder says the same, and ",
            element("code", "shmalloc verify certificate.json"),
            " runs a random sample of it again.",
        ),
        element("p", "compiled by ", element("small", flags), class_="quiet") if flags else None,
    )


def _map(maps: Sequence[Run], names: set[str]) -> Markup:
    """Leave room for the maps that page.js makes."""
    cells = [element("option", cell["id"], value=at) for at, cell in enumerate(maps)]
    outcomes = [element("option", outcome_names.said(name), value=name) for name in outcome_names.sort(names)]
    choose = element("option", "any", value="")
    controls = element(
        "div",
        element("label", "cell ", element("select", cells, id="atlas-cell")),
        element("label", "outcome ", element("select", choose, outcomes, id="atlas-outcome")),
        element("label", "level ", element("select", choose, id="atlas-level")),
        element("label", "function ", element("input", id="atlas-name", type="search", placeholder="any")),
        class_="controls",
        hidden=True,
    )
    said = (
        "Every function that was executed, and in it every instruction that was, coloured by the worst "
        "outcome of the injections before it. Functions open, and so do instructions at which something is wrong."
    )
    without = "The maps are made by a script; without one: shmalloc map DIR [FUNCTION]."
    return join(
        element("p", said),
        element("noscript", element("p", without, class_="quiet")),
        controls,
        legend(names),
        element("div", id="atlas-functions"),
    )


def _wrong(maps: Iterable[Run]) -> Markup:
    """List some points of each cell; page.js puts all of the chosen cell in their place."""
    return join(
        element(
            "p",
            "Of the cell and by the filters above: red ones, what else goes wrong where a design does not "
            "claim to work, and its deadlocks, one line for each instruction. Each replays exactly that injection.",
        ),
        element("noscript", [tables.points(cell) for cell in maps]),
        element("div", id="atlas-points"),
    )
