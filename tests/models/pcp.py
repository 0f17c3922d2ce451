# SPDX-License-Identifier: MIT
"""The page lists of one CPU in one zone: how much they take and give at a time."""

from __future__ import annotations

from collections import Counter

from models.buddy import MOVABLE, Buddy, How, Used
from models.watermarks import PagesetLimits

COSTLY_ORDER = 3
HUGE_ORDER = 9
NR_LISTS = 14
_TYPES = 3
_MAX_SCALE = 5
_EXPIRE_TICKS = 3


def allowed_order(order: int) -> bool:
    """Say whether blocks of this order are kept on the lists at all."""
    return order <= COSTLY_ORDER or order == HUGE_ORDER


def list_index(order: int, migratetype: int) -> int:
    """Return the list that blocks of an order and migratetype are kept on."""
    return 12 + (migratetype == MOVABLE) if order == HUGE_ORDER else _TYPES * order + migratetype


def order_of_list(index: int) -> int:
    """Return the order of the blocks on a list."""
    return HUGE_ORDER if index >= 12 else index // _TYPES


class Pageset:
    """The lists, and what tunes them.

    Attributes:
        lists: first pages of blocks, head first.
        count: pages on all of them.
        high: above it a free gives pages back; moves between the limits.
        alloc_factor: doublings of the next refill.
        free_count: pages freed in a row, halved by each allocation.
        freed_high_order: the last free was of order 1 to 3.
        events: counters, by the core's names.
    """

    def __init__(self, limits: PagesetLimits) -> None:
        self.limits = limits
        self.lists: list[list[int]] = [[] for _ in range(NR_LISTS)]
        self.count = 0
        self.high = limits.high_min
        self.alloc_factor = 0
        self.free_count = 0
        self.freed_high_order = False
        self.events: Counter[str] = Counter()
        self._events_seen = 0
        self._expire = 0

    def _clamp(self, high: int) -> int:
        return max(self.limits.high_min, min(high, self.limits.high_max))

    # --- refill -------------------------------------------------------------------------------

    def refill_size(self, order: int, *, below_high: bool) -> int:
        """Say how many blocks to ask the buddy for.  Order 0 doubles while there is room below high."""
        base = self.limits.batch
        self.high = self._clamp(self.high)
        if self.high < base:
            return 1
        wanted = base if order else base << self.alloc_factor
        if self.limits.high_min != self.limits.high_max and not below_high:
            self.high = min(self.high + wanted, self.limits.high_max)
        if not order:
            room = max(self.high - self.count - base, base)
            if wanted <= room and self.alloc_factor < _MAX_SCALE:
                self.alloc_factor += 1
            wanted = min(wanted, room)
        return max(wanted >> order, 2) if wanted > 1 else wanted

    def refill(
        self,
        buddy: Buddy,
        order: int,
        migratetype: int,
        want: int,
        used: dict[int, Used],
        *,
        nofragment: bool = False,
    ) -> None:
        """Move blocks from the buddy to the tail of their list."""
        mode = How.OWN
        self.events["pcp_refill"] += 1
        for _ in range(want):
            found = buddy.take(order, migratetype, used, mode, nofragment=nofragment)
            if found is None:
                return
            pfn, mode = found
            self.note(mode)
            self.lists[list_index(order, migratetype)].append(pfn)
            self.count += 1 << order

    def note(self, how: How) -> None:
        """Count a fallback."""
        if how is not How.OWN:
            self.events[how.value] += 1

    def pop(self, order: int, migratetype: int) -> int | None:
        """Take the block at the head of a list."""
        entries = self.lists[list_index(order, migratetype)]
        if not entries:
            return None
        self.count -= 1 << order
        self.events["pcp_alloc"] += 1
        return entries.pop(0)

    # --- free ---------------------------------------------------------------------------------

    def push(self, pfn: int, order: int, migratetype: int) -> bool:
        """Put a freed block at the head of its list.

        Returns: whether blocks of order 1 to 3 have come back in such a row that they are not worth keeping.
        """
        self.alloc_factor >>= 1
        migratetype = migratetype if migratetype < _TYPES else MOVABLE
        self.lists[list_index(order, migratetype)].insert(0, pfn)
        self.count += 1 << order
        high_order = 0 < order <= COSTLY_ORDER
        in_a_row = high_order and self.freed_high_order
        self.freed_high_order = high_order
        free_high = in_a_row and self.free_count >= self.limits.batch + self.limits.high_min // 2
        if self.free_count < self.limits.batch << _MAX_SCALE:
            self.free_count += 1 << order
        return free_high

    def surplus(self, *, below_high: bool, free_high: bool) -> int:
        """Say how many pages the free that has just ended gives back."""
        high = self._current_high(below_high=below_high, free_high=free_high)
        if self.count < high:
            return 0
        batch = self.limits.batch
        if free_high:
            return min(self.count, batch << _MAX_SCALE)
        if high < batch:
            return 1
        return min(max(self.free_count, batch), high - batch)

    def _current_high(self, *, below_high: bool, free_high: bool) -> int:
        high = self.high = self._clamp(self.high)
        batch = self.limits.batch
        if free_high:
            self.high = max(high - (batch << _MAX_SCALE), self.limits.high_min)
            return 0
        if self.limits.high_min == self.limits.high_max:
            return high
        if below_high:
            self.high = max(high - max(self.free_count, batch), self.limits.high_min)
            return max(self.count, self.limits.high_min)
        if self.count >= high:
            self.high = max(high, self._clamp(self.free_count + batch))
        return high

    def decay(self, buddy: Buddy) -> None:
        """Give up an eighth of what high has grown to, and the pages that are then too many."""
        batch, lowest = self.limits.batch, self.limits.high_min
        if self.high > lowest:
            self.high = max(self.count - (batch << _MAX_SCALE), self.high - (self.high >> 3), lowest)
        if self.count > self.high:
            self.give_back(buddy, self.count - self.high, 0)

    def expire(self, buddy: Buddy, *, local: bool) -> None:
        """Empty a remote zone's pageset, a batch at a time, when it was not used for three ticks."""
        events = self.events["pgalloc"] + self.events["pgfree"]
        if events != self._events_seen:
            self._expire = _EXPIRE_TICKS
        self._events_seen = events
        if not self._expire or not self.count:
            return
        if local:
            self._expire = 0
            return
        self._expire -= 1
        if not self._expire:
            self.give_back(buddy, min(self.count, self.limits.batch), 0)

    def give_back(self, buddy: Buddy, pages: int, first_list: int) -> None:
        """Free at least so many pages from the tails, list after list, beginning with one of them."""
        left = min(pages, self.count)
        if left > 0:
            self.events["pcp_drain"] += 1
        index = first_list
        while left > 0:
            if not self.lists[index]:
                index = (index + 1) % NR_LISTS
                continue
            order = order_of_list(index)
            buddy.free(self.lists[index].pop(), order)
            self.count -= 1 << order
            left -= 1 << order
