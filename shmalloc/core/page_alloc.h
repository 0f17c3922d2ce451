/* SPDX-License-Identifier: MIT */
#ifndef SHM_PAGE_ALLOC_H
#define SHM_PAGE_ALLOC_H

#include "lock.h"

/* how hard an allocation may try; names and values as in mm/internal.h */
#define ALLOC_WMARK_MIN 0x0u
#define ALLOC_WMARK_LOW 0x1u
#define ALLOC_WMARK_HIGH 0x2u
#define ALLOC_WMARK_MASK 0x3u
#define ALLOC_NO_WATERMARKS 0x4u
#define ALLOC_OOM 0x8u
#define ALLOC_NON_BLOCK 0x10u
#define ALLOC_MIN_RESERVE 0x20u
#define ALLOC_NOFRAGMENT 0x100u
#define ALLOC_HIGHATOMIC 0x200u
#define ALLOC_TRYLOCK 0x400u
#define ALLOC_KSWAPD 0x800u
#define ALLOC_RESERVES (ALLOC_OOM | ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC)

#define SWAP_CLUSTER_MAX 32u

/* how a page is freed */
#define FPI_NONE 0x0u
#define FPI_TO_TAIL 0x2u
#define FPI_TRYLOCK 0x4u

/* what a request may be served from */
struct alloc_context {
	u32 node;             /* preferred */
	u32 highest_zone;     /* enum shm_zone_type */
	u32 migratetype;
	bool thisnode;
	struct zone *preferred; /* first suitable zone, NULL = none */
};

struct page *alloc_frozen_pages(gfp_t gfp, int node, u32 order);
struct page *alloc_frozen_pages_nolock(gfp_t gfp, int node, u32 order);
struct page *alloc_pages(gfp_t gfp, int node, u32 order);
struct page *alloc_pages_nolock(gfp_t gfp, int node, u32 order);
void free_frozen_pages(struct page *page, u32 order, u32 fpi);
void free_pages(struct page *page, u32 order);
void free_pages_nolock(struct page *page, u32 order);
void drain_pages(u32 cpu);
void drain_all_pages(void);
void vmstat_tick(void);
struct page *get_page_from_freelist(gfp_t gfp, u32 order, u32 alloc_flags, struct alloc_context *ac);
void free_reclaimed_page(struct page *page, bool kswapd);

/* page_alloc_slow.c */
struct page *alloc_pages_slowpath(gfp_t gfp, u32 order, struct alloc_context *ac);
bool gfp_pfmemalloc_allowed(gfp_t gfp);

/* highatomic.c */
void reserve_highatomic_pageblock(struct zone *zone, struct page *page, u32 order);
bool unreserve_highatomic_pageblock(const struct alloc_context *ac, bool force);

/* vmscan.c */
void wakeup_kswapd(struct zone *zone, u32 order, u32 highest_zone);
u64 try_to_free_pages(const struct alloc_context *ac);
bool pgdat_balanced(const struct node *node, u32 order, u32 highest_zone);
bool kswapd_may_sleep(const struct node *node);
u64 kswapd_pass(struct node *node);

/* filemap.c */
u32 page_cache_add(u32 nr, gfp_t gfp, int node);
u64 page_cache_drop(u32 node);
u32 isolate_lru_pages(struct node *node, u32 highest_zone, u32 nr, u64 *scanned, u64 *list);

/* The zones that a request may be served from, in order of preference. */
__helper const u32 *zonelist_of(const struct alloc_context *ac, u32 *nr)
{
	const struct node *node = &shm.nodes[ac->node];

	*nr = ac->thisnode ? node->nr_thisnode : node->nr_zonelist;
	return ac->thisnode ? node->thisnode : node->zonelist;
}

/* mm_init.c: only while the arena is formatted */
void free_area_init(void);
void setup_zones(void);
void build_zonelists(void);

__helper struct zone *page_zone(const struct page *page)
{
	return &shm.zones[shm.pageblocks[page_to_pfn(page) >> shm.pageblock_order].zone];
}

__helper u32 page_node(const struct page *page)
{
	return page_zone(page)->node;
}

__helper struct per_cpu_pages *zone_pageset(const struct zone *zone, u32 cpu)
{
	return &shm.pagesets[zone->index * shm.nr_cpus + cpu];
}

__helper struct per_cpu_pages *this_pageset(const struct zone *zone)
{
	return zone_pageset(zone, this_cpu()->id);
}

__helper u32 pageblock_migratetype(const struct page *page)
{
	return shm.pageblocks[page_to_pfn(page) >> shm.pageblock_order].migratetype;
}

/* buddy.c: zone->lock held */
void __free_one_page(struct zone *zone, struct page *page, u32 order, u32 migratetype, u32 fpi);
void split_large_buddy(struct zone *zone, struct page *page, u32 order, u32 fpi);
enum rmqueue_mode { RMQUEUE_NORMAL, RMQUEUE_CLAIM, RMQUEUE_STEAL };
struct page *__rmqueue(struct zone *zone, u32 order, u32 migratetype, u32 alloc_flags, enum rmqueue_mode *mode);
bool zone_watermark_ok(const struct zone *zone, u32 order, u64 mark, u32 highest_zone, u32 alloc_flags);
bool zone_watermark_ok_free(const struct zone *zone, u32 order, u64 mark, u32 highest_zone, u32 alloc_flags, u64 free);
struct page *__rmqueue_smallest(struct zone *zone, u32 order, u32 migratetype);
void move_block_type(struct zone *zone, struct page *page, u32 order, u32 migratetype);

/* A mark as it is now: what was set up, and what fragmentation has added. */
__helper u64 wmark_pages(const struct zone *zone, u32 mark)
{
	return zone->wmark[mark] + READ_ONCE(zone->wmark_boost);
}

/* Without SMP the pagesets' trylock keeps nobody out, so irqs are off while one is held. */
__helper u32 pcp_up_irq_save(void)
{
	return is_up() ? local_irq_save() : 0;
}

__helper void pcp_up_irq_restore(u32 flags)
{
	if (is_up())
		local_irq_restore(flags);
}

/* pcp.c */
bool pcp_allowed_order(u32 order);
struct page *rmqueue_pcplist(struct zone *zone, u32 order, u32 migratetype, u32 alloc_flags, bool *busy);
void free_to_pcp(struct zone *zone, struct per_cpu_pages *pcp, struct page *page, u32 order, u32 fpi);

/* a compound page's tails point to their head */
void prep_compound_page(struct page *page, u32 order);
void destroy_compound_page(struct page *page, u32 order);

#endif
