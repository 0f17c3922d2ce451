/* SPDX-License-Identifier: MIT */
/*
 * 7.x below the sheaves: single objects and refills out of slabs, without a cpu slab.
 *
 * Answers to: mm/slub.c (___slab_alloc, get_from_partial, get_from_partial_node,
 * get_from_any_partial, alloc_from_new_slab, get_partial_node_bulk, __refill_objects_node,
 * __refill_objects_any, refill_objects, __kmem_cache_free_bulk) of 7.0.
 * Kept: a slab is never frozen; a request that may not spin tries list_lock before it touches a new
 * slab, and gives the slab back if it must; a refill takes whole freelists and returns what is too
 * much; remote nodes are refilled from by trylock.  Changed: slabs in hand are a chain, not a list.
 * Left out: mempolicy, cpusets.  __slab_free is slub.c's: without cpu partial lists it is 7.0's.
 * Context: ___slab_alloc_sheaves any; the rest task, softirq and irq.
 */
#include "list.h"
#include "slab.h"

#define MAX_ROUNDS 1000000

/* list_lock held: one object off the first slab that may be used; a slab that is then full leaves. */
__slowtext static u64 take_from_partial_list(struct kmem_cache *s, struct kmem_cache_node *n, gfp_t gfp, u64 orig_size)
{
	for (u64 at = n->partial.next, next; at != off_of(&n->partial); at = next) {
		struct page *slab = list_page(at);
		u64 object, rest, counters;

		next = slab->lru.next;
		if (!pfmemalloc_match(slab, gfp))
			continue;
		if (cache_debug(s)) {
			object = alloc_single_from_partial(s, n, slab, orig_size);
			if (object)
				return object;
			continue;
		}
		do { /* against frees, which need list_lock only if the slab becomes empty */
			object = READ_ONCE(slab->freelist);
			counters = READ_ONCE(slab->counters);
			rest = get_freepointer(s, object);
		} while (!slab_update_freelist(s, slab, object, counters, rest, counters + 1));
		if (!rest)
			remove_partial(n, slab);
		return object;
	}
	return 0;
}

__slowpath static u64 get_from_partial_node(struct kmem_cache *s, struct kmem_cache_node *n, gfp_t gfp,
					    u64 orig_size)
{
	u64 object;
	u32 flags;

	if (!READ_ONCE(n->nr_partial) || !list_lock_irqsave(s, n, gfpflags_allow_spinning(gfp), &flags))
		return 0;
	probe(list_lock_held);
	probe(slab_attach_kprobe_locked);
	object = take_from_partial_list(s, n, gfp, orig_size);
	spin_unlock_irqrestore(&n->list_lock, flags);
	return object;
}

/* Other nodes are asked now and then only, since it unbalances them. */
__slowtext static bool try_other_nodes(const struct kmem_cache *s)
{
	return shm.nr_nodes > 1 && s->remote_node_defrag_ratio &&
	       (random_next(&this_cpu()->random) >> 40 & 1023) <= s->remote_node_defrag_ratio;
}

/* i-th node of this CPU's zonelist, if it has slabs to spare */
__slowtext static struct kmem_cache_node *node_to_spare(const struct kmem_cache *s, u32 i)
{
	const struct node *local = &shm.nodes[this_cpu()->node];
	struct kmem_cache_node *n = cache_node(s, shm.zones[local->zonelist[i]].node);

	return READ_ONCE(n->nr_partial) > s->min_partial ? n : NULL;
}

__slowpath static u64 get_from_any_partial(struct kmem_cache *s, gfp_t gfp, u64 orig_size)
{
	if (!try_other_nodes(s))
		return 0;
	for (u32 i = 0; i < shm.nodes[this_cpu()->node].nr_zonelist; i++) {
		struct kmem_cache_node *n = node_to_spare(s, i);
		u64 object = n ? get_from_partial_node(s, n, gfp, orig_size) : 0;

		if (object)
			return object;
	}
	return 0;
}

__slowpath static u64 get_from_partial(struct kmem_cache *s, gfp_t gfp, int node, u64 orig_size)
{
	u32 search = node == NO_NODE ? numa_mem_id() : (u32)node;
	u64 object = get_from_partial_node(s, cache_node(s, search), gfp, orig_size);

	if (object || (node != NO_NODE && gfp & __GFP_THISNODE))
		return object;
	return get_from_any_partial(s, gfp, orig_size);
}

/*
 * Up to `count` objects of a new slab.  If some are left it must go on its node's list: whoever may
 * not wait for list_lock tries it while the slab can still be given back.  Returns how many it took.
 */
__slowpath static u32 alloc_from_new_slab(struct kmem_cache *s, struct page *slab, u64 *objects, u32 count,
					  bool allow_spin)
{
	struct kmem_cache_node *n = slab_node(s, slab);
	u32 in_slab = counters_objects(slab->counters), taken = 0, flags = 0;
	bool listed = in_slab > count;
	u64 object;

	if (listed && !allow_spin && !list_lock_irqsave(s, n, false, &flags)) {
		free_new_slab_nolock(s, slab);
		return 0;
	}
	for (object = slab->freelist; object && taken < count; object = get_freepointer(s, object))
		objects[taken++] = object;
	slab->freelist = object;
	slab->counters = counters_make(taken, in_slab, false);
	if (listed) {
		if (allow_spin)
			flags = spin_lock_irqsave(&n->list_lock);
		probe(slab_attach_kprobe_locked);
		add_partial(n, slab, false);
		spin_unlock_irqrestore(&n->list_lock, flags);
	}
	inc_slabs_node(s, slab);
	return taken;
}

__slowtext static u64 object_of_new_slab(struct kmem_cache *s, struct page *slab, gfp_t gfp, u64 orig_size)
{
	u64 object = 0;

	if (cache_debug(s))
		return alloc_single_from_new_slab(s, slab, gfp, orig_size);
	alloc_from_new_slab(s, slab, &object, 1, gfpflags_allow_spinning(gfp));
	return object;
}

/* One object, without the sheaves: a node's list, then a new slab; the wanted node first on its own. */
__slowpath u64 ___slab_alloc_sheaves(struct kmem_cache *s, gfp_t gfp, int node, u64 orig_size)
{
	bool allow_spin = gfpflags_allow_spinning(gfp);
	bool thisnode;

	stat(s, alloc_slowpath);
	if (node != NO_NODE && !node_has_memory(node))
		node = NO_NODE;
	thisnode = node != NO_NODE && !(gfp & __GFP_THISNODE);
	for (u32 rounds = 1;; rounds++) {
		gfp_t now = thisnode ? (allow_spin ? GFP_NOWAIT : gfp) | __GFP_THISNODE : gfp;
		struct page *slab;
		u64 object;

		probe(before_get_partial);
		object = get_from_partial(s, now, node, orig_size);
		if (object)
			return object;
		probe(before_new_slab);
		slab = new_slab(s, now, node);
		if (slab) {
			stat(s, alloc_slab);
			object = object_of_new_slab(s, slab, gfp, orig_size);
			if (object || !allow_spin) /* trying again would make and drop slabs for ever (K-13) */
				return object;
		} else if (!thisnode) {
			return 0;
		} else {
			thisnode = false;
		}
		if (rounds > MAX_ROUNDS)
			fatal(VERDICT_STALL, CHECKER_RETRY_BOUND, NULL, LOCK_NONE, 0, 0,
			      "an allocation goes round and round without getting anywhere");
	}
}

/* Take partial slabs with about min..max free objects in all off their node; a chain through lru.next. */
__slowpath static u64 get_partial_node_bulk(struct kmem_cache *s, struct kmem_cache_node *n, gfp_t gfp, u32 min,
					    u32 max, bool allow_spin)
{
	u64 chain = 0;
	u32 flags, total = 0;

	if (!READ_ONCE(n->nr_partial) || !list_lock_irqsave(s, n, allow_spin, &flags))
		return 0;
	probe(list_lock_held);
	probe(slab_attach_kprobe_locked);
	for (u64 at = n->partial.next, next; at != off_of(&n->partial) && total < max; at = next) {
		struct page *slab = list_page(at);
		u64 counters = READ_ONCE(slab->counters); /* frees go on: a lower bound */
		u32 nr_free = counters_objects(counters) - counters_inuse(counters);

		next = slab->lru.next;
		if (!pfmemalloc_match(slab, gfp))
			continue;
		if (total >= min && total + nr_free > max)
			break;
		remove_partial(n, slab);
		slab->lru.next = chain;
		chain = off_of(slab);
		total += nr_free;
	}
	spin_unlock_irqrestore(&n->list_lock, flags);
	return chain;
}

/* A slab in hand: take its freelist, keep what fits and free the rest as one chain. */
__slowpath static u32 take_freelist(struct kmem_cache *s, struct page *slab, u64 *objects, u32 max)
{
	u64 object, counters, head, tail = 0;
	u32 taken = 0, rest = 0;

	do {
		object = READ_ONCE(slab->freelist);
		counters = READ_ONCE(slab->counters);
	} while (!slab_update_freelist(s, slab, object, counters, 0,
				       counters_make(counters_objects(counters), counters_objects(counters), false)));
	for (; object && taken < max; object = get_freepointer(s, object))
		objects[taken++] = object;
	for (head = object; object; object = get_freepointer(s, object), rest++)
		tail = object;
	if (head)
		__slab_free(s, slab, head, tail, rest);
	return taken;
}

/* Slabs that were not needed go back to the front; empty ones above the minimum go for good. */
__slowpath static void put_back_slabs(struct kmem_cache *s, struct kmem_cache_node *n, u64 chain)
{
	u64 discard = 0;
	u32 flags = spin_lock_irqsave(&n->list_lock);

	while (chain) {
		struct page *slab = ptr_of(chain);

		chain = slab->lru.next;
		if (!counters_inuse(slab->counters) && n->nr_partial >= s->min_partial) {
			slab->lru.next = discard;
			discard = off_of(slab);
		} else {
			add_partial(n, slab, false);
		}
	}
	spin_unlock_irqrestore(&n->list_lock, flags);
	while (discard) {
		struct page *slab = ptr_of(discard);

		discard = slab->lru.next;
		stat(s, free_slab);
		discard_slab(s, slab);
	}
}

__slowpath static u32 refill_objects_node(struct kmem_cache *s, struct kmem_cache_node *n, u64 *objects, gfp_t gfp,
					  u32 min, u32 max, bool allow_spin)
{
	u64 chain = get_partial_node_bulk(s, n, gfp, min, max, allow_spin);
	u32 filled = 0;

	while (chain && filled < max) {
		struct page *slab = ptr_of(chain);

		chain = slab->lru.next;
		slab->lru.next = 0;
		filled += take_freelist(s, slab, objects + filled, max - filled);
	}
	if (chain)
		put_back_slabs(s, n, chain);
	return filled;
}

__slowpath static u32 refill_objects_any(struct kmem_cache *s, u64 *objects, gfp_t gfp, u32 min, u32 max)
{
	u32 filled = 0;

	if (!try_other_nodes(s))
		return 0;
	for (u32 i = 0; i < shm.nodes[this_cpu()->node].nr_zonelist && filled < min; i++) {
		struct kmem_cache_node *n = node_to_spare(s, i);

		if (n)
			filled += refill_objects_node(s, n, objects + filled, gfp, min - filled, max - filled, false);
	}
	return filled;
}

/* At least `min` objects if there is memory; fewer are returned all the same (K-49). */
__slowpath u32 refill_objects(struct kmem_cache *s, u64 *objects, gfp_t gfp, u32 min, u32 max)
{
	u32 node = numa_mem_id(), filled;

	if (!gfpflags_allow_spinning(gfp)) {
		warn_once();
		return 0;
	}
	filled = refill_objects_node(s, cache_node(s, node), objects, gfp, min, max, true);
	if (filled < min)
		filled += refill_objects_any(s, objects + filled, gfp, min - filled, max - filled);
	while (filled < min) {
		struct page *slab = new_slab(s, gfp, (int)node);

		if (!slab)
			break;
		stat(s, alloc_slab);
		filled += alloc_from_new_slab(s, slab, objects + filled, max - filled, true);
	}
	return filled;
}

/* Free objects slab by slab: the last one's slab, with what else of it is found before three others. */
__slowpath void sheaf_free_bulk(struct kmem_cache *s, u64 *objects, u32 count)
{
	while (count) {
		u64 tail = objects[--count], head = tail;
		struct page *slab = virt_to_head_page(tail);
		u32 rest = count, nr = 1;

		for (u32 i = count, others = 0; i-- > 0 && others < 3;) {
			u64 object = objects[i];

			if (virt_to_head_page(object) != slab) {
				others++;
				continue;
			}
			set_freepointer(s, object, head);
			head = object;
			nr++;
			objects[i] = objects[--rest];
		}
		count = rest;
		__slab_free(s, slab, head, tail, nr);
	}
}
