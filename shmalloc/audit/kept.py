# SPDX-License-Identifier: MIT
"""What layers above the slabs keep: objects and blocks that are in use for them, and in nobody's hands.

A callback that waits for a grace period, a pool's free elements, a sheaf's content: the slab layer has handed
them out, no workload owns them. Each such place has a keeper, a function that finds what lies there. Adding
one to keepers.KEEPERS is all that a new place needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from shmalloc.audit.report import CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.view import Ints, View, Words, constant

__all__ = ["Keep", "Keeper", "find_kept", "keep_kmalloc"]


def _no_objects() -> Words:
    return np.zeros(0, np.uint64)


def _no_blocks() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Keep:
    """What one place keeps.

    Attributes: place: its name, as totals and messages show it, "rcu" for instance.  where: which one,
        "RCU callbacks of CPU 1" for instance.  objects: offset of each slab object kept there (where the slab's
        object begins), uint64.  blocks: first pfn of each block of pages kept there.  pending: it must be
        empty once the workload is drained.
    """

    place: str
    where: str
    objects: Words = field(default_factory=_no_objects)
    blocks: Ints = field(default_factory=_no_blocks)
    pending: bool = False


def keep_kmalloc(view: View, place: str, where: str, offsets: Words) -> Keep:
    """Make the pending Keep of what kmalloc has handed out: objects of slabs, and blocks where they are large."""
    pfn = (offsets.astype(np.int64) - view.memory_offset) // constant("SHM_PAGE_SIZE")
    large = np.zeros(len(offsets), bool)
    inside = (pfn >= 0) & (pfn < view.nr_pages)
    large[inside] = (view.pages["flags"][pfn[inside]] & constant("PG_large")) != 0
    large &= offsets % np.uint64(constant("SHM_PAGE_SIZE")) == 0
    return Keep(place, where, offsets[~large], pfn[large], pending=True)


Keeper = Callable[[View, Findings], Iterator[Keep]]


def find_kept(view: View, drained: bool, findings: Findings) -> list[Keep]:
    """Ask every keeper; report what is left pending though the workload was drained, and double keeping."""
    from shmalloc.audit.keepers import KEEPERS

    kept = [keep for keeper in KEEPERS for keep in keeper(view, findings)]
    totals: dict[str, int] = {}
    for keep in kept:
        totals[f"kept_{keep.place}_objects"] = totals.get(f"kept_{keep.place}_objects", 0) + len(keep.objects)
        totals[f"kept_{keep.place}_blocks"] = totals.get(f"kept_{keep.place}_blocks", 0) + len(keep.blocks)
        if keep.pending and len(keep.objects) + len(keep.blocks):
            what = f"{len(keep.objects)} objects and {len(keep.blocks)} blocks of pages are kept there"
            if drained:
                findings.add(LOST_MEMORY, keep.where, f"{what}, though everything should have been freed")
            else:
                findings.notes.append(f"{keep.where}: {what}")
    findings.totals.update(totals)
    _report_twice(kept, findings)
    return kept


def _report_twice(kept: list[Keep], findings: Findings) -> None:
    """Report blocks that two places keep; objects are told apart where the slabs are known."""
    places: dict[int, str] = {}
    for keep in kept:
        for pfn in keep.blocks.tolist():
            if pfn in places:
                text = f"is kept by {places[pfn]} and by {keep.where}"
                findings.add(CORRUPTION, f"page {pfn}", text)
            places[pfn] = keep.where
