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

__fastpath static u64 alloc(u64 size, gfp_t gfp, int node)
{
	struct bpf_mem_cache *c;
	u64 object;

	(void)node;
	if (!size)
		return SHM_ZERO_SIZE;
	c = bpf_mem_bucket(size);
	if (unlikely(!c)) {
		reason_shortage(REASON_SIZE_LIMIT);
		return 0;
	}
	object = unit_alloc(c);
	if (object && gfp & __GFP_ZERO)
		zero_bytes(ptr_of(object), size);
	return object;
}

__fastpath static void free_object(u64 object)
{
	if (object > SHM_ZERO_SIZE)
		unit_free(bpf_mem_bucket_of(object), object);
}

/* One of its objects: a slab's object begins 8 bytes before, which carries the mark of a list. */
__slowtext static bool owns(u64 off)
{
	const struct shm_region *region = &shm.hdr->regions[REGION_BPF_CACHES];
	const struct page *page = virt_to_head_page(off - BPF_HEADER_BYTES);
	u64 mark = READ_ONCE(*(const u64 *)ptr_of(off - BPF_HEADER_BYTES)) - region->offset;

	return page->flags & PG_slab && mark < region->bytes && mark % sizeof(struct bpf_mem_cache) == 0;
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
	return unit_alloc(bpf_mem_fixed(map));
}

__slowtext static void elem_free(struct shm_map *map, u64 elem)
{
	unit_free(bpf_mem_fixed(map), elem);
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
