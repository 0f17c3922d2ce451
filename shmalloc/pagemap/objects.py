# SPDX-License-Identifier: MIT
"""The objects of the slabs of a look: who is live by the oracle, which are free by the lists.

Lists are followed in the arena itself, which may run: no walk is longer than what it can rightly find, and what
leads elsewhere ends it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shmalloc.audit.sheaves import read_sheaf
from shmalloc.audit.view import Ints, View, Words, constant
from shmalloc.pagemap.kinds import State
from shmalloc.pagemap.pages import Slabs, slabs_of

if TYPE_CHECKING:
    from shmalloc.pagemap.look import Eye, Look

__all__ = ["Objects", "follow_free", "objects_of"]

_GRANULE = 8
_PER_PAGE = 512  # granules
_MOST_SHEAVES = 64  # of a list of a barn; its limits are soft
_MOST_DEFERRED = 1 << 16


@dataclass(frozen=True)
class Objects:
    """The objects of every slab of a look.

    Attributes: pfn: of the slabs, rising.  first: index of each slab's object 0 in `state`, and one more for
        the end.  state: a State for each object.
    """

    pfn: Ints
    first: Ints
    state: NDArray[np.uint8]

    def of(self, pfn: int) -> NDArray[np.uint8]:
        """Return the states of one slab's objects; none if there is no such slab."""
        at = int(np.searchsorted(self.pfn, pfn))
        if at == len(self.pfn) or self.pfn[at] != pfn:
            return self.state[:0]
        return self.state[self.first[at] : self.first[at + 1]]


def objects_of(look: Look) -> Objects:
    """Say of each object what it is, as far as the look knows."""
    slabs = slabs_of(look)
    first = np.concatenate(([0], np.cumsum(slabs.objects)))
    state = np.full(int(first[-1]), State.LIVE, np.uint8)
    owned = _owned(look, slabs, first) if len(look.slab_pages) else None
    if look.free is not None:
        pfn, index, found = look.free
        at = np.searchsorted(slabs.pfn, pfn)
        at = np.minimum(at, max(0, len(slabs.pfn) - 1))
        if len(slabs.pfn):
            good = (slabs.pfn[at] == pfn) & (index < slabs.objects[at])
            state[first[at[good]] + index[good]] = found[good]
        if owned is not None:
            state[~owned & (state == State.LIVE)] = State.KEPT
    elif owned is not None:
        _without_lists(slabs, owned, state)
    else:
        _by_counts(slabs, first, state)
    if owned is not None:
        state[owned] = State.LIVE
    return Objects(slabs.pfn, first, state)


def _owned(look: Look, slabs: Slabs, first: Ints) -> NDArray[np.bool_]:
    """Say which objects have an owner: the bit where the object begins, or behind a header of 8 bytes."""
    bits = np.unpackbits(
        look.start.view(np.uint8).reshape(len(look.start), -1), axis=1, bitorder="little"
    ).ravel()
    slab = np.repeat(np.arange(len(slabs.pfn)), slabs.objects)
    number = np.arange(int(first[-1])) - first[slab]
    size = look.caches["size"][slabs.cache].astype(np.int64)
    padding = look.caches["red_left_pad"][slabs.cache].astype(np.int64)
    base = np.searchsorted(look.slab_pages, slabs.pfn) * _PER_PAGE
    granule = base[slab] + (padding[slab] + number * size[slab]) // _GRANULE
    inside = granule < len(bits) - 1
    at = np.where(inside, granule, 0)
    found: NDArray[np.bool_] = inside & ((bits[at] | (bits[at + 1] & (size[slab] > _GRANULE))) != 0)
    return found


def _without_lists(slabs: Slabs, owned: NDArray[np.bool_], state: NDArray[np.uint8]) -> None:
    """Place the free objects of slabs where counting is enough to know: all on the slab, or none."""
    slab = np.repeat(np.arange(len(slabs.pfn)), slabs.objects)
    live = np.bincount(slab[owned], minlength=len(slabs.pfn))
    where = np.where(live == slabs.inuse, State.ON_SLAB, State.FREE)
    state[~owned] = where[slab[~owned]]


def _by_counts(slabs: Slabs, first: Ints, state: NDArray[np.uint8]) -> None:
    """Without an oracle and without lists only full and empty slabs are known."""
    slab = np.repeat(np.arange(len(slabs.pfn)), slabs.objects)
    state[(slabs.inuse == 0)[slab]] = State.ON_SLAB
    between = (slabs.inuse > 0) & (slabs.inuse < slabs.objects)
    number = np.arange(int(first[-1])) - first[slab]
    # as many as there are, which ones is not known: the last of the slab
    state[between[slab] & (number >= slabs.inuse[slab])] = State.FREE


@dataclass
class _Found:
    """Free objects, as they are found. Later ones win."""

    view: View
    slabs: Slabs
    look: Look
    pfn: list[Ints]
    index: list[Ints]
    state: list[NDArray[np.uint8]]

    def add(self, slab: Ints, offset: Words, state: State) -> None:
        """Add objects of some slabs by their offsets, all in place."""
        index = (offset - self.first(slab)).astype(np.int64) // self.size(slab)
        self.pfn.append(self.slabs.pfn[slab])
        self.index.append(index)
        self.state.append(np.full(len(slab), state, np.uint8))

    def add_offsets(self, offsets: Iterable[int], state: State) -> None:
        """Add objects anywhere; what is no object is left out."""
        offset = np.array(list(offsets), np.uint64)
        if not len(offset) or not len(self.slabs.pfn):
            return
        slab = self.slab_of(offset)
        good = (slab >= 0) & self.inside(np.maximum(slab, 0), offset)
        self.add(slab[good], offset[good], state)

    def slab_of(self, offset: Words) -> Ints:
        """Return the last slab that begins at or below each offset into the arena, -1 for none."""
        page = (offset - np.uint64(self.view.memory_offset)) // np.uint64(constant("SHM_PAGE_SIZE"))
        slab: Ints = np.searchsorted(self.slabs.pfn, page.astype(np.int64), side="right") - 1
        return np.where(page < self.view.nr_pages, slab, -1)

    def first(self, slab: Ints) -> Words:
        padding = self.look.caches["red_left_pad"][self.slabs.cache[slab]]
        first: Words = (self.view.page_memory(self.slabs.pfn[slab]) + padding).astype(np.uint64)
        return first

    def size(self, slab: Ints) -> Ints:
        size: Ints = self.look.caches["size"][self.slabs.cache[slab]].astype(np.int64)
        return size

    def inside(self, slab: Ints, offset: Words) -> NDArray[np.bool_]:
        """Say which offsets are where an object of a slab begins."""
        distance, size = offset - self.first(slab), self.size(slab).astype(np.uint64)
        fits: NDArray[np.bool_] = distance < size * self.slabs.objects[slab].astype(np.uint64)
        fits &= distance % size == 0
        return fits

    def follow(self, slab: Ints, link: Words, state: State) -> None:
        """Follow one freelist for each slab, all in step, each at most as long as the slab has objects."""
        caches = self.look.caches
        words = self.view.words
        for step in range(int(self.slabs.objects[slab].max(initial=0))):
            good = (link != 0) & (step < self.slabs.objects[slab])
            slab, link = slab[good], link[good]
            good = self.inside(slab, link)
            slab, link = slab[good], link[good]
            if not len(slab):
                return
            self.add(slab, link, state)
            at = link + caches["offset"][self.slabs.cache[slab]].astype(np.uint64)
            key = caches["random"][self.slabs.cache[slab]]
            value = words[np.minimum(at >> np.uint64(3), np.uint64(len(words) - 1)).astype(np.int64)]
            link = np.where(key != 0, value ^ key ^ at.byteswap(), value)


def follow_free(eye: Eye, look: Look) -> tuple[Ints, Ints, NDArray[np.uint8]]:
    """Go through all lists of free objects.  Returns: page frame of the slab, index of the object, State."""
    view = eye.view
    found = _Found(view, slabs_of(look), look, [], [], [])
    slabs = found.slabs
    everywhere = np.arange(len(slabs.pfn))
    usable = (look.flags[slabs.row] & constant("PG_disabled")) == 0
    found.follow(everywhere[usable], view.pages["freelist"][slabs.pfn[usable]], State.ON_SLAB)
    _on_cpus(found)
    _deferred(found)
    if eye.frame.sheaves:
        _in_sheaves(found)
    empty = np.zeros(0, np.int64)
    return (
        np.concatenate([empty, *found.pfn]),
        np.concatenate([empty, *found.index]),
        np.concatenate([empty.astype(np.uint8), *found.state]),
    )


def _on_cpus(found: _Found) -> None:
    """Follow the freelists of cpu slabs, and those that deferred slabs bring along."""
    view, slabs = found.view, found.slabs
    heads = view.cache_cpus["freelist"].ravel()
    heads = heads[heads != 0]
    slab = found.slab_of(heads)
    found.follow(slab[slab >= 0], heads[slab >= 0], State.ON_CPU)
    structs, cells = view.page_structs, view.cells
    lru = view.page_links.start - structs.start
    for first in view.cpus["defer_slabs"]["first"].tolist():
        for link in _chain(view, first, view.page_links):
            pfn = structs.index(link - lru)
            slab = np.flatnonzero(slabs.pfn == pfn)
            found.follow(slab, np.full(len(slab), cells[(link + 8) >> 3], np.uint64), State.ON_CPU)


def _deferred(found: _Found) -> None:
    """Walk each CPU's list of objects that kfree_nolock left to irq_work, linked by their free pointers."""
    view, slabs = found.view, found.slabs
    if not len(slabs.pfn):
        return
    for first in view.cpus["defer_objects"]["first"].tolist():
        links = np.array(list(_chain(view, first, view.memory)), np.uint64)
        slab = found.slab_of(links)
        links, slab = links[slab >= 0], slab[slab >= 0]
        link = found.look.caches["offset"][slabs.cache[slab]].astype(np.uint64)
        found.add_offsets((links - link).tolist(), State.DEFERRED)


def _chain(view: View, first: int, allowed: range) -> Iterable[int]:
    """Yield the links of a chain while they make sense, and no more than there can be."""
    link = first
    for _ in range(_MOST_DEFERRED):
        if not link or link not in allowed:
            return
        yield link
        link = view.cells[link >> 3]


def _in_sheaves(found: _Found) -> None:
    """Find what lies in the sheaves of CPUs and barns."""
    view = found.view
    records = view.cache_sheaves
    sheaves = np.concatenate([records[place].ravel() for place in ("main", "spare", "rcu_free")])
    for offset in sheaves[sheaves != 0].tolist():
        _add_sheaf(found, offset)
    barns = view.barns
    for name in ("sheaves_full", "sheaves_empty"):
        heads, firsts = view.offsets(barns[name]["next"]).ravel(), barns[name]["next"].ravel()
        busy = np.flatnonzero((heads != firsts) & (firsts != 0))
        for head, first in zip(heads[busy].tolist(), firsts[busy].tolist(), strict=True):
            link = first
            for _ in range(_MOST_SHEAVES):
                if link == head or link not in view.memory:
                    break
                _add_sheaf(found, link)
                link = view.cells[link >> 3]


def _add_sheaf(found: _Found, offset: int) -> None:
    sheaf = read_sheaf(found.view, offset)
    if sheaf is not None:
        found.add_offsets(sheaf.objects.tolist(), State.IN_SHEAF)
        found.add_offsets([offset], State.KEPT)
