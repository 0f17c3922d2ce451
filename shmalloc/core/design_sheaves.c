/* SPDX-License-Identifier: MIT */
/*
 * Design sheaves: Linux 7.x, for an arena with SHM_GEO_SHEAVES.
 *
 * Per-cpu sheaves and barns serve nearly everything.  Whoever may wait takes the ordinary entries;
 * a request without reclaim flags, and anything in NMI, takes the nolock ones: trylocks only, and one
 * more try in the next larger bucket whatever the failure was.
 */
#include "first.h"
#include "rcu.h"

__slowtext static bool may_wait(gfp_t gfp)
{
	return gfpflags_allow_spinning(gfp) && !in_nmi();
}

__slowtext static u64 alloc(u64 size, gfp_t gfp, int node)
{
	if (may_wait(gfp))
		return kmalloc_node(size, gfp_for_context(gfp), node);
	return kmalloc_nolock(size, gfp & (__GFP_ACCOUNT | __GFP_ZERO), node);
}

__slowtext static u64 cache_alloc(struct kmem_cache *s, gfp_t gfp, int node)
{
	if (may_wait(gfp))
		return kmem_cache_alloc_node(s, gfp_for_context(gfp), node);
	return kmem_cache_alloc_nolock(s, gfp & (__GFP_ACCOUNT | __GFP_ZERO), node);
}

__slowtext static struct page *pages_alloc(gfp_t gfp, int node, u32 order)
{
	if (may_wait(gfp))
		return alloc_pages(gfp_for_context(gfp), node, order);
	return alloc_pages_nolock(gfp & __GFP_ACCOUNT, node, order);
}

__slowtext static void free_object(u64 object)
{
	if (in_nmi())
		kfree_nolock(object);
	else
		kfree(object);
}

__slowtext static void free_block(struct page *page, u32 order)
{
	if (in_nmi())
		free_pages_nolock(page, order);
	else
		free_pages(page, order);
}

__slowtext static void free_object_rcu(u64 object, u32 head_offset)
{
	if (in_nmi() && sheaf_arena())
		kfree_rcu_nolock(object, head_offset);
	else
		kfree_rcu(object, head_offset);
}

KMALLOC_FIRST(sheaves, false)

const struct design_ops design_sheaves = {
	.name = "sheaves",
	.summary = "Linux 7.x: per-cpu sheaves and barns under a lock that masks nothing; trylocks where waiting is not allowed",
	.contexts = "task,softirq,irq,nmi",
	.alloc = alloc,
	.cache_alloc = cache_alloc,
	.pages_alloc = pages_alloc,
	.free = free_object,
	.free_rcu = free_object_rcu,
	.pages_free = free_block,
	.frees_large = true,
	.alloc_first = sheaves_alloc_first,
	.free_first = sheaves_free_first,
};
