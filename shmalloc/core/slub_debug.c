/* SPDX-License-Identifier: MIT */
/*
 * Debug caches: no cpu slab, no cpu partial list; every object goes by list_lock.
 *
 * Answers to: mm/slub.c (alloc_single_from_partial, alloc_single_from_new_slab,
 * free_to_partial_list, add_full, remove_full).
 * Left out: the checks themselves (red zones, poison, tracks); only the paths are here.
 * Context: alloc_single_from_new_slab any; the others with list_lock, or task, softirq and irq.
 */
#include "list.h"
#include "slab.h"

static void add_full(struct kmem_cache *s, struct kmem_cache_node *n, struct page *slab)
{
	if (s->flags & SLAB_STORE_USER)
		list_add(&slab->lru, &n->full);
}

static void remove_full(struct kmem_cache *s, struct page *slab)
{
	if (s->flags & SLAB_STORE_USER)
		list_del(&slab->lru);
}

static u64 take_first(struct kmem_cache *s, struct page *slab)
{
	u64 object = slab->freelist;

	slab->freelist = get_freepointer(s, object);
	slab->counters++; /* inuse is in the low bits */
	return object;
}

static bool is_full(const struct page *slab)
{
	return counters_inuse(slab->counters) == counters_objects(slab->counters);
}

/* list_lock held */
__slowtext u64 alloc_single_from_partial(struct kmem_cache *s, struct kmem_cache_node *n, struct page *slab)
{
	u64 object = take_first(s, slab);

	if (is_full(slab)) {
		remove_partial(n, slab);
		add_full(s, n, slab);
	}
	return object;
}

/*
 * A debug slab becomes visible under list_lock, together with the node's counts.  A request that may
 * not spin and does not get the lock hands the slab to irq_work: it was never counted, so it must
 * not be counted out either (K-12).
 */
__slowpath u64 alloc_single_from_new_slab(struct kmem_cache *s, struct page *slab, gfp_t gfp)
{
	struct kmem_cache_node *n = slab_node(s, slab);
	u64 object;
	u32 flags;

	if (gfpflags_allow_spinning(gfp)) {
		flags = spin_lock_irqsave(&n->list_lock);
	} else if (!spin_trylock_irqsave(&n->list_lock, &flags)) {
		stat(s, list_lock_busy);
		reason_contention(REASON_LIST_LOCK_BUSY);
		if (broken(k12))
			slab->counters |= COUNTERS_FROZEN;
		defer_deactivate_slab(slab, 0);
		return 0;
	}
	object = take_first(s, slab);
	if (is_full(slab))
		add_full(s, n, slab);
	else
		add_partial(n, slab, false);
	inc_slabs_node(s, slab);
	spin_unlock_irqrestore(&n->list_lock, flags);
	return object;
}

static bool on_freelist(struct kmem_cache *s, const struct page *slab, u64 object)
{
	u32 hops = 0;

	for (u64 at = slab->freelist; at; at = get_freepointer(s, at))
		if (at == object || ++hops > counters_objects(slab->counters))
			return true;
	return false;
}

__slowpath void free_to_partial_list(struct kmem_cache *s, struct page *slab, u64 object)
{
	struct kmem_cache_node *n = slab_node(s, slab);
	struct page *discard = NULL;
	u32 flags = spin_lock_irqsave(&n->list_lock);
	u64 prior = slab->freelist;

	probe(debug_list_lock_held);
	if (on_freelist(s, slab, object)) {
		spin_unlock_irqrestore(&n->list_lock, flags);
		violation(VERDICT_CORRUPTION, CHECKER_SLAB, NULL, LOCK_NONE, 0, object, "object already free");
		return;
	}
	set_freepointer(s, object, prior);
	slab->freelist = object;
	slab->counters--;
	if (!counters_inuse(slab->counters) && n->nr_partial >= s->min_partial)
		discard = slab;
	if (!prior) {
		remove_full(s, slab);
		if (!discard) {
			add_partial(n, slab, true);
			stat(s, free_add_partial);
		}
	} else if (discard) {
		remove_partial(n, slab);
		stat(s, free_remove_partial);
	}
	if (discard) /* with the counts still under the lock, as the checks need them */
		dec_slabs_node(s, slab);
	spin_unlock_irqrestore(&n->list_lock, flags);
	if (discard) {
		stat(s, free_slab);
		free_slab(s, slab);
	}
}
