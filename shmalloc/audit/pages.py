# SPDX-License-Identifier: MIT
"""Every page frame is in exactly one block: free, on a pcp list, deferred, a slab, or handed out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from shmalloc import layout
from shmalloc.audit.report import BROKEN_RULE, CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.view import MIGRATETYPE_NAMES, Flags, Ints, Mask, View, constant

__all__ = ["PLACES", "Blocks", "check_buddies", "check_tails", "find_blocks", "flag_names"]

PLACES = {
    "PG_buddy": "free",
    "PG_pcp": "pcp",
    "PG_deferred": "deferred",
    "PG_lru": "page_cache",
    "PG_slab": "slab",
    "PG_allocated": "allocated",
}

# What else may be set on the head of a block of each kind.
_BESIDE = {
    "PG_buddy": (),
    "PG_pcp": (),
    "PG_deferred": (),
    "PG_lru": (),
    "PG_slab": ("PG_head", "PG_partial", "PG_pfmemalloc", "PG_disabled", "PG_uncounted"),
    "PG_allocated": ("PG_head", "PG_large", "PG_pfmemalloc"),
}


@cache
def _flags() -> dict[str, int]:
    flags = (item for item in layout.constants().items() if item[0].startswith("PG_"))
    return dict(sorted(flags, key=lambda item: item[1]))


@cache
def _bits(*names: str) -> int:
    return sum(constant(name) for name in names)


def flag_names(flags: int) -> str:
    """Spell out a page's flags."""
    return "|".join(name for name, bit in _flags().items() if flags & bit) or "no flags"


@dataclass(frozen=True)
class Blocks:
    """The blocks that page memory is divided into, by first page frame.

    Attributes: pfn, order, zone: int64, shape (blocks,).  kind: the one flag among PLACES, 0 if the
        head contradicts itself.  flags: of the head.  page_flags: of every page, shape (nr_pages,).
    """

    pfn: Ints
    order: Ints
    zone: Ints
    kind: Flags
    flags: Flags
    page_flags: Flags

    @property
    def pages(self) -> Ints:
        """Pages of each block."""
        return np.int64(1) << self.order

    def of(self, place: str) -> Ints:
        """Return the indices of the blocks of one kind, a key of PLACES."""
        return np.flatnonzero(self.kind == constant(place))

    def around(self, pfns: Ints) -> Ints:
        """Return the index of the block that each page frame lies in, -1 for none."""
        if not len(self.pfn):
            return np.full(len(pfns), -1)
        index = np.searchsorted(self.pfn, pfns, side="right") - 1
        inside = (index >= 0) & (pfns < self.pfn[index] + self.pages[index])
        return np.where(inside, index, -1)

    def headed_by(self, pfn: int) -> int:
        """Return the index of the block whose head a page frame is, -1 for none."""
        index = int(np.searchsorted(self.pfn, pfn))
        return index if index < len(self.pfn) and self.pfn[index] == pfn else -1


def find_blocks(view: View, findings: Findings) -> Blocks:
    """Find all blocks by their heads' flags, and check that they tile the page frames."""
    page_flags = view.page_flags()
    kinds: Flags = page_flags & np.uint32(_bits(*PLACES))
    pfn = np.flatnonzero(kinds)
    flags, kind, order = page_flags[pfn], kinds[pfn], view.pages["order"][pfn].astype(np.int64)
    zone = view.zone_of(pfn)

    ambiguous = (kind & (kind - 1)) != 0
    misplaced = _misplaced(view, pfn, order, zone)
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(ambiguous),
        lambda i: (f"page {pfn[i]}", f"is in two places at once: {flag_names(flags[i])}"),
        "pages in two places",
    )
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(misplaced),
        lambda i: (
            f"page {pfn[i]}",
            f"is the head of a block of order {order[i]} ({flag_names(flags[i])}), which cannot lie there",
        ),
        "blocks that are misaligned or leave their zone",
    )
    bad = ambiguous | misplaced
    order = np.where(misplaced, 0, order)
    kind[bad] = 0
    outer = _check_nesting(findings, pfn, order, flags)
    _check_gaps(view, findings, pfn[outer], order[outer], bad[outer])
    for index in np.unique(zone[bad | ~outer]):
        findings.doubt("zone", index)
    return Blocks(pfn[outer], order[outer], zone[outer], kind[outer], flags[outer], page_flags)


def _misplaced(view: View, pfn: Ints, order: Ints, zone: Ints) -> Mask:
    large = order > constant("SHM_MAX_PAGE_ORDER")
    size = np.int64(1) << np.where(large, 0, order)
    bad: Mask = large | (pfn % size != 0) | (pfn + size > view.zone_end(zone))
    return bad


def _check_nesting(findings: Findings, pfn: Ints, order: Ints, flags: Flags) -> Mask:
    """Report heads that lie inside another block; return those that do not."""
    outer = np.ones(len(pfn), bool)
    if len(pfn) > 1:
        reach = np.maximum.accumulate(pfn + (np.int64(1) << order))
        outer[1:] = pfn[1:] >= reach[:-1]

    def describe(i: int) -> tuple[str, str]:
        around = np.flatnonzero(outer[:i])[-1]
        return f"page {pfn[i]}", (
            f"is a head ({flag_names(flags[i])}) inside the block of order {order[around]} at page "
            f"{pfn[around]} ({flag_names(flags[around])})"
        )

    findings.add_each(CORRUPTION, np.flatnonzero(~outer), describe, "heads inside other blocks")
    return outer


def _check_gaps(view: View, findings: Findings, pfn: Ints, order: Ints, bad: Mask) -> None:
    """Report page frames between the blocks; those after a bad head are its own."""
    begin = np.concatenate(([0], pfn + (np.int64(1) << order)))
    end = np.concatenate((pfn, [view.nr_zone_pages]))
    missing = end > begin
    for zone in np.unique(view.zone_of(begin[missing])):
        findings.doubt("zone", zone)
    missing &= ~np.concatenate(([False], bad))
    findings.add_each(
        LOST_MEMORY,
        np.flatnonzero(missing),
        lambda i: (
            view.zone_name(int(view.zone_of(begin[i : i + 1])[0])),
            f"{end[i] - begin[i]} pages from page {begin[i]} on are nowhere: neither free nor in use",
        ),
        "gaps between blocks",
    )


def check_tails(view: View, blocks: Blocks, findings: Findings) -> None:
    """Check the flags beside the head's kind: tails of compound blocks, and nothing stale anywhere."""
    flags = blocks.page_flags
    tails = np.flatnonzero(flags & constant("PG_tail"))
    owner = blocks.around(tails)
    may_have = np.append(((blocks.flags & constant("PG_head")) != 0) & (blocks.kind != 0), False)
    head = np.append(blocks.pfn, -1)[owner]
    stray = ~may_have[owner] | (tails == head)
    findings.add_each(
        CORRUPTION,
        tails[stray & (np.append(blocks.kind, 1)[owner] != 0)],
        lambda pfn: (f"page {pfn}", f"is a tail ({flag_names(flags[pfn])}) outside of any compound block"),
        "tails without a head",
    )
    tails, owner, head = tails[~stray], owner[~stray], head[~stray]
    named = view.pages["compound_head"][tails]
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(named != head),
        lambda i: (
            f"page {tails[i]}",
            f"is a tail of the block at page {head[i]}, its compound_head says {named[i]}",
        ),
        "tails that name another head",
    )
    expected = np.where(may_have[:-1], blocks.pages - 1, 0)
    marked = np.bincount(owner, minlength=len(blocks.pfn))
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(marked != expected),
        lambda i: (
            f"page {blocks.pfn[i]}",
            f"heads a block of order {blocks.order[i]}, {marked[i]} of {expected[i]} tails are marked",
        ),
        "compound blocks without their tails",
    )
    _check_stale(blocks, findings)
    _check_refcounts(view, blocks, findings)


def _check_stale(blocks: Blocks, findings: Findings) -> None:
    flags = blocks.page_flags
    allowed = np.zeros_like(flags)
    allowed[(flags & constant("PG_tail")) != 0] = constant("PG_tail")
    # A head inside another block has been reported, with all it carries.
    nested = (flags & _bits(*PLACES)) != 0
    nested[blocks.pfn] = False
    allowed[nested] = ~np.uint32(0)
    for kind, beside in _BESIDE.items():
        allowed[blocks.pfn[blocks.of(kind)]] = _bits(kind, *beside)
    allowed[blocks.pfn[blocks.kind == 0]] = ~np.uint32(0)
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(flags & ~allowed),
        lambda pfn: (
            f"page {pfn}",
            f"carries {flag_names(int(flags[pfn] & ~allowed[pfn]))}, which nothing there may have "
            f"({flag_names(int(flags[pfn]))})",
        ),
        "pages with stale flags",
    )


def _check_refcounts(view: View, blocks: Blocks, findings: Findings) -> None:
    count = view.pages["refcount"][blocks.pfn]
    used = (blocks.kind == constant("PG_allocated")) | (blocks.kind == constant("PG_lru"))
    counted = (blocks.kind != 0) & (blocks.kind != constant("PG_slab"))  # a slab has its lock there
    findings.add_each(
        CORRUPTION,
        np.flatnonzero((count != used) & counted),
        lambda i: (
            f"page {blocks.pfn[i]}",
            f"has refcount {count[i]}, a block that is {flag_names(int(blocks.kind[i]))} has {int(used[i])}",
        ),
        "blocks with a wrong refcount",
    )


def check_buddies(view: View, blocks: Blocks, findings: Findings) -> None:
    """Report pairs of free buddies that should be one block."""
    free = blocks.of("PG_buddy")
    pfn, order, zone = blocks.pfn[free], blocks.order[free], blocks.zone[free]
    # Buddies are neighbours in the table, the lower one aligned to the next order.
    pair = (pfn[:-1] + (np.int64(1) << order[:-1]) == pfn[1:]) & (order[:-1] == order[1:])
    pair &= (pfn[:-1] >> order[:-1] & 1 == 0) & (order[:-1] < constant("SHM_MAX_PAGE_ORDER"))
    pair &= zone[:-1] == zone[1:]
    kind = view.pageblocks["migratetype"][pfn >> view.pageblock_order]
    pair &= (order[:-1] < view.pageblock_order) | (kind[:-1] == kind[1:])
    findings.add_each(
        BROKEN_RULE,
        np.flatnonzero(pair),
        lambda i: (
            view.zone_name(int(zone[i])),
            f"buddies not merged: pages {pfn[i]} and {pfn[i + 1]} are both free blocks of order {order[i]} "
            f"({MIGRATETYPE_NAMES[kind[i]]})",
        ),
        "pairs of buddies not merged",
    )
