/* SPDX-License-Identifier: MIT */
/*
 * The page allocator: which zone, how far down the watermarks, and by which lock.
 *
 * Answers to: mm/page_alloc.c (get_page_from_freelist, rmqueue, alloc_frozen_pages_nolock,
 * __free_frozen_pages, free_one_page).  What follows a first failure is in page_alloc_slow.c.
 * Kept: the zonelist walk with its second passes, the watermarks, the pcp-first order, the rules of
 * the nolock entries: trylocks only, one attempt, parking a page on the zone when even the zone lock
 * is busy.
 * Left out: cpusets, dirty limits, node reclaim, unaccepted memory.
 * Context: the *_nolock functions any; the others task, softirq and irq.
 */
#include "fault_inject.h"
#include "list.h"
#include "memcontrol.h"
#include "page_alloc.h"
#include "trace.h"

static u32 gfp_zone(gfp_t gfp)
{
	if (gfp & __GFP_DMA)
		return ZONE_DMA;
	if (gfp & __GFP_DMA32)
		return ZONE_DMA32;
	return (gfp & (__GFP_MOVABLE | __GFP_HIGHMEM)) == (__GFP_MOVABLE | __GFP_HIGHMEM) ? ZONE_MOVABLE : ZONE_NORMAL;
}

static u32 gfp_migratetype(gfp_t gfp)
{
	if (gfp & __GFP_MOVABLE)
		return MIGRATE_MOVABLE;
	return gfp & __GFP_RECLAIMABLE ? MIGRATE_RECLAIMABLE : MIGRATE_UNMOVABLE;
}

__slowtext void prep_compound_page(struct page *page, u32 order)
{
	u32 head = (u32)page_to_pfn(page);

	page->flags |= PG_head;
	for (u64 i = 1; i < 1ull << order; i++) {
		page[i].flags = PG_tail;
		page[i].compound_head = head;
	}
}

__slowtext void destroy_compound_page(struct page *page, u32 order)
{
	page->flags &= ~PG_head;
	for (u64 i = 1; i < 1ull << order; i++) {
		page[i].flags = 0;
		page[i].compound_head = 0;
	}
}

static void zone_statistics(const struct zone *preferred, const struct zone *zone)
{
	struct per_cpu_pages *events = this_pageset(zone);

	if (zone->node == preferred->node) {
		this_cpu_inc64(&events->numa_hit);
	} else {
		this_cpu_inc64(&events->numa_miss);
		this_cpu_inc64(&this_pageset(preferred)->numa_foreign);
	}
	this_cpu_inc64(zone->node == this_cpu()->node ? &events->numa_local : &events->numa_other);
}

__slowpath static struct page *rmqueue_buddy(struct zone *zone, u32 order, u32 migratetype, u32 alloc_flags)
{
	enum rmqueue_mode mode = RMQUEUE_NORMAL;
	struct page *page;
	u32 flags;

	if (!(alloc_flags & ALLOC_TRYLOCK)) {
		flags = spin_lock_irqsave(&zone->lock);
	} else if (!spin_trylock_irqsave(&zone->lock, &flags)) {
		this_cpu_inc64(&this_pageset(zone)->zone_busy);
		reason_contention(REASON_ZONE_BUSY);
		return NULL;
	}
	probe(zone_locked);
	page = alloc_flags & ALLOC_HIGHATOMIC ? __rmqueue_smallest(zone, order, MIGRATE_HIGHATOMIC) : NULL;
	if (!page)
		page = __rmqueue(zone, order, migratetype, alloc_flags, &mode);
	if (!page && alloc_flags & (ALLOC_OOM | ALLOC_NON_BLOCK))
		page = __rmqueue_smallest(zone, order, MIGRATE_HIGHATOMIC);
	spin_unlock_irqrestore(&zone->lock, flags);
	return page;
}

__slowpath static struct page *rmqueue(const struct alloc_context *ac, struct zone *zone, u32 order, u32 alloc_flags)
{
	struct page *page = NULL;
	bool pcp_busy = false;

	if (pcp_allowed_order(order))
		page = rmqueue_pcplist(zone, order, ac->migratetype, alloc_flags, &pcp_busy);
	if (!page) {
		page = rmqueue_buddy(zone, order, ac->migratetype, alloc_flags);
		if (!page && pcp_busy && this_reason() != REASON_ZONE_BUSY)
			reason_contention(REASON_PCP_BUSY);
	}
	if (!page) {
		reason_shortage(REASON_BELOW_WATERMARK);
		return NULL;
	}
	this_cpu_add64(&this_pageset(zone)->pgalloc, 1ull << order);
	zone_statistics(ac->preferred, zone);
	if (alloc_flags & ALLOC_KSWAPD && unlikely(zone->flags & ZONE_BOOSTED_WATERMARK)) {
		atomic_and(&zone->flags, ~ZONE_BOOSTED_WATERMARK);
		wakeup_kswapd(zone, 0, zone->type);
	}
	return page;
}

static void prep_new_page(struct page *page, u32 order, gfp_t gfp, u32 alloc_flags, u32 migratetype)
{
	page->flags = PG_allocated | (alloc_flags & ALLOC_NO_WATERMARKS ? PG_pfmemalloc : 0);
	page->refcount = 0;
	page->order = order;
	page->migratetype = migratetype;
	page->lru.next = page->lru.prev = 0;
	page->freelist = page->counters = 0;
	page->slab_cache = 0;
	page->obj_exts = 0;
	if (order && gfp & __GFP_COMP)
		prep_compound_page(page, order);
	if (gfp & __GFP_ZERO)
		zero_bytes(ptr_of(page_to_off(page)), (u64)SHM_PAGE_SIZE << order);
}

/*
 * Does the zone have enough free pages for this request?  The first who finds it below high says
 * so, for the pagesets to shrink; the flag goes when pages come back (pcp.c).
 */
static bool zone_usable(struct zone *zone, const struct alloc_context *ac, u32 order, u32 alloc_flags)
{
	u64 boost = READ_ONCE(zone->wmark_boost);

	if (alloc_flags & ALLOC_NO_WATERMARKS)
		return true;
	if (!(READ_ONCE(zone->flags) & ZONE_BELOW_HIGH)) {
		if (zone_watermark_ok(zone, order, zone->wmark[2] + boost, ac->highest_zone, alloc_flags))
			return true;
		atomic_or(&zone->flags, ZONE_BELOW_HIGH);
	}
	return zone_watermark_ok(zone, order, zone->wmark[alloc_flags & ALLOC_WMARK_MASK] + boost,
				 ac->highest_zone, alloc_flags);
}

/* What one walk along the zonelist has come by. */
struct walk {
	bool skip_awake;      /* pass over nodes whose kswapd is awake */
	bool skipped;         /* ... and there were some */
	bool left_node;       /* NOFRAGMENT: the walk would leave the preferred node */
};

/* With several nodes: rather another node's memory than a node on which kswapd is already busy. */
static bool kswapd_awake(const struct zone *zone)
{
	return READ_ONCE(shm.nodes[zone->node].kswapd_state) == KSWAPD_AWAKE;
}

static struct page *take_from_zone(gfp_t gfp, u32 order, u32 alloc_flags, const struct alloc_context *ac,
				   struct zone *zone)
{
	struct page *page;

	if (!zone_usable(zone, ac, order, alloc_flags)) {
		reason_shortage(REASON_BELOW_WATERMARK);
		return NULL;
	}
	page = rmqueue(ac, zone, order, alloc_flags);
	if (!page)
		return NULL;
	prep_new_page(page, order, gfp, alloc_flags, ac->migratetype);
	if (unlikely(alloc_flags & ALLOC_HIGHATOMIC))
		reserve_highatomic_pageblock(zone, page, order);
	return page;
}

__slowpath static struct page *walk_zonelist(gfp_t gfp, u32 order, u32 alloc_flags, struct alloc_context *ac,
					     struct walk *walk)
{
	u32 nr;
	const u32 *list = zonelist_of(ac, &nr);

	ac->preferred = NULL;
	for (u32 i = 0; i < nr; i++) {
		struct zone *zone = &shm.zones[list[i]];
		struct page *page;

		if (zone->type > ac->highest_zone)
			continue;
		if (!ac->preferred)
			ac->preferred = zone;
		if (alloc_flags & ALLOC_NOFRAGMENT && zone->node != ac->preferred->node) {
			walk->left_node = true; /* rather mixed pageblocks than memory of another node */
			return NULL;
		}
		if (walk->skip_awake && kswapd_awake(zone)) {
			walk->skipped = true;
			continue;
		}
		page = take_from_zone(gfp, order, alloc_flags, ac, zone);
		if (page)
			return page;
	}
	return NULL;
}

__slowpath struct page *get_page_from_freelist(gfp_t gfp, u32 order, u32 alloc_flags, struct alloc_context *ac)
{
	struct walk walk = { .skip_awake = shm.nr_nodes > 1 };

	for (;;) {
		struct page *page = walk_zonelist(gfp, order, alloc_flags, ac, &walk);

		if (page)
			return page;
		if (walk.skipped && !walk.left_node) {
			walk.skip_awake = walk.skipped = false;
		} else if (alloc_flags & ALLOC_NOFRAGMENT) {
			alloc_flags &= ~ALLOC_NOFRAGMENT;
			walk.left_node = false;
		} else {
			break;
		}
	}
	reason_shortage(REASON_BELOW_WATERMARK);
	return NULL;
}

__slowtext static struct alloc_context prepare_alloc(gfp_t gfp, int node)
{
	return (struct alloc_context){
		.node = node < 0 || (u32)node >= shm.nr_nodes ? this_cpu()->node : (u32)node,
		.highest_zone = gfp_zone(gfp),
		.migratetype = gfp_migratetype(gfp),
		.thisnode = gfp & __GFP_THISNODE,
	};
}

/*
 * Where there is a DMA32 zone to fall back to, pageblocks of the normal zone are at first not mixed:
 * a kernel with CONFIG_ZONE_DMA32, and a node that has such memory.
 */
static u32 alloc_flags_nofragment(const struct alloc_context *ac)
{
	u32 nr;
	const u32 *list = zonelist_of(ac, &nr);
	const struct zone *preferred = NULL;

	for (u32 i = 0; i < nr; i++) {
		const struct zone *zone = &shm.zones[list[i]];

		if (zone->type > ac->highest_zone)
			continue;
		if (!preferred)
			preferred = zone;
		if (preferred->type != ZONE_NORMAL || zone->node != preferred->node)
			return 0;
		if (zone->type == ZONE_DMA32)
			return ALLOC_NOFRAGMENT;
	}
	return 0;
}

__slowpath struct page *alloc_frozen_pages(gfp_t gfp, int node, u32 order)
{
	struct alloc_context ac = prepare_alloc(gfp, node);
	struct page *page;
	u32 alloc_flags;

	if (order > SHM_MAX_PAGE_ORDER) {
		reason_shortage(REASON_ORDER_LIMIT);
		return NULL;
	}
	if (unlikely(shm.hdr->fail_page_alloc.armed) && should_fail_alloc_page(gfp, order))
		return NULL;
	alloc_flags = ALLOC_WMARK_LOW | (gfp & __GFP_KSWAPD_RECLAIM) | alloc_flags_nofragment(&ac);
	page = get_page_from_freelist(gfp, order, alloc_flags, &ac);
	if (!page)
		page = alloc_pages_slowpath(gfp, order, &ac);
	if (unlikely(gfp & __GFP_ACCOUNT) && page)
		page = memcg_kmem_charge_page(page, gfp, order, FPI_NONE);
	trace_mm_page_alloc(page, order, gfp, ac.migratetype);
	return page;
}

/* Once, by trylocks, above the min watermark, always zeroed.  Any context. */
__slowpath struct page *alloc_frozen_pages_nolock(gfp_t gfp, int node, u32 order)
{
	gfp_t alloc_gfp = __GFP_NOWARN | __GFP_ZERO | __GFP_NOMEMALLOC | __GFP_COMP | gfp;
	struct alloc_context ac;
	struct page *page;

	if (gfp & ~__GFP_ACCOUNT)
		warn_once();
	if (!can_spin_trylock() && !broken(k23)) {
		reason_shortage(REASON_CONTEXT_REFUSED);
		return NULL;
	}
	if (!pcp_allowed_order(order)) {
		reason_shortage(REASON_ORDER_LIMIT);
		return NULL;
	}
	ac = prepare_alloc(alloc_gfp, node);
	page = get_page_from_freelist(alloc_gfp, order, ALLOC_TRYLOCK, &ac);
	if (unlikely(gfp & __GFP_ACCOUNT) && page)
		page = memcg_kmem_charge_page(page, gfp, order, FPI_TRYLOCK);
	trace_mm_page_alloc(page, order, alloc_gfp, ac.migratetype);
	return page;
}

__slowtext struct page *alloc_pages(gfp_t gfp, int node, u32 order)
{
	struct page *page = alloc_frozen_pages(gfp, node, order);

	if (page)
		page->refcount = 1;
	return page;
}

__slowtext struct page *alloc_pages_nolock(gfp_t gfp, int node, u32 order)
{
	struct page *page = alloc_frozen_pages_nolock(gfp, node, order);

	if (page && !broken(k01)) /* missing once, and every page was bad at its free */
		page->refcount = 1;
	return page;
}

/* Blocks that were parked while the lock was busy; zone->lock held. */
__slowpath static void drain_trylock_free_pages(struct zone *zone)
{
	u64 at = llist_del_all(&zone->trylock_free_pages);

	while (at) {
		struct page *page = list_page(at);

		at = page->lru.next;
		page->flags = 0;
		zone->nr_deferred_drained++;
		trace_drain_parked_page(page, page->order);
		split_large_buddy(zone, page, page->order, FPI_NONE);
	}
}

__slowtext static bool may_not_trylock(u32 fpi)
{
	return fpi & FPI_TRYLOCK && !can_spin_trylock() && !broken(k24);
}

/* The lock is not to be had: whoever waits for it later finds the block (add_page_to_zone_llist). */
__slowpath static void park_page(struct zone *zone, struct page *page, u32 order)
{
	page->flags = PG_deferred;
	page->order = order;
	atomic_add(&zone->nr_deferred_free, 1);
	trace_park_page(page, order);
	llist_add(&page->lru.next, &zone->trylock_free_pages);
}

__slowpath static void free_one_page(struct zone *zone, struct page *page, u32 order, u32 fpi)
{
	u32 flags;

	if (!(fpi & FPI_TRYLOCK)) {
		flags = spin_lock_irqsave(&zone->lock);
		drain_trylock_free_pages(zone);
	} else if (may_not_trylock(fpi) || !spin_trylock_irqsave(&zone->lock, &flags)) {
		this_cpu_inc64(&this_pageset(zone)->zone_busy);
		if (!broken(lost_page))
			park_page(zone, page, order);
		return;
	}
	probe(free_zone_locked);
	split_large_buddy(zone, page, order, fpi);
	spin_unlock_irqrestore(&zone->lock, flags);
}

/* CONFIG_DEBUG_OBJECTS_FREE: no live object may lie in what is freed; the hash has a lock. */
__slowpath static void debug_check_no_obj_freed(void)
{
	u32 flags = spin_lock_irqsave(&shm.hdr->obj_hash_lock);

	probe(obj_hash_locked);
	spin_unlock_irqrestore(&shm.hdr->obj_hash_lock, flags);
}

__slowtext static void free_pages_prepare(struct page *page, u32 order, u32 fpi)
{
	trace_mm_page_free(page, order);
	/* until 7.0 also when the free may wait for no lock (K-19) */
	if (unlikely(shm.geo_flags & SHM_GEO_DEBUG_OBJECTS) && (!(fpi & FPI_TRYLOCK) || broken(k19)))
		debug_check_no_obj_freed();
	if (page->flags & PG_head)
		destroy_compound_page(page, order);
	page->flags = 0;
	page->refcount = 0;
	page->slab_cache = 0;
	page->freelist = page->counters = 0;
}

/* To this CPU's pageset if that is to be had, else to the zone. */
__helper void free_prepared_pages(struct page *page, u32 order, u32 fpi)
{
	struct zone *zone = page_zone(page);
	struct per_cpu_pages *pcp = this_pageset(zone);
	u32 flags;

	this_cpu_add64(&pcp->pgfree, 1ull << order);
	if (!pcp_allowed_order(order) || may_not_trylock(fpi)) {
		free_one_page(zone, page, order, fpi);
		return;
	}
	flags = pcp_up_irq_save();
	if (spin_trylock(&pcp->lock)) {
		probe(free_pcp_locked);
		free_to_pcp(zone, pcp, page, order, fpi);
		spin_unlock(&pcp->lock);
		pcp_up_irq_restore(flags);
		return;
	}
	pcp_up_irq_restore(flags);
	this_cpu_inc64(&pcp->pcp_busy);
	free_one_page(zone, page, order, fpi);
}

__slowpath void free_frozen_pages(struct page *page, u32 order, u32 fpi)
{
	if (unlikely(page->obj_exts))
		memcg_kmem_uncharge_page(page, order, !(fpi & FPI_TRYLOCK));
	free_pages_prepare(page, order, fpi);
	free_prepared_pages(page, order, fpi);
}

/* As of a batch, free_unref_folios(); kswapd has no pagesets. */
__slowpath void free_reclaimed_page(struct page *page, bool kswapd)
{
	if (unlikely(page->obj_exts) && !kswapd)
		memcg_kmem_uncharge_page(page, 0, true);
	free_pages_prepare(page, 0, FPI_NONE);
	trace_mm_page_free_batched(page);
	if (kswapd)
		free_one_page(page_zone(page), page, 0, FPI_NONE);
	else
		free_prepared_pages(page, 0, FPI_NONE);
}

static bool put_page_testzero(struct page *page)
{
	if (unlikely(!READ_ONCE(page->refcount)))
		violation(VERDICT_CORRUPTION, CHECKER_PAGE, NULL, LOCK_NONE, 0, page_to_off(page),
			  "bad page: a block is freed whose reference count is 0");
	return atomic_fetch_add(&page->refcount, (u32)-1) == 1;
}

__slowtext void free_pages(struct page *page, u32 order)
{
	if (put_page_testzero(page))
		free_frozen_pages(page, order, FPI_NONE);
}

__slowtext void free_pages_nolock(struct page *page, u32 order)
{
	if (put_page_testzero(page))
		free_frozen_pages(page, order, FPI_TRYLOCK);
}
