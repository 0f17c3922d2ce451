/* SPDX-License-Identifier: MIT */
/*
 * Charging pages to memory cgroups: counters with limits, and per-CPU stocks in front of them.
 *
 * Answers to: mm/memcontrol.c (try_charge_memcg, consume_stock, refill_stock, drain_stock,
 * __memcg_memory_event), mm/page_counter.c, of 6.18; identical in 7.0.
 * Kept: the order of every step of a charge; seven slots and batches of 64 pages; stocks by trylock for
 * everybody, a busy one being bypassed; a charge that may not spin takes no batch and notifies nobody.
 * Changed: the slot to be evicted goes round (as from 7.2) instead of being drawn at random (K-26);
 * reclaim is a hook that gives nothing, so that a full group fails once it has been asked 16 times;
 * nobody is killed: MEMCG_OOM is counted and the request fails.
 * Left out: swap (memsw), protection (min, low), sockets, page cache.
 * Context: any; a request without reclaim flags never waits here.
 */
#include "memcontrol.h"
#include "page_alloc.h"

/* --- counters ------------------------------------------------------------------------------------ */

__slowtext static void page_counter_cancel(struct mem_cgroup *memcg, u64 nr_pages)
{
	if (unlikely(atomic_fetch_add(&memcg->memory.usage, -nr_pages) < nr_pages))
		violation(VERDICT_CORRUPTION, CHECKER_MEMCG, NULL, LOCK_NONE, 0, off_of(memcg),
			  "more pages are uncharged from a memcg than were charged");
}

__slowtext static void note_watermark(struct page_counter *counter, u64 usage)
{
	if (usage > READ_ONCE(counter->watermark))
		WRITE_ONCE(counter->watermark, usage);
}

/* All levels, or none: the one that refuses is `over`. */
__slowpath static bool page_counter_try_charge(struct mem_cgroup *memcg, u64 nr_pages, struct mem_cgroup **over)
{
	for (struct mem_cgroup *m = memcg; m; m = parent_mem_cgroup(m)) {
		u64 usage = atomic_fetch_add(&m->memory.usage, nr_pages) + nr_pages;

		if (usage <= READ_ONCE(m->memory.max)) {
			note_watermark(&m->memory, usage);
			continue;
		}
		page_counter_cancel(m, nr_pages);
		atomic_add(&m->memory.failcnt, 1);
		for (struct mem_cgroup *below = memcg; below != m; below = parent_mem_cgroup(below))
			page_counter_cancel(below, nr_pages);
		*over = m;
		return false;
	}
	this_cpu_add64(&shm.memcg_cpu->memcg_charged_pages, nr_pages);
	return true;
}

/* No limit is asked. */
__slowtext static void page_counter_charge(struct mem_cgroup *memcg, u64 nr_pages)
{
	for (struct mem_cgroup *m = memcg; m; m = parent_mem_cgroup(m))
		note_watermark(&m->memory, atomic_fetch_add(&m->memory.usage, nr_pages) + nr_pages);
	this_cpu_add64(&shm.memcg_cpu->memcg_charged_pages, nr_pages);
}

__slowpath void memcg_uncharge(struct mem_cgroup *memcg, u64 nr_pages)
{
	for (struct mem_cgroup *m = memcg; m; m = parent_mem_cgroup(m))
		page_counter_cancel(m, nr_pages);
	this_cpu_add64(&shm.memcg_cpu->memcg_uncharged_pages, nr_pages);
}

static u64 mem_cgroup_margin(const struct mem_cgroup *memcg)
{
	u64 usage = READ_ONCE(memcg->memory.usage), max = READ_ONCE(memcg->memory.max);

	return usage < max ? max - usage : 0;
}

/* --- events -------------------------------------------------------------------------------------- */

/* Whoever polls memory.events is told by a worker; the list of files to be told about has a lock. */
__slowpath static void cgroup_file_notify(struct mem_cgroup *memcg)
{
	u32 flags = spin_lock_irqsave(&shm.hdr->kernfs_lock);

	probe(kernfs_locked);
	atomic_add(&memcg->nr_notified, 1);
	queue_work(&shm.hdr->kernfs_work);
	spin_unlock_irqrestore(&shm.hdr->kernfs_lock, flags);
}

__slowpath void memcg_memory_event(struct mem_cgroup *memcg, enum shm_memcg_event event, bool allow_spinning)
{
	atomic_add(&memcg->events_local[event], 1);
	for (struct mem_cgroup *m = memcg; m; m = parent_mem_cgroup(m)) {
		atomic_add(&m->events[event], 1);
		if (allow_spinning || broken(k05))
			cgroup_file_notify(m);
		else
			atomic_add(&m->nr_notify_skipped, 1);
	}
}

/* --- stocks -------------------------------------------------------------------------------------- */

/* stock locked */
__slowtext static void drain_slot(struct memcg_stock_pcp *stock, u32 slot)
{
	struct mem_cgroup *old = memcg_by_id(stock->cached[slot]);
	u8 nr_pages = stock->nr_pages[slot];

	if (!old)
		return;
	stock->nr_pages[slot] = 0;
	stock->cached[slot] = 0;
	if (nr_pages)
		memcg_uncharge(old, nr_pages);
	css_put(old);
}

/* Every slot, or only that of one memcg; stock locked. */
__slowtext void drain_stock_pages(struct memcg_cpu *mc, bool only, u32 id)
{
	for (u32 i = 0; i < SHM_NR_MEMCG_STOCK; i++)
		if (!only || mc->stock.cached[i] == id)
			drain_slot(&mc->stock, i);
}

__slowpath static bool consume_stock(const struct mem_cgroup *memcg, u32 nr_pages)
{
	struct memcg_stock_pcp *stock = &shm.memcg_cpu->stock;
	bool enough = false;

	if (nr_pages > SHM_MEMCG_CHARGE_BATCH)
		return false;
	if (!stock_trylock(&stock->lock)) {
		count_memcg(memcg_stock_busy);
		return false;
	}
	probe(memcg_stock_locked);
	for (u32 i = 0; i < SHM_NR_MEMCG_STOCK; i++) {
		if (stock->cached[i] != memcg->id)
			continue;
		enough = stock->nr_pages[i] >= nr_pages;
		if (enough)
			stock->nr_pages[i] = (u8)(stock->nr_pages[i] - nr_pages);
		break;
	}
	stock_unlock(&stock->lock);
	if (enough)
		count_memcg(memcg_stock_hit);
	else
		count_memcg(memcg_stock_miss);
	return enough;
}

/* The slot of a memcg that has none yet; stock locked. */
__slowtext static u32 take_slot(struct memcg_stock_pcp *stock)
{
	u32 slot;

	for (slot = 0; slot < SHM_NR_MEMCG_STOCK; slot++)
		if (!stock->cached[slot])
			return slot;
	count_memcg(memcg_stock_evict);
	if (broken(k26)) {
		slot = (u32)((get_random_u64() >> 32) * SHM_NR_MEMCG_STOCK >> 32);
	} else {
		slot = stock->evict % SHM_NR_MEMCG_STOCK;
		stock->evict = slot + 1;
	}
	drain_slot(stock, slot);
	return slot;
}

/* Pages that are charged and not needed: for the next charge on this CPU, or back to the counters. */
__slowpath void refill_stock(struct mem_cgroup *memcg, u32 nr_pages)
{
	struct memcg_stock_pcp *stock = &shm.memcg_cpu->stock;
	u32 slot;

	if (nr_pages > SHM_MEMCG_CHARGE_BATCH || !stock_trylock(&stock->lock)) {
		count_memcg(memcg_stock_bypass);
		memcg_uncharge(memcg, nr_pages);
		return;
	}
	probe(memcg_stock_locked);
	for (slot = 0; slot < SHM_NR_MEMCG_STOCK; slot++)
		if (stock->cached[slot] == memcg->id)
			break;
	if (slot < SHM_NR_MEMCG_STOCK) {
		stock->nr_pages[slot] = (u8)(stock->nr_pages[slot] + nr_pages);
		if (stock->nr_pages[slot] > SHM_MEMCG_CHARGE_BATCH) {
			count_memcg(memcg_stock_overflow);
			drain_slot(stock, slot);
		}
	} else {
		slot = take_slot(stock);
		atomic_add(&memcg->css_refs, 1);
		stock->cached[slot] = memcg->id;
		stock->nr_pages[slot] = (u8)nr_pages;
	}
	stock_unlock(&stock->lock);
}

/* --- a charge ------------------------------------------------------------------------------------ */

/* A charge that the counters have refused at least once. */
struct charge {
	gfp_t gfp;
	u32 nr_pages;
	struct mem_cgroup *over;  /* whose limit it is */
	u32 retries;
	bool drained;
	bool raised_max_event;
};

enum next { CHARGE_RETRY, CHARGE_NOMEM, CHARGE_FORCE };

/* Pages given back: none, since page cache is charged to no memcg. */
__slowtext static u64 try_to_free_mem_cgroup_pages(struct mem_cgroup *memcg, u64 nr_pages)
{
	(void)memcg, (void)nr_pages;
	return 0;
}

static bool task_is_memalloc(void)
{
	return this_cpu()->task_flags & PF_MEMALLOC;
}

/* What a charge over the limit does next. */
__slowpath static enum next over_limit(struct charge *c)
{
	u64 reclaimed;

	if (task_is_memalloc()) /* it frees memory: it must not wait for what it is to free */
		return CHARGE_FORCE;
	if (!gfpflags_allow_blocking(c->gfp))
		return CHARGE_NOMEM;
	memcg_memory_event(c->over, MEMCG_MAX, true);
	c->raised_max_event = true;
	reclaimed = try_to_free_mem_cgroup_pages(c->over, c->nr_pages);
	if (mem_cgroup_margin(c->over) >= c->nr_pages)
		return CHARGE_RETRY;
	if (!c->drained) {
		c->drained = true;
		drain_all_stock(c->over);
		return CHARGE_RETRY;
	}
	if (c->gfp & __GFP_NORETRY)
		return CHARGE_NOMEM;
	if (reclaimed && c->nr_pages <= 1u << PCP_COSTLY_ORDER)
		return CHARGE_RETRY;
	if (c->retries) {
		c->retries--;
		return CHARGE_RETRY;
	}
	if (!(c->gfp & __GFP_RETRY_MAYFAIL) && c->nr_pages <= 1u << PCP_COSTLY_ORDER)
		memcg_memory_event(c->over, MEMCG_OOM, true);
	return CHARGE_NOMEM;
}

/* Above memory.high: a task pays when it returns to user space, an interrupt leaves it to a worker. */
__slowpath static void check_high(struct mem_cgroup *memcg, gfp_t gfp, u32 batch)
{
	struct memcg_cpu *mc = shm.memcg_cpu;

	for (struct mem_cgroup *m = memcg; m; m = parent_mem_cgroup(m)) {
		if (READ_ONCE(m->memory.usage) <= READ_ONCE(m->memory.high))
			continue;
		if (!in_task()) {
			/* in NMI this may be one interruption too many (K-48) */
			if (queue_work(&m->high_work))
				atomic_add(&m->nr_high_work, 1);
			return;
		}
		mc->over_high += batch;
		break;
	}
	if (in_task() && mc->over_high > SHM_MEMCG_CHARGE_BATCH && !task_is_memalloc() && gfpflags_allow_blocking(gfp)) {
		mc->over_high = 0;
		count_memcg(memcg_high_throttle);
		memcg_high_work(memcg);
	}
}

/* reclaim_high, for this memcg and those above */
__slowtext void memcg_high_work(struct mem_cgroup *memcg)
{
	for (struct mem_cgroup *m = memcg; m; m = parent_mem_cgroup(m)) {
		if (READ_ONCE(m->memory.usage) <= READ_ONCE(m->memory.high))
			continue;
		memcg_memory_event(m, MEMCG_HIGH, true);
		try_to_free_mem_cgroup_pages(m, SHM_MEMCG_CHARGE_BATCH);
	}
}

__slowpath static int charge_failed(struct mem_cgroup *memcg, struct charge *c, enum next next)
{
	if (next == CHARGE_NOMEM && !(c->gfp & (__GFP_NOFAIL | __GFP_HIGH))) {
		count_memcg(memcg_charge_failed);
		return -ENOMEM;
	}
	if (!c->raised_max_event)
		memcg_memory_event(c->over, MEMCG_MAX, gfpflags_allow_spinning(c->gfp));
	page_counter_charge(memcg, c->nr_pages);
	count_memcg(memcg_charge_forced);
	return 0;
}

__slowpath int try_charge_memcg(struct mem_cgroup *memcg, gfp_t gfp, u32 nr_pages)
{
	struct charge c = { .gfp = gfp, .nr_pages = nr_pages, .retries = MAX_RECLAIM_RETRIES };
	u32 batch = max_of((u32)SHM_MEMCG_CHARGE_BATCH, nr_pages);
	bool allow_spinning = gfpflags_allow_spinning(gfp);

	for (;;) {
		enum next next;

		if (consume_stock(memcg, nr_pages))
			return 0;
		if (!allow_spinning) /* a batch would have to be stocked, at somebody else's cost */
			batch = nr_pages;
		if (page_counter_try_charge(memcg, batch, &c.over))
			break;
		if (batch > nr_pages) {
			batch = nr_pages;
			continue;
		}
		next = over_limit(&c);
		if (next != CHARGE_RETRY)
			return charge_failed(memcg, &c, next);
	}
	if (batch > nr_pages)
		refill_stock(memcg, batch - nr_pages);
	check_high(memcg, gfp, batch);
	return 0;
}

/* --- blocks of pages ----------------------------------------------------------------------------- */

/* A block that was asked for with __GFP_ACCOUNT is charged once it is there; NULL: it had to go again. */
__slowpath struct page *memcg_kmem_charge_page(struct page *page, gfp_t gfp, u32 order, u32 fpi)
{
	u32 objcg = current_obj_cgroup();

	if (!objcg)
		return page;
	if (!obj_cgroup_charge_pages(objcg, gfp, 1u << order)) {
		obj_cgroup_get(objcg);
		page->obj_exts = (u64)objcg << 3 | MEMCG_DATA_KMEM;
		return page;
	}
	free_frozen_pages(page, order, fpi);
	reason_reset();
	reason_shortage(REASON_MEMCG_LIMIT);
	return NULL;
}

/* A block is given back with something in obj_exts. */
__slowpath void memcg_kmem_uncharge_page(struct page *page, u32 order, bool allow_spin)
{
	u64 data = page->obj_exts;
	u32 objcg = (u32)(data >> 3);

	page->obj_exts = 0;
	if (!(data & MEMCG_DATA_KMEM) || !memcg_by_id(objcg)) {
		violation(VERDICT_CORRUPTION, CHECKER_MEMCG, NULL, LOCK_NONE, 0, page_to_off(page),
			  "a page is given back that is still charged to a memcg, or says so");
		return;
	}
	obj_cgroup_uncharge_pages(objcg, 1u << order);
	obj_cgroup_put(objcg, allow_spin);
}
