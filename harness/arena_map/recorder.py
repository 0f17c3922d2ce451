# SPDX-License-Identifier: MIT
"""Takes moments of a running arena, from the parent: what each page is, and which objects of slabs are live.

A moment is a copy; it is made sense of when the run is over. How often one is taken depends on how long the run gets,
on what a look costs and on how much memory the copies take, so that recording stays below what a run would notice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.arena_map.recording import MOST_CELLS, Moment, encode
from shmalloc.pagemap import CacheRow, Eye, Look
from shmalloc.pagemap.objects import objects_of
from shmalloc.pagemap.pages import paint

if TYPE_CHECKING:
    import numpy as np

    from shmalloc.arena import Arena

__all__ = ["Recorder"]

FIRST_PERIOD_S = 0.005  # where nobody knows how long a run takes
SHARE = 0.01  # of one core, for looks between the first and the last
MOST_BYTES = 128 << 20  # of copies, or
MOST_OF_ARENA = 4  # one such part of the arena's size


@dataclass(frozen=True)
class _Taken:
    number: int
    label: str
    t_s: float
    look: Look


class Recorder:
    """Takes moments.

    Args: arena: the run's.  seconds: that the run will take, 0 = nobody knows.  moments: at most between the first
        and the last; half as many where the run gets longer than that.  objects: also what objects there are, unless
        the arena is so large that a cell is several pages.
    Attributes: cost_s: processor time of all looks between the first and the last.  taken: so many they were.
    """

    def __init__(self, arena: Arena, seconds: float, moments: int, *, objects: bool) -> None:
        self._eye = Eye(arena)
        self._most = moments
        self._objects = objects and self._eye.frame.nr_pages <= MOST_CELLS
        self._most_bytes = max(MOST_BYTES, arena.size_bytes // MOST_OF_ARENA)
        self._caches: dict[int, CacheRow] = {}
        self._period_s = seconds / (moments + 1) if seconds else FIRST_PERIOD_S
        self._t_s = self._since_s = self._slower_s = 0.0
        self._between: list[_Taken] = []
        self._ends: list[_Taken] = []
        self._number = 0
        self.cost_s = 0.0
        self.taken = 0
        self.mark("start")

    def mark(self, label: str, *, at_rest: bool = False) -> None:
        """Take a moment of a name of its own. Args: at_rest: nobody allocates: free lists are followed too."""
        look = self._eye.look(objects=self._objects, follow=self._objects and at_rest)
        self._ends.append(self._entry(label, look))
        self._caches |= self._eye.cache_rows()

    def _entry(self, label: str, look: Look) -> _Taken:
        self._number += 1
        return _Taken(self._number, label, self._t_s, look)

    def tick(self, elapsed_s: float) -> None:
        """Let time pass; take a moment when it is time."""
        self._t_s += elapsed_s
        self._since_s += elapsed_s
        if self._since_s < max(self._period_s, self._slower_s) or not self._most:
            return
        self._since_s = 0.0
        if len(self._between) >= self._most:
            self._thin_out()
        began = time.thread_time()
        self._between.append(self._entry("", self._eye.look(objects=self._objects)))
        cost_s = time.thread_time() - began
        self.cost_s += cost_s
        self.taken += 1
        self._slower_s = cost_s / SHARE
        if len(self._between) * self._between[-1].look.bytes > self._most_bytes:
            self._thin_out()

    def _thin_out(self) -> None:
        del self._between[::2]
        self._period_s = max(self._period_s, self._slower_s) * 2

    def leave(self, pieces: dict[str, list[Any]], number: int) -> dict[str, Any]:
        """Put the map among a run's arrays. Args: number: of the cell.  Returns: what the cell's JSON says of it."""
        name, arrays = f"map-{number:03}", self.finish()
        pieces.setdefault("arrays", []).append((name, arrays))
        return {
            "file": f"arrays/{name}.npz",
            "moments": len(arrays["counts"]),
            "looks": self.taken,
            "cost_s": round(self.cost_s, 6),
        }

    def finish(self) -> dict[str, np.ndarray[Any, Any]]:
        """Make arrays of all that was taken; the recorder lets go of the arena."""
        taken = sorted([*self._ends, *self._between], key=lambda each: each.number)
        moments = [
            Moment(
                each.label,
                each.t_s * 1e3,
                paint(self._eye, each.look),
                each.look.types,
                objects_of(each.look) if self._objects else None,
            )
            for each in taken
        ]
        arrays = encode(self._eye.frame, self._caches | self._eye.cache_rows(), moments)
        del self._eye
        return arrays
