# SPDX-License-Identifier: MIT
"""The levels of the slides' stack, what else an operation may run, and which level an instruction is on.

A function that is not in the table, or is listed as one, is a helper: its instructions belong to whoever
called it. By the address alone a helper that was not inlined cannot be placed; by a trace it can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness.atlas.inlining import inlines
from harness.atlas.traces import Image, Steps, Traced

__all__ = ["HELPERS", "LEVELS", "SLIDES", "TABLE", "Level", "level_of", "of_trace"]

CALL, HELPERS = "(call)", "(helpers)"
_ALL = "*"


@dataclass(frozen=True)
class Level:
    """One level.

    Attributes: name: a kernel function's, where one names it.  functions: by source file, blanks between
        them; "*" is all of the file that is listed nowhere.  on_slide: it is in the talk's stack.
    """

    name: str
    functions: Mapping[str, str]
    on_slide: bool = False


TABLE = (
    # --- allocation, top to bottom ----------------------------------------------------------------
    Level(
        "kmalloc",
        {
            "slab_common.c": "kmalloc_node kmalloc_cache kmalloc_large krealloc ksize large_size cache_of_object",
            "first.h": "kmalloc_take kmem_cache_take take_of_cache ordinary_cache",
            "slab_fast.h": "kmalloc_slab kmalloc_type post_alloc slab_should_fail",
            "slub.c": "kmem_cache_alloc_node zero_object",
            "slub_bulk.c": "kmem_cache_alloc_bulk alloc_bulk",
            "slub_nolock.c": "kmalloc_nolock kmem_cache_alloc_nolock retry_next_bucket cache_usable",
            "try_kmalloc.c": "try_kmalloc try_kmem_cache_alloc",
        },
        on_slide=True,
    ),
    Level(
        "slab_alloc_node",
        {
            "first.h": "cpu_slab_usable",
            "slab_fast.h": "slab_alloc_node_fast cpu_slab_pop",
            "slub_nolock.c": "alloc_or_busy",
            "try_kmalloc.c": "try_alloc",
        },
        on_slide=True,
    ),
    Level("cmpxchg16", {"slab_fast.h": "cpu_slab_cmpxchg"}, on_slide=True),
    Level(
        "___slab_alloc",
        {
            "slub.c": "__slab_alloc ___slab_alloc check_rounds from_cpu_slab from_cpu_partial from_new_objects "
            "from_node_partial use_new_slab install_slab load_freelist deactivate_cpu_slab",
            "slub_lists.c": "get_freelist freeze_slab",
            "slub_nolock.c": "defer_deactivate_slab",
            "slub_sheaf_slow.c": "___slab_alloc_sheaves object_of_new_slab alloc_from_new_slab",
            "try_kmalloc.c": _ALL,
        },
        on_slide=True,
    ),
    Level(
        "get_partial",
        {
            "slub_lists.c": "get_partial get_partial_node get_any_partial scan_other_nodes "
            "read_mems_allowed_begin read_mems_allowed_retry",
            "slub_sheaf_slow.c": "get_from_partial get_from_partial_node get_from_any_partial "
            "take_from_partial_list try_other_nodes node_to_spare get_partial_node_bulk",
        },
    ),
    Level(
        "new_slab",
        {
            "slub_slabs.c": "new_slab alloc_slab_pages build_freelist object_index random_start setup_object "
            "inc_slabs_node"
        },
        on_slide=True,
    ),
    Level(
        "alloc_pages",
        {
            "buddy.c": "zone_watermark_ok zone_watermark_ok_free has_free_block reserve_adjusted",
            "highatomic.c": _ALL,
            "page_alloc.c": "alloc_pages alloc_pages_nolock alloc_frozen_pages alloc_frozen_pages_nolock "
            "prepare_alloc alloc_flags_nofragment gfp_zone gfp_migratetype get_page_from_freelist "
            "walk_zonelist take_from_zone zone_usable kswapd_awake rmqueue prep_new_page prep_compound_page "
            "zone_statistics",
        },
        on_slide=True,
    ),
    Level("rmqueue_pcplist", {"pcp.c": "rmqueue_pcplist nr_pcp_alloc pcp_trylock pcp_unlock"}, on_slide=True),
    Level("rmqueue_bulk", {"pcp.c": "rmqueue_bulk zone_lock_irqsave"}),
    Level("rmqueue_buddy", {"page_alloc.c": "rmqueue_buddy"}),
    Level(
        "__rmqueue",
        {
            "buddy.c": "__rmqueue __rmqueue_smallest __rmqueue_claim __rmqueue_steal expand first_fallback "
            "try_to_claim_block should_try_claim_block boost_watermark count_block"
        },
        on_slide=True,
    ),
    Level("wakeup_kswapd", {"vmscan.c": "wakeup_kswapd"}, on_slide=True),
    Level("alloc_pages_slowpath", {"page_alloc_slow.c": _ALL}),
    Level("reclaim", {"filemap.c": _ALL, "kswapd.c": _ALL, "vmscan.c": _ALL}),
    Level(
        "memcg charge",
        {
            "memcg_obj.c": "memcg_slab_post_alloc_hook memcg_account_new_slab memcg_alloc_abort_single "
            "alloc_slab_obj_exts alloc_vector current_obj_cgroup consume_obj_stock obj_cgroup_charge_account "
            "obj_cgroup_charge_pages",
            "memcontrol.c": "memcg_kmem_charge_page try_charge_memcg consume_stock page_counter_try_charge "
            "page_counter_charge charge_failed check_high over_limit note_watermark task_is_memalloc "
            "mem_cgroup_margin",
        },
    ),
    # --- free -------------------------------------------------------------------------------------
    Level(
        "kfree",
        {
            "first.h": "kfree_first kmem_cache_free_first free_looked_at look_at",
            "slab_common.c": "kfree",
            "slub_bulk.c": _ALL,
            "slub_nolock.c": "kfree_nolock",
        },
    ),
    Level("slab_free", {"slab_fast.h": "slab_free_fast cpu_slab_push", "slub.c": "slab_free_slow"}),
    Level("__slab_free", {"slub.c": "__slab_free free_with_list_lock", "slub_lists.c": "put_cpu_partial"}),
    Level("defer_free", {"slub_nolock.c": "defer_free defer_link_offset"}),
    Level(
        "discard_slab",
        {
            "slub_slabs.c": "discard_slab dec_slabs_node free_slab free_slab_pages free_new_slab_nolock "
            "rcu_func_free_slab"
        },
    ),
    Level(
        "free_pages",
        {
            "page_alloc.c": "free_pages free_pages_nolock free_frozen_pages free_pages_prepare put_page_testzero "
            "debug_check_no_obj_freed destroy_compound_page free_prepared_pages "
            "free_reclaimed_page may_not_trylock"
        },
    ),
    Level("free_to_pcp", {"pcp.c": "free_to_pcp nr_pcp_free nr_pcp_high should_free_high trim_pcp"}),
    Level("free_pcppages_bulk", {"pcp.c": "free_pcppages_bulk"}),
    Level("free_one_page", {"page_alloc.c": "free_one_page park_page drain_trylock_free_pages"}),
    Level(
        "__free_one_page",
        {"buddy.c": "__free_one_page split_large_buddy find_buddy types_mergeable buddy_merge_likely"},
    ),
    Level("drain_pages", {"pcp.c": "drain_pages drain_all_pages drain_pageset decay_pcp_high vmstat_tick"}),
    Level(
        "memcg uncharge",
        {
            "memcg_obj.c": "memcg_slab_free_hook obj_cgroup_uncharge_pages free_slab_obj_exts free_vector",
            "memcontrol.c": "memcg_kmem_uncharge_page memcg_uncharge",
        },
    ),
    Level("memcg work", {"memcg_life.c": _ALL, "memcontrol.c": "memcg_high_work"}),
    # --- what interrupts defer to -----------------------------------------------------------------
    Level(
        "free_deferred_objects",
        {"slub_nolock.c": "irq_work_func_free_deferred free_deferred_of free_deferred deactivate_deferred"},
    ),
    Level("irq_work", {"irq_work.c": "irq_work_run irq_work_tick"}),
    # --- sheaves ----------------------------------------------------------------------------------
    Level("alloc_from_pcs", {"first.h": "sheaf_pop", "slub_sheaves.c": "slab_alloc_sheaves alloc_from_pcs"}),
    Level(
        "__pcs_replace_empty_main",
        {"slub_sheaves.c": "__pcs_replace_empty_main refill_sheaf install_full_sheaf"},
    ),
    Level("refill_objects", {"slub_sheaf_slow.c": _ALL}),
    Level("free_to_pcs", {"first.h": "sheaf_push", "slub_sheaves.c": "slab_free_sheaves free_to_pcs"}),
    Level(
        "__pcs_replace_full_main",
        {
            "slub_sheaf_slow.c": "sheaf_free_bulk",
            "slub_sheaves.c": "__pcs_replace_full_main install_empty_sheaf make_room sheaf_try_flush_main",
        },
    ),
    Level("barn", {"slub_barn.c": _ALL}),
    Level("rcu sheaf", {"slub_sheaf_rcu.c": _ALL}),
    # --- other allocators -------------------------------------------------------------------------
    Level("bpf_mem_alloc", {"bpf_memalloc.c": _ALL, "bpf_memalloc.h": _ALL}),
    Level(
        "bpf_mem_refill",
        {
            "bpf_memalloc.c": "irq_work_func_bpf_refill alloc_bulk take_one collect_extra_rcu free_bulk "
            "free_chain add_by_rcu call_rcu_ttrace free_waiting_ttrace rcu_func_bpf_rcu rcu_func_bpf_ttrace"
        },
    ),
    Level("pcpu_freelist", {"percpu_freelist.c": _ALL, "pool.h": "pop_own push_own"}),
    Level("objpool", {"objpool.c": _ALL, "objpool.h": _ALL}),
    Level(
        "map update", {"hashtab.c": "htab_map_update update alloc_htab_elem fill_elem take_spare put_spare"}
    ),
    Level("map delete", {"hashtab.c": "htab_map_delete delete"}),
    Level("map lookup", {"hashtab.c": "htab_map_lookup lookup"}),
    Level("call_rcu", {"rcu.c": "call_rcu_domain kfree_rcu rcu_list_add"}),
    Level("rcu_core", {"rcu.c": _ALL}),
    Level("kmem_cache", {"slub_cache.c": _ALL, "slub_sheaf_cache.c": _ALL}),
    Level(
        "slab_debug",
        {"slub_check.c": _ALL, "slub_debug.c": _ALL, "slub_report.c": _ALL, "slub_track.c": _ALL},
    ),
    # --- what is not the allocator's ---------------------------------------------------------------
    Level("(interrupt)", {"irq.c": _ALL, "signals.c": _ALL, "smp.c": _ALL}),
    Level(
        CALL,
        {
            "api.c": _ALL,
            "bulk.c": _ALL,
            "design.c": _ALL,
            "first.h": "may_try_first may_try_pool account_object release_object pool_alloc_end pool_free_end",
            "design_bpf_mem_alloc.c": _ALL,
            "design_kmalloc.c": _ALL,
            "design_kmalloc_nolock.c": _ALL,
            "design_no_prealloc.c": _ALL,
            "design_objpool.c": _ALL,
            "design_prealloc.c": _ALL,
            "design_sheaves.c": _ALL,
            "design_try_kmalloc.c": _ALL,
            "hashtab.c": "shm_map_update shm_map_delete shm_map_lookup htab_map_update_number "
            "htab_map_delete_number htab_map_check_number check_flags check_value",
            "irq.c": "guard_enter guard_exit guard_unwound shm_irq_save shm_irq_restore restore",
            "oracle.c": _ALL,
            "process.c": _ALL,
            "replay.c": _ALL,
            "slots.c": _ALL,
        },
    ),
    Level(HELPERS, {"rcu.c": "head_ptr"}),
)

#: Names of the levels, top to bottom.
LEVELS = tuple(level.name for level in TABLE)
#: Those in the talk's stack.
SLIDES = tuple(level.name for level in TABLE if level.on_slide)

_PLACED = {
    (file, name): number
    for number, level in enumerate(TABLE)
    for file, names in level.functions.items()
    for name in names.split()
}
_HELPERS = LEVELS.index(HELPERS)
_CALL = LEVELS.index(CALL)


def level_of(image: Image, address: int) -> str:
    """Name the level of an instruction by its address alone, relative to the load address."""
    found = _own(Path(image.path), address)
    return HELPERS if found is None else LEVELS[found]


def of_trace(image: Image, trace: Traced) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Say for each step of a trace which level it is on, as numbers in LEVELS, shape (len(trace),).

    A helper is on its caller's level, as far out as it takes.
    """
    steps = Steps.of(image, trace)
    path = Path(image.path)
    own = [_own(path, one.address) for one in steps.instructions]
    by_instruction = np.array([-1 if level is None else level for level in own], dtype=np.intp)
    levels = by_instruction[steps.which]
    inherited = np.full(len(steps.frames), _CALL, dtype=np.intp)
    for number, frame in enumerate(steps.frames):  # a caller's frame comes before those that it makes
        if frame.caller is not None:
            level = levels[frame.caller]
            inherited[number] = level if level >= 0 else inherited[steps.frame[frame.caller]]
    placed: np.ndarray[Any, np.dtype[np.intp]] = np.where(levels >= 0, levels, inherited[steps.frame])
    return placed


@cache
def _own(path: Path, address: int) -> int | None:
    """Return the level of the innermost function that is in the table."""
    for frame in inlines(path).at(address):
        for name in (frame.function, _ALL):
            found = _PLACED.get((frame.home, name))
            if found == _HELPERS:
                break
            if found is not None:
                return found
    return None
