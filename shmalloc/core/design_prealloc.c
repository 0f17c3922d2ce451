/* SPDX-License-Identifier: MIT */
/*
 * Design prealloc: BPF's past.  Every element exists from the start, on per-CPU freelists.
 *
 * As a plain allocator it has one pool, of the geometry's pool_size and pool_entries; a map has a pool of
 * its own.  What it does not have it does not get: a larger object, a constructed one and pages are refused.
 */
#include "first.h"
#include "pool.h"

__helper struct shm_pool *default_pool(void)
{
	return &shm.pools[0];
}

__fastpath static u64 prealloc_alloc_first(u32 design, u64 size, gfp_t gfp, int node, rest_of_alloc *rest)
{
	u32 flags;
	u64 elem;

	(void)design; /* it is this one: a constant takes no register */
	if (unlikely(!may_try_pool() || size - 1 >= shm.pool_size || gfp & __GFP_ZERO) || broken(k35))
		return rest(DESIGN_prealloc, size, gfp, node);
	flags = local_irq_save();
	elem = pop_own(shm.cpu_freelist);
	if (unlikely(!elem))
		return pool_alloc_rest(DESIGN_prealloc, size, rest, flags);
	return pool_alloc_end(DESIGN_prealloc, elem, size, flags);
}

__fastpath __attribute__((noinline)) static int prealloc_free_elem(u32 design, u64 elem, rest_of_free *rest)
{
	u32 flags;

	this_cpu_inc64(&this_counts(DESIGN_prealloc)->frees);
	flags = local_irq_save();
	return pool_free_end(design, elem, rest, flags, push_own(shm.cpu_freelist, elem));
}

__fastpath __attribute__((noinline)) static int prealloc_free_owned(u32 design, u64 elem, rest_of_free *rest)
{
	return oracle_release_kept(elem) ? prealloc_free_elem(design, elem, rest) : rest(design, elem, FREE_REFUSED);
}

__fastpath static int prealloc_free_first(u32 design, u64 off, rest_of_free *rest)
{
	if (unlikely(!may_try_pool() || !area_has(&default_pool()->area, off)) || broken(k35))
		return rest(design, off, FREE_NOT_TRIED);
	if (unlikely(oracle_on()))
		return prealloc_free_owned(design, off, rest);
	return prealloc_free_elem(design, off, rest);
}

__slowpath static u64 alloc(u64 size, gfp_t gfp, int node)
{
	u32 flags;
	u64 elem;

	(void)node;
	if (!size)
		return SHM_ZERO_SIZE;
	if (size > shm.pool_size) {
		reason_shortage(REASON_SIZE_LIMIT);
		return 0;
	}
	flags = local_irq_save();
	elem = __pcpu_freelist_pop(default_pool());
	local_irq_restore(flags);
	if (elem && gfp & __GFP_ZERO)
		zero_bytes(ptr_of(elem), size);
	return elem;
}

__slowpath static void free_elem(u64 elem)
{
	u32 flags;

	if (elem <= SHM_ZERO_SIZE)
		return;
	flags = local_irq_save();
	__pcpu_freelist_push(default_pool(), elem);
	local_irq_restore(flags);
}

__slowtext static bool owns(u64 off)
{
	return area_has(&default_pool()->area, off);
}

__slowtext static int setup(void)
{
	const struct shm_geometry *g = &shm.hdr->geometry;

	if (!g->pool_size || !g->pool_entries)
		return -EINVAL;
	return pcpu_freelist_init(default_pool(), g->pool_entries, 0, (u32)round_up(g->pool_size, 8), 0);
}

__slowtext static void teardown(void)
{
	pcpu_freelist_destroy(default_pool());
}

__slowtext static int map_init(struct shm_map *map)
{
	return pcpu_freelist_init(map_pool(map), map->max_entries, 1, map->elem_size,
				  offsetof(struct htab_elem, pprev));
}

__slowtext static void map_exit(struct shm_map *map)
{
	pcpu_freelist_destroy(map_pool(map));
}

/* under a bucket's lock, so irqs are off */
__slowtext static u64 elem_alloc(struct shm_map *map)
{
	return __pcpu_freelist_pop(map_pool(map));
}

__slowtext static void elem_free(struct shm_map *map, u64 elem)
{
	u32 flags = local_irq_save();

	__pcpu_freelist_push(map_pool(map), elem);
	local_irq_restore(flags);
}

const struct design_ops design_prealloc = {
	.name = "prealloc",
	.summary = "all elements preallocated on per-cpu freelists, as BPF maps are by default",
	.contexts = "task,softirq,irq,nmi",
	.alloc = alloc,
	.pages_alloc = refuse_pages,
	.free = free_elem,
	.alloc_first = prealloc_alloc_first,
	.free_first = prealloc_free_first,
	.own_objects = true,
	.owns = owns,
	.setup = setup,
	.teardown = teardown,
	.preallocated = true,
	.elem_reuse = true,
	.map_init = map_init,
	.map_exit = map_exit,
	.elem_alloc = elem_alloc,
	.elem_free = elem_free,
};
