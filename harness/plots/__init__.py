# SPDX-License-Identifier: MIT
"""Pictures of runs: sections of report.html, and the same as SVG, a file for each question, in the folder `plots`.

Drawn by the parent after the results are written, from the same numbers, and once for page and files.  Only this
package imports matplotlib, and only when there is something to draw: a CPU process never does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.page.loaded import Loaded
from harness.plots import files, numa_figure, percentiles, shares, speed
from harness.plots.drawing import Drawing
from harness.plots.files import FOLDER
from harness.plots.grid import Grid, Source

__all__ = ["FOLDER", "WITHOUT", "draw", "drawings", "grid_of"]

WITHOUT = (
    "script",
    "atlas",
)  # engines whose cells are facts, and have neither statistics nor a course of time
_MAKERS: tuple[Callable[[Grid], Drawing | None], ...] = (
    shares.success,
    percentiles.overview,
    percentiles.curves,
    speed.throughput,
    speed.over_time,
    speed.memory,
    shares.failures,
    shares.interrupts,
    numa_figure.numa,
)
_last: tuple[list[Any], tuple[str, ...], dict[str, Drawing]] | None = (
    None  # what was drawn last: page and files
)


def grid_of(runs: Sequence[Loaded], designs: Sequence[str]) -> Grid | None:
    """Lay the cells of runs out; None if there is nothing to draw of them. Args: designs: places are colours."""
    sources: list[Source] = [
        (label, {"design": "-", **cell}, loaded.samples.get(cell["id"], ()))
        for label, loaded in zip(_labels(runs), runs, strict=True)
        if loaded.run["config"].get("engine") not in WITHOUT
        for cell in loaded.run["cells"]
    ]
    return Grid.of(sources, designs)


def _labels(runs: Sequence[Loaded]) -> list[str]:
    """Name runs, those of one name with a number."""
    found: list[str] = []
    for loaded in runs:
        number, label = 1, loaded.label
        while label in found:
            number += 1
            label = f"{loaded.label} ({number})"
        found.append(label)
    return found


def drawings(runs: Sequence[Loaded], designs: Sequence[str]) -> dict[str, Drawing]:
    """Return what runs have to show, by name: the same objects if the same runs are asked for again.

    Args: designs: all that exist; a design's place in it decides its colour, the same in every run.
    """
    global _last
    wanted = [loaded.run["cells"] for loaded in runs], tuple(designs)
    if _last is not None and _last[1] == wanted[1] and _same(_last[0], wanted[0]):
        return _last[2]
    grid = grid_of(runs, designs)
    made = [maker(grid) for maker in _MAKERS] if grid else []
    found = {drawing.name: drawing for drawing in made if drawing is not None}
    _last = (*wanted, found)
    return found


def _same(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def draw(loaded: Loaded, designs: Sequence[str]) -> list[Path]:
    """Leave what a run has to show in its folder. Args: designs: as for `drawings`.

    Returns: the files; none if nothing asked for memory (a script's cells, say).
    """
    footer = _footer(loaded.run)
    return [files.write(loaded.folder, drawing, footer) for drawing in drawings([loaded], designs).values()]


def _footer(run: Mapping[str, Any]) -> str:
    """Say which run figures are of."""
    machine = run["machine"]
    model = machine.get("cpu_model") or machine.get("architecture", "")
    return f"{run['name']}, seed {run['seed']}, {machine.get('cores_allowed', '-')} cores ({model})"
