/* SPDX-License-Identifier: MIT */
/*
 * Design bpf_mem_alloc: the BPF allocator of Linux 6.1 to now.
 *
 * As a plain allocator it is the global one, with eleven sizes up to 4096 bytes, header included; a map
 * has one of its own, of its element's size.  Larger objects, constructed ones and pages are refused.
 */
#include "bpf_memalloc.h"
#include "design.h"
#include "rcu.h"

__slowpath static u64 none_of(u64 size)
{
	if (!size)
		return SHM_ZERO_SIZE;
	reason_shortage(REASON_SIZE_LIMIT);
	return 0;
}

__fastpath static u64 alloc(u64 size, gfp_t gfp, int node)
{
	u64 object;

	(void)node;
	if (unlikely(size - 1 >= BPF_MAX_SIZE))
		return none_of(size);
	object = unit_alloc(bpf_mem_bucket(size));
	if (unlikely(gfp & __GFP_ZERO) && object)
		zero_bytes(ptr_of(object), size);
	return object;
}

__fastpath static void free_object(u64 object)
{
	u64 mark;

	if (object <= SHM_ZERO_SIZE)
		return;
	mark = bpf_mark_of(object);
	unit_free(bpf_list_for(mark), object, mark);
}

__slowtext static bool owns(u64 off)
{
	return bpf_plausible(off) && bpf_list_for(bpf_mark_of(off));
}

__slowtext static int map_init(struct shm_map *map)
{
	return bpf_mem_alloc_init_fixed(map);
}

__slowtext static void map_exit(struct shm_map *map)
{
	bpf_mem_alloc_destroy_fixed(map);
}

__slowtext static u64 elem_alloc(struct shm_map *map)
{
	return unit_alloc(&shm.cpu_bpf_lists[BPF_NR_BUCKETS + map->index]);
}

__slowtext static void elem_free(struct shm_map *map, u64 elem)
{
	unit_free(&shm.cpu_bpf_lists[BPF_NR_BUCKETS + map->index], elem, bpf_mark_of(elem));
}

const struct design_ops design_bpf_mem_alloc = {
	.name = "bpf_mem_alloc",
	.summary = "the BPF allocator: per-cpu lists by size, refilled and trimmed by irq_work",
	.contexts = "task,softirq,irq,nmi",
	.alloc = alloc,
	.pages_alloc = refuse_pages,
	.free = free_object,
	.own_objects = true,
	.owns = owns,
	.setup = bpf_mem_alloc_init,
	.teardown = bpf_mem_alloc_destroy,
	.elem_reuse = true,
	.map_init = map_init,
	.map_exit = map_exit,
	.elem_alloc = elem_alloc,
	.elem_free = elem_free,
};
