# SPDX-License-Identifier: MIT
"""Stocks and counters of memory cgroups in plain Python, written from the rules and not from the core.

One CPU, no interrupts: no stock is ever busy. Sizes of objects are those that are charged (slot + 8).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

PAGE = 4096
BATCH = 64
SLOTS = 7


@dataclass
class Group:
    """A memcg. Attributes: limit: pages.  usage: charged, here and below.  pending: bytes in no stock."""

    name: str
    parent: Group | None = None
    limit: int = 1 << 40
    usage: int = 0
    pending: int = 0

    def upwards(self) -> Iterator[Group]:
        at: Group | None = self
        while at:
            yield at
            at = at.parent


@dataclass
class Cpu:
    """What one CPU keeps. Attributes: slots: memcg and pages, None = empty.  turn: slot emptied next.
    owner, rest: the obj_stock.
    """

    slots: list[tuple[Group, int] | None] = field(default_factory=lambda: [None] * SLOTS)
    turn: int = 0
    owner: Group | None = None
    rest: int = 0

    # --- pages ---------------------------------------------------------------------------------

    def charge_pages(self, group: Group, pages: int, *, nolock: bool) -> bool:
        """A charge that may not block: no reclaim, no drain."""
        if self._consume(group, pages):
            return True
        for batch in (pages,) if nolock else (max(BATCH, pages), pages):
            if all(each.usage + batch <= each.limit for each in group.upwards()):
                for each in group.upwards():
                    each.usage += batch
                if batch > pages:
                    self.refill(group, batch - pages)
                return True
        return False

    def _consume(self, group: Group, pages: int) -> bool:
        at = self._slot_of(group)
        if pages > BATCH or at is None:
            return False
        held = self.slots[at]
        assert held
        if held[1] < pages:
            return False
        self.slots[at] = (group, held[1] - pages)
        return True

    def _slot_of(self, group: Group) -> int | None:
        return next((at for at, held in enumerate(self.slots) if held and held[0] is group), None)

    def refill(self, group: Group, pages: int) -> None:
        """Pages that are not needed."""
        if pages > BATCH:
            self._uncharge(group, pages)
            return
        at = self._slot_of(group)
        if at is not None:
            held = self.slots[at]
            assert held
            self.slots[at] = (group, held[1] + pages)
            if held[1] + pages > BATCH:
                self._empty(at)
            return
        if None in self.slots:
            at = self.slots.index(None)
        else:
            at = self.turn % SLOTS
            self.turn = at + 1
            self._empty(at)
        self.slots[at] = (group, pages)

    def _empty(self, at: int) -> None:
        held, self.slots[at] = self.slots[at], None
        if held:
            self._uncharge(*held)

    @staticmethod
    def _uncharge(group: Group, pages: int) -> None:
        for each in group.upwards():
            each.usage -= pages
            assert each.usage >= 0

    # --- objects -------------------------------------------------------------------------------

    def charge_object(self, group: Group, size: int, *, nolock: bool) -> bool:
        if self.owner is group and self.rest >= size:
            self.rest -= size
            return True
        pages = -(-size // PAGE)
        if not self.charge_pages(group, pages, nolock=nolock):
            return False
        self._add(group, pages * PAGE - size, is_free=False, nolock=nolock)
        return True

    def free_object(self, group: Group, size: int, *, nolock: bool) -> None:
        self._add(group, size, is_free=True, nolock=nolock)

    def _add(self, group: Group, count: int, *, is_free: bool, nolock: bool) -> None:
        if self.owner and self.owner is not group and nolock:  # another's stock is left alone
            group.pending += count % PAGE
            if count >= PAGE:
                self.refill(group, count // PAGE)
            return
        if self.owner is not group:
            self.drain_objects()
            self.owner, self.rest, group.pending = group, group.pending, 0
            is_free = True
        self.rest += count
        if is_free and self.rest > PAGE:
            pages, self.rest = divmod(self.rest, PAGE)
            self.refill(group, pages)

    def drain_objects(self) -> None:
        if self.owner:
            if self.rest >= PAGE:
                self._uncharge(self.owner, self.rest // PAGE)
            self.owner.pending += self.rest % PAGE
        self.owner, self.rest = None, 0

    def drain(self) -> None:
        self.drain_objects()
        for at in range(SLOTS):
            self._empty(at)
