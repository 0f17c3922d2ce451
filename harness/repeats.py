# SPDX-License-Identifier: MIT
"""Repeats: a cell run several times, so that what differs from run to run is in what is said of it.

Repeats are interleaved over the cells of a config, every other round backwards, so that what changes slowly on
the machine meets all cells alike. Each has a fresh arena, fresh processes and a seed of its own: it is another
sample of the same config, not the same arrays again. The n-th repeats of all cells have the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.config import Cell
from harness.memory import Sample
from harness.results import run_verdict
from harness.stress import Pieces
from harness.vocabulary import Vocabulary

__all__ = ["Done", "merge", "order", "with_seed_of"]

STRIDE = 1009  # between the seeds of two repeats: a config may well have a list of neighbouring seeds
_MOST_SEED = 1 << 63


@dataclass(frozen=True)
class Done:
    """One repeat. Attributes: cell: its JSON.  samples.  pieces: for the documents of the run."""

    cell: dict[str, Any]
    samples: list[Sample]
    pieces: Pieces


def order(cells: Sequence[Cell]) -> Iterator[tuple[int, int]]:
    """Yield number of cell and of repeat, in the order in which they are to run."""
    for repeat in range(max(cell.config.repeats for cell in cells)):
        numbers = [at for at, cell in enumerate(cells) if repeat < cell.config.repeats]
        yield from ((at, repeat) for at in (reversed(numbers) if repeat % 2 else numbers))


def with_seed_of(cell: Cell, repeat: int) -> Cell:
    """Return the cell as its n-th repeat runs it; the first has the config's own seed."""
    if not repeat:
        return cell
    seed = (cell.config.seed + repeat * STRIDE) % _MOST_SEED
    return replace(cell, config=cell.config.model_copy(update={"seed": seed}))


def merge(done: Sequence[Done], vocabulary: Vocabulary) -> Done:
    """Make one cell of its repeats.

    Its verdict is the worst that was not expected, and every repeat must have met what `must_happen` says.
    Its numbers are those of one of them, so that they belong together: of those with that verdict, the one with
    the median throughput. It has the violations of all, and `repeats`: what each measured.
    """
    if len(done) == 1:
        return done[0]
    cells = [each.cell for each in done]
    wrong = [each for each in done if each.cell["verdict"] != each.cell["expected"]]
    verdict = run_verdict(cells, vocabulary) if wrong else cells[0]["verdict"]
    shown = _median([each for each in wrong if each.cell["verdict"] == verdict] or wrong or done)
    entries = []
    for repeat, cell in enumerate(cells):
        (entry,) = cell["repeats"]
        own = {"shown": True} if cell is shown.cell else {"shown": False, "windows": cell["windows"]}
        entries.append({"repeat": repeat, **entry, **own})
    merged = {
        **shown.cell,
        "verdict": verdict,
        "violations": [
            {**found, "repeat": repeat} for repeat, cell in enumerate(cells) for found in cell["violations"]
        ],
        "must_happen": [
            _must_happen(of_one, shown.cell["must_happen"][at])
            for at, of_one in enumerate(zip(*(cell["must_happen"] for cell in cells), strict=True))
        ],
        "repeats": entries,
    }
    return Done(merged, shown.samples, shown.pieces)


def _median(done: Sequence[Done]) -> Done:
    ordered = sorted(done, key=lambda each: float(each.cell["throughput_ops_s"]))
    return ordered[(len(ordered) - 1) // 2]


def _must_happen(of_one: Sequence[Mapping[str, Any]], shown: Mapping[str, Any]) -> dict[str, Any]:
    """Judge one condition over all repeats: what was measured is the first that did not meet it."""
    return dict(next((entry for entry in of_one if not entry["holds"]), shown))
