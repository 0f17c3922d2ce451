/* SPDX-License-Identifier: MIT */
/*
 * Design bpf_mem_alloc: the BPF allocator of Linux 6.1 to now.
 *
 * As a plain allocator it is the global one, with eleven sizes up to 4096 bytes, header included; a map
 * has one of its own, of its element's size.  Larger objects, constructed ones and pages are refused.
 */
#include "bpf_memalloc.h"
#include "first.h"
#include "rcu.h"

/* Irqs are still off.  The answer is final, even if it is NULL (bpf_memalloc.h). */
__slowpath static u64 bpf_alloc_slow(struct bpf_mem_cache *c, u64 size, u32 flags)
{
	u64 object = unit_alloc_slow(c, flags);

	if (object)
		return account_object(DESIGN_bpf_mem_alloc, object, size);
	this_cpu_inc64(&this_counts(DESIGN_bpf_mem_alloc)->failures[this_reason()]);
	return 0;
}

__fastpath static u64 bpf_alloc_first(u32 design, u64 size, gfp_t gfp, int node, rest_of_alloc *rest)
{
	struct bpf_mem_cache *c;
	u64 object;
	u32 flags;

	if (unlikely(!may_try_pool() || size - 1 >= BPF_MAX_SIZE || gfp & __GFP_ZERO))
		return rest(design, size, gfp, node);
	c = bpf_mem_bucket(size);
	flags = local_irq_save();
	object = unit_pop(c);
	if (unlikely(!object))
		return bpf_alloc_slow(c, size, flags);
	return pool_alloc_end(DESIGN_bpf_mem_alloc, object, size, flags);
}

__slowpath static int bpf_free_slow(struct bpf_mem_cache *c, u64 object, u32 flags)
{
	unit_free_slow(c, object, flags);
	return 0;
}

__fastpath __attribute__((noinline)) static int bpf_free_unit(struct bpf_mem_cache *c, u64 object, u64 mark)
{
	u32 flags;

	this_cpu_inc64(&this_counts(DESIGN_bpf_mem_alloc)->frees);
	flags = local_irq_save();
	if (unlikely(!unit_push(c, object, mark)))
		return bpf_free_slow(c, object, flags);
	return likely(irqs_back(flags)) ? 0 : pool_freed();
}

/* Known to the oracle, or of another CPU's list or a map's, or none of ours. */
__fastpath __attribute__((noinline)) static int bpf_free_others(u32 design, u64 off, rest_of_free *rest)
{
	u64 mark = bpf_mark_of(off);
	struct bpf_mem_cache *c = bpf_list_for(mark);

	if (!c)
		return rest(design, off, FREE_NOT_TRIED);
	if (oracle_on() && !oracle_release_kept(off))
		return rest(design, off, FREE_REFUSED);
	return bpf_free_unit(c, off, mark);
}

__fastpath static int bpf_free_first(u32 design, u64 off, rest_of_free *rest)
{
	struct bpf_mem_cache *c;
	u64 mark;

	if (unlikely(!may_try_pool() || !bpf_plausible(off)))
		return rest(design, off, FREE_NOT_TRIED);
	mark = bpf_mark_of(off);
	c = bpf_own_list(mark);
	if (unlikely(!c) || unlikely(oracle_on()))
		return bpf_free_others(design, off, rest);
	return bpf_free_unit(c, off, mark);
}

__slowpath static u64 none_of(u64 size)
{
	if (!size)
		return SHM_ZERO_SIZE;
	reason_shortage(REASON_SIZE_LIMIT);
	return 0;
}

__slowpath static u64 alloc(u64 size, gfp_t gfp, int node)
{
	u64 object;

	(void)node;
	if (size - 1 >= BPF_MAX_SIZE)
		return none_of(size);
	object = unit_alloc(bpf_mem_bucket(size));
	if (object && gfp & __GFP_ZERO)
		zero_bytes(ptr_of(object), size);
	return object;
}

__slowpath static void free_object(u64 object)
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
	.alloc_first = bpf_alloc_first,
	.free_first = bpf_free_first,
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
