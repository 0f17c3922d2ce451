# SPDX-License-Identifier: MIT
"""The arena map as a section of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from harness.arena_map.looks import LOOKS, STATE_LOOKS, css
from harness.arena_map.recording import Recording
from harness.arena_map.shown import MOST_CELLS, MOST_OBJECTS, named_zones, show
from harness.arena_map.thumbnail import draw
from harness.page import Loaded, Markup, Section, details, element, join, named_cells, table
from harness.problems import ConfigError, Problem
from shmalloc.pagemap import KINDS, OBJECT_STATES, SLABS, Kind

__all__ = ["Mapped", "section", "sections"]

_STILLS = 12  # thumbnails at most
_TABLES = 4  # shown at once; the others are folded away together
_SHOWN = "before the drain"  # the moment that is shown first
_STROKES = {
    "plain": "",
    "slash": "M3 11L11 3",
    "backslash": "M3 3L11 11",
    "cross": "M3 3L11 11M3 11L11 3",
    "dot": "M6 7h2M7 6v2",
    "dash": "M3 7h8",
    "bar": "M7 3v8",
    "plus": "M3 7h8M7 3v8",
}


@dataclass(frozen=True)
class Mapped:
    """A map to be shown. Attributes: name: of the cell.  file: that holds all of it, or "".  found."""

    name: str
    file: str
    found: Recording


def sections(runs: Sequence[Loaded], designs: Sequence[str]) -> list[Section]:
    """Show the map of every cell that has one; without drawings (no designs) its tables only."""
    mapped = []
    for loaded, cell, name in named_cells(runs):
        file = (cell.get("map") or {}).get("file", "")
        arrays = loaded.arrays(file.removeprefix("arrays/").removesuffix(".npz")) if file else None
        if arrays is not None:
            mapped.append(Mapped(name, file, _read(loaded.folder / file, arrays)))
    if not mapped:
        return []
    return [section(mapped) if designs else Section("arena-map", "Arena map", _tables(mapped))]


def _read(path: Path, arrays: Mapping[str, Any]) -> Recording:
    try:
        return Recording(arrays)
    except (ValueError, KeyError) as error:
        raise ConfigError(str(path), [Problem("", None, f"damaged: {error}")]) from None


def section(mapped: Sequence[Mapped]) -> Section:
    """Make the section of some maps."""
    count = len(mapped)
    shown = [show(each.found, MOST_CELLS // count, MOST_OBJECTS // count) for each in mapped]
    data = {
        "maps": [
            {**each.meta, "file": one.file, "blocks": one.found.plane("types").shape[1]}
            for one, each in zip(mapped, shown, strict=True)
        ],
        "kinds": [{**asdict(KINDS[kind]), "pattern": LOOKS[kind].pattern} for kind in Kind],
        "states": [
            {**asdict(naming), "pattern": STATE_LOOKS[state].pattern}
            for state, naming in OBJECT_STATES.items()
        ],
        "shown": _SHOWN,
        "slabs": [int(kind) for kind in SLABS],
    }
    packed = {f"map-planes-{at}": each.planes for at, each in enumerate(shown)}
    packed |= {f"map-objects-{at}": each.objects for at, each in enumerate(shown)}
    return Section(
        "arena-map",
        "Arena map",
        join(element("p", _SAID), element("div", _app(mapped), _stills(mapped)), _tables(mapped)),
        css=css() + _own("map.css"),
        js=_own("map.js"),
        data={"map-data": data},
        packed=packed,
    )


_SAID = (
    "Every page of the arena is a cell, every pageblock a tile, by node and zone. Moments were taken while the "
    "CPUs ran: what changed hands while it was looked at is in transit. HIGHATOMIC pageblocks have a broad border."
)


def _own(name: str) -> str:
    return resources.files("harness.arena_map").joinpath(name).read_text(encoding="utf-8")


def _app(mapped: Sequence[Mapped]) -> Markup:
    """Make what the script fills in."""
    which = [element("option", each.name, value=at) for at, each in enumerate(mapped)]
    modes = {"kind": "what it is", "cache": "cache", "fill": "objects in use", "type": "pageblock type"}
    button = {"type": "button"}
    return element(
        "div",
        element(
            "div",
            element("label", "cell ", element("select", which, data_map="which")) if len(which) > 1 else None,
            element(
                "div",
                element("button", "play", data_map="play", aria_pressed="false", **button),
                element(
                    "input",
                    type="range",
                    min=0,
                    value=0,
                    step=1,
                    data_map="slider",
                    aria_label="moment of the run",
                ),
                element("output", data_map="time"),
                class_="map-time",
            ),
            element(
                "span",
                element("button", "\N{MINUS SIGN}", data_map="out", aria_label="zoom out", **button),
                " ",
                element("button", "+", data_map="in", aria_label="zoom in", **button),
                " ",
                element("button", "fit", data_map="fit", **button),
            ),
            element(
                "label",
                "colour by ",
                element(
                    "select",
                    [element("option", text, value=name) for name, text in modes.items()],
                    data_map="mode",
                ),
            ),
            element("label", "page ", element("input", type="number", min=0, data_map="page")),
            class_="controls",
        ),
        element(
            "div",
            element("canvas", data_map="canvas", tabindex=0, role="application", aria_label=_KEYS),
            element("div", data_map="tip", class_="map-tip", hidden=True),
            class_="map-stage",
        ),
        element(
            "ul",
            data_map="legend",
            class_="legend map-legend",
            aria_label="pages of each kind; press to highlight",
        ),
        element("p", data_map="orders", class_="quiet"),
        element("p", data_map="kept", class_="quiet"),
        element("p", data_map="said", class_="map-said", role="status"),
        element("div", data_map="slab", class_="map-slab", tabindex=-1),
        id="map-app",
        class_="map-app",
        hidden=True,
    )


_KEYS = (
    "arena map: arrow keys, Page Up and Page Down move from page to page, plus and minus zoom, 0 shows all, "
    "Enter goes to the page's slab"
)


def _still_moment(found: Recording) -> int:
    labels = [each["label"] for each in found.meta["moments"]]
    return labels.index(_SHOWN) if _SHOWN in labels else len(labels) - 1


def _stills(mapped: Sequence[Mapped]) -> Markup:
    """Draw one moment of each map, for paper and for who runs no scripts."""
    figures = []
    for at, each in enumerate(mapped[:_STILLS]):
        moment = _still_moment(each.found)
        meta, said = each.found.meta, each.found.meta["moments"][moment]
        drawn = draw(
            each.found.plane("kind")[moment],
            named_zones(meta),
            meta["frame"]["pageblock_order"],
            meta["group"],
        )
        caption = (
            f"{each.name}: the arena at {said['t_ms']:,.1f} ms{', ' * bool(said['label'])}{said['label']}"
        )
        figures.append(element("figure", element("figcaption", caption), drawn, id=f"map-still-{at}"))
    rest = len(mapped) - _STILLS
    more = element("p", f"{rest} more cells have a map.", class_="quiet") if rest > 0 else None
    return element("div", figures, more, _legend(mapped[0].found), class_="map-still")


def _legend(found: Recording) -> Markup:
    entries = [
        element(
            "li", element("span", swatch(kind), KINDS[kind].label, class_="map-entry", title=KINDS[kind].text)
        )
        for kind in Kind
        if found.counts[:, kind].any()
    ]
    return element("ul", entries, class_="legend map-legend")


def swatch(kind: Kind) -> Markup:
    """Draw what a kind looks like."""
    lines = _STROKES[LOOKS[kind].pattern]
    return element(
        "svg",
        element("rect", width=14, height=14, class_=f"map-k{int(kind)}"),
        element("path", d=lines) if lines else None,
        class_="map-swatch",
        viewBox="0 0 14 14",
        aria_hidden="true",
    )


def _tables(mapped: Sequence[Mapped]) -> Markup:
    made = [
        details(f"pages of each kind at each moment: {each.name}", _table(each.found), id=f"map-table-{at}")
        for at, each in enumerate(mapped)
    ]
    rest = made[_TABLES:]
    return join(made[:_TABLES], details(f"{len(rest)} more cells", rest) if rest else None)


def _table(found: Recording) -> Markup:
    kinds = [kind for kind in Kind if found.counts[:, kind].any()]
    rows = [
        [f"{each['t_ms']:,.1f}", each["label"], *(f"{found.counts[at, kind]:,}" for kind in kinds)]
        for at, each in enumerate(found.meta["moments"])
    ]
    return table(["ms", "", *(KINDS[kind].label for kind in kinds)], rows, left=2, class_="map-table")
