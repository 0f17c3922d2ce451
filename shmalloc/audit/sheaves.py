# SPDX-License-Identifier: MIT
"""Sheaves and barns of a 7.x arena: each sheaf is in one place, and so is each object in one of them.

A sheaf is an object of a kmalloc cache: kept for the allocator itself, as what lies in it is. One that waits
for a grace period is kept by the RCU callbacks, its content here. What waits for irq_work is pending.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shmalloc import _binding
from shmalloc.audit.kept import Keep
from shmalloc.audit.lists import walk_chain
from shmalloc.audit.rcu import callback_heads
from shmalloc.audit.report import BROKEN_RULE, CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.view import View, Words, constant, field_offset

__all__ = ["HEADER_BYTES", "Sheaf", "free_in_sheaves", "has_sheaves", "keep_sheaves", "read_sheaf"]

HEADER_BYTES = 32
MOST_OBJECTS = 1 << 10  # of a sheaf that can be one: more than any cache's capacity
_PLACES = ("main", "spare", "rcu_free")


@dataclass(frozen=True)
class Sheaf:
    """What a sheaf's header says, and the offsets of the objects in it (uint64)."""

    cache: int
    capacity: int
    size: int
    objects: Words


def has_sheaves(view: View) -> bool:
    """Say whether the arena is one of Linux 7.x."""
    return bool(view.cache_sheaves.size)


def read_sheaf(view: View, offset: int) -> Sheaf | None:
    """Read a sheaf; None if there can be none."""
    if offset not in view.memory:
        return None
    cells = view.cells
    cache, capacity = cells[(offset >> 3) + 2] & 0xFFFFFFFF, cells[(offset >> 3) + 2] >> 32
    size = cells[(offset >> 3) + 3] & 0xFFFFFFFF
    end = offset + HEADER_BYTES + 8 * capacity
    if not 1 <= cache <= len(view.caches) or not size <= capacity <= MOST_OBJECTS or end > view.memory.stop:
        return None
    first = (offset + HEADER_BYTES) >> 3
    return Sheaf(cache - 1, capacity, size, view.words[first : first + size].copy())


def keep_sheaves(view: View, findings: Findings) -> Iterator[Keep]:
    """Yield the sheaves of every CPU and barn, and the objects in them."""
    if not has_sheaves(view):
        return
    yield from _on_cpus(view, findings)
    yield from _in_barns(view, findings)
    yield from _deferred(view, findings)
    yield from _waiting_for_rcu(view, findings)


def _keep(
    view: View, offsets: list[int], cache: int | None, where: str, findings: Findings
) -> Iterator[Keep]:
    """Yield some sheaves and what lies in them; report what is none, or another cache's."""
    good, contents = [], []
    capacities = view.caches["sheaf_capacity"]
    for offset in offsets:
        sheaf = read_sheaf(view, offset)
        if sheaf is None or (cache is not None and sheaf.cache != cache):
            found = "is no sheaf" if sheaf is None else f"is a sheaf of {view.cache_name(sheaf.cache)}"
            findings.add(CORRUPTION, where, f"{offset:#x} {found}")
            continue
        capacity = int(capacities[sheaf.cache])
        if sheaf.capacity != capacity:
            text = (
                f"the sheaf at {offset:#x} has room for {sheaf.capacity} objects, the cache wants {capacity}"
            )
            findings.add(CORRUPTION, where, text)
        good.append(offset)
        contents.append(sheaf.objects)
    yield Keep("sheaves", f"sheaves of {where}", np.array(good, np.uint64))
    if contents:
        yield Keep("sheaf_objects", f"objects in sheaves of {where}", _unique(contents, where, findings))


def _unique(contents: list[Words], where: str, findings: Findings) -> Words:
    """Join what lies in some sheaves; report what is there more than once."""
    joined = np.concatenate(contents)
    if len(set(joined.tolist())) == len(joined):
        return joined
    offsets, times = np.unique(joined, return_counts=True)
    for offset in offsets[times > 1].tolist():
        findings.add(CORRUPTION, where, f"object {offset:#x} is in these sheaves twice")
    return offsets


def free_in_sheaves(view: View, kept: Sequence[Keep]) -> Words:
    """Return the objects in sheaves that are free: all but those that wait for a grace period."""
    found = [keep.objects for keep in kept if keep.place == "sheaf_objects" and not keep.pending]
    if not found:
        return np.zeros(0, np.uint64)
    filling = [read_sheaf(view, int(sheaf)) for sheaf in view.cache_sheaves["rcu_free"].ravel() if sheaf]
    waiting = [sheaf.objects for sheaf in filling if sheaf is not None]
    return np.setdiff1d(np.concatenate(found), np.concatenate([found[0][:0], *waiting]))


def _on_cpus(view: View, findings: Findings) -> Iterator[Keep]:
    records = view.cache_sheaves
    unused = (view.caches["state"] == constant("CACHE_UNUSED")).tolist()
    bootstrap = field_offset("shm_header", "bootstrap_sheaf")
    places = np.stack([records[place] for place in _PLACES], axis=-1).tolist()
    for cpu, cache in np.argwhere((records["main"] != 0) | (records["spare"] != 0)).tolist():
        held = [sheaf for sheaf in places[cpu][cache] if sheaf not in (0, bootstrap)]
        if not held:
            continue
        where = f"{view.cache_name(cache)} on CPU {cpu}"
        if unused[cache]:
            text = f"{len(held)} sheaves are left of a cache that was destroyed"
            findings.add(LOST_MEMORY, where, text)
            continue
        if len(set(held)) < len(held):
            findings.add(CORRUPTION, where, "has one sheaf in two places")
        yield from _keep(view, list(dict.fromkeys(held)), cache, where, findings)
    _check_mains(view, bootstrap, findings)


def _check_mains(view: View, bootstrap: int, findings: Findings) -> None:
    """Every CPU has a main sheaf of every cache; the shared one is for caches without sheaves, and empty."""
    records, caches = view.cache_sheaves, view.caches
    live = caches["state"] == constant("CACHE_LIVE")
    wants = live & (caches["sheaf_capacity"] != 0)
    wrong = np.argwhere(wants[None, :] & ((records["main"] == 0) | (records["main"] == bootstrap)))
    wrong_too = np.argwhere((live & ~wants)[None, :] & (records["main"] != bootstrap))
    for cpu, cache in [*wrong.tolist(), *wrong_too.tolist()]:
        where = f"{view.cache_name(cache)} on CPU {cpu}"
        findings.add(CORRUPTION, where, f"its main sheaf is {int(records['main'][cpu, cache]):#x}")
    if int(view.header["bootstrap_sheaf"]["size"]):
        findings.add(CORRUPTION, "bootstrap sheaf", "is not empty, and no cache may put anything there")
    for cpu, cache in np.argwhere(records["lock"]["word"] != 0).tolist():
        where = f"{view.cache_name(cache)} on CPU {cpu}"
        findings.add(BROKEN_RULE, where, "lock never released: sheaves")


def _in_barns(view: View, findings: Findings) -> Iterator[Keep]:
    barns = view.barns
    live = view.caches["state"] != constant("CACHE_UNUSED")
    used = live[:, None] & (barns["present"] != 0)
    lists = {
        kind: (
            view.offsets(barns[f"sheaves_{kind}"]["next"]).tolist(),
            barns[f"sheaves_{kind}"]["next"].tolist(),
            barns[f"nr_{kind}"].tolist(),
        )
        for kind in ("full", "empty")
    }
    locked = (barns["lock"]["word"] != 0).tolist()
    for cache, node in np.argwhere(used).tolist():
        where = f"the barn of {view.cache_name(cache)} on node {node}"
        if locked[cache][node]:
            findings.add(BROKEN_RULE, where, "lock never released: barn")
        for kind, (heads, firsts, numbers) in lists.items():
            sheaves = _walk_list(view, heads[cache][node], firsts[cache][node], where, findings)
            if len(sheaves) != numbers[cache][node]:
                text = f"nr_{kind} is {numbers[cache][node]}, counted are {len(sheaves)}"
                findings.add(CORRUPTION, where, text)
            if kind == "empty":
                _check_empty(view, sheaves, where, findings)
            if sheaves:
                yield from _keep(view, sheaves, cache, where, findings)


def _check_empty(view: View, sheaves: list[int], where: str, findings: Findings) -> None:
    for offset in sheaves:
        sheaf = read_sheaf(view, offset)
        if sheaf is not None and sheaf.size:
            text = f"the sheaf at {offset:#x} is among the empty ones, and has {sheaf.size} objects"
            findings.add(CORRUPTION, where, text)


def _walk_list(view: View, head: int, first: int, where: str, findings: Findings) -> list[int]:
    """Follow a barn's list; a sheaf begins with its links."""
    found: list[int] = []
    seen = {head}
    at, before = first, head
    while at not in seen:
        if at not in view.memory:
            findings.add(CORRUPTION, where, f"after {len(found)} sheaves the list leads to {at:#x}")
            return found
        if view.cells[(at >> 3) + 1] != before:
            findings.add(CORRUPTION, where, f"the sheaf at {at:#x} does not link back")
            return found
        seen.add(at)
        found.append(at)
        before, at = at, view.cells[at >> 3]
    if at != head:
        findings.add(CORRUPTION, where, f"after {len(found)} sheaves the list goes round")
    return found


def _deferred(view: View, findings: Findings) -> Iterator[Keep]:
    """Yield what kfree_rcu_nolock has left to irq_work: full sheaves, and single objects by their rcu_heads."""
    queued = view.cpus["defer_work"]["flags"] & constant("IRQ_WORK_PENDING") != 0
    for cpu in range(len(view.cpus)):
        where = f"deferred rcu sheaves of CPU {cpu}"
        sheaves = _chain(view, int(view.cpus["defer_rcu_sheaves"]["first"][cpu]), where, findings)
        yield from _pending(_keep(view, sheaves, None, where, findings))
        where = f"objects deferred by kfree_rcu_nolock on CPU {cpu}"
        heads = _chain(view, int(view.cpus["defer_by_rcu"]["first"][cpu]), where, findings)
        objects = [head - (view.cells[(head >> 3) + 1] >> 32) for head in heads]
        yield Keep("by_rcu", where, np.array(objects, np.uint64), pending=True)
        if (sheaves or heads) and not queued[cpu]:
            text = "no irq_work is queued that would free what waits on its deferred lists"
            findings.add(LOST_MEMORY, f"CPU {cpu}", text)


def _pending(kept: Iterator[Keep]) -> Iterator[Keep]:
    for keep in kept:
        yield Keep(keep.place, keep.where, keep.objects, keep.blocks, pending=True)


def _chain(view: View, first: int, where: str, findings: Findings) -> list[int]:
    chain = walk_chain(view.cells, first, view.memory)
    if chain.fault:
        findings.add(CORRUPTION, where, f"after {len(chain.links)} entries the list {chain.fault}")
    return list(dict.fromkeys(chain.links))


@functools.cache
def _sheaf_functions() -> frozenset[int]:
    """Return the numbers of the callbacks whose head is a sheaf."""
    names = _binding.core().names("rcu_func")
    return frozenset(at for at, name in enumerate(names) if name.startswith("rcu_free_sheaf"))


def _waiting_for_rcu(view: View, findings: Findings) -> Iterator[Keep]:
    """Yield the content of sheaves that wait for a grace period; they themselves are rcu_heads."""
    functions = _sheaf_functions()
    for cpu in range(len(view.cpus)):
        where = f"sheaves that wait for a grace period on CPU {cpu}"
        heads = [h for h in callback_heads(view, cpu) if h in view.memory]
        sheaves = [h for h in heads if view.cells[(h >> 3) + 1] & 0xFFFFFFFF in functions]
        contents = [sheaf.objects for sheaf in (read_sheaf(view, h) for h in sheaves) if sheaf is not None]
        if len(contents) < len(sheaves):
            findings.add(CORRUPTION, where, "one of them is no sheaf any more")
        if contents:
            yield Keep("sheaf_objects", where, _unique(contents, where, findings), pending=True)
