# SPDX-License-Identifier: MIT
"""Page cache is on its node's LRU list, and the pageblocks kept for urgent requests are counted."""

from __future__ import annotations

import numpy as np

from shmalloc.audit.lists import LRU, Anchors
from shmalloc.audit.pages import Blocks
from shmalloc.audit.report import CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.view import Ints, View, constant

__all__ = ["check_page_cache"]


def check_page_cache(
    view: View, blocks: Blocks, anchors: Anchors, anchor_of: Ints, findings: Findings
) -> None:
    """Check pages of the page cache, and what nodes and zones count of them and of their reserves.

    Args: anchor_of: for each block the list it was found on, -1 for none.
    """
    cached = blocks.of("PG_lru")
    lost = cached[anchor_of[cached] < 0]
    findings.add_each(
        LOST_MEMORY,
        lost,
        lambda i: (f"page {blocks.pfn[i]}", "is page cache, and on no LRU list: reclaim never finds it"),
        "pages of the page cache on no list",
    )
    cached = cached[anchor_of[cached] >= 0]
    anchor = anchor_of[cached]
    node = view.zones["node"][blocks.zone[cached]].astype(np.int64)
    wrong = cached[(anchors.kind[anchor] != LRU) | (anchors.place[anchor, 0] != node)]
    findings.add_each(
        CORRUPTION,
        wrong,
        lambda i: (
            f"page {blocks.pfn[i]}",
            f"is page cache in {view.zone_name(int(blocks.zone[i]))}, and is on the "
            f"{anchors.describe(view, int(anchor_of[i]))}",
        ),
        "pages of the page cache on the wrong list",
    )
    _check_counts(view, np.bincount(node, minlength=len(view.nodes)), "node", findings)
    _check_counts(view, np.bincount(blocks.zone[cached], minlength=len(view.zones)), "zone", findings)
    _check_reserves(view, findings)


def _check_counts(view: View, counted: Ints, kind: str, findings: Findings) -> None:
    table = view.nodes if kind == "node" else view.zones
    for at, said in enumerate(table["nr_lru"].astype(np.int64)):
        if said != counted[at] and findings.trusts(kind, at):
            where = view.zone_name(at) if kind == "zone" else f"node {at}"
            findings.add(CORRUPTION, where, f"nr_lru is {said}, counted are {counted[at]}")


def _check_reserves(view: View, findings: Findings) -> None:
    kept = view.pageblocks["migratetype"] == constant("MIGRATE_HIGHATOMIC")
    zone = view.pageblocks["zone"][kept].astype(np.int64)
    pages = np.bincount(zone, minlength=len(view.zones)) << view.pageblock_order
    for at, said in enumerate(view.zones["nr_reserved_highatomic"].astype(np.int64)):
        if said != pages[at] and findings.trusts("zone", at):
            text = f"nr_reserved_highatomic is {said}, counted are {pages[at]}"
            findings.add(CORRUPTION, view.zone_name(at), text)
