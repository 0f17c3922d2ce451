# SPDX-License-Identifier: MIT
"""What is owned is live, what is live is owned: the allocator's state against the ownership bitmaps.

The bitmaps have a bit for each 8 bytes of page memory, 8 words a page. No object is looked at one by
one: the owned bits of a slab may lie only where a template of its cache has object bodies, the start
bits only where objects begin, none of them on a free object; then equal numbers mean equal sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shmalloc.audit.holders import DISABLED, Holders
from shmalloc.audit.objects import FreeObjects
from shmalloc.audit.pages import Blocks, flag_names
from shmalloc.audit.report import CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.slabs import Slabs
from shmalloc.audit.view import WORDS_PER_PAGE, Ints, View, Words, constant

__all__ = ["check_bitmaps", "check_owned_objects", "check_owned_pages", "count_owned"]

GRANULE_BYTES = 8
_WORD_BYTES = 64 * GRANULE_BYTES  # of memory that one word describes
_CHUNK_WORDS = 1 << 16  # looked at together: they fit a core's cache
_CONTRADICTIONS = (
    "begins an owned object, and is not owned",
    "is owned, and no owned object reaches it",
    "is marked as the last of an owned object, or should be",
)
_TOP, _ONE = np.uint64(63), np.uint64(1)
_FIRST = np.uint64(3)  # where the one object of a block begins: at once, or behind a header of 8 bytes


def check_bitmaps(view: View, findings: Findings) -> None:
    """Check the bitmaps against each other: an owned range has a first and a last bit, and no hole."""
    wrong: dict[str, list[int]] = {text: [] for text in _CONTRADICTIONS}
    for span in view.bitmap_spans():
        for begin in range(span.start, span.stop, _CHUNK_WORDS):
            chunk = slice(begin, min(begin + _CHUNK_WORDS, span.stop))
            if any(bitmap[chunk].any() for bitmap in (view.owned, view.start, view.end)):
                for text, offsets in zip(_CONTRADICTIONS, _contradictions(view, chunk, span), strict=True):
                    wrong[text] += offsets
    for text, offsets in wrong.items():
        findings.add_each(
            CORRUPTION,
            offsets,
            lambda offset, text=text: ("oracle", f"offset {offset:#x} {text}"),  # type: ignore[misc]
            "places where the bitmaps contradict each other",
        )


def _contradictions(view: View, chunk: slice, span: slice) -> list[list[int]]:
    """Return the offsets where some words of the bitmaps break each of the rules; each word once.

    Args: span: what lies around the chunk; beyond it are zeros.
    """
    owned, start, end = view.owned[chunk], view.start[chunk], view.end[chunk]
    goes_on = owned & ~start  # each of these bits follows another owned one
    before = owned << _ONE
    before[1:] |= owned[:-1] >> _TOP
    expected_end = owned & ~(goes_on >> _ONE)
    expected_end[:-1] &= ~(goes_on[1:] << _TOP)
    if chunk.start > span.start:
        before[0] |= view.owned[chunk.start - 1] >> _TOP
    if chunk.stop < span.stop:
        expected_end[-1] &= ~((view.owned[chunk.stop] & ~view.start[chunk.stop]) << _TOP)
    found = []
    reported = np.zeros(len(owned), bool)
    for bits in (start & ~owned, goes_on & ~before & ~(start << _ONE), end ^ expected_end):
        wrong = np.flatnonzero((bits != 0) & ~reported)
        reported[wrong] = True
        first = view.memory_offset + chunk.start * _WORD_BYTES
        found.append([first + word * _WORD_BYTES + _lowest(bits[word]) for word in wrong.tolist()])
    return found


def _lowest(word: np.uint64) -> int:
    """Return the distance in bytes of a word's lowest bit."""
    value = int(word)
    return ((value & -value).bit_length() - 1) * GRANULE_BYTES


def check_owned_pages(view: View, blocks: Blocks, kept: Ints, findings: Findings) -> None:
    """Check that no free page is owned, and that each block handed out has its owner.

    Args: kept: first pfn of the blocks that a layer above keeps, and hands out in parts or not at all.
    """
    pages = view.nr_pages
    owned = view.owned[: pages * WORDS_PER_PAGE].reshape(pages, WORDS_PER_PAGE)
    start = view.start[: pages * WORDS_PER_PAGE].reshape(pages, WORDS_PER_PAGE)
    used = np.concatenate(
        [np.zeros(0, np.int64), *(_used_pages(owned, span) for span in view.bitmap_spans())]
    )
    at = blocks.around(used)
    kind = np.append(blocks.kind, 0)[at]
    in_use = (kind == constant("PG_slab")) | (kind == constant("PG_allocated"))
    unknown = (at >= 0) & (kind == 0)
    findings.add_each(
        CORRUPTION,
        used[~in_use & ~unknown],
        lambda pfn: (f"page {pfn}", f"is owned, and is free ({_place(blocks, pfn)})"),
        "free pages that are owned",
    )
    given = blocks.of("PG_allocated")
    given = given[~np.isin(blocks.pfn[given], kept)]
    first = start[blocks.pfn[given], 0] & _FIRST != 0
    findings.add_each(
        LOST_MEMORY,
        given[~first],
        lambda i: (
            view.zone_name(int(blocks.zone[i])),
            f"the block of order {blocks.order[i]} at page {blocks.pfn[i]} is handed out, and nobody owns it",
        ),
        "blocks that nobody owns",
    )
    mine = used[kind == constant("PG_allocated")]
    mine = mine[~np.isin(blocks.pfn[blocks.around(mine)], kept)]
    inner = np.bitwise_count(start[mine]).sum(axis=1).astype(np.int64)
    inner -= (blocks.pfn[blocks.around(mine)] == mine) & (start[mine, 0] & _FIRST != 0)
    findings.add_each(
        CORRUPTION,
        mine[inner > 0],
        lambda pfn: (f"page {pfn}", f"an object begins inside a block of pages ({_place(blocks, pfn)})"),
        "objects inside blocks of pages",
    )


def _used_pages(owned: Words, span: slice) -> Ints:
    """Return the pages that have an owned bit in some words, which are those of whole pages."""
    first, last = span.start // WORDS_PER_PAGE, -(-span.stop // WORDS_PER_PAGE)
    used: Ints = first + np.flatnonzero((owned[first:last] != 0).any(axis=1))
    return used


def _place(blocks: Blocks, pfn: int) -> str:
    at = int(blocks.around(np.array([pfn]))[0])
    return flag_names(int(blocks.flags[at])) if at >= 0 else "in no block"


@dataclass(frozen=True)
class _Bits:
    """The bitmaps of some slabs of one cache and order: uint64, shape (slabs, words)."""

    slab: Ints
    owned: Words
    start: Words


def check_owned_objects(
    view: View, slabs: Slabs, holders: Holders, free: FreeObjects, findings: Findings
) -> None:
    """Check that an object is owned exactly if it is on no list."""
    _check_free_unowned(view, slabs, free, findings)
    live = slabs.objects - free.free()
    usable = holders.holder != DISABLED
    shape = slabs.cache * (constant("SHM_MAX_PAGE_ORDER") + 1) + slabs.order
    for alike in _groups(shape, np.flatnonzero(usable)):
        bits = _bits_of(view, slabs, alike)
        begins, bodies = _templates(view, slabs, int(bits.slab[0]))
        begins |= _behind_header(begins)
        _report_bits(view, slabs, bits.slab, bits.start & ~begins, "begins where no object does", findings)
        beyond = bits.owned & ~bodies
        beyond[(bits.start & ~begins != 0).any(axis=1)] = 0  # reported, and the rest follows from it
        _report_bits(view, slabs, bits.slab, beyond, "reaches beyond its object", findings)
        owners = np.bitwise_count(bits.start & begins).sum(axis=1).astype(np.int64)
        trusted = findings.trusted_of("slab", bits.slab)
        _report_lost(view, slabs, free, bits, (live[bits.slab] - owners) * trusted, findings)


def _groups(key: Ints, which: Ints) -> list[Ints]:
    """Divide indices into those of equal keys, in one sort, however many keys there are."""
    which = which[np.argsort(key[which], kind="stable")]
    borders = np.flatnonzero(np.diff(key[which])) + 1
    return [group for group in np.split(which, borders) if len(group)]


def _behind_header(begins: Words) -> Words:
    """Make the bits of where an allocator that has a header of 8 bytes lets its objects begin."""
    behind = begins << _ONE
    behind[1:] |= begins[:-1] >> _TOP
    return behind


def _bits_of(view: View, slabs: Slabs, which: Ints) -> _Bits:
    words = WORDS_PER_PAGE << int(slabs.order[which[0]])
    at = slabs.pfn[which, None] * WORDS_PER_PAGE + np.arange(words)
    return _Bits(which, view.owned[at], view.start[at])


def _templates(view: View, slabs: Slabs, slab: int) -> tuple[Words, Words]:
    """Make the bits of where objects begin, and of all their bodies, for slabs like this one."""
    granules = WORDS_PER_PAGE * 64 << int(slabs.order[slab])
    size = int(slabs.size[slab]) // GRANULE_BYTES
    cache = view.caches[slabs.cache[slab]]
    first = int(cache["red_left_pad"]) // GRANULE_BYTES
    body = -(-int(cache["object_size"]) // GRANULE_BYTES)
    begin = first + size * np.arange(int(slabs.objects[slab]))
    begins, bodies = np.zeros(granules, bool), np.zeros(granules, bool)
    begins[begin] = True
    bodies[(begin[:, None] + np.arange(body)).ravel()] = True
    return _packed(begins), _packed(bodies)


def _packed(bits: np.typing.NDArray[np.bool_]) -> Words:
    return np.packbits(bits, bitorder="little").view(np.uint64)


def _report_bits(view: View, slabs: Slabs, slab: Ints, bits: Words, text: str, findings: Findings) -> None:
    if not bits.any():
        return
    wrong = np.argwhere(bits)

    def describe(i: int) -> tuple[str, str]:
        row, word = wrong[i]
        page = int(view.page_memory(slabs.pfn[slab[row : row + 1]])[0])
        offset = page + int(word) * _WORD_BYTES + _lowest(bits[row, word])
        return slabs.describe(view, int(slab[row])), f"an owned range {text}, at {offset:#x}"

    findings.add_each(CORRUPTION, np.arange(len(wrong)), describe, "owned ranges that fit no object")
    for row in np.unique(wrong[:, 0]):
        findings.doubt("slab", int(slab[row]))


def _bit(bitmap: Words, view: View, offset: Words) -> Words:
    granule = (offset - np.uint64(view.memory_offset)) // np.uint64(GRANULE_BYTES)
    return bitmap[(granule // np.uint64(64)).astype(np.int64)] >> granule % np.uint64(64) & _ONE


def _check_free_unowned(view: View, slabs: Slabs, free: FreeObjects, findings: Findings) -> None:
    owned = np.flatnonzero(_bit(view.owned, view, free.offset))
    findings.add_each(
        CORRUPTION,
        owned,
        lambda i: (
            slabs.describe(view, int(free.slab[i])),
            f"object {int(free.offset[i]):#x} is owned, and is free",
        ),
        "objects that are owned and free",
    )
    for i in owned:
        findings.doubt("slab", int(free.slab[i]))


def _report_lost(
    view: View, slabs: Slabs, free: FreeObjects, bits: _Bits, missing: Ints, findings: Findings
) -> None:
    """Report live objects without an owner, one problem a cache."""
    rows = np.flatnonzero(missing > 0)
    if not len(rows):
        return
    slab = int(bits.slab[rows[0]])
    number = slabs.base[slab] + np.arange(slabs.objects[slab])
    offset = slabs.first[slab] + (np.arange(slabs.objects[slab]) * slabs.size[slab]).astype(np.uint64)
    unowned = (free.state[number] == 0) & (_bit(view.start, view, offset) == 0)
    findings.add(
        LOST_MEMORY,
        view.cache_name(int(slabs.cache[slab])),
        f"{missing[rows].sum()} objects are neither free nor owned, the first at "
        f"{int(offset[np.argmax(unowned)]):#x} (slab at page {slabs.pfn[slab]})",
    )


def count_owned(view: View, findings: Findings) -> None:
    """Fill in the totals of live objects (and blocks of pages) and of the bytes that they own."""
    spans = view.bitmap_spans()
    findings.totals["live_objects"] = sum(_count_bits(view.start[span]) for span in spans)
    findings.totals["live_bytes"] = sum(_count_bits(view.owned[span]) for span in spans) * GRANULE_BYTES


def _count_bits(words: Words) -> int:
    return int(np.bitwise_count(words).sum(dtype=np.int64))
