# SPDX-License-Identifier: MIT
"""A consistent arena made in Python, without the core: for tests that break one thing in it.

Say what is where (slabs, pcp pages, blocks handed out, ...), then `build()`: the rest of the pages
become merged buddies, and every list, counter and ownership bit is written to agree.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from shmalloc import layout

PAGE = 4096
GRANULE = 8
TABLES = {
    "cpus": "shm_cpu",
    "nodes": "node",
    "zones": "zone",
    "pagesets": "per_cpu_pages",
    "caches": "kmem_cache",
    "cache_nodes": "kmem_cache_node",
    "cache_cpus": "kmem_cache_cpu",
    "cache_stats": "kmem_cache_stat",
    "memcgs": "mem_cgroup",
    "memcg_cpus": "memcg_cpu",
    "cache_sheaves": "slub_percpu_sheaves",
    "barns": "node_barn",
    "pageblocks": "pageblock",
    "pages": "page",
    "telemetry": "shm_telemetry",
}


def bswap64(value: int) -> int:
    return int.from_bytes(value.to_bytes(8, "little"), "big")


@dataclass(frozen=True)
class Cache:
    """A slab cache of the fake arena; objects of 8-byte multiples, slabs of one order."""

    name: str
    size: int
    order: int = 0
    objects: int = 4
    flags: int = 0
    red_left_pad: int = 0
    random: int = 0

    @property
    def object_size(self) -> int:
        return self.size - self.red_left_pad

    @property
    def link(self) -> int:
        return self.object_size // 16 * 8


@dataclass
class Slab:
    """One slab: which of its objects are on which list, by index."""

    cache: int
    holder: str  # cpu, cpu_partial, partial, full, full_listed, deferred or disabled
    pfn: int = -1
    cpu: int = 0
    zone: int = 0
    on_slab: list[int] = field(default_factory=list)
    on_cpu: list[int] = field(default_factory=list)
    on_flush: list[int] = field(default_factory=list)
    on_deferred: list[int] = field(default_factory=list)
    frozen: bool | None = None

    def free(self) -> set[int]:
        return {*self.on_slab, *self.on_cpu, *self.on_flush, *self.on_deferred}


class FakeArena:
    """The bytes of an arena, and its regions as arrays over them, as an Arena has them.

    Attributes: zones: (node, zone type, pages) of each zone.  caches: the cache table.
    """

    def __init__(
        self,
        zones: tuple[tuple[int, int, int], ...] = ((0, 1, 128), (0, 2, 256), (1, 2, 256)),
        caches: tuple[Cache, ...] = (),
        *,
        nr_cpus: int = 2,
        pageblock_order: int = 4,
        oracle: bool = True,
        hardened: bool = False,
    ) -> None:
        self.c = layout.constants()
        self.caches, self.oracle = caches, oracle
        nr_nodes, nr_pages = max(node for node, _, _ in zones) + 1, sum(pages for _, _, pages in zones)
        shapes: dict[str, tuple[int, ...]] = {
            "cpus": (nr_cpus,),
            "nodes": (nr_nodes,),
            "zones": (len(zones),),
            "pagesets": (len(zones), nr_cpus),
            "caches": (len(caches) + 1,),
            "cache_nodes": (len(caches) + 1, nr_nodes),
            "cache_cpus": (nr_cpus, len(caches) + 1),
            "cache_stats": (nr_cpus, len(caches) + 1),
            "memcgs": (0,),
            "memcg_cpus": (0,),
            "cache_sheaves": (nr_cpus, 0),
            "barns": (0, nr_nodes),
            "pageblocks": (-(-nr_pages >> pageblock_order),),
            "pages": (nr_pages,),
            "telemetry": (nr_cpus,),
        }
        self._lay_out(shapes, nr_pages)
        self.header["nr_pages"], self.header["nr_zones"] = nr_pages, len(zones)
        self.header["nr_caches"], self.header["tid_step"] = len(caches), 1 << (nr_cpus - 1).bit_length()
        geometry = self.header["geometry"]
        geometry["nr_cpus"], geometry["nr_nodes"] = nr_cpus, nr_nodes
        geometry["pageblock_order"], geometry["max_caches"] = pageblock_order, len(caches) + 1
        geometry["flags"] = oracle * self.c["SHM_GEO_ORACLE"] | hardened * self.c["SHM_GEO_FREELIST_HARDENED"]
        self._place_zones(zones)
        self._describe_caches()
        self._lists: dict[Any, list[int]] = defaultdict(list)
        self._taken = np.zeros(nr_pages, bool)
        self._slabs: list[Slab] = []

    # --- layout -----------------------------------------------------------------------------------

    def _lay_out(self, shapes: dict[str, tuple[int, ...]], nr_pages: int) -> None:
        spans: dict[str, tuple[int, int]] = {}
        at = layout.dtype("shm_header").itemsize
        sizes = {
            name: int(np.prod(shape)) * layout.dtype(TABLES[name]).itemsize for name, shape in shapes.items()
        }
        sizes |= {
            "slab_words": nr_pages * 8,
            "slots": 0,
            "oracle_owned": nr_pages * 64,
            "oracle_start": nr_pages * 64,
            "oracle_end": nr_pages * 64,
            "memory": nr_pages * PAGE,
        }
        for name, size in sizes.items():
            at = -(-at // PAGE) * PAGE
            spans[name] = (at, size)
            at += size
        self.buffer = bytearray(at)
        self.header = np.frombuffer(self.buffer, layout.dtype("shm_header"), 1)[0]
        self._arrays: dict[str, Any] = {}
        for name, (offset, size) in spans.items():
            raw = np.frombuffer(self.buffer, np.uint8, size, offset)
            if name in shapes:
                self._arrays[name] = raw.view(layout.dtype(TABLES[name])).reshape(shapes[name])
            else:
                self._arrays[name] = raw.reshape(nr_pages, PAGE) if name == "memory" else raw.view(np.uint64)
        for name, span in spans.items():
            self.header["regions"][self.c[f"REGION_{name.upper()}"]] = span
        for name in ("cache_cpus", "cache_stats"):
            self.header[f"{name}_stride"] = self._arrays[name].strides[0]
        self.spans, self.nr_pages = spans, nr_pages
        self.words = np.frombuffer(self.buffer, np.uint64)

    def region(self, name: str) -> Any:
        return self._arrays[name]

    def _place_zones(self, zones: tuple[tuple[int, int, int], ...]) -> None:
        start, table = 0, self.region("zones")
        for index, (node, kind, pages) in enumerate(zones):
            zone = table[index]
            zone["node"], zone["type"], zone["index"] = node, kind, index
            zone["start_pfn"], zone["spanned_pages"], zone["managed_pages"] = start, pages, pages
            first, last = (pfn >> self.pageblock_order for pfn in (start, start + pages))
            self.region("pageblocks")["zone"][first:last] = index
            start += pages
        self.region("pageblocks")["migratetype"] = self.c["MIGRATE_MOVABLE"]
        self.region("nodes")["id"] = np.arange(len(self.region("nodes")))

    @property
    def pageblock_order(self) -> int:
        return int(self.header["geometry"]["pageblock_order"])

    def _describe_caches(self) -> None:
        for index, cache in enumerate(self.caches):
            record = self.region("caches")[index]
            record["index"], record["state"] = index, self.c["CACHE_LIVE"]
            record["name"], record["flags"], record["size"] = cache.name.encode(), cache.flags, cache.size
            record["object_size"], record["offset"] = cache.object_size, cache.link
            record["red_left_pad"], record["random"] = cache.red_left_pad, cache.random
            record["oo"] = record["min"] = cache.order << 16 | cache.objects
            for cpu, slot in enumerate(self.region("cache_cpus")[:, index]):
                slot["tid"] = cpu

    # --- where things are -------------------------------------------------------------------------

    def memory_at(self, pfn: int) -> int:
        return self.spans["memory"][0] + pfn * PAGE

    def page_at(self, pfn: int) -> int:
        """Offset of a struct page; page.lru lies lru_at() further."""
        return self.spans["pages"][0] + pfn * layout.dtype("page").itemsize

    def lru_at(self, pfn: int) -> int:
        return self.page_at(pfn) + layout.dtype("page").fields["lru"][1]

    def object_at(self, slab: Slab, index: int) -> int:
        cache = self.caches[slab.cache]
        return self.memory_at(slab.pfn) + cache.red_left_pad + index * cache.size

    def element_at(self, array: Any) -> int:
        """Offset of a record, or of a field of one."""
        return int(array.__array_interface__["data"][0] - self.words.__array_interface__["data"][0])

    def zone_of(self, pfn: int) -> int:
        return int(np.searchsorted(self.region("zones")["start_pfn"], pfn, side="right") - 1)

    # --- what is where ----------------------------------------------------------------------------

    def take(self, order: int, zone: int = 0) -> int:
        """Reserve an aligned block that nothing has yet."""
        record = self.region("zones")[zone]
        start, pages = int(record["start_pfn"]), int(record["spanned_pages"])
        for pfn in range(-(-start >> order) << order, start + pages, 1 << order):
            if not self._taken[pfn : pfn + (1 << order)].any():
                self._taken[pfn : pfn + (1 << order)] = True
                return pfn
        raise AssertionError("the fake arena is full")

    def _mark(self, pfn: int, order: int, flags: str, *, compound: bool = False) -> None:
        page = self.region("pages")[pfn]
        page["flags"] = sum(self.c[name] for name in flags.split("|"))
        page["order"] = order
        if compound:
            page["flags"] |= self.c["PG_head"]
            tails = self.region("pages")[pfn + 1 : pfn + (1 << order)]
            tails["flags"], tails["compound_head"] = self.c["PG_tail"], pfn

    def hand_out(
        self, order: int, zone: int = 0, flags: str = "PG_allocated", *, compound: bool = False
    ) -> int:
        pfn = self.take(order, zone)
        self._mark(pfn, order, flags, compound=compound)
        self.region("pages")["refcount"][pfn] = 1
        self.own(self.memory_at(pfn), PAGE << order)
        return pfn

    def put_on_pcp(self, cpu: int, order: int = 0, zone: int = 0, migratetype: int = 1) -> int:
        pfn = self.take(order, zone)
        self._mark(pfn, order, "PG_pcp")
        self.region("pages")["migratetype"][pfn] = migratetype
        index = 3 * order + migratetype if order <= 3 else 12 + (migratetype == 1)
        self._lists["pcp", zone, cpu, index].append(pfn)
        self.region("pagesets")["count"][zone, cpu] += 1 << order
        return pfn

    def defer(self, order: int = 0, zone: int = 0) -> int:
        pfn = self.take(order, zone)
        self._mark(pfn, order, "PG_deferred")
        self._lists["deferred", zone].append(pfn)
        return pfn

    def add_slab(self, slab: Slab) -> Slab:
        cache = self.caches[slab.cache]
        slab.pfn = self.take(cache.order, slab.zone)
        flags = "PG_slab" + {"partial": "|PG_partial", "disabled": "|PG_disabled"}.get(slab.holder, "")
        self._mark(slab.pfn, cache.order, flags, compound=cache.order > 0)
        self._slabs.append(slab)
        return slab

    def own(self, offset: int, size: int) -> None:
        """Record an owner of [offset, offset + size), as the oracle does."""
        if not self.oracle:
            return
        first = (offset - self.spans["memory"][0]) // GRANULE
        last = first + -(-size // GRANULE)
        for word in range(first // 64, -(-last // 64)):
            below, above = max(first - word * 64, 0), min(last - word * 64, 64)
            self.region("oracle_owned")[word] |= np.uint64((1 << above) - (1 << below))
        self.region("oracle_start")[first // 64] |= np.uint64(1 << first % 64)
        self.region("oracle_end")[(last - 1) // 64] |= np.uint64(1 << (last - 1) % 64)

    # --- building ---------------------------------------------------------------------------------

    def build(self) -> "FakeArena":
        """Write everything that follows from what is where."""
        self._free_the_rest()
        deferred: dict[int, list[int]] = defaultdict(list)
        for slab in self._slabs:
            self._write_slab(slab)
            cache = self.caches[slab.cache]
            deferred[slab.cpu] += [self.object_at(slab, index) + cache.link for index in slab.on_deferred]
        self._write_rings()
        self._write_chains()
        for cpu, links in deferred.items():
            for link, following in pairwise([*links, 0]):
                self.words[link // 8] = following
            self.region("cpus")["defer_objects"]["first"][cpu] = links[0] if links else 0
            if links or self._lists.get(("defer_slabs", cpu)):
                self.region("cpus")["defer_work"]["flags"][cpu] = self.c["IRQ_WORK_PENDING"]
        return self

    def _free_the_rest(self) -> None:
        types = self.region("pageblocks")["migratetype"]
        for index, zone in enumerate(self.region("zones")):
            pfn, end = int(zone["start_pfn"]), int(zone["start_pfn"] + zone["spanned_pages"])
            while pfn < end:
                if self._taken[pfn]:
                    pfn += 1
                    continue
                order = self._largest(pfn, end, types)
                self._mark(pfn, order, "PG_buddy")
                kind = int(types[pfn >> self.pageblock_order])
                self._lists["buddy", index, order, kind].append(pfn)
                zone["free_area"]["nr_free"][order] += 1
                zone["free_pages"] += 1 << order
                if kind == self.c["MIGRATE_HIGHATOMIC"]:
                    zone["free_highatomic"] += 1 << order
                pfn += 1 << order

    def _largest(self, pfn: int, end: int, types: Any) -> int:
        for order in range(self.c["SHM_MAX_PAGE_ORDER"], 0, -1):
            stop = pfn + (1 << order)
            if pfn % (1 << order) or stop > end or self._taken[pfn:stop].any():
                continue
            blocks = types[pfn >> self.pageblock_order : ((stop - 1) >> self.pageblock_order) + 1]
            if (blocks == blocks[0]).all():
                return order
        return 0

    def _write_slab(self, slab: Slab) -> None:
        cache, page = self.caches[slab.cache], self.region("pages")[slab.pfn]
        node = int(self.region("zones")["node"][self.zone_of(slab.pfn)])
        frozen = slab.holder in ("cpu", "deferred", "disabled") if slab.frozen is None else slab.frozen
        page["slab_cache"] = slab.cache + 1
        page["counters"] = cache.objects - len(slab.on_slab) | cache.objects << 16 | frozen << 31
        page["freelist"] = self.write_freelist(slab, slab.on_slab)
        slot = self.region("cache_cpus")[slab.cpu, slab.cache]
        match slab.holder:
            case "cpu":
                slot["slab"] = self.page_at(slab.pfn)
                slot["freelist"] = self.write_freelist(slab, slab.on_cpu)
            case "cpu_partial":
                self._lists["cpu_partial", slab.cpu, slab.cache].append(slab.pfn)
            case "partial":
                self._lists["partial", slab.cache, node].append(slab.pfn)
                self.region("cache_nodes")["nr_partial"][slab.cache, node] += 1
            case "full_listed":
                self._lists["full", slab.cache, node].append(slab.pfn)
            case "deferred":
                self._lists["defer_slabs", slab.cpu].append(slab.pfn)
                page["lru"]["prev"] = self.write_freelist(slab, slab.on_flush)
        if slab.holder != "deferred" or frozen:
            self.region("cache_nodes")["nr_slabs"][slab.cache, node] += 1
            self.region("cache_nodes")["total_objects"][slab.cache, node] += cache.objects
        self.region("nodes")["nr_slab_pages"][node] += 1 << cache.order
        for index in set(range(cache.objects)) - slab.free():
            self.own(self.object_at(slab, index), cache.object_size - 8 * (index % 2))

    def write_freelist(self, slab: Slab, indices: list[int]) -> int:
        """Chain objects by their free pointers; return the first one's offset."""
        cache, following = self.caches[slab.cache], 0
        for index in reversed(indices):
            offset = self.object_at(slab, index)
            at = offset + cache.link
            mangled = following ^ cache.random ^ bswap64(at) if cache.random else following
            self.words[at // 8] = mangled
            following = offset
        return following

    def _anchors(self) -> dict[Any, Any]:
        anchors = {}
        for zone, record in enumerate(self.region("zones")):
            for order, area in enumerate(record["free_area"]):
                anchors |= {("buddy", zone, order, i): head for i, head in enumerate(area["free_list"])}
            for cpu, pageset in enumerate(self.region("pagesets")[zone]):
                anchors |= {("pcp", zone, cpu, i): head for i, head in enumerate(pageset["lists"])}
        for cache in range(len(self.caches)):
            for node, record in enumerate(self.region("cache_nodes")[cache]):
                anchors["partial", cache, node] = record["partial"]
                anchors["full", cache, node] = record["full"]
        return anchors

    def _write_rings(self) -> None:
        for key, head in self._anchors().items():
            entries = [self.region("pages")[pfn]["lru"] for pfn in self._lists[key]]
            ring = [head, *entries, head]
            for one, other in pairwise(ring):
                one["next"], other["prev"] = self.element_at(other), self.element_at(one)

    def _write_chains(self) -> None:
        pages = self.region("pages")
        for key, pfns in self._lists.items():
            following = [*pfns[1:], None]
            match key:
                case ("deferred", zone):
                    self.region("zones")["trylock_free_pages"]["first"][zone] = self.lru_at(pfns[0])
                case ("defer_slabs", cpu):
                    self.region("cpus")["defer_slabs"]["first"][cpu] = self.lru_at(pfns[0])
                case ("cpu_partial", cpu, cache):
                    self.region("cache_cpus")["partial"][cpu, cache] = self.page_at(pfns[0])
                    pages["lru"]["prev"][pfns] = np.arange(len(pfns), 0, -1)
                case _:
                    continue
            at = self.page_at if key[0] == "cpu_partial" else self.lru_at
            for pfn, after in zip(pfns, following, strict=True):
                pages["lru"]["next"][pfn] = 0 if after is None else at(after)
