# SPDX-License-Identifier: MIT
"""Free pages are on the list that their flags, order and type say, and the zones' counters add up."""

from __future__ import annotations

import numpy as np

from shmalloc.audit.lists import BUDDY, PCP, Anchors, walk_chain
from shmalloc.audit.pages import Blocks, flag_names
from shmalloc.audit.report import CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.view import Ints, Mask, View, constant

__all__ = ["check_counters", "check_deferred_pages", "check_free_lists", "count_pages"]

_THP_LISTS = 12  # the first of the two lists for huge pages


def check_free_lists(
    view: View, blocks: Blocks, anchors: Anchors, anchor_of: Ints, findings: Findings
) -> None:
    """Check that each free or pcp block is on the right list.

    Args: anchor_of: for each block the list it was found on, -1 for none.
    """
    for place, kind in (("PG_buddy", BUDDY), ("PG_pcp", PCP)):
        members = blocks.of(place)
        lost = members[anchor_of[members] < 0]
        findings.add_each(
            LOST_MEMORY,
            lost,
            lambda i, kind=kind: (  # type: ignore[misc]
                view.zone_name(int(blocks.zone[i])),
                f"the block of order {blocks.order[i]} at page {blocks.pfn[i]} "
                f"({flag_names(int(blocks.flags[i]))}) is on no {'free' if kind == BUDDY else 'pcp'} list",
            ),
            "blocks on no list",
        )
        for zone in np.unique(blocks.zone[lost]):
            findings.doubt("zone", zone)
        listed = members[anchor_of[members] >= 0]
        wrong = listed[~_fits(view, blocks, anchors, listed, anchor_of[listed], kind)]
        findings.add_each(
            CORRUPTION,
            wrong,
            lambda i: (
                f"page {blocks.pfn[i]}",
                f"{_describe(view, blocks, i)} is on the {anchors.describe(view, int(anchor_of[i]))}",
            ),
            "blocks on the wrong list",
        )
        for i in wrong:
            findings.doubt("zone", blocks.zone[i])
            findings.doubt(*anchors.owner(int(anchor_of[i])))


def _describe(view: View, blocks: Blocks, i: int) -> str:
    pfn = int(blocks.pfn[i])
    block_type = view.pageblocks["migratetype"][pfn >> view.pageblock_order]
    return (
        f"a block of order {blocks.order[i]} in {view.zone_name(int(blocks.zone[i]))} "
        f"({flag_names(int(blocks.flags[i]))}, pageblock type {block_type}, pcp type "
        f"{view.pages['migratetype'][pfn]})"
    )


def _fits(view: View, blocks: Blocks, anchors: Anchors, members: Ints, anchor: Ints, kind: int) -> Mask:
    """Say of each block whether the list is meant for it."""
    place, pfn, order = anchors.place[anchor], blocks.pfn[members], blocks.order[members]
    fits: Mask = (anchors.kind[anchor] == kind) & (place[:, 0] == blocks.zone[members])
    if kind == BUDDY:
        block_type = view.pageblocks["migratetype"][pfn >> view.pageblock_order]
        fits &= (place[:, 1] == order) & (place[:, 2] == block_type)
        return fits
    of_type = view.pages["migratetype"][pfn].astype(np.int64)
    small = constant("MIGRATE_PCPTYPES") * order + of_type
    huge = _THP_LISTS + (of_type == constant("MIGRATE_MOVABLE"))
    index = np.where(order == constant("PCP_THP_ORDER"), huge, small)
    index[(order > constant("PCP_COSTLY_ORDER")) & (order != constant("PCP_THP_ORDER"))] = -1
    fits &= (place[:, 2] == index) & (of_type < constant("MIGRATE_PCPTYPES"))
    return fits


def check_deferred_pages(view: View, blocks: Blocks, findings: Findings) -> None:
    """Walk each zone's list of blocks whose free found the lock taken."""
    words = view.cells
    marked = blocks.of("PG_deferred")
    found = np.zeros(len(blocks.pfn), bool)
    for zone, record in enumerate(view.zones):
        first = int(record["trylock_free_pages"]["first"])
        chain = walk_chain(words, first, view.page_links)
        if chain.fault:
            findings.doubt("zone", zone)
            where = f"{view.zone_name(zone)} trylock_free_pages"
            findings.add(CORRUPTION, where, f"after {len(chain.links)} entries the list {chain.fault}")
        pfn = np.array([view.page_links.index(link) for link in dict.fromkeys(chain.links)], np.int64)
        at = np.array([blocks.headed_by(page) for page in pfn.tolist()], np.int64)
        good = at >= 0
        good[good] = (blocks.zone[at[good]] == zone) & (blocks.flags[at[good]] & constant("PG_deferred") != 0)
        findings.add_each(
            CORRUPTION,
            pfn[~good],
            lambda page, zone=zone: (  # type: ignore[misc]
                f"page {page}",
                f"({flag_names(int(blocks.page_flags[page]))}) is on trylock_free_pages of "
                f"{view.zone_name(zone)}, and is no deferred block of it",
            ),
            "entries that are no deferred blocks",
        )
        found[at[good]] = True
    _report_undeferred(view, blocks, marked[~found[marked]], findings)


def _report_undeferred(view: View, blocks: Blocks, lost: Ints, findings: Findings) -> None:
    """Report blocks that are marked as deferred and that no list leads to, where the list is sound."""
    lost = np.array([i for i in lost if findings.trusts("zone", int(blocks.zone[i]))], np.int64)
    findings.add_each(
        LOST_MEMORY,
        lost,
        lambda i: (
            view.zone_name(int(blocks.zone[i])),
            f"the deferred block of order {blocks.order[i]} at page {blocks.pfn[i]} is on no list",
        ),
        "deferred blocks on no list",
    )


def check_counters(view: View, blocks: Blocks, anchors: Anchors, anchor_of: Ints, findings: Findings) -> None:
    """Compare the counters of zones and pagesets with what is there."""
    free, pages = blocks.of("PG_buddy"), blocks.pages
    orders = constant("SHM_NR_ORDERS")
    nr_free = np.bincount(blocks.zone[free] * orders + blocks.order[free], minlength=len(view.zones) * orders)
    nr_free = nr_free.reshape(len(view.zones), orders)
    on_pcp = np.zeros(view.pagesets.shape, np.int64)
    listed = blocks.of("PG_pcp")
    listed = listed[anchor_of[listed] >= 0]
    listed = listed[anchors.kind[anchor_of[listed]] == PCP]  # the others are reported already
    place = anchors.place[anchor_of[listed]]
    np.add.at(on_pcp, (place[:, 0], place[:, 1]), pages[listed])
    block_type = view.pageblocks["migratetype"][blocks.pfn[free] >> view.pageblock_order]
    high = free[block_type == constant("MIGRATE_HIGHATOMIC")]
    for zone, record in enumerate(view.zones):
        if not findings.trusts("zone", zone):
            continue
        mine = free[blocks.zone[free] == zone]
        counted = {
            **{f"free_area[{order}].nr_free": nr_free[zone, order] for order in range(orders)},
            "free_pages": pages[mine].sum(),
            "free_highatomic": pages[high[blocks.zone[high] == zone]].sum(),
            "managed_pages": pages[blocks.zone == zone].sum(),
        }
        areas = record["free_area"]["nr_free"]
        said = {
            **{f"free_area[{order}].nr_free": areas[order] for order in range(orders)},
            **{name: record[name] for name in ("free_pages", "free_highatomic", "managed_pages")},
        }
        _compare(view.zone_name(zone), said, counted, findings)
        for cpu, pageset in enumerate(view.pagesets[zone]):
            where = f"{view.zone_name(zone)} pageset of CPU {cpu}"
            _compare(where, {"count": pageset["count"]}, {"count": on_pcp[zone, cpu]}, findings)


def _compare(where: str, said: dict[str, int], counted: dict[str, int], findings: Findings) -> None:
    for name, number in counted.items():
        if int(said[name]) != int(number):
            findings.add(CORRUPTION, where, f"{name} is {said[name]}, counted are {number}")


def count_pages(view: View, blocks: Blocks, places: dict[str, str], findings: Findings) -> None:
    """Fill in the totals of pages by place, and name what is parked on deferred lists."""
    totals = findings.totals
    totals["pages_total"] = view.nr_zone_pages
    for flag, name in places.items():
        totals[f"pages_{name}"] = int(blocks.pages[blocks.of(flag)].sum())
    large = (blocks.flags & constant("PG_large")) != 0
    totals["pages_large_kmalloc"] = int(blocks.pages[large].sum())
    totals["pages_nowhere"] = view.nr_zone_pages - sum(totals[f"pages_{name}"] for name in places.values())
    deferred = blocks.of("PG_deferred")
    for zone in np.unique(blocks.zone[deferred]):
        mine = deferred[blocks.zone[deferred] == zone]
        shown = ", ".join(str(pfn) for pfn in blocks.pfn[mine[:4]]) + (", ..." if len(mine) > 4 else "")
        findings.notes.append(
            f"{view.zone_name(int(zone))}: {blocks.pages[mine].sum()} pages in {len(mine)} blocks wait on "
            f"trylock_free_pages for a free that may take the lock: pages {shown}"
        )
