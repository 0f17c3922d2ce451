# SPDX-License-Identifier: MIT
"""The arena map: what each page of an arena is, at any moment, at rest or while CPUs allocate.

    page_map(arena).counts()   # {"free": 7700, "slab_partial": 12, ...}, in pages

The audit proves that an arena at rest is sound; this says what there is, and never complains. Of an arena that
runs it is as true as a look at something that moves can be: a page that changes hands meanwhile is "in transit",
and nothing raises or loops, whatever is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shmalloc.audit.view import Auditable
from shmalloc.pagemap.kinds import KINDS, OBJECT_STATES, PFMEMALLOC, SLABS, Kind, State
from shmalloc.pagemap.look import CacheRow, Eye, Frame, Look, Zone
from shmalloc.pagemap.objects import Objects, objects_of
from shmalloc.pagemap.pages import PLANES, Planes, paint

__all__ = [
    "KINDS",
    "OBJECT_STATES",
    "PFMEMALLOC",
    "PLANES",
    "SLABS",
    "CacheRow",
    "Eye",
    "Frame",
    "Kind",
    "Look",
    "Objects",
    "PageMap",
    "Planes",
    "State",
    "Zone",
    "page_map",
]


@dataclass(frozen=True)
class PageMap:
    """An arena's pages at one moment.

    Attributes: frame: what never changes.  planes: of each page.  types: migratetype of each pageblock.
        objects: of all slabs.  caches: by index.
    """

    frame: Frame
    planes: Planes
    types: NDArray[np.uint8]
    objects: Objects
    caches: dict[int, CacheRow]

    def counts(self) -> dict[str, int]:
        """Count the pages of each kind; all together are all page frames."""
        found = np.bincount(self.planes.kind, minlength=len(Kind)).tolist()
        return {KINDS[kind].name: found[kind] for kind in Kind}

    def object_counts(self) -> dict[str, int]:
        """Count the objects of all slabs by what they are."""
        found = np.bincount(self.objects.state, minlength=len(State)).tolist()
        return {OBJECT_STATES[state].name: found[state] for state in State}


def page_map(arena: Auditable, *, follow: bool = True) -> PageMap:
    """Look at an arena now.

    Args: arena: as the audit takes one.  follow: go through the lists of free objects too.
    Raises: ValueError, if its header describes no arena of this size.
    Cost: some 100 ns for each page that was ever used; more with `follow`.
    """
    eye = Eye(arena)
    look = eye.look(follow=follow)
    return PageMap(eye.frame, paint(eye, look), look.types, objects_of(look), eye.cache_rows())
