# SPDX-License-Identifier: MIT
"""An atlas as one HTML file: opens from disk, loads nothing, light and dark, printable.

What has a number of its own is written as HTML; the maps of functions and the points that are wrong are data
in the page, from which page.js makes what is looked at.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from harness.atlas import outcome_names, sources, stacked
from harness.atlas.page import tables
from harness.atlas.page.data import css_class, outcomes_of, pack
from harness.atlas.page.figure import figure, legend
from harness.atlas.picture import ALL
from harness.atlas.sources import Sources
from harness.atlas.stacked import ASKED
from harness.page.markup import Markup, element, join, script_json
from harness.results import passed

__all__ = ["FILE", "html", "write"]

FILE = "atlas.html"
Run = Mapping[str, Any]

# Nothing is loaded, from nowhere: the browser refuses what should get in all the same.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
_ASKED = "An NMI before every instruction, in which a call of the same size arrives (handler alloc_same)."
_ALL = (
    "The same over everything that a handler did: allocate, free, both, pages, until there is nothing left."
)
_IRQ = "An IRQ before every instruction, which comes when it is not masked."


def write(folder: Path, run: Run, atlas: Run) -> Path:
    """Leave the page in the folder of a run.

    Args: run: its result.json.  atlas: its atlas.json.
    Returns: the file.
    """
    path = folder / FILE
    part = path.with_name(path.name + ".part")
    part.write_text(html(run, atlas, sources.find()), encoding="utf-8")
    part.replace(path)
    return path


def html(run: Run, atlas: Run, lines: Sources | None = None) -> str:
    """Make the page. Args: run: result.json.  atlas: atlas.json.  lines: of source files, to show with the maps."""
    found = [cell for cell in run["cells"] if cell.get("atlas")]
    known = {cell["id"] for cell in found}
    maps = [cell for cell in atlas["cells"] if cell["id"] in known]
    names = outcomes_of(maps) | {name for cell in found for name in cell["atlas"]["outcomes"]}
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{run['name']}: NMI atlas"),
        element("style", Markup(_text("page.css") + _colours(names))),
    )
    body = element(
        "body",
        _top(run, atlas, found),
        element("main", _figures(found), _swept(run, found), _looked_at(maps, names)),
        script_json(json.dumps(pack(maps, lines), separators=(",", ":"), ensure_ascii=False), "data"),
        element("script", Markup(_text("page.js"))),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


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
    """Return black or white, whichever is read better on a colour."""
    red, green, blue = (int(ground[at : at + 2], 16) for at in (1, 3, 5))
    return "#000" if 299 * red + 587 * green + 114 * blue > 128_000 else "#fff"


def _top(run: Run, atlas: Run, found: Sequence[Run]) -> Markup:
    """Say the verdict, what was run, and how to run it again."""
    good = passed(run)
    points = sum(cell["atlas"]["points"] for cell in found)
    covered = sum(cell["atlas"]["covered"] for cell in found)
    machine, build = run["machine"], run["build"]
    right = [cell for cell in found if cell["broken"] == "none"]
    tiles = [_tile(cell) for cell in right or found]  # what is broken on purpose is in the tables
    kinds = {each["kind"] for cell in found for each in cell["atlas"]["scenarios"]}
    what = "An interrupt" if "irq" in kinds else "An NMI"
    said = (
        f"{what} was delivered before every instruction of every scenario, each time from the same state: {covered:,} "
        f"of {points:,} injections, and what came of each was checked."
    )
    return element(
        "header",
        element(
            "h1",
            f"{run['name']}: ",
            element("span", "passed" if good else "FAILED", class_="good" if good else "bad"),
            element("small", f" verdict {run['verdict']}, {len(found)} cell{'s' * (len(found) != 1)}"),
        ),
        element("p", said),
        [element("p", f"{cell['id']}: {text}", class_="bad") for cell in found for text in _failed(cell)],
        element("div", tiles, class_="tiles"),
        element(
            "p",
            f"seed {run['seed']}, {build['flavour']} build {build['id']}, {machine['cores_allowed']} cores "
            f"({machine['cpu_model'] or machine['architecture']})",
            [f"; {warning}" for warning in machine["warnings"]],
            element("br"),
            "compiled by ",
            element("small", atlas["build"]["flags"]),
            class_="quiet",
        ),
        element("p", "again: ", _copyable(again(found)) if found else None),
        element(
            "p",
            "beside this page: ",
            element("a", "certificate.json", href="certificate.json"),
            " (a random sample of it is run again by ",
            element("code", "shmalloc verify certificate.json"),
            "), ",
            element("a", "atlas.json", href="atlas.json"),
            ", ",
            element("a", "result.json", href="result.json"),
            class_="quiet",
        ),
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
        element("span", tables.verdict(cell), class_="note"),
        href="#wrong" if dead or wrong else "#map",
        data_cell=cell["id"],
        class_="tile",
    )


def _copyable(command: str) -> Markup:
    return element("code", command, class_="copy", tabindex="0", title="click to copy")


def again(found: Sequence[Run]) -> str:
    """Return the command that runs all cells again: a cell's own, without what makes it this cell."""
    words = shlex.split(found[0]["replay"])
    own = 0 if len(found) == 1 else 2 * len(found[0]["params"])
    return shlex.join(words[: len(words) - own])


def _figures(found: Sequence[Run]) -> Markup:
    made, number = [], 0
    for handler, kind, title in ((ASKED, "nmi", _ASKED), (ALL, "nmi", _ALL), (ALL, "irq", _IRQ)):
        drawn = []
        for name, columns in stacked.groups(stacked.columns(found, handler, kind)):
            if name == stacked.BROKEN and (handler, kind) == (ALL, "nmi"):
                continue  # drawn already: always with all handlers
            number += 1
            drawn.append(figure(columns, f"{name.capitalize()}. {title}", number))
        if drawn and (handler, kind) != (ASKED, "nmi"):
            drawn = [element("details", element("summary", title), drawn)]
        made += drawn
    heading = element("h2", "What one gets who arrives inside the allocator")
    return element("section", heading, made, id="picture")


def _swept(run: Run, found: Sequence[Run]) -> Markup:
    beyond, expected = tables.beyond(found), tables.expectations(run["expectations"])
    return join(
        element(
            "section",
            element("h2", "What was swept"),
            tables.cells(found),
            tables.outcomes(found),
            id="cells",
        ),
        element("section", element("h2", "What was expected"), expected) if expected else None,
        element("section", element("h2", "Two interrupts, and accesses only"), beyond, id="beyond")
        if beyond
        else None,
        element(
            "section",
            element("h2", "Scenarios"),
            element(
                "p",
                "OPERATION@INTERRUPTED DESIGN/HANDLER; the path is what the operation's counters grew by.",
            ),
            [tables.scenarios(cell) for cell in found],
            id="scenarios",
        ),
    )


def _looked_at(maps: Sequence[Run], names: set[str]) -> Markup:
    """Leave room for what page.js makes."""
    cells = [element("option", cell["id"], value=at) for at, cell in enumerate(maps)]
    outcomes = [element("option", outcome_names.said(name), value=name) for name in outcome_names.sort(names)]
    choose = element("option", "any", value="")
    controls = element(
        "p",
        element("label", "cell ", element("select", cells, id="cell")),
        element("label", "outcome ", element("select", choose, outcomes, id="outcome")),
        element("label", "level ", element("select", choose, id="level")),
        element("label", "function ", element("input", id="name", type="search", placeholder="any")),
        class_="controls",
    )
    without = element("noscript", "Maps and points need scripts; report.txt beside this page does without.")
    return join(
        element(
            "section",
            element("h2", "Maps"),
            element(
                "p",
                "Every function that was executed, and in it every instruction that was, coloured by the worst "
                "outcome of the injections before it.",
            ),
            without,
            controls,
            legend(names),
            element("div", id="functions"),
            id="map",
        ),
        element(
            "section",
            element("h2", "Points that are wrong, and deadlock points"),
            element(
                "p",
                "Of the cell and the filters above: red ones, what else goes wrong where a design does not claim "
                "to work, and its deadlocks, one line for each instruction. Each replays exactly that injection.",
            ),
            element("div", id="points"),
            id="wrong",
        ),
    )
