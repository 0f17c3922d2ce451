/* SPDX-License-Identifier: MIT */
/*
 * Page cache: clean pages that nobody maps, on an LRU list per node, there to be given back.
 *
 * Answers to: mm/filemap.c and mm/swap.c (adding), mm/vmscan.c (isolate_lru_folios),
 * fs/drop_caches.c.
 * Changed: one list per node, since all these pages are clean and inactive; nothing is looked up in
 * them; no memcg is charged for them.
 * Left out: files, dirty pages, writeback, mapping, the active list, per-cpu batches.
 * Context: adding and dropping task; isolating task or kswapd.
 */
#include "list.h"
#include "page_alloc.h"

__slowpath static void lru_add(struct page *page)
{
	struct zone *zone = page_zone(page);
	struct node *node = &shm.nodes[zone->node];
	u32 flags = spin_lock_irqsave(&node->lru_lock);

	page->flags = PG_lru;
	list_add(&page->lru, &node->lru);
	node->nr_lru++;
	zone->nr_lru++;
	spin_unlock_irqrestore(&node->lru_lock, flags);
	atomic_add(&node->page_cache_added, 1);
}

/* Read so many pages in; fewer if memory has run out. */
__slowpath u32 page_cache_add(u32 nr, gfp_t gfp, int node)
{
	for (u32 added = 0; added < nr; added++) {
		struct page *page = alloc_pages(gfp & ~(__GFP_COMP | __GFP_ACCOUNT), node, 0);

		if (!page)
			return added;
		lru_add(page);
	}
	return nr;
}

/*
 * Take up to `nr` pages from the end of the list that a request may be served with, and chain them by
 * lru.next.  Pages of zones above are passed over.
 */
__slowpath u32 isolate_lru_pages(struct node *node, u32 highest_zone, u32 nr, u64 *scanned, u64 *list)
{
	u32 flags = spin_lock_irqsave(&node->lru_lock), taken = 0;
	u64 at = node->lru.prev, left = node->nr_lru;

	*list = 0;
	for (; taken < nr && left; left--) {
		struct page *page = list_page(at);
		struct zone *zone = page_zone(page);

		at = page->lru.prev;
		++*scanned;
		if (zone->type > highest_zone)
			continue;
		list_del(&page->lru);
		page->flags = PG_allocated;
		page->lru.next = *list;
		*list = off_of(page);
		node->nr_lru--;
		zone->nr_lru--;
		taken++;
	}
	spin_unlock_irqrestore(&node->lru_lock, flags);
	return taken;
}

/* All of it, as /proc/sys/vm/drop_caches does. */
__slowpath u64 page_cache_drop(u32 node)
{
	u64 dropped = 0, scanned = 0, list;
	u32 nr;

	while ((nr = isolate_lru_pages(&shm.nodes[node], NR_ZONE_TYPES, SWAP_CLUSTER_MAX, &scanned, &list))) {
		dropped += nr;
		while (list) {
			struct page *page = ptr_of(list);

			list = page->lru.next;
			page->lru.next = 0;
			free_pages(page, 0);
		}
	}
	return dropped;
}
