/* SPDX-License-Identifier: MIT */
/*
 * The buddy allocator of one zone: split, merge, fallback between migratetypes, watermarks.
 *
 * Answers to: mm/page_alloc.c (__rmqueue, expand, __free_one_page, try_to_claim_block,
 * __zone_watermark_ok).
 * Kept: insertion at head or tail, the order in which fallbacks are tried, claim before steal.
 * Left out: CMA, ISOLATE.  The HIGHATOMIC reserve is in highatomic.c.
 * Context: any, with zone->lock held and irqs off, except zone_watermark_ok, which takes no lock.
 */
#include "list.h"
#include "page_alloc.h"
#include "trace.h"

static const u8 fallbacks[MIGRATE_PCPTYPES][2] = {
	[MIGRATE_UNMOVABLE] = { MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE },
	[MIGRATE_MOVABLE] = { MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE },
	[MIGRATE_RECLAIMABLE] = { MIGRATE_UNMOVABLE, MIGRATE_MOVABLE },
};

__helper bool zone_spans(const struct zone *zone, u64 pfn, u32 order)
{
	return pfn >= zone->start_pfn && pfn + (1ull << order) <= zone->start_pfn + zone->spanned_pages;
}

/* zone->lock held */
__slowtext static void account_freepages(struct zone *zone, s64 pages, u32 migratetype)
{
	WRITE_ONCE(zone->free_pages, zone->free_pages + (u64)pages);
	if (migratetype == MIGRATE_HIGHATOMIC)
		WRITE_ONCE(zone->free_highatomic, zone->free_highatomic + (u64)pages);
}

__slowtext static void add_to_free_list(struct zone *zone, struct page *page, u32 order, u32 migratetype, bool tail)
{
	struct free_area *area = &zone->free_area[order];

	page->flags = PG_buddy;
	page->order = order;
	if (tail)
		list_add_tail(&page->lru, &area->free_list[migratetype]);
	else
		list_add(&page->lru, &area->free_list[migratetype]);
	area->nr_free++;
	account_freepages(zone, 1ll << order, migratetype);
}

__slowtext static void del_from_free_list(struct zone *zone, struct page *page, u32 order)
{
	list_del(&page->lru);
	page->flags = 0;
	zone->free_area[order].nr_free--;
	account_freepages(zone, -(1ll << order), pageblock_migratetype(page));
}

/* Give back the upper halves until the block has the wanted order. */
static void expand(struct zone *zone, struct page *page, u32 low, u32 high, u32 migratetype)
{
	while (high > low) {
		high--;
		add_to_free_list(zone, page + (1ull << high), high, migratetype, false);
	}
}

__slowpath struct page *__rmqueue_smallest(struct zone *zone, u32 order, u32 migratetype)
{
	for (u32 current = order; current < SHM_NR_ORDERS; current++) {
		struct list_head *list = &zone->free_area[current].free_list[migratetype];
		struct page *page;

		if (list_empty(list))
			continue;
		page = list_page(list->next);
		del_from_free_list(zone, page, current);
		expand(zone, page, order, current, migratetype);
		trace_mm_page_alloc_zone_locked(page, order, migratetype);
		return page;
	}
	return NULL;
}

/* The buddy if it is free as a whole, of the same order and in the same zone. */
__slowtext static struct page *find_buddy(const struct zone *zone, u64 pfn, u32 order)
{
	u64 buddy_pfn = pfn ^ 1ull << order;
	struct page *buddy = &shm.pages[buddy_pfn];

	if (!zone_spans(zone, buddy_pfn, order) || !(buddy->flags & PG_buddy) || buddy->order != order)
		return NULL;
	return buddy;
}

/* From a pageblock upwards two types may meet; equal ones and those that fall back on each other merge. */
static bool types_mergeable(const struct page *buddy, u32 order, u32 migratetype)
{
	u32 other = pageblock_migratetype(buddy);

	return order < shm.pageblock_order || migratetype == other ||
	       (migratetype < MIGRATE_PCPTYPES && other < MIGRATE_PCPTYPES);
}

static bool buddy_merge_likely(const struct zone *zone, u64 pfn, u32 order)
{
	return order < SHM_MAX_PAGE_ORDER - 1 && find_buddy(zone, pfn & ~(1ull << order), order + 1);
}

static void set_block_types(struct page *page, u32 order, u32 migratetype)
{
	u64 block = page_to_pfn(page) >> shm.pageblock_order;
	u64 nr = order > shm.pageblock_order ? 1ull << (order - shm.pageblock_order) : 1;

	for (u64 i = 0; i < nr; i++)
		shm.pageblocks[block + i].migratetype = (u8)migratetype;
}

__slowpath void __free_one_page(struct zone *zone, struct page *page, u32 order, u32 migratetype, u32 fpi)
{
	u64 pfn = page_to_pfn(page);

	while (order < SHM_MAX_PAGE_ORDER && !broken(no_merge)) {
		struct page *buddy = find_buddy(zone, pfn, order);

		if (!buddy || !types_mergeable(buddy, order, migratetype))
			break;
		del_from_free_list(zone, buddy, order);
		if (order >= shm.pageblock_order)
			set_block_types(buddy, order, migratetype);
		pfn &= ~(1ull << order);
		page = &shm.pages[pfn];
		order++;
	}
	add_to_free_list(zone, page, order, migratetype,
			 fpi & FPI_TO_TAIL || buddy_merge_likely(zone, pfn, order));
}

/* A block that spans pageblocks goes back one by one, each to the lists of its own type. */
__slowpath void split_large_buddy(struct zone *zone, struct page *page, u32 order, u32 fpi)
{
	u32 step = min_of(order, shm.pageblock_order);

	for (u64 at = 0; at < 1ull << order; at += 1ull << step)
		__free_one_page(zone, page + at, step, pageblock_migratetype(page + at), fpi);
}

/* Reserve against fragmentation: raise the watermarks until kswapd has made room. */
static void boost_watermark(struct zone *zone, u32 alloc_flags)
{
	u64 block = 1ull << shm.pageblock_order;
	u64 max = zone->wmark[2] * 15000 / 10000;

	if (block * 4 > zone->managed_pages)
		return;
	max = max_of(max, block);
	zone->wmark_boost = min_of(zone->wmark_boost + block, max);
	if (alloc_flags & ALLOC_KSWAPD)
		atomic_or(&zone->flags, ZONE_BOOSTED_WATERMARK);
}

/* Move the free parts of a pageblock to another type's lists; returns free pages moved. */
__slowtext static u64 move_block(struct zone *zone, u64 block_pfn, u32 migratetype)
{
	u64 end = block_pfn + (1ull << shm.pageblock_order), moved = 0;

	for (u64 pfn = block_pfn; pfn < end;) {
		struct page *page = &shm.pages[pfn];

		if (!(page->flags & PG_buddy)) {
			pfn++;
			continue;
		}
		list_del(&page->lru);
		list_add_tail(&page->lru, &zone->free_area[page->order].free_list[migratetype]);
		moved += 1ull << page->order;
		pfn += 1ull << page->order;
	}
	return moved;
}

/* Free pages of a block, and those in use that a block of this type would hold anyway. */
static void count_block(u64 block_pfn, u32 migratetype, u32 block_type, u64 *free, u64 *alike)
{
	u64 end = block_pfn + (1ull << shm.pageblock_order), movable = 0;

	*free = 0;
	for (u64 pfn = block_pfn; pfn < end;) {
		const struct page *page = &shm.pages[pfn];
		u64 nr = 1;

		if (page->flags & PG_buddy) {
			nr = 1ull << page->order;
			*free += nr;
		} else if (page->flags & (PG_allocated | PG_lru) && page->migratetype == MIGRATE_MOVABLE) {
			nr = 1ull << page->order;
			movable += nr;
		}
		pfn += nr;
	}
	if (migratetype == MIGRATE_MOVABLE)
		*alike = movable;
	else
		*alike = block_type == MIGRATE_MOVABLE ? (1ull << shm.pageblock_order) - *free - movable : 0;
}

/* Claim a fallback block: wholly if it is a pageblock or most of one is free or of our kind. */
static struct page *try_to_claim_block(struct zone *zone, struct page *page, u32 current, u32 order,
				       u32 migratetype, u32 block_type, u32 alloc_flags)
{
	u64 block_pfn, free, alike;

	if (current >= shm.pageblock_order) {
		del_from_free_list(zone, page, current);
		set_block_types(page, current, migratetype);
		expand(zone, page, order, current, migratetype);
		return page;
	}
	boost_watermark(zone, alloc_flags);
	block_pfn = page_to_pfn(page) & ~((1ull << shm.pageblock_order) - 1);
	if (!zone_spans(zone, block_pfn, shm.pageblock_order))
		return NULL;
	count_block(block_pfn, migratetype, block_type, &free, &alike);
	if (free + alike < 1ull << (shm.pageblock_order - 1))
		return NULL;
	move_block(zone, block_pfn, migratetype);
	set_block_types(&shm.pages[block_pfn], shm.pageblock_order, migratetype);
	return __rmqueue_smallest(zone, order, migratetype);
}

/*
 * Give the pageblock around a page another type, with what is free in it; or all pageblocks of a
 * block that is larger, free or not.
 */
__slowpath void move_block_type(struct zone *zone, struct page *page, u32 order, u32 migratetype)
{
	u32 from = pageblock_migratetype(page);
	u64 block_pfn = page_to_pfn(page) & ~((1ull << shm.pageblock_order) - 1), moved = 0;

	if (order > shm.pageblock_order) {
		if (page->flags & PG_buddy) {
			list_del(&page->lru);
			list_add_tail(&page->lru, &zone->free_area[order].free_list[migratetype]);
			moved = 1ull << order;
		}
		set_block_types(page, order, migratetype);
	} else {
		moved = move_block(zone, block_pfn, migratetype);
		set_block_types(&shm.pages[block_pfn], shm.pageblock_order, migratetype);
	}
	/* what is free stays free: only who may have it changes */
	if (from == MIGRATE_HIGHATOMIC)
		WRITE_ONCE(zone->free_highatomic, zone->free_highatomic - moved);
	if (migratetype == MIGRATE_HIGHATOMIC)
		WRITE_ONCE(zone->free_highatomic, zone->free_highatomic + moved);
}

static bool should_try_claim_block(u32 order, u32 migratetype)
{
	return order >= shm.pageblock_order / 2 || migratetype != MIGRATE_MOVABLE;
}

static struct page *first_fallback(struct zone *zone, u32 order, u32 migratetype, u32 *from)
{
	for (u32 i = 0; i < 2; i++) {
		struct list_head *list = &zone->free_area[order].free_list[fallbacks[migratetype][i]];

		if (list_empty(list))
			continue;
		*from = fallbacks[migratetype][i];
		return list_page(list->next);
	}
	return NULL;
}

/* Largest blocks first, so that the mixing stays in few pageblocks. */
__slowpath static struct page *__rmqueue_claim(struct zone *zone, u32 order, u32 migratetype, u32 alloc_flags)
{
	/* an order above a pageblock's stays its own bound, or too small a block would be taken */
	s32 lowest = (s32)(alloc_flags & ALLOC_NOFRAGMENT ? max_of(order, shm.pageblock_order) : order);
	u32 from;

	for (s32 current = SHM_MAX_PAGE_ORDER; current >= lowest; current--) {
		struct page *page = first_fallback(zone, (u32)current, migratetype, &from);

		if (!page)
			continue;
		if (!should_try_claim_block((u32)current, migratetype))
			return NULL;
		page = try_to_claim_block(zone, page, (u32)current, order, migratetype, from, alloc_flags);
		if (!page)
			continue;
		this_cpu_inc64(&this_pageset(zone)->fallback_claim);
		trace_mm_page_alloc_extfrag(page, order, (u32)current, migratetype, from);
		return page;
	}
	return NULL;
}

/* Smallest first: take pages, leave the block's type. */
__slowpath static struct page *__rmqueue_steal(struct zone *zone, u32 order, u32 migratetype)
{
	for (u32 current = order; current < SHM_NR_ORDERS; current++) {
		u32 from;
		struct page *page = first_fallback(zone, current, migratetype, &from);

		if (!page)
			continue;
		del_from_free_list(zone, page, current);
		expand(zone, page, order, current, from);
		this_cpu_inc64(&this_pageset(zone)->fallback_steal);
		trace_mm_page_alloc_extfrag(page, order, current, migratetype, from);
		return page;
	}
	return NULL;
}

/* `mode` remembers within one bulk which lists were found empty. */
__slowpath struct page *__rmqueue(struct zone *zone, u32 order, u32 migratetype, u32 alloc_flags,
				  enum rmqueue_mode *mode)
{
	struct page *page;

	switch (*mode) {
	case RMQUEUE_NORMAL:
		page = __rmqueue_smallest(zone, order, migratetype);
		if (page)
			return page;
		/* fall through */
	case RMQUEUE_CLAIM:
		page = __rmqueue_claim(zone, order, migratetype, alloc_flags);
		if (page) {
			*mode = RMQUEUE_NORMAL; /* the claimed block may have filled the own lists */
			return page;
		}
		/* fall through */
	default:
		if (alloc_flags & ALLOC_NOFRAGMENT)
			return NULL;
		page = __rmqueue_steal(zone, order, migratetype);
		if (page)
			*mode = RMQUEUE_STEAL;
		return page;
	}
}

/* How far down a request may go: urgent ones a half, those that cannot wait either five eighths. */
static u64 reserve_adjusted(u64 min, u32 alloc_flags)
{
	if (alloc_flags & ALLOC_MIN_RESERVE) {
		min -= min / 2;
		if (alloc_flags & ALLOC_NON_BLOCK)
			min -= min / 4;
	}
	if (alloc_flags & ALLOC_OOM)
		min -= min / 2;
	return min;
}

__slowtext static bool has_free_block(const struct zone *zone, u32 order, u32 alloc_flags)
{
	u32 types = alloc_flags & (ALLOC_HIGHATOMIC | ALLOC_OOM) ? NR_MIGRATETYPES : MIGRATE_PCPTYPES;

	for (u32 current = order; current < SHM_NR_ORDERS; current++)
		for (u32 type = 0; type < types; type++)
			if (!list_empty(&zone->free_area[current].free_list[type]))
				return true;
	return false;
}

/* `free_pages`: those there are, or those there would be after reclaim */
__slowpath bool zone_watermark_ok_free(const struct zone *zone, u32 order, u64 mark, u32 highest_zone, u32 alloc_flags,
				       u64 free_pages)
{
	s64 free = (s64)free_pages - ((1ll << order) - 1);

	if (!(alloc_flags & ALLOC_RESERVES))
		free -= (s64)READ_ONCE(zone->free_highatomic);
	if (free <= (s64)(reserve_adjusted(mark, alloc_flags) + zone->lowmem_reserve[highest_zone]))
		return false;
	return !order || has_free_block(zone, order, alloc_flags);
}

__slowpath bool zone_watermark_ok(const struct zone *zone, u32 order, u64 mark, u32 highest_zone, u32 alloc_flags)
{
	return zone_watermark_ok_free(zone, order, mark, highest_zone, alloc_flags, READ_ONCE(zone->free_pages));
}
