# SPDX-License-Identifier: MIT
"""Pictures of a run, in the folder `plots` of its results: SVG, one file for each question.

Drawn by the parent after the results are written, from the same numbers.  Only this package imports
matplotlib, and only when there is something to draw: a CPU process never does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.memory import Sample
from harness.plots.grid import Grid

__all__ = ["FOLDER", "draw"]

FOLDER = "plots"


def draw(
    folder: Path, run: Mapping[str, Any], samples: Mapping[str, Sequence[Sample]], order: Sequence[str] = ()
) -> list[Path]:
    """Draw what a run has to show.

    Args: folder: of the run's results.  run: its JSON.  samples: of each cell, by its id.  order: all designs
        that exist; a design's place in it decides its colour, so that it has the same one in every run.
    Returns: the files; none if nothing asked for memory (a script's cells, say).
    """
    grid = Grid.of(run["cells"], order)
    if grid is None:
        return []
    from harness.plots import figures, numa_figure, style

    made = {
        "success": figures.success,
        "throughput": figures.throughput,
        "latency": figures.latency,
        "failures": figures.failures,
        "numa": numa_figure.numa,
    }
    files = []
    with style.drawing():
        for name, make in made.items():
            files += _save(folder, name, _titled(make(grid), run))
        files += _save(folder, "memory", _titled(figures.memory(grid, samples), run))
    return files


def _titled(figure: Any, run: Mapping[str, Any]) -> Any:
    """Say below a figure which run it is of."""
    if figure is not None:
        machine = run["machine"]
        model = machine["cpu_model"] or machine["architecture"]
        text = f"{run['name']}, seed {run['seed']}, {machine['cores_allowed']} cores ({model})"
        figure.supxlabel(text, x=0.995, ha="right", fontsize=7, color="0.4")
    return figure


def _save(folder: Path, name: str, figure: Any) -> list[Path]:
    """Write one figure, the same bytes for the same numbers."""
    if figure is None:
        return []
    path = folder / FOLDER / f"{name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="svg", metadata={"Date": None, "Creator": None, "Title": name})
    part.replace(path)
    return [path]
