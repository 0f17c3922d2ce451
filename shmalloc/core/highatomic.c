/* SPDX-License-Identifier: MIT */
/*
 * The HIGHATOMIC reserve: pageblocks kept for urgent requests of more than one page.
 *
 * Answers to: mm/page_alloc.c (reserve_highatomic_pageblock, unreserve_highatomic_pageblock).
 * Kept: at most one hundredth of a zone, and nothing where that is less than a pageblock; the block
 * that has just served such a request is the one that is kept; the slow path gives blocks back.
 * Context: any that may spin; zone->lock is taken here.
 */
#include "list.h"
#include "page_alloc.h"

static u64 most_reserved(const struct zone *zone)
{
	u64 block = 1ull << shm.pageblock_order, hundredth = zone->managed_pages / 100;

	return hundredth < block ? 0 : round_up(hundredth, block);
}

__slowpath void reserve_highatomic_pageblock(struct zone *zone, struct page *page, u32 order)
{
	u64 most = most_reserved(zone);
	u32 flags;

	if (READ_ONCE(zone->nr_reserved_highatomic) >= most)
		return;
	flags = spin_lock_irqsave(&zone->lock);
	if (zone->nr_reserved_highatomic < most && pageblock_migratetype(page) < MIGRATE_PCPTYPES) {
		move_block_type(zone, page, order, MIGRATE_HIGHATOMIC);
		zone->nr_reserved_highatomic += 1ull << max_of(order, shm.pageblock_order);
	}
	spin_unlock_irqrestore(&zone->lock, flags);
}

static bool unreserve_one(struct zone *zone, u32 migratetype)
{
	for (u32 order = 0; order < SHM_NR_ORDERS; order++) {
		struct list_head *list = &zone->free_area[order].free_list[MIGRATE_HIGHATOMIC];

		if (list_empty(list))
			continue;
		zone->nr_reserved_highatomic -= 1ull << max_of(order, shm.pageblock_order);
		move_block_type(zone, list_page(list->next), order, migratetype);
		return true;
	}
	return false;
}

/* Give one block back.  Unless forced, each zone keeps its last one. */
__slowpath bool unreserve_highatomic_pageblock(const struct alloc_context *ac, bool force)
{
	u32 nr;
	const u32 *list = zonelist_of(ac, &nr);

	for (u32 i = 0; i < nr; i++) {
		struct zone *zone = &shm.zones[list[i]];
		bool found;
		u32 flags;

		if (zone->type > ac->highest_zone ||
		    READ_ONCE(zone->nr_reserved_highatomic) <= (force ? 0 : 1ull << shm.pageblock_order))
			continue;
		flags = spin_lock_irqsave(&zone->lock);
		found = unreserve_one(zone, ac->migratetype);
		spin_unlock_irqrestore(&zone->lock, flags);
		if (found)
			return true;
	}
	return false;
}
