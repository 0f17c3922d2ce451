/* SPDX-License-Identifier: MIT */
/*
 * Nodes, zones, watermarks, pagesets and zonelists, when the arena is formatted.
 *
 * Answers to: mm/mm_init.c, mm/page_alloc.c (__setup_per_zone_wmarks, setup_per_zone_lowmem_reserve,
 * zone_batchsize, build_zonelists, find_next_best_node).
 * Changed: only the head of each free block of the largest order is written, so that formatting
 * costs the same per 4 MiB and attaching nothing at all.
 */
#include "list.h"
#include "page_alloc.h"

static u64 int_sqrt(u64 x)
{
	u64 root = 0;

	for (u64 bit = 1ull << 31; bit; bit >>= 1)
		if ((root + bit) * (root + bit) <= x)
			root += bit;
	return root;
}

static void init_zone(struct zone *zone, u32 index, u32 node, u32 type, u64 start, u64 pages)
{
	zone->lock = (struct spinlock){ 0, LOCK_ZONE };
	zone->index = index;
	zone->node = node;
	zone->type = type;
	zone->start_pfn = start;
	zone->spanned_pages = zone->managed_pages = pages;
	for (u32 order = 0; order < SHM_NR_ORDERS; order++)
		for (u32 mt = 0; mt < NR_MIGRATETYPES; mt++)
			list_init(&zone->free_area[order].free_list[mt]);
	for (u64 pfn = start; pfn < start + pages; pfn += 1ull << shm.pageblock_order) {
		struct pageblock *block = &shm.pageblocks[pfn >> shm.pageblock_order];

		block->zone = (u8)index;
		block->migratetype = MIGRATE_MOVABLE;
	}
}

/* Zones lie one behind the other, node by node, each a whole number of pageblocks. */
void setup_zones(void)
{
	const struct shm_geometry *g = &shm.hdr->geometry;
	u64 pfn = 0, total = shm.nr_pages;

	shm.nr_zones = 0;
	for (u32 n = 0; n < shm.nr_nodes; n++) {
		struct node *node = &shm.nodes[n];

		node->id = n;
		node->start_pfn = pfn;
		node->lru_lock = (struct spinlock){ 0, LOCK_LRU };
		list_init(&node->lru);
		for (u32 type = 0; type < NR_ZONE_TYPES; type++) {
			u64 pages = total * g->zone_permille[n][type] / 1000;

			pages &= ~((1ull << shm.pageblock_order) - 1);
			if (!pages)
				continue;
			init_zone(&shm.zones[shm.nr_zones], shm.nr_zones, n, type, pfn, pages);
			shm.nr_zones++;
			node->nr_zones++;
			pfn += pages;
		}
		node->spanned_pages = pfn - node->start_pfn;
	}
	shm.hdr->nr_zones = shm.nr_zones;
}

static void free_range(struct zone *zone)
{
	u64 pfn = zone->start_pfn, end = pfn + zone->managed_pages;

	while (pfn < end) {
		u32 order = SHM_MAX_PAGE_ORDER;

		while (pfn & ((1ull << order) - 1) || pfn + (1ull << order) > end)
			order--;
		__free_one_page(zone, &shm.pages[pfn], order, MIGRATE_MOVABLE, FPI_TO_TAIL);
		pfn += 1ull << order;
	}
}

static u64 lowmem_pages(void)
{
	u64 pages = 0;

	for (u32 i = 0; i < shm.nr_zones; i++)
		if (shm.zones[i].type != ZONE_MOVABLE)
			pages += shm.zones[i].managed_pages;
	return pages;
}

static u64 min_free_pages(const struct shm_geometry *g)
{
	u64 kbytes = g->min_free_kbytes;

	if (!kbytes) {
		kbytes = int_sqrt(16 * lowmem_pages() * (SHM_PAGE_SIZE / 1024));
		kbytes = clamp_of(kbytes, 128ull, 262144ull);
	}
	return kbytes / (SHM_PAGE_SIZE / 1024);
}

static void setup_watermarks(struct zone *zone, u64 pages_min, u64 lowmem, u32 scale)
{
	u64 min, step;

	if (zone->type == ZONE_MOVABLE)
		min = clamp_of(zone->managed_pages / 1024, 32ull, 128ull);
	else
		min = lowmem ? pages_min * zone->managed_pages / lowmem : 0;
	step = max_of(min / 4, zone->managed_pages * scale / 10000);
	for (u32 i = 0; i < 4; i++)
		zone->wmark[i] = min + i * step;
}

/* What a zone keeps back from requests that could have used a higher one. */
static void setup_lowmem_reserve(struct zone *zone)
{
	static const u32 ratio[NR_ZONE_TYPES] = { 256, 256, 32, 0 };
	u64 above = 0;

	for (u32 type = 0; type < NR_ZONE_TYPES; type++) {
		zone->lowmem_reserve[type] = 0;
		if (type <= zone->type)
			continue;
		for (u32 i = 0; i < shm.nr_zones; i++)
			if (shm.zones[i].node == zone->node && shm.zones[i].type == type)
				above += shm.zones[i].managed_pages;
		if (ratio[zone->type])
			zone->lowmem_reserve[type] = above / ratio[zone->type];
	}
}

static s32 zone_batchsize(const struct zone *zone)
{
	u64 batch = min_of(zone->managed_pages >> 10, (1ull << 20) / SHM_PAGE_SIZE) / 4;

	batch = max_of(batch, 1ull);
	return (s32)max_of((1ull << ilog2(batch + batch / 2)) - 1, 1ull);
}

static u32 cpus_of_node(u32 node)
{
	u32 nr = 0;

	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
		nr += shm.hdr->geometry.cpu_node[cpu] == node;
	return nr;
}

static void setup_pagesets(const struct zone *zone)
{
	s32 batch = zone_batchsize(zone), cpus = (s32)max_of(cpus_of_node(zone->node), 1u);

	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
		struct per_cpu_pages *pcp = zone_pageset(zone, cpu);

		pcp->lock = (struct spinlock){ 0, LOCK_PCP };
		pcp->batch = batch;
		pcp->high_min = max_of((s32)zone->wmark[1] / cpus, 4 * batch);
		pcp->high_max = max_of((s32)(zone->managed_pages / 8) / cpus, 4 * batch);
		pcp->high_max = max_of(pcp->high_max, pcp->high_min);
		pcp->high = pcp->high_min;
		for (u32 i = 0; i < NR_PCP_LISTS; i++)
			list_init(&pcp->lists[i]);
	}
}

void free_area_init(void)
{
	const struct shm_geometry *g = &shm.hdr->geometry;
	u64 pages_min, lowmem;

	for (u32 i = 0; i < shm.nr_zones; i++)
		free_range(&shm.zones[i]);
	pages_min = min_free_pages(g);
	lowmem = lowmem_pages();
	for (u32 i = 0; i < shm.nr_zones; i++) {
		setup_watermarks(&shm.zones[i], pages_min, lowmem, g->watermark_scale_factor);
		setup_lowmem_reserve(&shm.zones[i]);
		setup_pagesets(&shm.zones[i]);
	}
}

/* Nearest first; among equals, nodes without CPUs, later ones, and those less often chosen. */
static s32 next_best_node(u32 local, u32 used, const u32 *load)
{
	const struct shm_geometry *g = &shm.hdr->geometry;
	u64 best_value = ~0ull;
	s32 best = -1;

	if (!(used >> local & 1) && shm.nodes[local].nr_zones)
		return (s32)local;
	for (u32 n = 0; n < shm.nr_nodes; n++) {
		u64 value;

		if (used >> n & 1 || !shm.nodes[n].nr_zones)
			continue;
		value = g->distance[local][n] + (n < local) + (cpus_of_node(n) > 0);
		value = value * SHM_MAX_NODES + load[n];
		if (value < best_value) {
			best_value = value;
			best = (s32)n;
		}
	}
	return best;
}

static void add_node_zones(u32 *list, u32 *nr, u32 node)
{
	for (s32 type = NR_ZONE_TYPES - 1; type >= 0; type--)
		for (u32 i = 0; i < shm.nr_zones; i++)
			if (shm.zones[i].node == node && shm.zones[i].type == (u32)type)
				list[(*nr)++] = i;
}

void build_zonelists(void)
{
	u32 load[SHM_MAX_NODES] = { 0 };

	for (u32 local = 0; local < shm.nr_nodes; local++) {
		struct node *node = &shm.nodes[local];
		u32 used = 0;
		s32 next, previous = (s32)local;

		while ((next = next_best_node(local, used, load)) >= 0) {
			const u8 *distance = shm.hdr->geometry.distance[local];

			if (distance[next] != distance[previous])
				load[next]++;
			previous = next;
			used |= 1u << next;
			add_node_zones(node->zonelist, &node->nr_zonelist, (u32)next);
		}
		add_node_zones(node->thisnode, &node->nr_thisnode, local);
	}
}
