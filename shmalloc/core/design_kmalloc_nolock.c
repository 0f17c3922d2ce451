/* SPDX-License-Identifier: MIT */
/*
 * Design kmalloc_nolock: what Linux 6.18 merged.  Never waits, may be called from any context.
 *
 * Reclaim flags of a request are dropped: the nolock entries accept __GFP_ACCOUNT and __GFP_ZERO.
 */
#include "first.h"
#include "rcu.h"

__slowtext static u64 alloc(u64 size, gfp_t gfp, int node)
{
	return kmalloc_nolock(size, gfp & (__GFP_ACCOUNT | __GFP_ZERO), node);
}

__slowtext static u64 cache_alloc(struct kmem_cache *s, gfp_t gfp, int node)
{
	return kmem_cache_alloc_nolock(s, gfp & (__GFP_ACCOUNT | __GFP_ZERO), node);
}

__slowtext static struct page *pages_alloc(gfp_t gfp, int node, u32 order)
{
	return alloc_pages_nolock(gfp & __GFP_ACCOUNT, node, order);
}

/* 7.3 has kfree_rcu_nolock; before, nothing of the kind may be called where call_rcu may not. */
__slowtext static void free_rcu(u64 object, u32 head_offset)
{
	if (sheaf_arena())
		kfree_rcu_nolock(object, head_offset);
	else
		kfree_rcu(object, head_offset);
}

KMALLOC_FIRST(kmalloc_nolock, false)

const struct design_ops design_kmalloc_nolock = {
	.name = "kmalloc_nolock",
	.summary = "kmalloc_nolock of Linux 6.18: trylocks only, deferred free by irq_work",
	.contexts = "task,softirq,irq,nmi",
	.alloc = alloc,
	.cache_alloc = cache_alloc,
	.pages_alloc = pages_alloc,
	.free = kfree_nolock,
	.free_rcu = free_rcu,
	.pages_free = free_pages_nolock,
	.frees_large = false,
	.alloc_first = kmalloc_nolock_alloc_first,
	.free_first = kmalloc_nolock_free_first,
};
