/* SPDX-License-Identifier: MIT */
/*
 * Sheaves as objects, and the barns that keep them: per cache and node, full ones and empty ones.
 *
 * Answers to: mm/slub.c (struct node_barn, barn_get_empty_sheaf, barn_put_empty_sheaf,
 * barn_put_full_sheaf, barn_replace_empty_sheaf, barn_replace_full_sheaf, barn_shrink,
 * alloc_empty_sheaf, free_empty_sheaf, sheaf_flush_unused) of 7.0.
 * Kept: the limits are soft and looked at without the lock; a sheaf for a kmalloc cache is asked for
 * with a mark that keeps that request from asking for a sheaf in turn.
 * Left out: prefilled sheaves.
 * Context: with allow_spin task, softirq and irq; without it any, the lock is then only tried.
 */
#include "list.h"
#include "slab_fast.h"

__slowtext static struct slab_sheaf *sheaf_entry(u64 link)
{
	return container_of(list_ptr(link), struct slab_sheaf, barn_list);
}

/* The kernel would fault here: a node without memory for slabs has no barn (K-33). */
__slowtext static void barn_must_be(const struct node_barn *barn)
{
	if (unlikely(!barn))
		fatal(VERDICT_CORRUPTION, CHECKER_SLAB, NULL, LOCK_BARN, 0, 0,
		      "NULL barn: this CPU's memory node has none, and it was used all the same");
}

/* NULL: slabs cannot come from this node, so nothing of it is worth keeping. */
__slowpath struct node_barn *node_barn_of(const struct kmem_cache *s, u32 node)
{
	struct node_barn *barn = cache_barn(s, node);

	return barn->present ? barn : NULL;
}

__slowtext static bool barn_lock_irqsave(const struct kmem_cache *s, struct node_barn *barn, bool allow_spin, u32 *flags)
{
	if (allow_spin) {
		*flags = spin_lock_irqsave(&barn->lock);
	} else if (!spin_trylock_irqsave(&barn->lock, flags)) {
		sheaf_stat(s, barn_busy);
		return false;
	}
	probe(barn_locked);
	probe(slab_attach_kprobe_locked);
	return true;
}

__slowtext static struct slab_sheaf *take_empty(struct node_barn *barn)
{
	struct slab_sheaf *sheaf;

	if (!barn->nr_empty)
		return NULL;
	sheaf = sheaf_entry(barn->sheaves_empty.next);
	list_del(&sheaf->barn_list);
	WRITE_ONCE(barn->nr_empty, barn->nr_empty - 1);
	return sheaf;
}

__slowtext static void add_empty(struct node_barn *barn, u64 sheaf)
{
	list_add(&sheaf_at(sheaf)->barn_list, &barn->sheaves_empty);
	WRITE_ONCE(barn->nr_empty, barn->nr_empty + 1);
}

__slowtext static void add_full(struct node_barn *barn, u64 sheaf)
{
	list_add(&sheaf_at(sheaf)->barn_list, &barn->sheaves_full);
	WRITE_ONCE(barn->nr_full, barn->nr_full + 1);
}

__slowpath u64 barn_get_empty_sheaf(const struct kmem_cache *s, struct node_barn *barn, bool allow_spin)
{
	struct slab_sheaf *sheaf;
	u32 flags;

	barn_must_be(barn);
	if (!READ_ONCE(barn->nr_empty) || !barn_lock_irqsave(s, barn, allow_spin, &flags))
		return 0;
	sheaf = take_empty(barn);
	spin_unlock_irqrestore(&barn->lock, flags);
	return sheaf ? off_of(sheaf) : 0;
}

/* However many there are already: the caller has nowhere else to put it. */
__slowpath void barn_put_empty_sheaf(struct node_barn *barn, u64 sheaf)
{
	u32 flags;

	barn_must_be(barn);
	flags = spin_lock_irqsave(&barn->lock);
	probe(slab_attach_kprobe_locked);
	add_empty(barn, sheaf);
	spin_unlock_irqrestore(&barn->lock, flags);
}

__slowpath void barn_put_full_sheaf(struct node_barn *barn, u64 sheaf)
{
	u32 flags;

	barn_must_be(barn);
	flags = spin_lock_irqsave(&barn->lock);
	probe(slab_attach_kprobe_locked);
	add_full(barn, sheaf);
	spin_unlock_irqrestore(&barn->lock, flags);
}

/* A full sheaf for an empty one; 0: there is none, or the lock is taken. */
__slowpath u64 barn_replace_empty_sheaf(const struct kmem_cache *s, struct node_barn *barn, u64 empty,
					bool allow_spin)
{
	u64 full = 0;
	u32 flags;

	barn_must_be(barn);
	if (!READ_ONCE(barn->nr_full) || !barn_lock_irqsave(s, barn, allow_spin, &flags))
		return 0;
	if (barn->nr_full) {
		struct slab_sheaf *sheaf = sheaf_entry(barn->sheaves_full.next);

		list_del(&sheaf->barn_list);
		WRITE_ONCE(barn->nr_full, barn->nr_full - 1);
		add_empty(barn, empty);
		full = off_of(sheaf);
	}
	spin_unlock_irqrestore(&barn->lock, flags);
	return full;
}

/* An empty sheaf for a full one; 0 and -E2BIG: enough full ones; -ENOMEM: no empty one; -EBUSY: lock taken. */
__slowpath u64 barn_replace_full_sheaf(const struct kmem_cache *s, struct node_barn *barn, u64 full, bool allow_spin,
				       int *error)
{
	struct slab_sheaf *empty;
	u32 flags;

	barn_must_be(barn);
	*error = READ_ONCE(barn->nr_full) >= MAX_FULL_SHEAVES ? -E2BIG : READ_ONCE(barn->nr_empty) ? 0 : -ENOMEM;
	if (*error)
		return 0;
	if (!barn_lock_irqsave(s, barn, allow_spin, &flags)) {
		*error = -EBUSY;
		return 0;
	}
	empty = take_empty(barn);
	if (empty)
		add_full(barn, full);
	else
		*error = -ENOMEM;
	spin_unlock_irqrestore(&barn->lock, flags);
	return empty ? off_of(empty) : 0;
}

/* With sheaf_capacity 0, or for the allocator's own request, there is none. */
__slowpath u64 alloc_empty_sheaf(struct kmem_cache *s, gfp_t gfp)
{
	gfp_t sheaf_gfp = (gfp & (__GFP_RECLAIM | __GFP_HIGH | __GFP_IO | __GFP_FS | __GFP_NOMEMALLOC)) | __GFP_NOWARN;
	struct slab_sheaf *sheaf;
	u64 object;

	if (!s->sheaf_capacity || gfp & __GFP_NO_OBJ_EXT)
		return 0;
	if (s->flags & SLAB_KMALLOC)
		sheaf_gfp |= __GFP_NO_OBJ_EXT;
	object = kmalloc_node(sizeof(*sheaf) + 8ull * s->sheaf_capacity, sheaf_gfp, NO_NODE);
	if (!object)
		return 0;
	sheaf = sheaf_at(object);
	*sheaf = (struct slab_sheaf){ .cache = s->index + 1, .capacity = s->sheaf_capacity };
	sheaf_stat(s, sheaf_alloc);
	return object;
}

__slowpath void free_empty_sheaf(struct kmem_cache *s, u64 sheaf)
{
	sheaf_at(sheaf)->cache = 0; /* not to be taken for a sheaf any more */
	sheaf_stat(s, sheaf_free);
	kfree(sheaf);
}

__slowpath void free_empty_sheaf_nolock(struct kmem_cache *s, u64 sheaf)
{
	sheaf_at(sheaf)->cache = 0;
	sheaf_stat(s, sheaf_free);
	kfree_nolock(sheaf);
}

/* Give the objects of a sheaf that nobody else has back to their slabs. */
__slowpath void sheaf_flush_unused(struct kmem_cache *s, u64 off)
{
	struct slab_sheaf *sheaf = sheaf_at(off);

	if (!sheaf->size)
		return;
	sheaf_stat_add(s, sheaf_flush, sheaf->size);
	sheaf_free_bulk(s, sheaf_objects(sheaf), sheaf->size);
	sheaf->size = 0;
}

/* Take both lists off the barn, chained through their heads' next words. */
__slowtext static u64 take_all(struct node_barn *barn)
{
	u32 flags = spin_lock_irqsave(&barn->lock);
	struct list_head *const lists[] = { &barn->sheaves_full, &barn->sheaves_empty };
	u64 chain = 0;

	for (u32 i = 0; i < ARRAY_SIZE(lists); i++) {
		while (!list_empty(lists[i])) {
			struct slab_sheaf *sheaf = sheaf_entry(lists[i]->next);

			list_del(&sheaf->barn_list);
			sheaf->barn_list.next = chain;
			chain = off_of(sheaf);
		}
	}
	WRITE_ONCE(barn->nr_full, 0);
	WRITE_ONCE(barn->nr_empty, 0);
	spin_unlock_irqrestore(&barn->lock, flags);
	return chain;
}

__slowpath void barn_shrink(struct kmem_cache *s, u32 node)
{
	struct node_barn *barn = node_barn_of(s, node);
	u64 chain = barn ? take_all(barn) : 0;

	while (chain) {
		u64 sheaf = chain;

		chain = sheaf_at(sheaf)->barn_list.next;
		sheaf_flush_unused(s, sheaf);
		free_empty_sheaf(s, sheaf);
	}
}
