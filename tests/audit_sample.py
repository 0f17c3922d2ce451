# SPDX-License-Identifier: MIT
"""A fake arena that has something in every place there is, for the audit's tests."""

from collections.abc import Callable
from typing import Any

from fake_arena import Cache, FakeArena, Slab

from shmalloc import layout
from shmalloc.audit import Problem, audit

Corrupt = Callable[["Sample"], None]


class Sample(FakeArena):
    """Three zones on two nodes, four caches, and a slab in each state.

    Attributes: name of each thing: what it is.
    """

    def __init__(self, *, oracle: bool = True) -> None:
        c = layout.constants()
        tracked = c["SLAB_STORE_USER"] | c["SLAB_RED_ZONE"]
        caches = (
            Cache("small", 64, 0, 8),
            Cache("large", 512, 1, 16),
            Cache("tracked", 256, 0, 8, flags=tracked, red_left_pad=8),
            Cache("hardened", 128, 0, 8, random=0x0123456789ABCDEF),
        )
        super().__init__(caches=caches, oracle=oracle, hardened=True)
        self.small_cpu = self.add_slab(Slab(0, "cpu", on_slab=[1, 0], on_cpu=[3, 2, 5]))
        self.small_partial = self.add_slab(Slab(0, "partial", on_slab=[1, 6, 7]))
        self.small_partial_2 = self.add_slab(Slab(0, "partial", on_slab=[2]))
        self.small_cpu_partial = self.add_slab(Slab(0, "cpu_partial", cpu=1, on_slab=[4]))
        self.small_cpu_partial_2 = self.add_slab(Slab(0, "cpu_partial", cpu=1, on_slab=[4, 5]))
        self.large_full = self.add_slab(Slab(1, "full", zone=2))
        self.large_deferred = self.add_slab(
            Slab(1, "deferred", zone=1, on_slab=[0], on_flush=[1], on_deferred=[3, 4])
        )
        self.tracked_full = self.add_slab(Slab(2, "full_listed", zone=2))
        self.tracked_partial = self.add_slab(Slab(2, "partial", zone=2, on_slab=[1]))
        self.tracked_new = self.add_slab(
            Slab(2, "deferred", zone=1, cpu=1, frozen=False, on_slab=list(range(8)))
        )
        self.hardened_cpu = self.add_slab(Slab(3, "cpu", cpu=1, on_cpu=[7, 0, 3]))
        self.hardened_partial = self.add_slab(Slab(3, "partial", zone=2, on_slab=[2, 1]))
        self.disabled = self.add_slab(Slab(2, "disabled", zone=1))
        self.pcp = self.put_on_pcp(0)
        self.pcp_2 = self.put_on_pcp(1, 2, migratetype=0)
        self.pcp_3 = self.put_on_pcp(1, 2, migratetype=0)
        self.page = self.hand_out(0, zone=1)
        self.compound = self.hand_out(3, zone=1, flags="PG_allocated|PG_large", compound=True)
        self.deferred = self.defer(1)
        self.deferred_2 = self.defer(0)
        self.region("pageblocks")["migratetype"][:2] = [c["MIGRATE_UNMOVABLE"], c["MIGRATE_RECLAIMABLE"]]
        reserved = self.region("pageblocks")[6:7]
        reserved["migratetype"] = c["MIGRATE_HIGHATOMIC"]
        pageblock = 1 << int(self.header["geometry"]["pageblock_order"])
        self.region("zones")["nr_reserved_highatomic"][reserved["zone"]] = pageblock
        self.build()

    def page_record(self, pfn: int) -> Any:
        return self.region("pages")[pfn]

    def first_free(self, zone: int, order: int) -> int:
        """First page of a free block."""
        pages, start = self.region("pages"), int(self.region("zones")["start_pfn"][zone])
        for pfn in range(start, start + int(self.region("zones")["spanned_pages"][zone])):
            if pages["flags"][pfn] & self.c["PG_buddy"] and pages["order"][pfn] == order:
                return pfn
        raise AssertionError(f"zone {zone} has no free block of order {order}")


def problems(corrupt: Corrupt, *, oracle: bool = True, **how: Any) -> list[Problem]:
    """Break one thing in the sample, and return what the audit says."""
    sample = Sample(oracle=oracle)
    assert audit(sample, expect_live=True).ok
    corrupt(sample)
    return audit(sample, **how).problems


def only_problem(corrupt: Corrupt, **how: Any) -> Problem:
    """Break one thing in the sample, and return the one thing that the audit says."""
    found = problems(corrupt, **how)
    assert len(found) == 1, "\n".join(map(str, found)) or "nothing was found"
    return found[0]
