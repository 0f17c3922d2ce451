/* SPDX-License-Identifier: MIT */
/*
 * The page allocator when there is no page above the low watermark.
 *
 * Answers to: mm/page_alloc.c (__alloc_pages_slowpath, __gfp_pfmemalloc_flags,
 * __alloc_pages_direct_reclaim, should_reclaim_retry, __alloc_pages_may_oom).
 * Kept: the order of attempts; who may use the reserves; 16 rounds without progress; NORETRY,
 * RETRY_MAYFAIL, costly orders and NOFAIL.
 * Changed: where the kernel would kill somebody, the request fails, and is counted as `oom`.  A NOFAIL
 * request that has used five seconds of processor time for nothing is a stall, so that nobody waits
 * for ever.
 * Left out: compaction, OOM victims and their reserves, cpusets.
 * Context: task, softirq and irq; reclaim task only.
 */
#include "list.h"
#include "page_alloc.h"
#include "sys.h"

#define NOFAIL_STALL_TICKS 500 /* of this CPU's processor time: 5 s in USER_HZ */
#define NOFAIL_LOOK_EVERY 256

struct slow_request {
	gfp_t gfp;
	u32 order;
	u32 alloc_flags;
	bool direct_reclaim;
	u32 no_progress_loops;
	u64 progress;          /* pages that the last reclaim has given back */
};

/* Who frees memory may use all of it: a task marked so, not the interrupts it meets, but its softirqs. */
__slowpath static u32 __gfp_pfmemalloc_flags(gfp_t gfp)
{
	if (gfp & __GFP_NOMEMALLOC)
		return 0;
	if (gfp & __GFP_MEMALLOC)
		return ALLOC_NO_WATERMARKS;
	return this_ctx() <= CTX_SOFTIRQ && this_cpu()->task_flags & PF_MEMALLOC ? ALLOC_NO_WATERMARKS : 0;
}

__slowpath bool gfp_pfmemalloc_allowed(gfp_t gfp)
{
	return __gfp_pfmemalloc_flags(gfp);
}

__slowtext static u32 gfp_to_alloc_flags(gfp_t gfp, u32 order)
{
	u32 flags = ALLOC_WMARK_MIN | (gfp & (__GFP_HIGH | __GFP_KSWAPD_RECLAIM));

	if (gfpflags_allow_blocking(gfp) || gfp & __GFP_NOMEMALLOC)
		return flags;
	flags |= ALLOC_NON_BLOCK;
	if (order && flags & ALLOC_MIN_RESERVE)
		flags |= ALLOC_HIGHATOMIC;
	return flags;
}

/* One on each node of the zonelist. */
__slowpath static void wake_all_kswapds(u32 order, const struct alloc_context *ac)
{
	u32 nr, last = SHM_MAX_NODES;
	const u32 *list = zonelist_of(ac, &nr);

	for (u32 i = 0; i < nr; i++) {
		struct zone *zone = &shm.zones[list[i]];

		if (zone->type > ac->highest_zone || zone->node == last)
			continue;
		last = zone->node;
		wakeup_kswapd(zone, order, ac->highest_zone);
	}
}

/*
 * What was reclaimed may lie in pagesets or in reserved pageblocks: if it did not help, these are
 * emptied, once.
 */
__slowpath static struct page *direct_reclaim(struct slow_request *r, struct alloc_context *ac)
{
	u32 task_flags = this_cpu()->task_flags;
	struct page *page;

	this_cpu()->task_flags |= PF_MEMALLOC;
	r->progress = try_to_free_pages(ac);
	this_cpu()->task_flags = task_flags;
	if (!r->progress)
		return NULL;
	page = get_page_from_freelist(r->gfp, r->order, r->alloc_flags, ac);
	if (page)
		return page;
	unreserve_highatomic_pageblock(ac, false);
	drain_all_pages();
	atomic_add(&shm.nodes[ac->preferred->node].drain_all, 1);
	return get_page_from_freelist(r->gfp, r->order, r->alloc_flags, ac);
}

/* Would all that can be reclaimed be enough, and does reclaim get anywhere? */
__slowpath static bool should_reclaim_retry(struct slow_request *r, const struct alloc_context *ac)
{
	u32 nr;
	const u32 *list = zonelist_of(ac, &nr);

	if (r->progress && r->order <= PCP_COSTLY_ORDER)
		r->no_progress_loops = 0;
	else
		r->no_progress_loops++;
	if (r->no_progress_loops > MAX_RECLAIM_RETRIES)
		return unreserve_highatomic_pageblock(ac, true);
	for (u32 i = 0; i < nr; i++) {
		const struct zone *zone = &shm.zones[list[i]];
		u64 available = READ_ONCE(zone->nr_lru) + READ_ONCE(zone->free_pages);

		if (zone->type <= ac->highest_zone &&
		    zone_watermark_ok_free(zone, r->order, wmark_pages(zone, 0), ac->highest_zone, r->alloc_flags, available))
			return true;
	}
	return false;
}

/* The last attempt is at the high mark: somebody may just have been killed. */
__slowpath static struct page *may_oom(const struct slow_request *r, struct alloc_context *ac)
{
	struct page *page = get_page_from_freelist(r->gfp & ~__GFP_DIRECT_RECLAIM, r->order, ALLOC_WMARK_HIGH, ac);

	if (!page && r->order <= PCP_COSTLY_ORDER && !(r->gfp & (__GFP_RETRY_MAYFAIL | __GFP_THISNODE)))
		atomic_add(&shm.nodes[ac->preferred->node].oom, 1);
	return page;
}

/* Rounds of: reserves for who may, reclaim for who may wait, until that is no use any more. */
__slowpath static struct page *try_hard(struct slow_request *r, struct alloc_context *ac)
{
	for (;;) {
		u32 reserves = __gfp_pfmemalloc_flags(r->gfp);
		struct page *page;

		probe(reclaim_retry);
		if (r->alloc_flags & ALLOC_KSWAPD)
			wake_all_kswapds(r->order, ac);
		if (reserves)
			r->alloc_flags = reserves | (r->alloc_flags & ALLOC_KSWAPD);
		page = get_page_from_freelist(r->gfp, r->order, r->alloc_flags, ac);
		if (page || !r->direct_reclaim || this_cpu()->task_flags & PF_MEMALLOC)
			return page;
		page = direct_reclaim(r, ac);
		if (page || r->gfp & __GFP_NORETRY)
			return page;
		if (r->order > PCP_COSTLY_ORDER && !(r->gfp & __GFP_RETRY_MAYFAIL))
			return NULL;
		if (!should_reclaim_retry(r, ac))
			return may_oom(r, ac);
		if (READ_ONCE(shm.hdr->stop))
			return NULL;
	}
}

/* It must not fail: a half of the min reserve, then all over again.  NULL: the run is over. */
__slowpath static struct page *never_fail(struct slow_request *r, struct alloc_context *ac)
{
	u64 from = thread_cpu_ticks(this_cpu()->pid, this_cpu()->tid);

	for (u32 rounds = 1;; rounds++) {
		struct page *page = get_page_from_freelist(r->gfp, r->order, ALLOC_MIN_RESERVE, ac);

		if (page || READ_ONCE(shm.hdr->stop))
			return page;
		yield_core();
		if (rounds % NOFAIL_LOOK_EVERY == 0 &&
		    thread_cpu_ticks(this_cpu()->pid, this_cpu()->tid) > from + NOFAIL_STALL_TICKS)
			fatal(VERDICT_STALL, CHECKER_RETRY_BOUND, NULL, LOCK_NONE, 0, 0,
			      "a request that must not fail has found no memory in seconds of trying");
		page = try_hard(r, ac);
		if (page)
			return page;
	}
}

/* The first attempt has failed at the low watermark. */
__slowpath struct page *alloc_pages_slowpath(gfp_t gfp, u32 order, struct alloc_context *ac)
{
	struct slow_request r = {
		.gfp = gfp,
		.order = order,
		.alloc_flags = gfp_to_alloc_flags(gfp, order),
		.direct_reclaim = gfpflags_allow_blocking(gfp) && this_ctx() == CTX_TASK && !irqs_disabled(),
	};
	struct page *page;

	if (!ac->preferred) /* no zone that suits */
		return NULL;
	if (r.alloc_flags & ALLOC_KSWAPD)
		wake_all_kswapds(order, ac);
	page = get_page_from_freelist(gfp, order, r.alloc_flags, ac);
	if (!page)
		page = try_hard(&r, ac);
	if (!page && gfp & __GFP_NOFAIL && r.direct_reclaim)
		page = never_fail(&r, ac);
	return page;
}
