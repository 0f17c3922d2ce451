/* SPDX-License-Identifier: MIT */
/*
 * A slab's life between its lists: cpu slab, cpu partial, node partial, full.
 *
 * Answers to: mm/slub.c (get_freelist, freeze_slab, deactivate_slab, put_cpu_partial,
 * __put_partials, get_partial_node, get_any_partial).
 * Context: get_partial any (it tries list_lock if the request may not spin); the rest task, softirq
 * and irq; slab_update_freelist any for caches with CMPXCHG_DOUBLE.
 */
#include "list.h"
#include "slab.h"

/* Replace {freelist, counters} if both are still as they were read. */
__slowpath bool slab_update_freelist(const struct kmem_cache *s, struct page *slab, u64 freelist_old, u64 counters_old,
				     u64 freelist_new, u64 counters_new)
{
	bool ok = false;
	u32 flags;

	if (s->flags & SLAB_CMPXCHG_DOUBLE) {
		ok = cmpxchg_double(&slab->freelist, freelist_old, counters_old, freelist_new, counters_new);
	} else {
		flags = local_irq_save();
		slab_lock(slab);
		if (slab->freelist == freelist_old && slab->counters == counters_old) {
			slab->freelist = freelist_new;
			WRITE_ONCE(slab->counters, counters_new);
			ok = true;
		}
		slab_unlock(slab);
		local_irq_restore(flags);
	}
	if (!ok)
		stat(s, cmpxchg_double_fail);
	return ok;
}

/* Detach what was freed remotely to a cpu slab; nothing there unfreezes it: it is then full. */
__slowpath u64 get_freelist(const struct kmem_cache *s, struct page *slab)
{
	u64 freelist, counters, new;

	do {
		freelist = READ_ONCE(slab->freelist);
		counters = READ_ONCE(slab->counters);
		new = counters_make(counters_objects(counters), counters_objects(counters), freelist != 0);
	} while (!slab_update_freelist(s, slab, freelist, counters, 0, new));
	return freelist;
}

/* Make a slab from a partial list a cpu slab: take its whole freelist. */
__slowpath u64 freeze_slab(const struct kmem_cache *s, struct page *slab)
{
	u64 freelist, counters, new;

	if (broken(shared_slot))
		return slab->freelist;
	do {
		freelist = READ_ONCE(slab->freelist);
		counters = READ_ONCE(slab->counters);
		new = counters_make(counters_objects(counters), counters_objects(counters), true);
	} while (!slab_update_freelist(s, slab, freelist, counters, 0, new));
	return freelist;
}

__slowtext void add_partial(struct kmem_cache_node *n, struct page *slab, bool tail)
{
	n->nr_partial++;
	if (tail)
		list_add_tail(&slab->lru, &n->partial);
	else
		list_add(&slab->lru, &n->partial);
	slab->flags |= PG_partial;
}

__slowtext void remove_partial(struct kmem_cache_node *n, struct page *slab)
{
	list_del(&slab->lru);
	slab->flags &= ~PG_partial;
	n->nr_partial--;
}

/* Objects of a detached freelist, and its last one.  Bounded: a longer list is corrupt. */
static u32 count_freelist(const struct kmem_cache *s, u64 freelist, u64 *tail, u32 max)
{
	u32 count = 0;

	for (u64 object = freelist; object; object = get_freepointer(s, object)) {
		*tail = object;
		if (++count > max)
			fatal(VERDICT_CORRUPTION, CHECKER_SLAB, NULL, LOCK_NONE, 0, freelist,
			      "a cpu freelist is longer than its slab");
	}
	return count;
}

static bool keep_empty(const struct kmem_cache *s, const struct kmem_cache_node *n)
{
	return READ_ONCE(n->nr_partial) < s->min_partial;
}

static void deactivate_to_partial(struct kmem_cache *s, struct kmem_cache_node *n, struct page *slab, bool tail)
{
	u32 flags = spin_lock_irqsave(&n->list_lock);

	if (!(broken(shared_slot) && slab->flags & PG_partial))
		add_partial(n, slab, tail);
	spin_unlock_irqrestore(&n->list_lock, flags);
	if (tail)
		stat(s, deactivate_to_tail);
	else
		stat(s, deactivate_to_head);
}

/* Unfreeze a slab, its cpu freelist given back in front of what was freed remotely. */
__slowpath void deactivate_slab(struct kmem_cache *s, struct page *slab, u64 freelist)
{
	struct kmem_cache_node *n = slab_node(s, slab);
	u64 tail = 0, old_freelist, counters, new;
	bool to_tail = false;
	u32 nr_free;

	if (READ_ONCE(slab->freelist)) {
		stat(s, deactivate_remote_frees);
		to_tail = true;
	}
	nr_free = count_freelist(s, freelist, &tail, counters_objects(slab->counters));
	do {
		old_freelist = READ_ONCE(slab->freelist);
		counters = READ_ONCE(slab->counters);
		new = counters_make(counters_inuse(counters) - nr_free, counters_objects(counters), false);
		if (tail)
			set_freepointer(s, tail, old_freelist);
	} while (!slab_update_freelist(s, slab, old_freelist, counters, tail ? freelist : old_freelist, new));

	if (!counters_inuse(new) && !keep_empty(s, n)) {
		stat(s, deactivate_empty);
		discard_slab(s, slab);
		stat(s, free_slab);
	} else if (tail || old_freelist) {
		deactivate_to_partial(s, n, slab, to_tail);
	} else {
		stat(s, deactivate_full);
	}
}

/* A chain of cpu partial slabs goes to their nodes' lists; empty ones above the minimum go for good. */
__slowpath void put_partials(struct kmem_cache *s, u64 partial)
{
	struct kmem_cache_node *locked = NULL;
	u64 discard = 0;
	u32 flags = 0;

	while (partial) {
		struct page *slab = ptr_of(partial);
		struct kmem_cache_node *n = slab_node(s, slab);

		partial = slab->lru.next;
		if (n != locked) {
			if (locked)
				spin_unlock_irqrestore(&locked->list_lock, flags);
			locked = n;
			flags = spin_lock_irqsave(&n->list_lock);
		}
		if (!counters_inuse(slab->counters) && n->nr_partial >= s->min_partial) {
			slab->lru.next = discard;
			discard = off_of(slab);
		} else {
			add_partial(n, slab, true);
			stat(s, free_add_partial);
		}
	}
	if (locked)
		spin_unlock_irqrestore(&locked->list_lock, flags);
	while (discard) {
		struct page *slab = ptr_of(discard);

		discard = slab->lru.next;
		stat(s, deactivate_empty);
		discard_slab(s, slab);
		stat(s, free_slab);
	}
}

__slowpath void put_cpu_partial(struct kmem_cache *s, struct page *slab, bool drain)
{
	struct kmem_cache_cpu *c = cpu_slab(s);
	u32 flags = broken(k41) ? 0 : local_lock_irqsave(&c->lock);
	u64 old = c->partial, to_put = 0, nr = 0;

	probe(list_lock_and_cpu_slab);
	if (old) {
		nr = ((struct page *)ptr_of(old))->lru.prev;
		if (drain && nr >= s->cpu_partial_slabs) {
			to_put = old;
			old = 0;
			nr = 0;
		}
	}
	slab->lru.next = old;
	slab->lru.prev = nr + 1;
	WRITE_ONCE(c->partial, off_of(slab));
	if (!broken(k41))
		local_unlock_irqrestore(&c->lock, flags);
	if (to_put) {
		put_partials(s, to_put);
		stat(s, cpu_partial_drain);
	}
}

__slowpath bool list_lock_irqsave(struct kmem_cache *s, struct kmem_cache_node *n, bool allow_spin, u32 *flags)
{
	if (allow_spin || broken(spin_list_lock_nolock)) {
		*flags = spin_lock_irqsave(&n->list_lock);
		return true;
	}
	if (spin_trylock_irqsave(&n->list_lock, flags))
		return true;
	stat(s, list_lock_busy);
	reason_contention(REASON_LIST_LOCK_BUSY);
	return false;
}

/* The first usable slab is the result; some more are taken along for this CPU's partial list. */
__slowpath static struct page *get_partial_node(struct kmem_cache *s, struct kmem_cache_node *n,
						struct partial_context *pc)
{
	struct page *partial = NULL, *slab;
	u32 flags, extra = 0;

	if (!READ_ONCE(n->nr_partial))
		return NULL;
	if (!list_lock_irqsave(s, n, gfpflags_allow_spinning(pc->gfp), &flags))
		return NULL;
	probe(list_lock_held);
	for (u64 at = n->partial.next, next; at != off_of(&n->partial); at = next) {
		slab = list_page(at);
		next = slab->lru.next;
		if (!pfmemalloc_match(slab, pc->gfp)) {
			pc->passed_over = true;
			continue;
		}
		if (cache_debug(s)) {
			pc->object = alloc_single_from_partial(s, n, slab, pc->orig_size);
			if (!pc->object)
				continue;
			partial = slab;
			break;
		}
		if (broken(shared_slot)) {
			partial = slab;
			break;
		}
		remove_partial(n, slab);
		if (!partial) {
			partial = slab;
			stat(s, alloc_from_partial);
			if (!s->cpu_partial_slabs)
				break;
			continue;
		}
		put_cpu_partial(s, slab, false);
		stat(s, cpu_partial_node);
		if (++extra > s->cpu_partial_slabs / 2)
			break;
	}
	spin_unlock_irqrestore(&n->list_lock, flags);
	return partial;
}

/*
 * The nodes that the running task may use, and a sequence that is odd while they are being changed.
 * The writer has irqs off, so an odd sequence is seen by what interrupted it, for whom it never ends:
 * a request that may not spin does not look (K-17).
 */
__slowtext static u32 read_mems_allowed_begin(void)
{
	u32 seq = READ_ONCE(this_cpu()->mems_allowed_seq);

	if (unlikely(seq & 1))
		fatal(VERDICT_DEADLOCK, CHECKER_DEADLOCK, &this_cpu()->mems_allowed_seq, LOCK_NONE, 0, 0,
		      "mems_allowed is read until it is whole, by what has interrupted its writer");
	barrier();
	return seq;
}

__slowtext static bool read_mems_allowed_retry(u32 seq)
{
	barrier();
	return READ_ONCE(this_cpu()->mems_allowed_seq) != seq;
}

__slowtext static struct page *scan_other_nodes(struct kmem_cache *s, struct partial_context *pc)
{
	const struct node *local = &shm.nodes[this_cpu()->node];

	for (u32 i = 0; i < local->nr_zonelist; i++) {
		u32 node = shm.zones[local->zonelist[i]].node;
		struct kmem_cache_node *n = cache_node(s, node);
		struct page *slab = NULL;

		if (this_cpu()->mems_allowed >> node & 1 && READ_ONCE(n->nr_partial) > s->min_partial)
			slab = get_partial_node(s, n, pc);
		if (slab)
			return slab;
	}
	return NULL;
}

/* Any other node that has more than it needs: now and then, since it unbalances the nodes. */
__slowpath static struct page *get_any_partial(struct kmem_cache *s, struct partial_context *pc)
{
	bool look = gfpflags_allow_spinning(pc->gfp) || broken(k17);
	struct page *slab;
	u32 seq = 0;

	if (shm.nr_nodes == 1 || !s->remote_node_defrag_ratio ||
	    (random_next(&this_cpu()->random) >> 40 & 1023) > s->remote_node_defrag_ratio)
		return NULL;
	do {
		if (look)
			seq = read_mems_allowed_begin();
		slab = scan_other_nodes(s, pc);
	} while (!slab && look && read_mems_allowed_retry(seq));
	return slab;
}

__slowtext static int set_mems_allowed(u32 nodes)
{
	u32 *seq = &this_cpu()->mems_allowed_seq, flags = local_irq_save();

	WRITE_ONCE(*seq, *seq + 1);
	barrier();
	probe(mems_allowed_writing);
	WRITE_ONCE(this_cpu()->mems_allowed, nodes);
	barrier();
	WRITE_ONCE(*seq, *seq + 1);
	local_irq_restore(flags);
	return 0;
}

__export int shm_set_mems_allowed(uint32_t nodes)
{
	if (!shm.base || !(nodes & ((1u << shm.nr_nodes) - 1)))
		return -EINVAL;
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM, set_mems_allowed(nodes));
}

__slowpath struct page *get_partial(struct kmem_cache *s, int node, struct partial_context *pc)
{
	u32 search = node == NO_NODE ? numa_mem_id() : (u32)node;
	struct page *slab = get_partial_node(s, cache_node(s, search), pc);

	if (slab || (node != NO_NODE && pc->gfp & __GFP_THISNODE))
		return slab;
	return get_any_partial(s, pc);
}
