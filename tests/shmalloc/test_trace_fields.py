# SPDX-License-Identifier: MIT
"""What the fields of recorded events say, where a request, a cache or a lock decides about it."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np
from rig import Rig

from harness.tracing.kernel_text import write_text
from shmalloc import AllocationFailed
from shmalloc.kswapd import Kswapd
from shmalloc.trace import FLAGS, Events

TRACED: dict[str, Any] = {"trace_bytes": 1 << 18}


def rows(events: Events, name: str) -> list[dict[str, Any]]:
    """Fields of all events of a name."""
    return [dict(events.items(record)) for record in events.select(name)]


def only(events: Events, name: str) -> dict[str, Any]:
    (found,) = rows(events, name)
    return found


def test_pages_of_nolock_say_the_flags_that_were_asked_for() -> None:
    """Mirrors: mm/page_alloc.c (alloc_frozen_pages_nolock: trace_mm_page_alloc with alloc_gfp)."""
    with Rig.create(**TRACED) as rig:
        rig.arena.trace.on(["mm_page_alloc"])
        rig.cpu.alloc_pages_nolock(0)
        assert only(rig.arena.trace.read(consume=True), "mm_page_alloc")["gfp_flags"] == (
            rig.lib.__GFP_NOWARN | rig.lib.__GFP_ZERO | rig.lib.__GFP_NOMEMALLOC | rig.lib.__GFP_COMP
        )
        rig.cpu.alloc_pages(0, "GFP_KERNEL")
        assert only(rig.arena.trace.read(), "mm_page_alloc")["gfp_flags"] == rig.lib.GFP_KERNEL


def test_what_a_memcg_pays_for_is_accounted() -> None:
    """By the request's flag, or the cache's."""
    with Rig.create(max_memcgs=2, **TRACED) as rig:
        always = rig.cpu.kmem_cache_create("always", 100, flags="SLAB_ACCOUNT")
        asked = rig.cpu.kmem_cache_create("asked", 100)
        rig.arena.trace.on(["kmalloc", "kmem_cache_alloc"])
        for gfp in ("GFP_KERNEL", "GFP_KERNEL_ACCOUNT"):
            rig.cpu.kmalloc(64, gfp)
            always.alloc(gfp)
            asked.alloc(gfp)
        events = rig.arena.trace.read()
        told = [
            (row.get("name"), row["accounted"])
            for record in events
            if (row := dict(events.items(record))).get("name") or row["bytes_req"] == 64
        ]
        assert told == [
            (None, False),
            ("always", True),
            ("asked", False),
            (None, True),
            ("always", True),
            ("asked", True),
        ]


def test_a_block_of_the_zone_says_whether_it_refills_a_pageset() -> None:
    """Not by its order alone: pagesets have no lists for HIGHATOMIC."""
    with Rig.create(size="24MiB", **TRACED) as rig:
        rig.cpu.page_cache_add(1 << 20)
        rig.arena.trace.on(["mm_page_alloc_zone_locked"])
        with suppress(AllocationFailed):
            while True:
                rig.held[rig.cpu.alloc_pages(1, "GFP_ATOMIC")] = 1
        found = rows(rig.arena.trace.read(), "mm_page_alloc_zone_locked")
        assert {row["migratetype"] for row in found} >= {3}
        assert all(row["percpu_refill"] == (row["migratetype"] < 3) for row in found)
        rig.arena.trace.read(consume=True)
        rig.cpu.page_cache_drop()
        for _ in range(3):
            rig.held[rig.cpu.alloc_pages(4, "GFP_KERNEL")] = 4
        found = rows(rig.arena.trace.read(), "mm_page_alloc_zone_locked")
        assert found and all((row["order"], row["percpu_refill"]) == (4, False) for row in found)


def test_a_wait_that_ends_without_the_lock_says_why() -> None:
    with Rig.create(max_maps=1, **TRACED) as rig:
        made = rig.cpu.map_create("prealloc", 4, 8, 2)
        rig.arena.trace.on(["lock:*"])
        rig.interrupt("bucket_locked", "nmi", ("map_update", {"slot": 2}))
        made.update(1, 7)
        events = rig.arena.trace.read()
        begin, end = only(events, "contention_begin"), only(events, "contention_end")
        assert begin["lock_addr"] == end["lock_addr"] and begin["class"] == end["class"]
        assert (begin["flags"], end["ret"]) == (1, -35)  # LCB_F_SPIN, -EDEADLK


def test_reclaim_frees_in_batches() -> None:
    """Mirrors: mm/page_alloc.c (free_unref_folios), of mm/vmscan.c (shrink_folio_list)."""
    with Rig.create(**TRACED) as rig, Kswapd(rig.arena, 0) as kswapd:
        rig.cpu.page_cache_add(1 << 20)
        while not kswapd.awake:
            rig.cpu.alloc_pages(0, "GFP_KERNEL")
        rig.arena.trace.on(["mm_page_free", "mm_page_free_batched"])
        freed = kswapd.step()
        events = rig.arena.trace.read()
        batched, plain = (events.select(name) for name in ("mm_page_free_batched", "mm_page_free"))
        assert len(batched) == len(plain) == freed > 0 and set(batched["cpu"]) == {2}
        assert np.array_equal(batched["pfn"], plain["pfn"]) and np.all(batched["seq"] == plain["seq"] + 1)
        rig.arena.trace.read(consume=True)
        with suppress(AllocationFailed):
            while True:
                rig.held[rig.cpu.alloc_pages(0, "GFP_KERNEL")] = 0
        events = rig.arena.trace.read()  # by direct reclaim
        batched, plain = (events.select(name) for name in ("mm_page_free_batched", "mm_page_free"))
        assert len(batched) and np.array_equal(batched["pfn"], plain["pfn"])
        assert np.all(batched["seq"] == plain["seq"] + 1)


def test_what_leaves_a_pageset_has_its_order_and_its_type() -> None:
    with Rig.create(**TRACED) as rig:
        rig.cpu.free_pages(rig.cpu.alloc_pages(0, "GFP_KERNEL|__GFP_MOVABLE"))
        rig.cpu.free_pages(rig.cpu.alloc_pages(2, "GFP_KERNEL"), 2)
        rig.arena.trace.on(["mm_page_pcpu_drain"])
        rig.cpu.drain_pages()
        found = rows(rig.arena.trace.read(), "mm_page_pcpu_drain")
        assert {(row["order"], row["migratetype"]) for row in found} == {(0, 1), (2, 0)}


def test_a_caller_outside_the_core_is_told_from_one_within() -> None:
    with Rig.create(**TRACED) as rig:
        cache = rig.cpu.kmem_cache_create("mine", 100)
        rig.arena.trace.on(["kmalloc", "kmem_cache_alloc"])
        cache.alloc()  # compiled method
        rig.lib.shm_kmalloc(64, rig.lib.GFP_KERNEL)  # glue that is linked to the core
        events = rig.arena.trace.read()
        (outer,) = events.select("kmem_cache_alloc")
        inner = events.select("kmalloc")[-1]
        assert outer["flags"] & FLAGS["outside"] and events.symbol(outer) == hex(int(outer["call_site"]))
        assert not inner["flags"] & FLAGS["outside"] and "shm_kmalloc" in events.symbol(inner)


def test_a_fallback_knows_the_pageblocks_of_its_arena() -> None:
    """A whole pageblock that changes its type does not fragment."""
    with Rig.create(size="2MiB", pageblock_order=5, **TRACED) as rig:
        rig.arena.trace.on(["mm_page_alloc_extfrag"])
        rig.cpu.alloc_pages(0, "GFP_KERNEL")
        events = rig.arena.trace.read()
        assert events.pageblock_order == 5
        text = io.StringIO()
        write_text(events, text, "perf-script")
        order = only(events, "mm_page_alloc_extfrag")["fallback_order"]
        assert order in range(5, 9), "else it shows nothing"
        assert f"fallback_order={order} pageblock_order=5 " in text.getvalue()
        assert "fragmenting=0 change_ownership=1" in text.getvalue()
