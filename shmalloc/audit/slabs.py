# SPDX-License-Identifier: MIT
"""The table of all slabs, and whose slab each of them is: a CPU's, a node's, deferred, or full."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shmalloc.audit.pages import Blocks
from shmalloc.audit.report import CORRUPTION, Findings
from shmalloc.audit.view import Ints, Mask, View, Words, constant

__all__ = ["Slabs", "check_slab_words", "find_slabs"]


@dataclass(frozen=True)
class Slabs:
    """All slabs whose cache is sound, by page frame; one row each.

    Attributes: block: index into Blocks.  pfn, order, cache, node, objects, inuse, size: int64, as the
        struct page and its cache say.  frozen, debug, disabled, uncounted: bool.  freelist: offset of the first free
        object, uint64.  first: offset of object 0.  link: from an object to its free pointer.  key: of
        the cache's hardening.  base: number of object 0 among all objects of all slabs.
    """

    block: Ints
    pfn: Ints
    order: Ints
    cache: Ints
    node: Ints
    objects: Ints
    inuse: Ints
    size: Ints
    frozen: Mask
    debug: Mask
    disabled: Mask
    uncounted: Mask
    partial: Mask
    freelist: Words
    first: Words
    link: Words
    key: Words
    base: Ints

    def __len__(self) -> int:
        return len(self.pfn)

    @property
    def nr_objects(self) -> int:
        """Objects of all slabs together."""
        return int(self.objects.sum())

    def at(self, pfns: Ints) -> Ints:
        """Return the slab whose first page each page frame is, -1 for none."""
        return self._lookup(pfns, np.ones(len(self), np.int64))

    def headed_by(self, pfn: int) -> int:
        """Return the slab whose first page one page frame is, -1 for none."""
        index = int(np.searchsorted(self.pfn, pfn))
        return index if index < len(self) and self.pfn[index] == pfn else -1

    def around(self, pfns: Ints) -> Ints:
        """Return the slab that each page frame lies in, -1 for none."""
        return self._lookup(pfns, np.int64(1) << self.order)

    def _lookup(self, pfns: Ints, pages: Ints) -> Ints:
        if not len(self):
            return np.full(len(pfns), -1)
        at = np.searchsorted(self.pfn, pfns, side="right") - 1
        return np.where((at >= 0) & (pfns < self.pfn[at] + pages[at]), at, -1)

    def describe(self, view: View, i: int) -> str:
        """Name one slab as messages do."""
        return f"{view.cache_name(int(self.cache[i]))} slab at page {self.pfn[i]}"


def find_slabs(view: View, blocks: Blocks, findings: Findings) -> Slabs:
    """Collect the slabs, leaving out (and reporting) those that make no sense."""
    sound_cache = _check_caches(view, findings)
    block = blocks.of("PG_slab")
    cache = view.pages["slab_cache"][blocks.pfn[block]].astype(np.int64) - 1
    known = (cache >= 0) & (cache < len(view.caches))
    live = np.zeros(len(block), bool)
    live[known] = (view.caches["state"] != constant("CACHE_UNUSED"))[cache[known]]
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(~live),
        lambda i: (
            f"page {blocks.pfn[block[i]]}",
            f"is a slab of cache {cache[i]}, and there is no such cache",
        ),
        "slabs of no cache",
    )
    keep = live.copy()
    keep[live] = sound_cache[cache[live]]
    block, cache = block[keep], cache[keep]
    objects = (view.pages["counters"][blocks.pfn[block]] >> 16 & 0x7FFF).astype(np.int64)
    fits = _check_sizing(view, blocks, block, cache, objects, findings)
    return _table(view, blocks, block[fits], cache[fits], objects[fits])


def _check_caches(view: View, findings: Findings) -> Mask:
    """Say which caches have a layout that can be followed; report the live ones that have not."""
    caches = view.caches
    size, offset = caches["size"].astype(np.int64), caches["offset"].astype(np.int64)
    largest = constant("SHM_PAGE_SIZE") << constant("SHM_MAX_PAGE_ORDER")
    sound: Mask = (size >= 8) & (size % 8 == 0) & (offset % 8 == 0) & (size <= largest)
    sound &= caches["red_left_pad"] % 8 == 0
    sound &= caches["red_left_pad"].astype(np.int64) + np.maximum(offset + 8, caches["object_size"]) <= size
    live = caches["state"] != constant("CACHE_UNUSED")
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(live & ~sound),
        lambda i: (
            view.cache_name(i),
            f"objects of {size[i]} bytes cannot hold {caches['red_left_pad'][i]} bytes of padding, "
            f"{caches['object_size'][i]} bytes of content and a link at {offset[i]}",
        ),
        "caches of an impossible layout",
    )
    for i in np.flatnonzero(~sound).tolist():
        findings.doubt("cache", i)
    return sound


def _check_sizing(
    view: View, blocks: Blocks, block: Ints, cache: Ints, objects: Ints, findings: Findings
) -> Mask:
    """Check order and number of objects of each slab against its cache."""
    order = blocks.order[block]
    fits = np.zeros(len(block), bool)
    for wanted in (view.caches["oo"], view.caches["min"]):
        fits |= (order == wanted[cache] >> 16) & (objects == wanted[cache] & 0xFFFF)
    room = np.int64(constant("SHM_PAGE_SIZE")) << order
    fits &= objects * view.caches["size"][cache].astype(np.int64) <= room
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(~fits),
        lambda i: (
            f"{view.cache_name(int(cache[i]))} slab at page {blocks.pfn[block[i]]}",
            f"has order {order[i]} and {objects[i]} objects, the cache's slabs have "
            f"{_sizing(view, 'oo', cache[i])} or {_sizing(view, 'min', cache[i])}",
        ),
        "slabs of the wrong size",
    )
    for i in np.unique(cache[~fits]).tolist():
        findings.doubt("cache", i)
    return fits


def _sizing(view: View, field: str, cache: int) -> str:
    value = int(view.caches[field][cache])
    return f"{value >> 16} and {value & 0xFFFF}"


def _table(view: View, blocks: Blocks, block: Ints, cache: Ints, objects: Ints) -> Slabs:
    pfn, caches = blocks.pfn[block], view.caches
    flags, counters = blocks.flags[block], view.pages["counters"][pfn]
    return Slabs(
        block=block,
        pfn=pfn,
        order=blocks.order[block],
        cache=cache,
        node=view.zones["node"][blocks.zone[block]].astype(np.int64),
        objects=objects,
        inuse=(counters & 0xFFFF).astype(np.int64),
        size=caches["size"][cache].astype(np.int64),
        frozen=(counters >> 31 & 1).astype(bool),
        debug=(caches["flags"][cache] & constant("SLAB_DEBUG_FLAGS")) != 0,
        disabled=(flags & constant("PG_disabled")) != 0,
        uncounted=(flags & constant("PG_uncounted")) != 0,
        partial=(flags & constant("PG_partial")) != 0,
        freelist=view.pages["freelist"][pfn],
        first=(view.page_memory(pfn) + caches["red_left_pad"][cache]).astype(np.uint64),
        link=caches["offset"][cache].astype(np.uint64),
        key=caches["random"][cache],
        base=np.concatenate(([0], np.cumsum(objects)[:-1])) if len(objects) else objects,
    )


def check_slab_words(view: View, slabs: Slabs, findings: Findings) -> None:
    """Check what frees go by: a page's word is 0, or says which slab the page belongs to, and where in it it lies.

    A word that is missing costs time only; one where there should be none lets a free go where it must not.
    """
    pages = view.pages[slabs.pfn]
    ordinary = (view.caches["flags"][slabs.cache] & constant("SLAB_UNORDINARY")) == 0
    ordinary &= (pages["flags"] & constant("PG_pfmemalloc")) == 0
    ordinary &= (pages["obj_exts"] & ~np.uint64(constant("OBJEXTS_FLAGS_MASK"))) == 0
    pfn, words = view.words_of_pages()
    slab = slabs.around(pfn)
    within = (pfn - slabs.pfn[slab]) * constant("SHM_PAGE_SIZE") if len(slabs) else pfn
    expected = np.zeros(len(pfn), np.uint64)
    known = np.flatnonzero(slab >= 0)
    known = known[ordinary[slab[known]]]
    of = slab[known]
    expected[known] = (slabs.cache[of] + 1 | slabs.objects[of] << 16 | within[known] << 32).astype(np.uint64)
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(words != expected),
        lambda i: (
            f"page {pfn[i]}",
            f"its word is {words[i]:#x}, and must be 0" + (f" or {expected[i]:#x}" if expected[i] else ""),
        ),
        "words of pages",
    )
