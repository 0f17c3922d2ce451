# SPDX-License-Identifier: MIT
"""A figure as a part of a page: caption, legend, panels in the page's colours, and the table behind them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from harness.page.markup import Markup, details, element, join, table
from harness.page.svg import embedded
from harness.plots import legend, palette
from harness.plots.drawing import Drawing, Entry, Panel

__all__ = ["css", "figure"]

_FONT = "var(--font-text)"


def css() -> str:
    """Return the style of figures."""
    return resources.files("harness.plots").joinpath("figures.css").read_text(encoding="utf-8")


def figure(drawing: Drawing, *, drawn: bool) -> Markup:
    """Write a figure. Args: drawn: False = the table alone, open."""
    said = " ".join(filter(None, drawing.said))
    return element(
        "figure",
        element("figcaption", element("b", f"{drawing.title}. "), said),
        join(_legend(drawing.legend), _panels(drawing.panels)) if drawn else None,
        behind(drawing, is_open=not drawn),
        id=f"figure-{drawing.name}",
        class_="drawn",
    )


def behind(drawing: Drawing, *, is_open: bool = False) -> Markup | None:
    """Write the table of a figure's numbers, folded away."""
    numbers = drawing.numbers
    if numbers is None:
        return None
    return details("the same in numbers", table(numbers.head, numbers.rows, left=numbers.left), open=is_open)


def _panels(panels: Sequence[Panel]) -> Markup:
    return element("div", [_panel(panel) for panel in panels], class_="panels")


def _panel(panel: Panel) -> Markup:
    return embedded(
        panel.svg, panel.name, palette.variables(), _FONT, panel.titles, role="img", aria_label=panel.label
    )


def _legend(entries: Sequence[Entry]) -> Markup | None:
    if not entries:
        return None
    return element(
        "ul",
        [element("li", _sample(entry), element("span", entry.label)) for entry in entries],
        class_="samples",
    )


def _sample(entry: Entry) -> Markup:
    inner = legend.swatch(entry)
    for stand_in, value in palette.variables().items():
        inner = inner.replace(stand_in, value)
    return element(
        "svg", Markup(inner), viewBox=f"0 0 {legend.WIDTH:g} {legend.HEIGHT:g}", aria_hidden="true"
    )
