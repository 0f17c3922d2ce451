# SPDX-License-Identifier: MIT
"""Whose slab each slab is: exactly one of a CPU's, a cpu partial list, a node's lists, deferred, or full."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shmalloc.audit.lists import FULL, PARTIAL, Anchors, walk_chain
from shmalloc.audit.pages import Blocks, flag_names
from shmalloc.audit.rcu import slabs_waiting
from shmalloc.audit.report import CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.slabs import Slabs
from shmalloc.audit.view import Ints, Mask, View, Words, constant, field_offset

__all__ = [
    "CPU_PARTIAL_LIST",
    "CPU_SLAB",
    "DEFERRED",
    "DISABLED",
    "FULL_LIST",
    "HOLDER_NAMES",
    "NOBODY",
    "PARTIAL_LIST",
    "WAITS_RCU",
    "Holders",
    "find_holders",
    "on_full_list",
]

NOBODY, CPU_SLAB, CPU_PARTIAL_LIST, PARTIAL_LIST, FULL_LIST, DEFERRED, DISABLED, WAITS_RCU = range(8)
HOLDER_NAMES = ("full", "cpu", "cpu_partial", "partial", "full_listed", "deferred", "disabled", "rcu")


@dataclass(frozen=True)
class Holders:
    """Who has each slab.

    Attributes: holder: one of the constants above, shape (slabs,).  cpu: the CPU that has it, or -1.
        flush: first object of the free list that a deferred slab brings along, uint64, 0 for none.
    """

    holder: Ints
    cpu: Ints
    flush: Words


def on_full_list(view: View, slabs: Slabs) -> Mask:
    """Say which slabs must be on their node's list of full slabs."""
    tracked = (view.caches["flags"][slabs.cache] & constant("SLAB_STORE_USER")) != 0
    full: Mask = tracked & (slabs.freelist == 0) & ~slabs.partial & ~slabs.frozen & ~slabs.disabled
    return full


def find_holders(
    view: View, blocks: Blocks, slabs: Slabs, anchors: Anchors, anchor_of: Ints, findings: Findings
) -> Holders:
    """Find out who has each slab, by everything that can lead to one.

    Args: anchor_of: for each block the doubly linked list it was found on, -1 for none.
    """
    holders = Holders(np.full(len(slabs), NOBODY), np.full(len(slabs), -1), np.zeros(len(slabs), np.uint64))
    holders.holder[slabs.disabled] = DISABLED
    claims = _Claims(view, blocks, slabs, holders, findings)
    _claim_node_lists(claims, anchors, anchor_of[slabs.block])
    _claim_cpu_slabs(claims)
    _claim_cpu_partial(claims)
    _claim_deferred(claims)
    for cpu, struct in slabs_waiting(view):
        slab = claims.find(struct, None, f"RCU callbacks of CPU {cpu}", "an entry")
        if slab >= 0:
            claims.claim(slab, WAITS_RCU, cpu)
    return holders


@dataclass(frozen=True)
class _Claims:
    view: View
    blocks: Blocks
    slabs: Slabs
    holders: Holders
    findings: Findings

    def doubt(self, slab: int) -> None:
        """Distrust what the counters say of a slab's cache."""
        self.findings.doubt("slab", slab)
        self.findings.doubt("cache", int(self.slabs.cache[slab]))

    def claim(self, slab: int, holder: int, cpu: int = -1) -> bool:
        """Say that somebody has a slab; report it if it has been claimed before."""
        before = int(self.holders.holder[slab])
        if before != NOBODY:
            places = f"{self._name(before, int(self.holders.cpu[slab]))} and {self._name(holder, cpu)}"
            where = self.slabs.describe(self.view, slab)
            self.findings.add(CORRUPTION, where, f"is in two places: {places}")
            self.doubt(slab)
            return False
        self.holders.holder[slab] = holder
        self.holders.cpu[slab] = cpu
        return True

    def find(self, struct: int, cache: int | None, where: str, what: str) -> int:
        """Return the slab of a struct page's offset, -1 (and a report) if there is none of this cache."""
        structs = self.view.page_structs
        if struct not in structs:
            self.findings.add(CORRUPTION, where, f"{what} {struct:#x} is no page")
            return -1
        pfn = structs.index(struct)
        slab = self.slabs.headed_by(pfn)
        if slab >= 0 and (cache is None or self.slabs.cache[slab] == cache):
            return slab
        if self._reported(pfn):
            return -1
        found = f"no slab ({flag_names(int(self.blocks.page_flags[pfn]))})"
        if slab >= 0:
            found = f"a slab of {self.view.cache_name(int(self.slabs.cache[slab]))}"
        self.findings.add(CORRUPTION, where, f"{what} is page {pfn}, {found}")
        return -1

    def _reported(self, pfn: int) -> bool:
        """Say whether it is a slab that was left out because it makes no sense."""
        at = self.blocks.headed_by(pfn)
        slab = self.slabs.headed_by(pfn)
        return at >= 0 and slab < 0 and bool(self.blocks.flags[at] & constant("PG_slab"))

    def _name(self, holder: int, cpu: int) -> str:
        match holder:
            case 1:
                return f"cpu slab of CPU {cpu}"
            case 2:
                return f"cpu partial list of CPU {cpu}"
            case 3:
                return "partial list of its node"
            case 4:
                return "list of full slabs of its node"
            case 5:
                return f"deferred slabs of CPU {cpu}"
            case 7:
                return f"RCU callbacks of CPU {cpu}"
        return "disabled"


def _claim_node_lists(claims: _Claims, anchors: Anchors, anchor: Ints) -> None:
    view, slabs, findings = claims.view, claims.slabs, claims.findings
    must_be = np.where(slabs.partial, PARTIAL, FULL)
    listed = slabs.partial | on_full_list(view, slabs)
    lost = listed & (anchor < 0)
    findings.add_each(
        LOST_MEMORY,
        np.flatnonzero(lost),
        lambda i: (
            slabs.describe(view, i),
            f"is {'marked partial' if slabs.partial[i] else 'full'}, and is not on its node's list",
        ),
        "slabs on no list of their node",
    )
    place = anchors.place[anchor]
    fits = (anchors.kind[anchor] == must_be) & (place[:, 0] == slabs.cache) & (place[:, 1] == slabs.node)
    wrong = listed & ~lost & ~fits
    findings.add_each(
        CORRUPTION,
        np.flatnonzero(wrong),
        lambda i: (
            slabs.describe(view, i),
            f"on node {slabs.node[i]} is on the {anchors.describe(view, int(anchor[i]))}",
        ),
        "slabs on the wrong list",
    )
    for i in np.flatnonzero(lost | wrong):
        claims.doubt(int(i))
    claims.holders.holder[listed] = np.where(slabs.partial, PARTIAL_LIST, FULL_LIST)[listed]


def _claim_cpu_slabs(claims: _Claims) -> None:
    records = claims.view.cache_cpus
    for cpu, cache in np.argwhere((records["slab"] != 0) | (records["freelist"] != 0)).tolist():
        record = records[cpu, cache]
        where = f"{claims.view.cache_name(cache)} cpu slab of CPU {cpu}"
        if not record["slab"]:
            freelist = int(record["freelist"])
            claims.findings.add(CORRUPTION, where, f"has a freelist {freelist:#x} without a slab")
            claims.findings.doubt("cache", cache)
            continue
        slab = claims.find(int(record["slab"]), cache, where, "its slab")
        if slab < 0:
            claims.findings.doubt("cache", cache)
        else:
            claims.claim(slab, CPU_SLAB, cpu)


def _claim_cpu_partial(claims: _Claims) -> None:
    view, findings = claims.view, claims.findings
    words = view.cells
    lru = field_offset("page", "lru")
    heads = view.cache_cpus["partial"]
    for cpu, cache in np.argwhere(heads != 0).tolist():
        where = f"{view.cache_name(cache)} cpu partial list of CPU {cpu}"
        chain = walk_chain(words, int(heads[cpu, cache]), view.page_structs, next_at=lru)
        if chain.fault:
            findings.add(CORRUPTION, where, f"after {len(chain.links)} slabs the list {chain.fault}")
            findings.doubt("cache", cache)
        links = list(dict.fromkeys(chain.links))
        miscounted = bool(chain.fault)
        for position, link in enumerate(links):
            slab = claims.find(link, cache, where, f"entry {position}")
            if slab < 0:
                findings.doubt("cache", cache)
                break
            claims.claim(slab, CPU_PARTIAL_LIST, cpu)
            said = words[(link + lru + 8) >> 3]
            if said != len(links) - position and not miscounted:
                text = f"counts {said} slabs from entry {position} on, there are {len(links) - position}"
                findings.add(CORRUPTION, where, text)
                miscounted = True


def _claim_deferred(claims: _Claims) -> None:
    view, findings = claims.view, claims.findings
    words = view.cells
    lru = field_offset("page", "lru")
    for cpu, head in enumerate(view.cpus["defer_slabs"]["first"].tolist()):
        where = f"deferred slabs of CPU {cpu}"
        chain = walk_chain(words, head, view.page_links)
        if chain.fault:
            findings.add(CORRUPTION, where, f"after {len(chain.links)} slabs the list {chain.fault}")
        for link in dict.fromkeys(chain.links):
            slab = claims.find(link - lru, None, where, "an entry")
            if slab < 0:
                break
            if claims.claim(slab, DEFERRED, cpu):
                claims.holders.flush[slab] = words[(link + 8) >> 3]
