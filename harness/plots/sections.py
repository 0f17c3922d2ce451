# SPDX-License-Identifier: MIT
"""The sections of report.html that are figures."""

from __future__ import annotations

from collections.abc import Sequence

from harness import plots
from harness.page import Loaded, Markup, Section, element, join
from harness.plots import inline
from harness.plots.matrix import matrices

__all__ = ["figure", "sections"]

_TITLES = {
    "success": ("Success", ("success",)),
    "latency": ("Latency", ("percentiles", "latency")),
    "throughput": ("Throughput", ("throughput", "throughput-over-time")),
    "memory": ("Memory", ("memory",)),
    "failures": ("Failures", ("failures",)),
    "numa": ("Nodes", ("numa",)),
}


def sections(runs: Sequence[Loaded], designs: Sequence[str]) -> list[Section]:
    """Make a section for each question. Args: designs: decide colours; without them there are tables only."""
    drawings = plots.drawings(runs, designs)
    if not drawings:
        return []
    grid = plots.grid_of(runs, designs)
    extra = {"numa": matrices(grid) if grid else None}
    found = []
    for name, (title, wanted) in _TITLES.items():
        shown = [drawings[each] for each in wanted if each in drawings]
        figures = join(inline.figure(each, drawn=bool(designs)) for each in shown)
        if designs and len(shown) > 1 and all(len(each.panels) == 1 for each in shown):
            figures = element("div", figures, class_="pair")
        if shown or extra.get(name):
            found.append(Section(name, title, join(extra.get(name), figures), inline.css()))
    return found


def figure(name: str, runs: Sequence[Loaded], designs: Sequence[str]) -> Markup | None:
    """Return one figure, for a section that says more of the same; None, if there is none or none are drawn."""
    drawn = plots.drawings(runs, designs).get(name) if designs else None
    return inline.figure(drawn, drawn=True) if drawn else None
