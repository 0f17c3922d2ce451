# SPDX-License-Identifier: MIT
"""Slabs agree with who has them, and the counters of caches and nodes add up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shmalloc.audit.holders import (
    CPU_PARTIAL_LIST,
    CPU_SLAB,
    DEFERRED,
    DISABLED,
    HOLDER_NAMES,
    NOBODY,
    PARTIAL_LIST,
    WAITS_RCU,
    Holders,
)
from shmalloc.audit.objects import KEPT, ON_CPU, ON_DEFERRED, ON_FLUSH, ON_SLAB, FreeObjects
from shmalloc.audit.pages import Blocks
from shmalloc.audit.report import BROKEN_RULE, CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.slabs import Slabs
from shmalloc.audit.view import Ints, Mask, View, constant

__all__ = ["check_cache_counters", "check_slab_pages", "check_slab_states", "check_tids", "count_slabs"]


def check_slab_states(
    view: View, slabs: Slabs, holders: Holders, free: FreeObjects, findings: Findings
) -> None:
    """Check frozen, partial, inuse and the freelist of each slab against who has it."""
    holder, on_slab = holders.holder, free.counts[:, ON_SLAB]
    trusted = findings.trusted("slab", len(slabs)) & (holder != DISABLED)

    def report(wrong: Mask, verdict: str, text: Callable[[int], str], alike: str) -> None:
        found = np.flatnonzero(wrong & trusted)
        findings.add_each(verdict, found, lambda i: (slabs.describe(view, i), text(i)), alike)
        trusted[found] = False
        for i in found.tolist():
            findings.doubt("slab", i)

    report(
        slabs.inuse + on_slab != slabs.objects,
        CORRUPTION,
        lambda i: (
            f"counts {slabs.inuse[i]} of {slabs.objects[i]} objects in use, {on_slab[i]} are on its freelist"
        ),
        "slabs whose inuse is wrong",
    )
    frozen_wanted = holder == CPU_SLAB
    report(
        slabs.frozen & (holder == NOBODY),
        LOST_MEMORY,
        lambda i: f"is frozen, and no CPU has it: {slabs.objects[i]} objects are out of reach",
        "frozen slabs that nobody has",
    )
    report(
        (slabs.frozen != frozen_wanted) & (holder != NOBODY) & (holder != DEFERRED),
        CORRUPTION,
        lambda i: f"is {'' if slabs.frozen[i] else 'not '}frozen, and it is {_having(holders, i)}",
        "slabs whose frozen bit is wrong",
    )
    report(
        slabs.partial & (holder != PARTIAL_LIST),
        CORRUPTION,
        lambda i: f"is marked partial, and it is {_having(holders, i)}",
        "slabs marked partial elsewhere",
    )
    report(
        (on_slab > 0) & (holder == NOBODY),
        LOST_MEMORY,
        lambda i: f"has {on_slab[i]} free objects and is on no list: they are out of reach",
        "slabs with free objects that nobody has",
    )
    report(
        (on_slab == 0) & ((holder == PARTIAL_LIST) | (holder == CPU_PARTIAL_LIST)),
        CORRUPTION,
        lambda i: f"has no free object, and it is {_having(holders, i)}",
        "partial slabs without a free object",
    )
    hidden = free.counts[:, [ON_CPU, ON_FLUSH, ON_DEFERRED, KEPT]].sum(axis=1)
    report(
        hidden > slabs.inuse,
        CORRUPTION,
        lambda i: f"counts {slabs.inuse[i]} objects in use, and {hidden[i]} are free elsewhere",
        "slabs with more free objects than objects in use",
    )


def _having(holders: Holders, i: int) -> str:
    name = {
        CPU_SLAB: f"the cpu slab of CPU {holders.cpu[i]}",
        CPU_PARTIAL_LIST: f"on the cpu partial list of CPU {holders.cpu[i]}",
        PARTIAL_LIST: "on its node's partial list",
        DEFERRED: f"deferred by CPU {holders.cpu[i]}",
        WAITS_RCU: f"waiting for a grace period on CPU {holders.cpu[i]}",
        NOBODY: "full, on no list",
    }
    return name.get(int(holders.holder[i]), HOLDER_NAMES[holders.holder[i]])


def check_cache_counters(view: View, slabs: Slabs, holders: Holders, findings: Findings) -> None:
    """Compare nr_partial, nr_slabs and total_objects with what is there."""
    shape = view.cache_nodes.shape
    cell = slabs.cache * shape[1] + slabs.node
    # A new debug slab that could not be added is deferred without ever having been counted.
    counted = (
        ~((holders.holder == DEFERRED) & ~slabs.frozen) & (holders.holder != WAITS_RCU) & ~slabs.uncounted
    )

    def total(mask: Mask, weight: Ints | None = None) -> Ints:
        weights = None if weight is None else weight[mask]
        table = np.bincount(cell[mask], weights, minlength=shape[0] * shape[1])
        return table.astype(np.int64).reshape(shape)

    said = view.cache_nodes
    found = {
        "nr_partial": total(holders.holder == PARTIAL_LIST),
        "nr_slabs": total(counted),
        "total_objects": total(counted, slabs.objects),
    }
    used = view.caches["state"] != constant("CACHE_UNUSED")
    for name, table in found.items():
        for cache, node in np.argwhere((said[name] != table) & used[:, None]).tolist():
            if findings.trusts("cache", cache):
                where = f"{view.cache_name(cache)} node {node}"
                number = int(said[name][cache, node].astype(np.int64))
                findings.add(CORRUPTION, where, f"{name} is {number}, counted are {table[cache, node]}")


def check_slab_pages(view: View, blocks: Blocks, findings: Findings) -> None:
    """Compare nr_slab_pages of each node with the pages of all slabs there."""
    slabs = blocks.of("PG_slab")
    nodes = view.zones["node"][blocks.zone[slabs]]
    pages = np.bincount(nodes, blocks.pages[slabs], minlength=len(view.nodes)).astype(np.int64)
    for node, said in enumerate(view.nodes["nr_slab_pages"].astype(np.int64)):
        trusted = findings.trusted("zone", len(view.zones))[view.zones["node"] == node].all()
        if said != pages[node] and trusted:
            findings.add(CORRUPTION, f"node {node}", f"nr_slab_pages is {said}, counted are {pages[node]}")


def check_tids(view: View, findings: Findings) -> None:
    """Check that each transaction id is one of its CPU's."""
    step = int(view.header["tid_step"])
    if step <= 0:
        findings.add(CORRUPTION, "header", f"tid_step is {step}")
        return
    used = view.caches["state"] != constant("CACHE_UNUSED")
    tid = view.cache_cpus["tid"]
    cpu = np.arange(tid.shape[0], dtype=np.uint64)[:, None]
    wrong = np.argwhere((tid % np.uint64(step) != cpu) & used[None, :])
    findings.add_each(
        BROKEN_RULE,
        np.arange(len(wrong)),
        lambda i: (
            f"{view.cache_name(int(wrong[i, 1]))} cpu slab of CPU {wrong[i, 0]}",
            f"transaction id {tid[wrong[i, 0], wrong[i, 1]]} is not one of this CPU's (mod {step})",
        ),
        "transaction ids of other CPUs",
    )


def count_slabs(view: View, slabs: Slabs, holders: Holders, free: FreeObjects, findings: Findings) -> None:
    """Fill in the totals of slabs and objects by state, overall and per cache."""
    caches = len(view.caches)
    held = np.bincount(slabs.cache * len(HOLDER_NAMES) + holders.holder, minlength=caches * len(HOLDER_NAMES))
    held = held.reshape(caches, len(HOLDER_NAMES))
    objects = _by_cache(slabs.cache, slabs.objects, caches)
    placed = np.stack([_by_cache(slabs.cache, column, caches) for column in free.counts.T], axis=1)
    findings.totals.update(_totals(held.sum(axis=0), int(objects.sum()), placed.sum(axis=0), ""))
    for cache in np.flatnonzero(held.any(axis=1)).tolist():
        name = view.cache_name(cache).replace(" ", ".", 1)
        findings.totals.update(_totals(held[cache], int(objects[cache]), placed[cache], f"{name}."))


def _by_cache(cache: Ints, number: Ints, caches: int) -> Ints:
    """Add up a number of each slab by cache: in one pass, however many caches there are."""
    return np.bincount(cache, number, minlength=caches).astype(np.int64)


def _totals(held: Ints, objects: int, placed: Ints, prefix: str) -> dict[str, int]:
    of, at = held.tolist(), placed.tolist()
    return {
        f"{prefix}slabs_total": sum(of),
        **{f"{prefix}slabs_{name}": of[i] for i, name in enumerate(HOLDER_NAMES)},
        f"{prefix}objects_total": objects,
        f"{prefix}objects_live": objects - sum(at[1:]),
        f"{prefix}objects_free_slab": at[ON_SLAB],
        f"{prefix}objects_free_cpu": at[ON_CPU] + at[ON_FLUSH],
        f"{prefix}objects_deferred": at[ON_DEFERRED],
        f"{prefix}objects_kept": at[KEPT],
    }
