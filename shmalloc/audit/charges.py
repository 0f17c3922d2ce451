# SPDX-License-Identifier: MIT
"""Every page that a memcg is charged for is a live object's, a block's, in a stock or pending: exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shmalloc.audit.kept import Keep
from shmalloc.audit.objects import KEPT, LIVE, FreeObjects
from shmalloc.audit.pages import Blocks
from shmalloc.audit.report import CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.sheaves import free_in_sheaves
from shmalloc.audit.slabs import Slabs
from shmalloc.audit.view import Ints, View, constant

__all__ = ["check_charges", "check_free_uncharged", "keep_vectors"]

_POINTER_BYTES = 8  # an object's place in its slab's vector


def keep_vectors(view: View, findings: Findings) -> Iterator[Keep]:
    """Find the vectors of slabs with accounted objects; one that serves its own cache keeps it for ever."""
    slab = _slab_heads(view)
    exts = view.pages["obj_exts"][slab] & ~np.uint64(constant("OBJEXTS_FLAGS_MASK"))
    slab, exts = slab[exts != 0], exts[exts != 0]
    inside = (exts >= view.memory_offset) & (exts < view.memory.stop)
    findings.add_each(
        CORRUPTION,
        slab[~inside],
        lambda pfn: (f"page {pfn}", "its slab's vector lies outside of page memory"),
        "vectors outside of memory",
    )
    slab, exts = slab[inside], exts[inside]
    home = (exts.astype(np.int64) - view.memory_offset) // constant("SHM_PAGE_SIZE")
    tail = (view.pages["flags"][home] & constant("PG_tail")) != 0
    home[tail] = np.minimum(view.pages["compound_head"][home[tail]], view.nr_pages - 1)
    own = view.pages["slab_cache"][home] == view.pages["slab_cache"][slab]
    findings.add_each(
        LOST_MEMORY,
        slab[own],
        lambda pfn: (
            view.cache_name(int(view.pages["slab_cache"][pfn]) - 1),
            f"the vector of the slab at page {pfn} lies in a slab of its own cache: it can never be freed",
        ),
        "slabs kept by their own vectors",
    )
    large = (view.pages["flags"][home] & constant("PG_allocated")) != 0
    yield Keep("obj_exts", "vectors of accounted slabs", objects=exts[~large], blocks=home[large])


def _slab_heads(view: View) -> Ints:
    found: Ints = np.flatnonzero((view.page_flags() & constant("PG_slab")) != 0)
    return found


@dataclass
class _Charges:
    """What is charged to each entry of the table itself, not to those below it; int64, shape (memcgs,).

    Attributes: object_bytes: of live objects.  stat_bytes: the same by node and kind, shape (memcgs, nodes, 2).
        block_pages: of blocks.  stock_pages: in the CPUs' page stocks.  rest_bytes: in obj_stocks and pending.
        told_bytes: what statistics and obj_stocks say, as stat_bytes.  refs: references to it that there are.
    """

    object_bytes: Ints
    stat_bytes: Ints
    block_pages: Ints
    stock_pages: Ints
    rest_bytes: Ints
    told_bytes: Ints
    refs: Ints


def check_charges(view: View, blocks: Blocks, slabs: Slabs, findings: Findings) -> None:
    """Compare usage, statistics and references of every memcg with what is charged to it."""
    if not len(view.memcgs):
        return
    charges = _empty(view)
    _add_objects(view, slabs, charges, findings)
    _add_blocks(view, blocks, charges, findings)
    _add_stocks(view, charges, findings)
    _check_unused(view, charges, findings)
    live = view.memcgs["state"] == constant("MEMCG_LIVE")
    for entry in np.flatnonzero(live).tolist():
        _check_one(view, charges, entry, _below(view, entry), findings)
    findings.totals["memcg_pages"] = int(
        view.memcgs["memory"]["usage"][live & (view.memcgs["parent"] == 0)].sum()
    )


def _empty(view: View) -> _Charges:
    n, nodes, kinds = len(view.memcgs), len(view.nodes), constant("NR_SLAB_STATS")
    told = view.memcgs["slab_bytes"][:, :nodes].astype(np.int64)
    rest = view.memcgs["nr_charged_bytes"].astype(np.int64)
    zero = [np.zeros(n, np.int64) for _ in range(4)]
    return _Charges(zero[0], np.zeros((n, nodes, kinds), np.int64), zero[1], zero[2], rest, told, zero[3])


def _known(view: View, entry: Ints, where: list[str], findings: Findings) -> np.typing.NDArray[np.bool_]:
    """Say which entries exist; report the others."""
    used = view.memcgs["state"] != constant("MEMCG_UNUSED")
    good: np.typing.NDArray[np.bool_] = (entry >= 0) & (entry < len(view.memcgs))
    good[good] = used[entry[good]]
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(~good),
        lambda i: (where[i], f"is charged to memcg {entry[i] + 1}, and there is no such memcg"),
        "charges to no memcg",
    )
    return good


def _add_objects(view: View, slabs: Slabs, charges: _Charges, findings: Findings) -> None:
    exts = view.pages["obj_exts"][slabs.pfn] & ~np.uint64(constant("OBJEXTS_FLAGS_MASK"))
    for slab in np.flatnonzero(exts):
        first = int(exts[slab]) >> 3
        entry = view.words[first : first + int(slabs.objects[slab])].astype(np.int64) - 1
        entry = entry[entry >= 0]
        name = slabs.describe(view, int(slab))
        entry = entry[_known(view, entry, [name] * len(entry), findings)]
        count = np.bincount(entry, minlength=len(view.memcgs))
        full = int(slabs.size[slab]) + _POINTER_BYTES
        reclaimable = int(view.caches["flags"][slabs.cache[slab]]) & constant("SLAB_RECLAIM_ACCOUNT")
        kind = constant("STAT_SLAB_RECLAIMABLE" if reclaimable else "STAT_SLAB_UNRECLAIMABLE")
        charges.object_bytes += count * full
        charges.stat_bytes[:, slabs.node[slab], kind] += count * full
        charges.refs += count


def check_free_uncharged(
    view: View, slabs: Slabs, free: FreeObjects, kept: Sequence[Keep], findings: Findings
) -> None:
    """Check that no free object is charged: a free looks into the slab's vector before the object goes anywhere.

    What is deferred has been looked at, too. What waits for a grace period, or lies in a layer above the
    slabs, is not freed yet; in a sheaf it is, but for those that wait. The memcg's own numbers agree all
    the same: only its references stay, for ever.
    """
    exts = view.pages["obj_exts"][slabs.pfn] & ~np.uint64(constant("OBJEXTS_FLAGS_MASK"))
    end = exts.astype(np.int64) + slabs.objects * _POINTER_BYTES
    with_vector = np.flatnonzero((exts >= view.memory_offset) & (end <= view.memory.stop))
    if not len(with_vector):
        return
    idle = (free.state != LIVE) & (free.state != KEPT)
    in_sheaf = np.isin(free.offset, free_in_sheaves(view, kept))
    idle[_numbers(slabs, free.offset[in_sheaf], free.slab[in_sheaf])] = True
    offsets, named = [], []
    for slab in with_vector.tolist():
        first, base, objects = int(exts[slab]) >> 3, int(slabs.base[slab]), int(slabs.objects[slab])
        entries = view.words[first : first + objects]
        wrong = np.flatnonzero((entries != 0) & idle[base : base + objects])
        offsets += [(slab, int(slabs.first[slab]) + int(slabs.size[slab]) * at) for at in wrong.tolist()]
        named += entries[wrong].tolist()
    findings.add_each(
        CORRUPTION,
        range(len(offsets)),
        lambda i: (
            slabs.describe(view, offsets[i][0]),
            f"object {offsets[i][1]:#x} is free, and its slab's vector names memcg {named[i]}",
        ),
        "free objects that are charged",
    )


def _numbers(slabs: Slabs, offset: np.typing.NDArray[np.uint64], slab: Ints) -> Ints:
    """Number objects as Slabs.base does."""
    found: Ints = slabs.base[slab] + (offset - slabs.first[slab]).astype(np.int64) // slabs.size[slab]
    return found


def _add_blocks(view: View, blocks: Blocks, charges: _Charges, findings: Findings) -> None:
    given = blocks.of("PG_allocated")
    data = view.pages["obj_exts"][blocks.pfn[given]]
    given, data = given[data != 0], data[data != 0]
    where = [f"page {pfn}" for pfn in blocks.pfn[given]]
    entry = (data >> np.uint64(3)).astype(np.int64) - 1
    good = _known(view, entry, where, findings)
    np.add.at(charges.block_pages, entry[good], blocks.pages[given[good]])
    np.add.at(charges.refs, entry[good], 1)
    other = (blocks.kind != constant("PG_allocated")) & (blocks.kind != constant("PG_slab"))
    stale = blocks.pfn[other & (view.pages["obj_exts"][blocks.pfn] != 0)]
    findings.add_each(
        CORRUPTION,
        stale,
        lambda pfn: (f"page {pfn}", "is free, and says that it is charged to a memcg"),
        "free pages that are charged",
    )


def _add_stocks(view: View, charges: _Charges, findings: Findings) -> None:
    for cpu, row in enumerate(view.memcg_cpus):
        name = f"stock of CPU {cpu}"
        cached, pages = row["stock"]["cached"].astype(np.int64), row["stock"]["nr_pages"].astype(np.int64)
        slots = np.flatnonzero(cached)
        good = slots[_known(view, cached[slots] - 1, [name] * len(slots), findings)]
        np.add.at(charges.stock_pages, cached[good] - 1, pages[good])
        entry = np.array([int(row["obj"]["cached_objcg"]) - 1])
        if entry[0] < 0 or not _known(view, entry, [f"obj_stock of CPU {cpu}"], findings)[0]:
            continue
        charges.rest_bytes[entry[0]] += int(row["obj"]["nr_bytes"])
        charges.refs[entry[0]] += 1
        node = int(row["obj"]["cached_node"]) - 1
        if 0 <= node < len(view.nodes):
            charges.told_bytes[entry[0], node] += row["obj"]["slab_bytes"]


def _below(view: View, top: int) -> Ints:
    """Return an entry and all used ones below it."""
    used = view.memcgs["state"] != constant("MEMCG_UNUSED")
    parent = view.memcgs["parent"].astype(np.int64) - 1
    found = []
    for entry in np.flatnonzero(used).tolist():
        at, steps = entry, 0
        while 0 <= at < len(used) and at != top and steps <= len(used):
            at, steps = int(parent[at]), steps + 1
        if at == top:
            found.append(entry)
    return np.array(found, np.int64)


def _check_unused(view: View, charges: _Charges, findings: Findings) -> None:
    alive = view.memcgs["state"] == constant("MEMCG_LIVE")
    used = view.memcgs["state"] != constant("MEMCG_UNUSED")
    expected = charges.refs + alive
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(used & (view.memcgs["objcg_refs"] != expected)),
        lambda i: (
            _name(view, i),
            f"has {view.memcgs['objcg_refs'][i]} references of objects, blocks and stocks; {expected[i]} are there",
        ),
        "memcgs whose references are wrong",
    )


def _name(view: View, entry: int) -> str:
    text = bytes(view.memcgs["name"][entry]).decode(errors="replace")
    return f"memcg {text or entry + 1}"


def _check_one(view: View, charges: _Charges, entry: int, below: Ints, findings: Findings) -> None:
    page = constant("SHM_PAGE_SIZE")
    for one in below.tolist():
        total = int(charges.object_bytes[one] + charges.rest_bytes[one])
        if total % page:
            text = f"objects and rests are {total} bytes: {total % page} more than whole pages"
            findings.add(LOST_MEMORY, _name(view, one), text)
            return
    of_bytes = int((charges.object_bytes[below] + charges.rest_bytes[below]).sum()) // page
    blocks, stocks = int(charges.block_pages[below].sum()), int(charges.stock_pages[below].sum())
    usage = int(view.memcgs["memory"]["usage"][entry])
    if usage != of_bytes + blocks + stocks:
        text = f"usage is {usage} pages; objects and rests of pages are {of_bytes}, blocks {blocks}, stocks {stocks}"
        findings.add(
            LOST_MEMORY if usage > of_bytes + blocks + stocks else CORRUPTION, _name(view, entry), text
        )
    kmem = int(view.memcgs["kmem_pages"].astype(np.int64)[below].sum())
    if kmem != of_bytes + blocks:
        text = f"kmem is {kmem} pages; objects and rests of pages are {of_bytes}, blocks {blocks}"
        findings.add(CORRUPTION, _name(view, entry), text)
    told, real = charges.told_bytes[below].sum(axis=0), charges.stat_bytes[below].sum(axis=0)
    for node, kind in np.argwhere(told != real).tolist():
        what = "unreclaimable" if kind == constant("STAT_SLAB_UNRECLAIMABLE") else "reclaimable"
        text = f"slab_{what} of node {node} is {told[node, kind]} bytes; {real[node, kind]} are charged"
        findings.add(CORRUPTION, _name(view, entry), text)
