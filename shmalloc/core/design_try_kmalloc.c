/* SPDX-License-Identifier: MIT */
/*
 * Design try_kmalloc: the plan of the talk, with try_alloc_pages below it and kfree_nolock to free.
 *
 * Reclaim flags of a request are dropped, as kmalloc_nolock does: the two are asked for the same.
 */
#include "first.h"

__slowtext static u64 alloc(u64 size, gfp_t gfp, int node)
{
	return try_kmalloc(size, gfp & (__GFP_ACCOUNT | __GFP_ZERO), node);
}

__slowtext static u64 cache_alloc(struct kmem_cache *s, gfp_t gfp, int node)
{
	return try_kmem_cache_alloc(s, gfp & (__GFP_ACCOUNT | __GFP_ZERO), node);
}

__slowtext static struct page *pages_alloc(gfp_t gfp, int node, u32 order)
{
	return alloc_pages_nolock(gfp & __GFP_ACCOUNT, node, order);
}

__fastpath static u64 try_kmalloc_alloc_first(u32 design, u64 size, gfp_t gfp, int node, rest_of_alloc *rest)
{
	u64 object;

	if (unlikely(!kmalloc_take(size, gfp, node, false, &object))) /* nor off a sheaf */
		return rest(design, size, gfp, node);
	return account_object(DESIGN_try_kmalloc, object, size);
}

KFREE_FIRST(try_kmalloc, false)

const struct design_ops design_try_kmalloc = {
	.name = "try_kmalloc",
	.summary = "the plan of the talk: trylock or NULL, no get_partial, node ignored",
	.contexts = "task,softirq,irq,nmi",
	.alloc = alloc,
	.cache_alloc = cache_alloc,
	.pages_alloc = pages_alloc,
	.free = kfree_nolock,
	.pages_free = free_pages_nolock,
	.frees_large = false,
	.alloc_first = try_kmalloc_alloc_first,
	.free_first = try_kmalloc_free_first,
};
