/* SPDX-License-Identifier: MIT */
/*
 * Per-cpu page lists: by order and migratetype, filled and emptied in batches.
 *
 * Answers to: mm/page_alloc.c (rmqueue_pcplist, rmqueue_bulk, nr_pcp_alloc, nr_pcp_free,
 * nr_pcp_high, free_frozen_page_commit, free_pcppages_bulk, drain_pages, drain_all_pages,
 * decay_pcp_high), mm/vmstat.c (refresh_cpu_vm_stats).
 * Kept: everybody takes the pageset's lock by trylock with irqs enabled, so an interrupt of the
 * holder fails and goes to the buddy; draining waits for it.
 * Context: any with ALLOC_TRYLOCK / FPI_TRYLOCK, else task, softirq and irq.
 */
#include "list.h"
#include "page_alloc.h"
#include "trace.h"

#define PCP_BATCH_SCALE_MAX 5
#define PCPF_PREV_FREE_HIGH_ORDER 0x1u

__slowtext bool pcp_allowed_order(u32 order)
{
	return order <= PCP_COSTLY_ORDER || order == PCP_THP_ORDER;
}

static u32 pcp_list_index(u32 order, u32 migratetype)
{
	if (order == PCP_THP_ORDER)
		return 12 + (migratetype == MIGRATE_MOVABLE);
	return MIGRATE_PCPTYPES * order + migratetype;
}

static u32 list_order(u32 index)
{
	return index >= 12 ? PCP_THP_ORDER : index / MIGRATE_PCPTYPES;
}

/*
 * How many blocks a refill asks for.  Order 0 doubles with each refill in a row, within the room
 * below high; high itself follows what is asked for, unless the zone is short.
 */
static u32 nr_pcp_alloc(struct per_cpu_pages *pcp, const struct zone *zone, u32 order)
{
	s32 base = pcp->batch, high = clamp_of(pcp->high, pcp->high_min, pcp->high_max);
	s32 nr = order ? base : base << pcp->alloc_factor;

	pcp->high = high;
	if (high < base)
		return 1;
	if (pcp->high_min != pcp->high_max && !(zone->flags & ZONE_BELOW_HIGH))
		high = pcp->high = min_of(high + nr, pcp->high_max);
	if (!order) {
		s32 room = max_of(high - pcp->count - base, base);

		if (nr <= room && pcp->alloc_factor < PCP_BATCH_SCALE_MAX)
			pcp->alloc_factor++;
		nr = min_of(nr, room);
	}
	return (u32)(nr > 1 ? max_of(nr >> order, 2) : nr);
}

__helper bool zone_lock_irqsave(struct zone *zone, bool try, u32 *flags)
{
	/* the flag decides first: trying and then waiting would bounce the line twice (K-02) */
	if (!try) {
		*flags = spin_lock_irqsave(&zone->lock);
		return true;
	}
	if (spin_trylock_irqsave(&zone->lock, flags))
		return true;
	this_cpu_inc64(&this_pageset(zone)->zone_busy);
	reason_contention(REASON_ZONE_BUSY);
	return false;
}

/* Blocks moved from the buddy to `list`; 0 if the zone lock was not to be had. */
__slowpath static u32 rmqueue_bulk(struct zone *zone, struct per_cpu_pages *pcp, struct list_head *list, u32 order,
				   u32 want, u32 migratetype, u32 alloc_flags)
{
	enum rmqueue_mode mode = RMQUEUE_NORMAL;
	u32 flags, nr = 0;

	if (!zone_lock_irqsave(zone, alloc_flags & ALLOC_TRYLOCK, &flags))
		return 0;
	probe(zone_locked_bulk);
	for (; nr < want; nr++) {
		struct page *page = __rmqueue(zone, order, migratetype, alloc_flags, &mode);

		if (!page)
			break;
		page->flags = PG_pcp;
		page->order = order;
		page->migratetype = migratetype;
		list_add_tail(&page->lru, list);
	}
	spin_unlock_irqrestore(&zone->lock, flags);
	pcp->count += (s32)(nr << order);
	this_cpu_inc64(&pcp->pcp_refill);
	return nr;
}

static bool pcp_trylock(struct per_cpu_pages *pcp)
{
	if (spin_trylock(&pcp->lock))
		return true;
	this_cpu_inc64(&pcp->pcp_busy);
	return false;
}

static void pcp_unlock(struct per_cpu_pages *pcp, bool nolock)
{
	if (broken(trylock_leak) && nolock) {
		lock_rules_released(&pcp->lock.word);
		lock_rules_acquired(&pcp->lock.word, LOCK_PCP);
		return;
	}
	spin_unlock(&pcp->lock);
}

/* `busy` tells whether the lock was refused: then pages may be there all the same. */
__slowpath struct page *rmqueue_pcplist(struct zone *zone, u32 order, u32 migratetype, u32 alloc_flags, bool *busy)
{
	struct per_cpu_pages *pcp = this_pageset(zone);
	struct list_head *list = &pcp->lists[pcp_list_index(order, migratetype)];
	struct page *page = NULL;
	u32 flags = pcp_up_irq_save();

	if (!pcp_trylock(pcp)) {
		pcp_up_irq_restore(flags);
		*busy = true;
		return NULL;
	}
	probe(pcp_locked);
	pcp->free_count >>= 1;
	if (list_empty(list))
		rmqueue_bulk(zone, pcp, list, order, nr_pcp_alloc(pcp, zone, order), migratetype, alloc_flags);
	if (!list_empty(list)) {
		page = list_page(list->next);
		probe(pcp_editing);
		list_del(&page->lru);
		page->flags = 0;
		pcp->count -= 1 << order;
		this_cpu_inc64(&pcp->pcp_alloc);
	}
	pcp_unlock(pcp, alloc_flags & ALLOC_TRYLOCK);
	pcp_up_irq_restore(flags);
	return page;
}

/*
 * Pages go back from the tails, list after list, beginning with the one that has just grown; pcp
 * lock held.
 */
__slowpath static void free_pcppages_bulk(struct zone *zone, struct per_cpu_pages *pcp, s32 count, u32 index)
{
	u32 flags, empty = 0;

	count = min_of(count, pcp->count);
	if (count <= 0)
		return;
	flags = spin_lock_irqsave(&zone->lock);
	while (count > 0 && empty < NR_PCP_LISTS) {
		struct list_head *list = &pcp->lists[index];
		u32 order = list_order(index);
		struct page *page;

		if (list_empty(list)) {
			index = (index + 1) % NR_PCP_LISTS;
			empty++;
			continue;
		}
		empty = 0;
		page = list_page(list->prev);
		list_del(&page->lru);
		page->flags = 0;
		pcp->count -= 1 << order;
		count -= 1 << order;
		trace_mm_page_pcpu_drain(page, order);
		split_large_buddy(zone, page, order, FPI_NONE);
	}
	spin_unlock_irqrestore(&zone->lock, flags);
	this_cpu_inc64(&pcp->pcp_drain);
}

/* Freed in a row, more than was allocated: give back more at a time. */
static s32 nr_pcp_free(const struct per_cpu_pages *pcp, s32 high, bool free_high)
{
	s32 max;

	if (free_high)
		return min_of(pcp->batch << PCP_BATCH_SCALE_MAX, pcp->count);
	if (high < pcp->batch)
		return 1;
	max = max_of(high - pcp->batch, pcp->batch);
	return clamp_of(pcp->free_count, pcp->batch, max);
}

static s32 nr_pcp_high(struct per_cpu_pages *pcp, const struct zone *zone, bool free_high)
{
	s32 high = clamp_of(pcp->high, pcp->high_min, pcp->high_max);

	pcp->high = high;
	if (free_high) {
		pcp->high = max_of(high - (pcp->batch << PCP_BATCH_SCALE_MAX), pcp->high_min);
		return 0;
	}
	if (pcp->high_min == pcp->high_max)
		return high;
	if (zone->flags & ZONE_BELOW_HIGH) {
		pcp->high = max_of(high - max_of(pcp->free_count, pcp->batch), pcp->high_min);
		return max_of(pcp->count, pcp->high_min);
	}
	if (pcp->count >= high && high < pcp->free_count + pcp->batch)
		pcp->high = clamp_of(pcp->free_count + pcp->batch, pcp->high_min, pcp->high_max);
	return high;
}

/* Blocks of order 1 to 3 freed one after the other: they are not worth keeping. */
static bool should_free_high(struct per_cpu_pages *pcp, u32 order)
{
	bool high;

	if (!order || order > PCP_COSTLY_ORDER) {
		pcp->flags &= ~PCPF_PREV_FREE_HIGH_ORDER;
		return false;
	}
	high = pcp->flags & PCPF_PREV_FREE_HIGH_ORDER && pcp->free_count >= pcp->batch + pcp->high_min / 2;
	pcp->flags |= PCPF_PREV_FREE_HIGH_ORDER;
	return high;
}

static void trim_pcp(struct zone *zone, struct per_cpu_pages *pcp, bool free_high, u32 index)
{
	s32 high = nr_pcp_high(pcp, zone, free_high);

	if (pcp->count < high)
		return;
	free_pcppages_bulk(zone, pcp, nr_pcp_free(pcp, high, free_high), index);
	if (zone->flags & ZONE_BELOW_HIGH && zone_watermark_ok(zone, 0, wmark_pages(zone, 2), ZONE_MOVABLE, 0))
		atomic_and(&zone->flags, ~ZONE_BELOW_HIGH);
}

/* Put a freed block on its list; pcp lock held.  A nolock free stops there: nothing is flushed. */
__slowpath void free_to_pcp(struct zone *zone, struct per_cpu_pages *pcp, struct page *page, u32 order, u32 fpi)
{
	u32 migratetype = pageblock_migratetype(page);
	bool free_high;

	if (migratetype >= MIGRATE_PCPTYPES)
		migratetype = MIGRATE_MOVABLE;
	pcp->alloc_factor >>= 1;
	page->flags = PG_pcp;
	page->order = order;
	page->migratetype = migratetype;
	list_add(&page->lru, &pcp->lists[pcp_list_index(order, migratetype)]);
	pcp->count += 1 << order;
	free_high = should_free_high(pcp, order);
	if (pcp->free_count < pcp->batch << PCP_BATCH_SCALE_MAX)
		pcp->free_count += 1 << order;
	if (!(fpi & FPI_TRYLOCK))
		trim_pcp(zone, pcp, free_high, pcp_list_index(order, migratetype));
}

__slowtext static void drain_pageset(struct zone *zone, struct per_cpu_pages *pcp, s32 pages)
{
	u32 flags = broken(k22) ? 0 : pcp_up_irq_save();

	spin_lock(&pcp->lock);
	probe(pcp_draining);
	free_pcppages_bulk(zone, pcp, pages, 0);
	spin_unlock(&pcp->lock);
	if (!broken(k22))
		pcp_up_irq_restore(flags);
}

/* Everything in a CPU's pagesets goes back to the buddy.  Task context; waits for the pageset's lock. */
__slowtext void drain_pages(u32 cpu)
{
	for (u32 i = 0; i < shm.nr_zones; i++)
		drain_pageset(&shm.zones[i], zone_pageset(&shm.zones[i], cpu), INT32_MAX);
}

/* Those of all CPUs that have something, from here: their lock is all it takes. */
__slowpath void drain_all_pages(void)
{
	for (u32 i = 0; i < shm.nr_zones; i++)
		for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
			struct per_cpu_pages *pcp = zone_pageset(&shm.zones[i], cpu);

			if (READ_ONCE(pcp->count))
				drain_pageset(&shm.zones[i], pcp, INT32_MAX);
		}
}

/* An eighth of what high has grown to is given up with each tick, and the pages that are then too many. */
__slowtext static void decay_pcp_high(struct zone *zone, struct per_cpu_pages *pcp)
{
	s32 excess;

	if (pcp->high > pcp->high_min) {
		s32 high = max_of(pcp->count - (pcp->batch << PCP_BATCH_SCALE_MAX), pcp->high - (pcp->high >> 3));

		pcp->high = max_of(high, pcp->high_min);
	}
	excess = pcp->count - pcp->high;
	if (excess > 0)
		drain_pageset(zone, pcp, excess);
}

#define EXPIRE_TICKS 3

/* A pageset of another node's zone that was not used for three ticks is emptied, a batch at a time. */
__slowtext static void expire_remote_pageset(struct zone *zone, struct per_cpu_pages *pcp)
{
	u32 events = (u32)(pcp->pgalloc + pcp->pgfree);

	if (events != pcp->vmstat_seen)
		pcp->expire = EXPIRE_TICKS;
	pcp->vmstat_seen = events;
	if (!pcp->expire || !pcp->count)
		return;
	if (zone->node == this_cpu()->node) {
		pcp->expire = 0;
		return;
	}
	if (--pcp->expire == 0)
		drain_pageset(zone, pcp, min_of(pcp->count, pcp->batch));
}

/* The periodic work of this CPU, which the kernel does once a second.  Task context. */
__slowpath void vmstat_tick(void)
{
	for (u32 i = 0; i < shm.nr_zones; i++) {
		struct zone *zone = &shm.zones[i];
		struct per_cpu_pages *pcp = this_pageset(zone);

		decay_pcp_high(zone, pcp);
		expire_remote_pageset(zone, pcp);
	}
}
