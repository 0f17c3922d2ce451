/* SPDX-License-Identifier: MIT */
/*
 * Design kmalloc: the synchronous stack of the talk, down to __rmqueue and wakeup_kswapd.
 *
 * It spins.  Reentered from NMI it deadlocks, and the lock layer proves it.  Outside task context a
 * request that may block becomes GFP_ATOMIC, as its caller would have had to write.
 */
#include "first.h"

/* K-30: while the system boots, gfp_allowed_mask takes the flags away that say "may wait". */
__helper gfp_t masked(gfp_t gfp)
{
	return broken(k30) ? gfp & ~__GFP_RECLAIM : gfp;
}

/* A request that may wait for locks is refused for want of memory, never because a lock was held. */
__helper u64 served(u64 object, gfp_t gfp)
{
	u32 reason = this_reason();

	if (!SHM_CHECKED || object > SLAB_EBUSY || !gfpflags_allow_spinning(gfp))
		return object;
	if (object || reason == REASON_ZONE_BUSY || reason == REASON_LIST_LOCK_BUSY || reason == REASON_CPU_SLAB_BUSY)
		violation(VERDICT_BROKEN_RULE, CHECKER_API, NULL, LOCK_NONE, 0, 0,
			  "a request that may wait was refused because a lock was held");
	return 0;
}

__slowtext static u64 alloc(u64 size, gfp_t gfp, int node)
{
	gfp = gfp_for_context(gfp);
	return served(kmalloc_node(size, masked(gfp), node), gfp);
}

__slowtext static u64 cache_alloc(struct kmem_cache *s, gfp_t gfp, int node)
{
	gfp = gfp_for_context(gfp);
	return served(kmem_cache_alloc_node(s, masked(gfp), node), gfp);
}

__slowtext static struct page *pages_alloc(gfp_t gfp, int node, u32 order)
{
	return alloc_pages(gfp_for_context(gfp), node, order);
}

__slowtext static u32 alloc_bulk(struct kmem_cache *s, gfp_t gfp, u32 size, u64 *p)
{
	return kmem_cache_alloc_bulk(s, gfp_for_context(gfp), size, p);
}

KMALLOC_FIRST(kmalloc, true)

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
	.alloc_first = kmalloc_alloc_first,
	.free_first = kmalloc_free_first,
};
