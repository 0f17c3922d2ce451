/* SPDX-License-Identifier: MIT */
/*
 * Reclaim: giving page cache back, by who needs memory (direct) or by the node's kswapd.
 *
 * Answers to: mm/vmscan.c (try_to_free_pages, shrink_node, balance_pgdat, wakeup_kswapd,
 * prepare_kswapd_sleep, pgdat_balanced).
 * Kept: who is woken and when, priorities 12 to 1, the high watermark as kswapd's aim, boosts worked
 * off and cleared, 16 failures in a row make a node hopeless until something is reclaimed there.
 * Changed: kswapd is a process in a CPU slot beyond the possible CPUs.  Such a slot has no pagesets,
 * so kswapd's pages go straight to the buddy.  A node that has no kswapd is treated as one whose
 * kswapd sleeps, and its boost is dropped where that would be woken.
 * Left out: shrinkers and slab reclaim, swap, compaction, throttling, the short sleep.
 * Context: wakeup_kswapd task, softirq and irq; direct reclaim task; the rest kswapd.
 */
#include "list.h"
#include "page_alloc.h"
#include "sys.h"

#define DEF_PRIORITY 12

struct scan_control {
	u64 nr_to_reclaim;
	u64 nr_reclaimed;
	u64 nr_scanned;
	u32 highest_zone;
	u32 priority;
	bool kswapd;
};

__slowpath static void free_isolated(u64 list, bool kswapd)
{
	while (list) {
		struct page *page = ptr_of(list);

		list = page->lru.next;
		page->lru.next = 0;
		free_reclaimed_page(page, kswapd);
	}
}

/* A share of the node's list that doubles with each priority below 12, in batches of 32. */
__slowpath static void shrink_node(struct node *node, struct scan_control *sc)
{
	u64 scan = READ_ONCE(node->nr_lru) >> sc->priority, reclaimed = 0, scanned = 0;

	while (scan && sc->nr_reclaimed + reclaimed < sc->nr_to_reclaim) {
		u64 list;
		u32 nr = isolate_lru_pages(node, sc->highest_zone, (u32)min_of(scan, (u64)SWAP_CLUSTER_MAX), &scanned, &list);

		if (!nr)
			break;
		free_isolated(list, sc->kswapd);
		reclaimed += nr;
		scan -= min_of(scan, (u64)nr);
	}
	atomic_add(sc->kswapd ? &node->pgscan_kswapd : &node->pgscan_direct, scanned);
	atomic_add(sc->kswapd ? &node->pgsteal_kswapd : &node->pgsteal_direct, reclaimed);
	sc->nr_scanned += scanned;
	sc->nr_reclaimed += reclaimed;
	if (reclaimed)
		WRITE_ONCE(node->kswapd_failures, 0);
}

/* Every node of the zonelist once. */
__slowpath static void shrink_zones(const struct alloc_context *ac, struct scan_control *sc)
{
	u32 nr, last = SHM_MAX_NODES;
	const u32 *list = zonelist_of(ac, &nr);

	for (u32 i = 0; i < nr; i++) {
		const struct zone *zone = &shm.zones[list[i]];

		if (zone->type > ac->highest_zone || zone->node == last)
			continue;
		last = zone->node;
		shrink_node(&shm.nodes[last], sc);
	}
}

/* Direct reclaim: 32 pages, trying harder and harder.  Returns how many there were. */
__slowpath u64 try_to_free_pages(const struct alloc_context *ac)
{
	struct scan_control sc = {
		.nr_to_reclaim = SWAP_CLUSTER_MAX,
		.highest_zone = ac->highest_zone,
		.priority = DEF_PRIORITY,
	};

	atomic_add(&shm.nodes[ac->preferred->node].allocstall, 1);
	do {
		shrink_zones(ac, &sc);
		if (sc.nr_reclaimed >= sc.nr_to_reclaim)
			break;
	} while (sc.priority-- > 0);
	return sc.nr_reclaimed;
}

/* Is some zone that the request may use above its high mark? */
__slowpath bool pgdat_balanced(const struct node *node, u32 order, u32 highest_zone)
{
	bool any = false;

	for (u32 i = node->nr_thisnode; i-- > 0;) {
		const struct zone *zone = &shm.zones[node->thisnode[i]];

		if (zone->type > highest_zone)
			continue;
		if (zone_watermark_ok(zone, order, wmark_pages(zone, 2), highest_zone, 0))
			return true;
		any = true;
	}
	return !any;
}

static bool pgdat_watermark_boosted(const struct node *node, u32 highest_zone)
{
	for (u32 i = 0; i < node->nr_thisnode; i++)
		if (shm.zones[node->thisnode[i]].type <= highest_zone && shm.zones[node->thisnode[i]].wmark_boost)
			return true;
	return false;
}

/* The most that was asked for: orders and zones only grow until kswapd looks. */
static void raise_to(u32 *word, u32 value)
{
	u32 old = READ_ONCE(*word);

	while (old < value && !try_cmpxchg(word, &old, value))
		;
}

__slowpath void wakeup_kswapd(struct zone *zone, u32 order, u32 highest_zone)
{
	struct node *node = &shm.nodes[zone->node];
	u32 state = load_acquire(&node->kswapd_state), asleep = KSWAPD_ASLEEP;

	lock_rules_wakes_kswapd();
	probe(wakeup_kswapd);
	atomic_add(&zone->nr_kswapd_wakeups, 1);
	atomic_add(&node->kswapd_wakeups, 1);
	raise_to(&node->kswapd_order, order);
	raise_to(&node->kswapd_highest_zone, highest_zone + 1);
	if (state == KSWAPD_NONE) { /* nobody who would work it off */
		WRITE_ONCE(zone->wmark_boost, 0);
		return;
	}
	if (state != KSWAPD_ASLEEP)
		return;
	if (READ_ONCE(node->kswapd_failures) >= MAX_RECLAIM_RETRIES ||
	    (pgdat_balanced(node, order, highest_zone) && !pgdat_watermark_boosted(node, highest_zone)))
		return;
	if (!try_cmpxchg(&node->kswapd_state, &asleep, KSWAPD_AWAKE))
		return;
	atomic_add(&node->kswapd_woken, 1);
	sys_futex_wake(&node->kswapd_state);
}

/* One round of kswapd: of each zone as much as its high mark. */
__slowpath static void kswapd_shrink_node(struct node *node, struct scan_control *sc)
{
	sc->nr_to_reclaim = 0;
	for (u32 i = 0; i < node->nr_thisnode; i++) {
		const struct zone *zone = &shm.zones[node->thisnode[i]];

		if (zone->type <= sc->highest_zone)
			sc->nr_to_reclaim += max_of(wmark_pages(zone, 2), (u64)SWAP_CLUSTER_MAX);
	}
	sc->nr_to_reclaim += sc->nr_reclaimed;
	shrink_node(node, sc);
}

/* The boosts that were there when the pass began; later ones are for the next. */
__slowpath static void clear_boosts(struct node *node, const u64 *boosts)
{
	for (u32 i = 0; i < node->nr_thisnode; i++) {
		struct zone *zone = &shm.zones[node->thisnode[i]];
		u32 flags;

		if (!boosts[i])
			continue;
		flags = spin_lock_irqsave(&zone->lock);
		zone->wmark_boost -= min_of(zone->wmark_boost, boosts[i]);
		spin_unlock_irqrestore(&zone->lock, flags);
	}
}

__slowpath static u64 balance_pgdat(struct node *node, u32 order, u32 highest_zone)
{
	struct scan_control sc = { .highest_zone = highest_zone, .priority = DEF_PRIORITY, .kswapd = true };
	u64 boosts[NR_ZONE_TYPES] = { 0 }, to_boost = 0;
	bool balanced = false;

	atomic_add(&node->pageoutrun, 1);
	for (u32 i = 0; i < node->nr_thisnode; i++) {
		const struct zone *zone = &shm.zones[node->thisnode[i]];

		if (zone->type <= highest_zone)
			to_boost += boosts[i] = READ_ONCE(zone->wmark_boost);
	}
	while (sc.priority >= 1) {
		u64 before = sc.nr_reclaimed, got;

		balanced = pgdat_balanced(node, order, highest_zone);
		if (balanced && !to_boost)
			break;
		if (!balanced && to_boost) { /* first things first */
			to_boost = 0;
			sc.priority = DEF_PRIORITY;
			continue;
		}
		kswapd_shrink_node(node, &sc);
		got = sc.nr_reclaimed - before;
		if (to_boost && !got)
			break;
		to_boost -= min_of(to_boost, got);
		sc.priority--;
	}
	if (!sc.nr_reclaimed && !(balanced && !to_boost))
		WRITE_ONCE(node->kswapd_failures, node->kswapd_failures + 1);
	clear_boosts(node, boosts);
	return sc.nr_reclaimed;
}

/* Nothing to do for what was asked for, or nothing to be done. */
__slowpath bool kswapd_may_sleep(const struct node *node)
{
	u32 highest = READ_ONCE(node->kswapd_highest_zone);

	return !highest || READ_ONCE(node->kswapd_failures) >= MAX_RECLAIM_RETRIES ||
	       (pgdat_balanced(node, READ_ONCE(node->kswapd_order), highest - 1) &&
		!pgdat_watermark_boosted(node, highest - 1));
}

/* What was asked for until now, once.  Returns pages given back. */
__slowpath u64 kswapd_pass(struct node *node)
{
	u32 order = xchg(&node->kswapd_order, 0), highest = xchg(&node->kswapd_highest_zone, 0);

	return highest ? balance_pgdat(node, order, highest - 1) : 0;
}
