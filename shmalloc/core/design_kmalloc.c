/* SPDX-License-Identifier: MIT */
/*
 * Design kmalloc: the synchronous stack of the talk, down to __rmqueue and wakeup_kswapd.
 *
 * It spins.  Reentered from NMI it deadlocks, and the lock layer proves it.  Outside task context a
 * request that may block becomes GFP_ATOMIC, as its caller would have had to write.
 */
#include "design.h"

__slowtext static u64 alloc(u64 size, gfp_t gfp, int node)
{
	return kmalloc_node(size, gfp_for_context(gfp), node);
}

__slowtext static u64 cache_alloc(struct kmem_cache *s, gfp_t gfp, int node)
{
	return kmem_cache_alloc_node(s, gfp_for_context(gfp), node);
}

__slowtext static struct page *pages_alloc(gfp_t gfp, int node, u32 order)
{
	return alloc_pages(gfp_for_context(gfp), node, order);
}

__slowtext static u32 alloc_bulk(struct kmem_cache *s, gfp_t gfp, u32 size, u64 *p)
{
	return kmem_cache_alloc_bulk(s, gfp_for_context(gfp), size, p);
}

const struct design_ops design_kmalloc = {
	.name = "kmalloc",
	.summary = "the synchronous kmalloc stack: spins, must not run in NMI",
	.contexts = "task,softirq,irq",
	.alloc = alloc,
	.cache_alloc = cache_alloc,
	.pages_alloc = pages_alloc,
	.free = kfree,
	.pages_free = free_pages,
	.alloc_bulk = alloc_bulk,
	.free_bulk = kmem_cache_free_bulk,
	.frees_large = true,
};
