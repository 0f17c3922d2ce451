# SPDX-License-Identifier: MIT
"""The buddy allocator of one zone: lists of page frame numbers, and the rules that move them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from models.watermarks import ZoneShape

MAX_ORDER = 10
NR_ORDERS = MAX_ORDER + 1
UNMOVABLE, MOVABLE, RECLAIMABLE = range(3)
TYPES = (UNMOVABLE, MOVABLE, RECLAIMABLE)
HIGHATOMIC = 3  # pageblocks kept for urgent requests; falls back on nothing, and nothing on it
_FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}


class How(Enum):
    """How a block was found."""

    OWN = "own"  # on the lists of the type that was asked for
    CLAIM = "fallback_claim"  # after a pageblock was converted
    STEAL = "fallback_steal"  # from another type's pageblock, which keeps its type


@dataclass(frozen=True)
class Used:
    """A block that somebody owns.

    Attributes: order: of it.  migratetype: that it was asked for as.
    """

    order: int
    migratetype: int


class Buddy:
    """Free blocks of a zone.

    Attributes:
        lists: by order and migratetype: the first pages of the free blocks, head of the list first.
        types: the migratetype of each pageblock.
        free_pages: on all lists.
        claims_below_block: how often a block smaller than a pageblock was tried to be claimed for.
        reserved: pages of the HIGHATOMIC pageblocks.
    """

    def __init__(self, shape: ZoneShape, pageblock_order: int) -> None:
        self.shape = shape
        self.pageblock_order = pageblock_order
        self.lists: list[list[list[int]]] = [[[] for _ in range(4)] for _ in range(NR_ORDERS)]
        self.types = dict.fromkeys(self._blocks(shape.start, shape.pages), MOVABLE)
        self.free_pages = 0
        self.claims_below_block = 0
        self.reserved = 0
        self._place: dict[int, tuple[int, int]] = {}
        self._fill()

    def _fill(self) -> None:
        """Free everything once, in blocks as large as alignment allows, in order, each to the tail."""
        at, end = self.shape.start, self.shape.start + self.shape.pages
        while at < end:
            order = max(o for o in range(NR_ORDERS) if not at & ((1 << o) - 1) and at + (1 << o) <= end)
            self.free(at, order, to_tail=True)
            at += 1 << order

    def _blocks(self, pfn: int, pages: int) -> range:
        return range(
            pfn >> self.pageblock_order, (pfn + pages + self._block_pages - 1) >> self.pageblock_order
        )

    @property
    def _block_pages(self) -> int:
        return 1 << self.pageblock_order

    def type_of(self, pfn: int) -> int:
        """Return the migratetype of the pageblock that a page lies in."""
        return self.types[pfn >> self.pageblock_order]

    def _set_types(self, pfn: int, order: int, migratetype: int) -> None:
        for block in self._blocks(pfn, 1 << order):
            self.types[block] = migratetype

    def _insert(self, pfn: int, order: int, migratetype: int, *, tail: bool) -> None:
        entries = self.lists[order][migratetype]
        entries.insert(len(entries) if tail else 0, pfn)
        self._place[pfn] = (order, migratetype)
        self.free_pages += 1 << order

    def _remove(self, pfn: int) -> int:
        order, migratetype = self._place.pop(pfn)
        self.lists[order][migratetype].remove(pfn)
        self.free_pages -= 1 << order
        return order

    def _is_free(self, pfn: int, order: int) -> bool:
        return pfn in self._place and self._place[pfn][0] == order

    def has_block(self, order: int, *, highatomic: bool = False) -> bool:
        """Say whether a block of this order or a larger one is free. Args: highatomic: also of the reserve."""
        return any(entries for lists in self.lists[order:] for entries in lists[: 4 if highatomic else 3])

    @property
    def free_highatomic(self) -> int:
        """Free pages of the reserve."""
        return sum(len(lists[HIGHATOMIC]) << order for order, lists in enumerate(self.lists))

    def reserve(self, pfn: int, order: int) -> None:
        """Keep the pageblocks of a block that has just served an urgent request of several pages."""
        hundredth = self.shape.pages // 100
        most = -(-hundredth // self._block_pages) * self._block_pages if hundredth >= self._block_pages else 0
        if self.reserved < most and self.type_of(pfn) in TYPES:
            if order > self.pageblock_order:
                self._set_types(pfn, order, HIGHATOMIC)
            else:
                self._convert(pfn & ~(self._block_pages - 1), HIGHATOMIC)
            self.reserved += max(self._block_pages, 1 << order)

    def unreserve(self, migratetype: int) -> bool:
        """Turn the block around the smallest free piece of the reserve into another type."""
        for order, lists in enumerate(self.lists):
            if lists[HIGHATOMIC]:
                pfn = lists[HIGHATOMIC][0]
                self.reserved -= 1 << max(order, self.pageblock_order)
                if order > self.pageblock_order:
                    self._insert(pfn, self._remove(pfn), migratetype, tail=True)
                    self._set_types(pfn, order, migratetype)
                else:
                    self._convert(pfn & ~(self._block_pages - 1), migratetype)
                return True
        return False

    def take_reserved(self, order: int) -> int | None:
        """Take a block of the reserve."""
        return self._smallest(order, HIGHATOMIC)

    # --- free ---------------------------------------------------------------------------------

    def free(self, pfn: int, order: int, *, to_tail: bool = False) -> None:
        """Give a block back: at most a pageblock at a time, each to the lists of its pageblock's type."""
        step = min(order, self.pageblock_order)
        for part in range(pfn, pfn + (1 << order), 1 << step):
            self._free_one(part, step, self.type_of(part), to_tail)

    def _free_one(self, pfn: int, order: int, migratetype: int, to_tail: bool) -> None:
        while order < MAX_ORDER and self._is_free(buddy := pfn ^ 1 << order, order):
            if order >= self.pageblock_order and (migratetype == HIGHATOMIC) != (
                self.type_of(buddy) == HIGHATOMIC
            ):
                break
            self._remove(buddy)
            if order >= self.pageblock_order:
                self._set_types(buddy, order, migratetype)  # so that a later split finds the right lists
            pfn = min(pfn, buddy)
            order += 1
        higher = (pfn & ~(1 << order)) ^ 1 << order + 1
        merge_likely = order < MAX_ORDER - 1 and self._is_free(higher, order + 1)
        self._insert(pfn, order, migratetype, tail=to_tail or merge_likely)

    # --- allocation ---------------------------------------------------------------------------

    def take(
        self,
        order: int,
        migratetype: int,
        used: Mapping[int, Used],
        mode: How,
        *,
        nofragment: bool = False,
    ) -> tuple[int, How] | None:
        """Take a block.

        Args: order, migratetype: what is asked for.  used: the blocks in use, by first page.
            mode: how the one before it in the same bulk was found; once stealing, a bulk goes on stealing.
            nofragment: only whole pageblocks of other types may be claimed, nothing stolen.
        Returns: its first page, and how it was found; or None.
        """
        if mode is not How.STEAL:
            if (pfn := self._smallest(order, migratetype)) is not None:
                return pfn, How.OWN
            lowest = max(order, self.pageblock_order) if nofragment else order
            if (pfn := self._claim(lowest, order, migratetype, used)) is not None:
                return pfn, How.CLAIM
        if nofragment:
            return None
        if (pfn := self._steal(order, migratetype)) is not None:
            return pfn, How.STEAL
        return None

    def _smallest(self, order: int, migratetype: int) -> int | None:
        for current in range(order, NR_ORDERS):
            if self.lists[current][migratetype]:
                return self._split(self.lists[current][migratetype][0], order, migratetype)
        return None

    def _split(self, pfn: int, order: int, migratetype: int) -> int:
        """Take a free block off its list; the upper halves that are not needed go to the heads."""
        for half in reversed(range(order, self._remove(pfn))):
            self._insert(pfn + (1 << half), half, migratetype, tail=False)
        return pfn

    def _fallback(self, order: int, migratetype: int) -> tuple[int, int] | None:
        for other in _FALLBACKS[migratetype]:
            if self.lists[order][other]:
                return self.lists[order][other][0], other
        return None

    def _claim(self, lowest: int, order: int, migratetype: int, used: Mapping[int, Used]) -> int | None:
        for current in reversed(range(lowest, NR_ORDERS)):
            if current < self.pageblock_order // 2 and migratetype == MOVABLE:
                return None  # too small for a movable request to be worth it
            found = self._fallback(current, migratetype)
            if found is None:
                continue
            pfn = self._try_to_claim(found[0], found[1], current, order, migratetype, used)
            if pfn is not None:
                return pfn
        return None

    def _try_to_claim(
        self, pfn: int, other: int, current: int, order: int, migratetype: int, used: Mapping[int, Used]
    ) -> int | None:
        if current >= self.pageblock_order:
            self._set_types(pfn, current, migratetype)
            return self._split(pfn, order, migratetype)
        self.claims_below_block += 1
        first = pfn & ~(self._block_pages - 1)
        if self._suitable_pages(first, other, migratetype, used) < self._block_pages // 2:
            return None
        self._convert(first, migratetype)
        return self._smallest(order, migratetype)

    def _suitable_pages(self, first: int, other: int, migratetype: int, used: Mapping[int, Used]) -> int:
        """Count the free pages of a pageblock, and those in use that suit the type."""
        inside = range(first, first + self._block_pages)
        free = sum(1 << self._place[pfn][0] for pfn in inside if pfn in self._place)
        movable = sum(
            1 << used[pfn].order for pfn in inside if pfn in used and used[pfn].migratetype == MOVABLE
        )
        if migratetype == MOVABLE:
            return free + movable
        return self._block_pages - movable if other == MOVABLE else free

    def _convert(self, first: int, migratetype: int) -> None:
        for pfn in range(first, first + self._block_pages):
            if pfn in self._place:
                order = self._remove(pfn)
                self._insert(pfn, order, migratetype, tail=True)
        self._set_types(first, self.pageblock_order, migratetype)

    def _steal(self, order: int, migratetype: int) -> int | None:
        for current in range(order, NR_ORDERS):
            found = self._fallback(current, migratetype)
            if found is not None:
                return self._split(found[0], order, found[1])
        return None
