# SPDX-License-Identifier: MIT
"""Every object of every slab is in exactly one place: a freelist, a deferred list, or somebody's.

Many freelists are followed at once: step k gathers the k-th link of every list that has one. A list
ends at 0, at a link that is no object of its slab, or when it has more entries than there are objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shmalloc.audit.holders import CPU_SLAB, DEFERRED, DISABLED, Holders
from shmalloc.audit.kept import Keep
from shmalloc.audit.lists import walk_chain
from shmalloc.audit.report import CORRUPTION, Findings
from shmalloc.audit.slabs import Slabs
from shmalloc.audit.view import Ints, View, Words, constant

__all__ = ["KEPT", "ON_CPU", "ON_DEFERRED", "ON_FLUSH", "ON_SLAB", "FreeObjects", "find_free_objects"]

_FEW_LISTS = 24  # up to so many are followed one by one
LIVE, ON_SLAB, ON_CPU, ON_FLUSH, ON_DEFERRED, KEPT = range(6)
_PLACE_NAMES = (
    "live",
    "the slab's freelist",
    "the cpu freelist",
    "the freelist of its deferred slab",
    "a list of deferred objects",
    "what a layer above the slabs keeps",
)


@dataclass(frozen=True)
class FreeObjects:
    """Every object that is not live, as far as the lists could be followed.

    Attributes: state: LIVE or ON_*, uint8, one for each object of each slab, numbered as Slabs.base says.
        counts: of each state in each slab, int64, shape (slabs, 6).
        offset, slab: of each free object: its offset and its slab's index.
        deferred_by: objects on each CPU's list of deferred ones, int64, shape (cpus,).
    """

    state: NDArray[np.uint8]
    counts: Ints
    offset: Words
    slab: Ints
    deferred_by: Ints

    def free(self) -> Ints:
        """Return the number of objects in each slab that are not live."""
        free: Ints = self.counts[:, 1:].sum(axis=1)
        return free


@dataclass
class _Marks:
    """What is known while the lists are followed."""

    view: View
    slabs: Slabs
    findings: Findings
    state: NDArray[np.uint8]
    offsets: list[Words]
    owners: list[Ints]

    def doubt(self, slab: int) -> None:
        self.findings.doubt("slab", slab)
        self.findings.doubt("cache", int(self.slabs.cache[slab]))

    def mark(self, offset: Words, slab: Ints, place: int) -> None:
        """Put objects into a place; report those that were in one already."""
        slabs = self.slabs
        number = slabs.base[slab] + (offset - slabs.first[slab]).astype(np.int64) // slabs.size[slab]
        before = self.state[number]
        twice = np.flatnonzero(before != LIVE)
        self.state[number] = place
        self.findings.add_each(
            CORRUPTION,
            twice,
            lambda i: (
                slabs.describe(self.view, int(slab[i])),
                f"object {int(offset[i]):#x} is on {_PLACE_NAMES[before[i]]} and on {_PLACE_NAMES[place]}",
            ),
            "objects on two lists",
        )
        for i in twice:
            self.doubt(int(slab[i]))
        once = before == LIVE
        self.offsets.append(offset[once])
        self.owners.append(slab[once])


def find_free_objects(
    view: View, slabs: Slabs, holders: Holders, kept: Sequence[Keep], findings: Findings
) -> FreeObjects:
    """Follow every freelist and every list of deferred objects; place what layers above keep."""
    marks = _Marks(view, slabs, findings, np.zeros(slabs.nr_objects, np.uint8), [], [])
    usable = np.flatnonzero(holders.holder != DISABLED)
    _follow(marks, slabs.freelist[usable], usable, ON_SLAB)
    on_cpu = np.flatnonzero(holders.holder == CPU_SLAB)
    heads = view.cache_cpus["freelist"][holders.cpu[on_cpu], slabs.cache[on_cpu]]
    _follow(marks, heads, on_cpu, ON_CPU)
    flushing = np.flatnonzero(holders.holder == DEFERRED)
    _follow(marks, holders.flush[flushing], flushing, ON_FLUSH)
    deferred_by = _find_deferred(marks)
    _place_all_kept(marks, [keep for keep in kept if len(keep.objects)])

    owner = np.repeat(np.arange(len(slabs)), slabs.objects)
    counts = np.bincount(owner * 6 + marks.state, minlength=len(slabs) * 6).reshape(len(slabs), 6)
    empty = np.zeros(0, np.int64)
    return FreeObjects(
        marks.state,
        counts,
        np.concatenate([empty.astype(np.uint64), *marks.offsets]),
        np.concatenate([empty, *marks.owners]),
        deferred_by,
    )


@dataclass
class _Walk:
    """What some freelists led through: objects and their slabs; links that are no objects; circular ones' slabs."""

    offset: Words
    slab: Ints
    stray: Words
    stray_slab: Ints
    endless: Ints


def _follow(marks: _Marks, link: Words, slab: Ints, place: int) -> None:
    """Follow one freelist per slab."""
    there = link != 0
    link, slab = link[there], slab[there]
    if not len(link):
        return
    walk = (_one_by_one if len(link) <= _FEW_LISTS else _in_step)(marks, link, slab)
    if len(walk.stray):
        _report_stray(marks, walk.stray, walk.stray_slab, place)
    offset, owner = walk.offset, walk.slab
    if len(walk.endless):  # then its objects are there more than once
        _report_endless(marks, walk.endless, place)
        offset, first = np.unique(offset, return_index=True)
        owner = owner[first]
    marks.mark(offset, owner, place)


def _one_by_one(marks: _Marks, link: Words, slab: Ints) -> _Walk:
    """Follow the freelists one after the other, which is faster where there are few."""
    slabs, cells = marks.slabs, marks.view.cells
    found: list[int] = []
    owners: list[int] = []
    strays: list[tuple[int, int]] = []
    endless: list[int] = []
    for at, i in zip(link.tolist(), slab.tolist(), strict=True):
        first, size, objects = int(slabs.first[i]), int(slabs.size[i]), int(slabs.objects[i])
        behind, key, before = int(slabs.link[i]), int(slabs.key[i]), len(found)
        while at:
            if not 0 <= at - first < size * objects or (at - first) % size:
                strays.append((at, i))
                break
            if len(found) - before >= objects:
                endless.append(i)
                break
            found.append(at)
            at = cells[(at + behind) >> 3] ^ (_mangled(at + behind, key) if key else 0)
        owners += [i] * (len(found) - before)
    stray, stray_slab = zip(*strays, strict=True) if strays else ((), ())
    return _Walk(
        np.array(found, np.uint64),
        np.array(owners, np.int64),
        np.array(stray, np.uint64),
        np.array(stray_slab, np.int64),
        np.array(endless, np.int64),
    )


def _mangled(at: int, key: int) -> int:
    """Return what a link at an offset is exclusive-ored with."""
    return key ^ int.from_bytes(at.to_bytes(8, "little"), "big")


def _in_step(marks: _Marks, link: Words, slab: Ints) -> _Walk:
    """Follow all freelists in step."""
    slabs, words = marks.slabs, marks.view.words
    walked: list[Words] = []
    owners: list[Ints] = []
    stray: list[Words] = [link[:0]]
    stray_slab: list[Ints] = [slab[:0]]
    rounds: list[Ints] = [slab[:0]]
    step = 0
    while len(link):
        distance = link - slabs.first[slab]  # wraps far beyond the slab for a link below it
        size = slabs.size[slab].astype(np.uint64)
        inside = (distance < size * slabs.objects[slab].astype(np.uint64)) & (distance % size == 0)
        if not inside.all():
            stray.append(link[~inside])
            stray_slab.append(slab[~inside])
            link, slab = link[inside], slab[inside]
        endless = step >= slabs.objects[slab]
        if endless.any():
            rounds.append(slab[endless])
            link, slab = link[~endless], slab[~endless]
        walked.append(link)
        owners.append(slab)
        at = link + slabs.link[slab]
        link = words[(at >> np.uint64(3)).astype(np.int64)]
        key = slabs.key[slab]
        if key.any():
            link = np.where(key != 0, link ^ key ^ at.byteswap(), link)
        step += 1
        more = link != 0
        link, slab = link[more], slab[more]
    return _Walk(
        np.concatenate(walked),
        np.concatenate(owners),
        np.concatenate(stray),
        np.concatenate(stray_slab),
        np.concatenate(rounds),
    )


def _report_stray(marks: _Marks, link: Words, slab: Ints, place: int) -> None:
    marks.findings.add_each(
        CORRUPTION,
        np.arange(len(link)),
        lambda i: (
            marks.slabs.describe(marks.view, int(slab[i])),
            f"{_PLACE_NAMES[place]} leads to {int(link[i]):#x}, which is no object of it",
        ),
        "freelists that lead out of their slab",
    )
    for i in slab:
        marks.doubt(int(i))


def _report_endless(marks: _Marks, slab: Ints, place: int) -> None:
    marks.findings.add_each(
        CORRUPTION,
        slab,
        lambda i: (
            marks.slabs.describe(marks.view, i),
            f"{_PLACE_NAMES[place]} is circular: it has more than {marks.slabs.objects[i]} entries",
        ),
        "circular freelists",
    )
    for i in slab:
        marks.doubt(int(i))


def _is_object(slabs: Slabs, offset: Words, slab: Ints) -> NDArray[np.bool_]:
    """Say which offsets are where an object of their slab begins."""
    good: NDArray[np.bool_] = slab >= 0
    if good.any():
        distance = offset - slabs.first[slab]
        size = slabs.size[slab].astype(np.uint64)
        good &= (distance < size * slabs.objects[slab].astype(np.uint64)) & (distance % size == 0)
    return good


def _place_all_kept(marks: _Marks, kept: list[Keep]) -> None:
    """Put what all layers keep into its place: at once if nothing is wrong with any of it."""
    if not kept:
        return
    slabs, offset = marks.slabs, np.concatenate([keep.objects for keep in kept])
    slab = slabs.around((offset.astype(np.int64) - marks.view.memory_offset) >> constant("SHM_PAGE_SHIFT"))
    if _is_object(slabs, offset, slab).all() and len(np.unique(offset)) == len(offset):
        marks.mark(offset, slab, KEPT)
        return
    for keep in kept:
        _place_kept(marks, keep)


def _place_kept(marks: _Marks, keep: Keep) -> None:
    """Put what one layer keeps into its place."""
    slabs, view = marks.slabs, marks.view
    slab = slabs.around((keep.objects.astype(np.int64) - view.memory_offset) >> constant("SHM_PAGE_SHIFT"))
    good = _is_object(slabs, keep.objects, slab)
    marks.findings.add_each(
        CORRUPTION,
        keep.objects[~good],
        lambda at: (keep.where, f"keeps {int(at):#x}, which is no object of a slab"),
        "things kept that are no objects",
    )
    marks.mark(keep.objects[good], slab[good], KEPT)


def _find_deferred(marks: _Marks) -> Ints:
    """Walk each CPU's list of objects that kfree_nolock left to irq_work."""
    view, slabs = marks.view, marks.slabs
    counts = np.zeros(len(view.cpus), np.int64)
    for cpu, head in enumerate(view.cpus["defer_objects"]["first"].tolist()):
        chain = walk_chain(view.cells, head, view.memory)
        where = f"deferred objects of CPU {cpu}"
        if chain.fault:
            marks.findings.add(CORRUPTION, where, f"after {len(chain.links)} objects the list {chain.fault}")
        link = np.array(list(dict.fromkeys(chain.links)), np.int64)
        slab = slabs.around((link - view.memory_offset) >> constant("SHM_PAGE_SHIFT"))
        offset = link.astype(np.uint64) - slabs.link[slab] if len(slabs) else link.astype(np.uint64)
        good = _is_object(slabs, offset, slab)
        marks.findings.add_each(
            CORRUPTION,
            link[~good],
            lambda at, where=where: (where, f"the link at {at:#x} lies in no object"),  # type: ignore[misc]
            "deferred links outside of objects",
        )
        marks.mark(offset[good], slab[good], ON_DEFERRED)
        counts[cpu] = good.sum()
    return counts
