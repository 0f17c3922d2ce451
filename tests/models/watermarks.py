# SPDX-License-Identifier: MIT
"""Zones, watermarks, pageset limits and zonelists by their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PAGE_KBYTES = 4
DMA, DMA32, NORMAL, MOVABLE = range(4)
KINDS = (DMA, DMA32, NORMAL, MOVABLE)
MIN, LOW, HIGH, PROMO = range(4)
_RESERVE_RATIO = {DMA: 256, DMA32: 256, NORMAL: 32}
_MAX_NODES = 8
_MIBIBYTE_PAGES = 256

# How hard an allocation may try.
NO_WATERMARKS, NON_BLOCK, MIN_RESERVE, TRYLOCK, KSWAPD = 0x4, 0x10, 0x20, 0x400, 0x800
NOFRAGMENT, HIGHATOMIC = 0x100, 0x200
RESERVES = NON_BLOCK | MIN_RESERVE | HIGHATOMIC  # may have what is kept for urgent requests
WATERMARK_MASK = 0x3


@dataclass(frozen=True)
class ZoneShape:
    """Where a zone lies.

    Attributes: node, kind: whose and which.  start: first pfn.  pages: all of them managed.
    """

    node: int
    kind: int
    start: int
    pages: int


@dataclass(frozen=True)
class Marks:
    """What a zone must keep free.

    Attributes: marks: min, low, high, promo, in pages.  reserve: kept from requests by their highest zone.
    """

    marks: tuple[int, int, int, int]
    reserve: tuple[int, int, int, int]


@dataclass(frozen=True)
class PagesetLimits:
    """The tuning of a pageset, in pages."""

    batch: int
    high_min: int
    high_max: int


def lay_out(nr_pages: int, permille: Sequence[Sequence[int]], pageblock_order: int) -> list[ZoneShape]:
    """Split the pages into zones, node by node, each a whole number of pageblocks."""
    shapes, start = [], 0
    for node, row in enumerate(permille):
        for kind, share in enumerate(row):
            pages = (nr_pages * share // 1000 >> pageblock_order) << pageblock_order
            if pages:
                shapes.append(ZoneShape(node, kind, start, pages))
                start += pages
    return shapes


def lowmem_pages(zones: Sequence[ZoneShape]) -> int:
    """Count the pages that the kernel itself may use."""
    return sum(zone.pages for zone in zones if zone.kind != MOVABLE)


def min_free_kbytes(zones: Sequence[ZoneShape]) -> int:
    """Return vm.min_free_kbytes as the kernel chooses it."""
    return _clamp(math.isqrt(16 * lowmem_pages(zones) * PAGE_KBYTES), 128, 262144)


def marks_of(zone: ZoneShape, zones: Sequence[ZoneShape], kbytes: int, scale_factor: int) -> Marks:
    """Compute a zone's watermarks and reserves.

    Args: kbytes: vm.min_free_kbytes, 0 = the kernel's choice.  scale_factor: vm.watermark_scale_factor.
    """
    pages_min, lowmem = (kbytes or min_free_kbytes(zones)) // PAGE_KBYTES, lowmem_pages(zones)
    by_share = zone.kind != MOVABLE
    low = pages_min * zone.pages // lowmem if by_share else _clamp(zone.pages // 1024, 32, 128)
    step = max(low // 4, zone.pages * scale_factor // 10000)
    return Marks((low, low + step, low + 2 * step, low + 3 * step), _reserve_of(zone, zones))


def _reserve_of(zone: ZoneShape, zones: Sequence[ZoneShape]) -> tuple[int, int, int, int]:
    ratio = _RESERVE_RATIO.get(zone.kind)
    reserve = [0, 0, 0, 0]
    for highest in range(zone.kind + 1, len(KINDS)):
        above = [z.pages for z in zones if z.node == zone.node and zone.kind < z.kind <= highest]
        reserve[highest] = sum(above) // ratio if ratio else 0
    return reserve[0], reserve[1], reserve[2], reserve[3]


def limits_of(zone: ZoneShape, marks: Marks, cpus_of_node: int) -> PagesetLimits:
    """Compute the batch of a zone's pagesets, and between what their high mark moves."""
    quarter = max(min(zone.pages >> 10, _MIBIBYTE_PAGES) // 4, 1)
    batch = max((1 << (quarter + quarter // 2).bit_length() - 1) - 1, 1)
    cpus = max(cpus_of_node, 1)
    high_min = max(marks.marks[LOW] // cpus, 4 * batch)
    return PagesetLimits(batch, high_min, max(zone.pages // 8 // cpus, 4 * batch, high_min))


@dataclass(frozen=True)
class Demand:
    """What a request wants to know of a zone.

    Attributes: order: of the block.  mark: pages, boost included.  highest: zone kind.  flags: see above.
    """

    order: int
    mark: int
    highest: int
    flags: int = 0


def watermark_ok(demand: Demand, free: int, reserve: Sequence[int], has_block: Callable[[int], bool]) -> bool:
    """Say whether a zone may serve a request.

    Args: free: pages.  reserve: see Marks.  has_block: whether a list of this order or above holds one.
    """
    low = demand.mark
    if demand.flags & MIN_RESERVE:
        low -= low // 2
        if demand.flags & NON_BLOCK:
            low -= low // 4
    if free - ((1 << demand.order) - 1) <= low + reserve[demand.highest]:
        return False
    return demand.order == 0 or has_block(demand.order)


def node_orders(
    distance: Sequence[Sequence[int]], memory_nodes: Sequence[int], cpu_nodes: Sequence[int]
) -> list[list[int]]:
    """Order the nodes as each node falls back on them.

    Args: distance: the table.  memory_nodes: those with pages.  cpu_nodes: the node of each CPU.
    """
    load = [0] * _MAX_NODES
    return [_order_from(local, distance, memory_nodes, cpu_nodes, load) for local in range(len(distance))]


def _order_from(
    local: int,
    distance: Sequence[Sequence[int]],
    memory_nodes: Sequence[int],
    cpu_nodes: Sequence[int],
    load: list[int],
) -> list[int]:
    order: list[int] = []
    previous = local
    while left := [node for node in memory_nodes if node not in order]:
        nearest = min(
            left,
            key=lambda n: ((distance[local][n] + (n < local) + (n in cpu_nodes)) * _MAX_NODES + load[n], n),
        )
        best = local if local in left else nearest
        if distance[local][best] != distance[local][previous]:
            load[best] += 1  # the first of a group of equals is loaded more: others start elsewhere
        order.append(best)
        previous = best
    return order


def zonelist(nodes: Sequence[int], zones: Sequence[ZoneShape]) -> list[int]:
    """List the indices of the zones of some nodes, in the nodes' order, the highest zone first."""
    return [
        index
        for node in nodes
        for kind in reversed(KINDS)
        for index, zone in enumerate(zones)
        if (zone.node, zone.kind) == (node, kind)
    ]


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
