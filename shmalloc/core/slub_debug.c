/* SPDX-License-Identifier: MIT */
/*
 * Debug caches: no cpu slab, no cpu partial list; every object goes by list_lock.
 *
 * Answers to: mm/slub.c (alloc_single_from_partial, alloc_single_from_new_slab,
 * free_to_partial_list, alloc_debug_processing, free_debug_processing, add_full, remove_full).
 * Kept: without SLAB_CONSISTENCY_CHECKS nothing is checked here, only written.  Changed: a slab that
 * fails is PG_disabled besides frozen, for the audit; a freelist head that leads out of the slab
 * fails it without that flag, too, because following it could leave the arena.
 * Context: alloc_single_from_new_slab any; the others with list_lock, or task, softirq and irq.
 */
#include "list.h"
#include "slub_debug.h"

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

/* The slab is lost: marking all objects as used keeps everybody's hands off them. */
__slowpath static void disable_slab(const struct kmem_cache *s, struct page *slab)
{
	u32 objects = counters_objects(slab->counters);

	slab_fix(s, SLAB_FIX_ALL_USED, page_to_off(slab));
	slab->freelist = 0;
	slab->counters = counters_make(objects, objects, true);
	slab->flags |= PG_disabled;
	reason_shortage(REASON_FREELIST_EMPTY);
}

__slowtext static bool alloc_checks(const struct kmem_cache *s, struct page *slab, u64 object)
{
	bool thorough = s->flags & SLAB_CONSISTENCY_CHECKS;

	if (thorough && !check_slab(s, slab))
		return false;
	if (!object || !check_valid_pointer(s, slab, object)) {
		slab_bug(s, SLAB_BUG_FREELIST_POINTER, page_to_off(slab), 0, object, 0, 0);
		return false;
	}
	return !thorough || check_object(s, slab, object, SLUB_RED_INACTIVE);
}

/* Take the first object: 0 if the slab or the object fails a check, and then the slab is disabled. */
__slowpath static u64 take_first(struct kmem_cache *s, struct page *slab, u64 orig_size)
{
	u64 object = slab->freelist;

	if (!alloc_checks(s, slab, object)) {
		disable_slab(s, slab);
		return 0;
	}
	slab->freelist = get_freepointer(s, object);
	slab->counters++; /* inuse is in the low bits */
	trace(s, slab, object, true);
	set_orig_size(s, object, orig_size);
	init_object(s, object, SLUB_RED_ACTIVE);
	set_track(s, object, TRACK_ALLOC);
	return object;
}

static bool is_full(const struct page *slab)
{
	return counters_inuse(slab->counters) == counters_objects(slab->counters);
}

/* list_lock held */
__slowtext u64 alloc_single_from_partial(struct kmem_cache *s, struct kmem_cache_node *n, struct page *slab,
					 u64 orig_size)
{
	u64 object = take_first(s, slab, orig_size);

	if (!object) {
		remove_partial(n, slab);
	} else if (is_full(slab)) {
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
__slowpath u64 alloc_single_from_new_slab(struct kmem_cache *s, struct page *slab, gfp_t gfp, u64 orig_size)
{
	struct kmem_cache_node *n = slab_node(s, slab);
	u64 object;
	u32 flags;

	if (gfpflags_allow_spinning(gfp)) {
		flags = spin_lock_irqsave(&n->list_lock);
	} else if (!spin_trylock_irqsave(&n->list_lock, &flags)) {
		stat(s, list_lock_busy);
		reason_contention(REASON_LIST_LOCK_BUSY);
		if (sheaf_arena()) { /* 7.0 has no list of slabs that wait for irq_work */
			free_new_slab_nolock(s, slab);
			return 0;
		}
		if (broken(k12))
			slab->counters |= COUNTERS_FROZEN;
		defer_deactivate_slab(slab, 0);
		return 0;
	}
	probe(debug_new_slab_locked);
	object = take_first(s, slab, orig_size);
	if (!object) {
		slab->flags |= PG_uncounted; /* somebody has written into a slab that nobody had yet */
	} else {
		if (is_full(slab))
			add_full(s, n, slab);
		else
			add_partial(n, slab, false);
		inc_slabs_node(s, slab);
	}
	spin_unlock_irqrestore(&n->list_lock, flags);
	return object;
}

__slowtext static bool free_consistency_checks(struct kmem_cache *s, struct page *slab, u64 object)
{
	if (!check_valid_pointer(s, slab, object)) {
		slab_bug(s, SLAB_BUG_POINTER, object, 0, 0, 0, 0);
		return false;
	}
	if (on_freelist(s, slab, object)) {
		slab_bug(s, SLAB_BUG_ALREADY_FREE, object, 0, 0, 0, 0);
		return false;
	}
	if (!check_object(s, slab, object, SLUB_RED_ACTIVE))
		return false;
	if (slab->slab_cache != s->index + 1) {
		slab_bug(s, SLAB_BUG_WRONG_CACHE, object, 0, slab->slab_cache, s->index + 1, 0);
		return false;
	}
	return true;
}

/* One object of a chain: checked, then painted as free. */
__slowtext static bool free_debug_object(struct kmem_cache *s, struct page *slab, u64 object)
{
	if (s->flags & SLAB_CONSISTENCY_CHECKS && !free_consistency_checks(s, slab, object))
		return false;
	set_track(s, object, TRACK_FREE);
	trace(s, slab, object, false);
	init_object(s, object, SLUB_RED_INACTIVE); /* the link to the next one lies outside if this poisons */
	return true;
}

/* False: the chain of count objects stays as it is, and is lost. */
__slowpath static bool free_debug_processing(struct kmem_cache *s, struct page *slab, u64 head, u32 count)
{
	bool ok = !(s->flags & SLAB_CONSISTENCY_CHECKS) || check_slab(s, slab);

	if (ok && counters_inuse(slab->counters) < count) {
		slab_bug(s, SLAB_BUG_FREES, head, 0, counters_inuse(slab->counters), count, 0);
		ok = false;
	}
	for (u64 object = head; ok && count--; object = count ? get_freepointer(s, object) : 0)
		ok = free_debug_object(s, slab, object);
	if (!ok)
		slab_fix(s, SLAB_FIX_NOT_FREED, head);
	return ok;
}

/* list_lock held.  The slab, if it is to be given back: taken off its list and out of the counts. */
__slowtext static struct page *free_chain(struct kmem_cache *s, struct kmem_cache_node *n, struct page *slab, u64 head,
					  u64 tail, u32 count)
{
	u64 prior = slab->freelist;
	bool discard;

	set_freepointer(s, tail, prior);
	slab->freelist = head;
	slab->counters -= count;
	if (broken(write_after_free))
		*(u8 *)ptr_of(head) = 0;
	discard = !counters_inuse(slab->counters) && n->nr_partial >= s->min_partial;
	if (!prior && !(slab->flags & PG_partial)) { /* a repair may have emptied a partial slab's freelist */
		remove_full(s, slab);
		if (!discard) {
			add_partial(n, slab, true);
			stat(s, free_add_partial);
		}
	} else if (discard) {
		remove_partial(n, slab);
		stat(s, free_remove_partial);
	}
	if (!discard)
		return NULL;
	dec_slabs_node(s, slab); /* with the counts still under the lock, as the checks need them */
	return slab;
}

__slowpath void free_to_partial_list(struct kmem_cache *s, struct page *slab, u64 head, u64 tail, u32 count)
{
	struct kmem_cache_node *n = slab_node(s, slab);
	struct page *discard = NULL;
	u32 flags = spin_lock_irqsave(&n->list_lock);

	probe(debug_list_lock_held);
	if (free_debug_processing(s, slab, head, count))
		discard = free_chain(s, n, slab, head, tail, count);
	spin_unlock_irqrestore(&n->list_lock, flags);
	if (discard) {
		stat(s, free_slab);
		free_slab(s, discard);
	}
}

/* A fresh slab: all of it padding, then its objects free, before they are constructed. */
__slowpath void setup_slab_debug(const struct kmem_cache *s, struct page *slab, u32 objects)
{
	if (s->flags & SLAB_POISON)
		fill_bytes(ptr_of(page_to_off(slab)), POISON_INUSE, (u64)SHM_PAGE_SIZE << slab->order);
	for_each_object(object, s, slab, objects) {
		init_object(s, object, SLUB_RED_INACTIVE);
		init_tracking(s, object);
	}
}

/* A slab on its way out: nobody may have written into its free objects. */
__slowpath void check_discarded_slab(const struct kmem_cache *s, const struct page *slab)
{
	if (!(s->flags & SLAB_CONSISTENCY_CHECKS))
		return;
	slab_pad_check(s, slab);
	for_each_object(object, s, slab, counters_objects(slab->counters))
		check_object(s, slab, object, SLUB_RED_INACTIVE);
}
