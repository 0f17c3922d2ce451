# SPDX-License-Identifier: MIT
"""What bpf_mem_alloc keeps: free objects on the lists of each CPU and size, and those that wait for grace periods."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shmalloc.audit.kept import Keep, keep_kmalloc
from shmalloc.audit.lists import walk_chain
from shmalloc.audit.pools import region_of
from shmalloc.audit.report import BROKEN_RULE, CORRUPTION, Findings
from shmalloc.audit.view import Records, View, constant

__all__ = ["BPF_LISTS", "bpf_caches", "bpf_list_name", "keep_bpf", "walk_bpf"]

# field of struct bpf_mem_cache -> whether it is a struct llist_head
BPF_LISTS = {
    "free_llist": False,
    "free_llist_extra": True,
    "free_by_rcu": False,
    "free_llist_extra_rcu": True,
    "waiting_for_gp": True,
    "free_by_rcu_ttrace": True,
    "waiting_for_gp_ttrace": True,
}


def bpf_list_name(index: int, cpu: int) -> str:
    """Name one list: of the global allocator by its size, of a map by its number."""
    buckets = constant("BPF_NR_BUCKETS")
    which = f"bucket {index}" if index < buckets else f"map {index - buckets}"
    return f"bpf_mem_alloc {which} of CPU {cpu}"


def bpf_caches(view: View) -> Records:
    """Return the records of all lists, shape (cpus, lists)."""
    records = region_of(view, "BPF_CACHES", "bpf_mem_cache")
    return records.reshape(len(view.cpus), -1)


def walk_bpf(view: View, cpu: int, index: int) -> dict[str, tuple[list[int], str]]:
    """Return, for each list of one cache, the objects on it and what is wrong with it, or ""."""
    record = bpf_caches(view)[cpu, index]
    found = {}
    for field, is_head in BPF_LISTS.items():
        first = int(record[field]["first"] if is_head else record[field])
        chain = walk_chain(view.cells, first, view.memory)
        fault = f"after {len(chain.links)} objects {field} {chain.fault}" if chain.fault else ""
        found[field] = (list(dict.fromkeys(chain.links)), fault)
    return found


def keep_bpf(view: View, findings: Findings) -> Iterator[Keep]:
    """Yield the objects on every list; the free list's count must be right."""
    for cpu, index in np.argwhere(bpf_caches(view)["unit_size"] != 0).tolist():
        where = bpf_list_name(index, cpu)
        lists = walk_bpf(view, cpu, index)
        for _, fault in lists.values():
            if fault:
                findings.add(CORRUPTION, where, fault)
        if bpf_caches(view)[cpu, index]["active"]:
            findings.add(BROKEN_RULE, where, "an update of the list was never finished")
        said, free = int(bpf_caches(view)[cpu, index]["free_cnt"]), len(lists["free_llist"][0])
        if said != free:
            findings.add(CORRUPTION, where, f"counts {said} free objects, there are {free}")
        objects = [at for links, _ in lists.values() for at in links]
        yield keep_kmalloc(view, "bpf", where, np.array(objects, np.uint64))
