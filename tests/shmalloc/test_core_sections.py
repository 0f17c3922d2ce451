# SPDX-License-Identifier: MIT
"""Where an interrupt has landed is told from its RIP: so every allocator's code lies in the two sections for it."""

from elftools.elf.elffile import ELFFile

from shmalloc import _binding
from shmalloc.symbols import symbols

# one name a line
ALLOCATOR = {
    "bpf_memalloc.c",
    "buddy.c",
    "ctor.c",
    "design_bpf_mem_alloc.c",
    "design_kmalloc.c",
    "design_kmalloc_nolock.c",
    "design_no_prealloc.c",
    "design_objpool.c",
    "design_prealloc.c",
    "design_sheaves.c",
    "design_try_kmalloc.c",
    "fault_inject.c",
    "filemap.c",
    "hashtab.c",
    "highatomic.c",
    "lock.c",
    "memcg_life.c",
    "memcg_obj.c",
    "memcontrol.c",
    "objpool.c",
    "page_alloc.c",
    "page_alloc_slow.c",
    "pcp.c",
    "percpu_freelist.c",
    "pool.c",
    "random.c",
    "rcu.c",
    "slab_common.c",
    "slub.c",
    "slub_bulk.c",
    "slub_barn.c",
    "slub_cache.c",
    "slub_check.c",
    "slub_sheaf_cache.c",
    "slub_sheaf_rcu.c",
    "slub_sheaf_slow.c",
    "slub_sheaves.c",
    "slub_debug.c",
    "slub_lists.c",
    "slub_nolock.c",
    "slub_params.c",
    "slub_report.c",
    "slub_slabs.c",
    "slub_track.c",
    "slub_validate.c",
    "string.c",
    "try_kmalloc.c",
    "workqueue.c",
    "vmscan.c",
}
SET_UP = {
    "buckets_init",
    "free_all_elems",
    "fault_inject_init",
    "free_map_index",
    "map_create",
    "map_destroy",
    "next_power_of_two",
    "init_slot",
    "objpool_init",
    "objpool_fini",
    "objpool_free",
    "alloc_main_sheaves",
    "any_dma_zone",
    "any_fail_nth",
    "arm_faults",
    "attr_of",
    "bootstrap_kmalloc_sheaves",
    "bucket_size",
    "cache_name",
    "calculate_sheaf_capacity",
    "calculate_alignment",
    "calculate_layout",
    "calculate_order",
    "calculate_sizes",
    "check_request",
    "cpu_partial_objects",
    "create",
    "some_cpu_is_in",
    "set_max",
    "set_for_cpu",
    "same_memcg_name",
    "run_work",
    "memcg_holds_lock",
    "memcg_cpu_reset",
    "mem_cgroup_init",
    "live_memcg",
    "fill_entry",
    "copy_name",
    "create_kmalloc_cache",
    "create_locked",
    "debug_text",
    "destroy",
    "entry_matches",
    "get_order",
    "init_cache_cpus",
    "init_barns",
    "init_cache_nodes",
    "init_cache_sheaves",
    "init_random_seq",
    "is_kmalloc_bucket",
    "kmem_cache_flags",
    "kmem_cache_init",
    "kmem_cache_open",
    "letter_flag",
    "list_has",
    "live_cache",
    "name_ok",
    "node_has_slab_memory",
    "nr_ctors",
    "order_objects",
    "parse_block",
    "read_lock",
    "read_unlock",
    "same_name",
    "shrink",
    "slab_debug_no_larger_order",
    "synchronize",
    "tick",
}


def test_no_allocator_function_lies_outside_the_sections(core: _binding.Core) -> None:
    sources = symbols(core.path)
    with core.path.open("rb") as file:
        elf = ELFFile(file)
        text = elf.get_section_index(".text")
        functions = [
            (symbol.name.split(".")[0], symbol["st_value"])
            for symbol in elf.get_section_by_name(".symtab").iter_symbols()
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] == text and symbol["st_size"]
        ]
    where = {name: (sources.find(address).file or "").rsplit("/")[-1] for name, address in functions}
    assert "replay.c" in where.values()  # the files are told
    strays = {
        name
        for name, source in where.items()
        if source in ALLOCATOR and name not in SET_UP and not name.startswith("shm_")
    }
    assert strays == set()
