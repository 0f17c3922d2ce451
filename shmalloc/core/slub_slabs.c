/* SPDX-License-Identifier: MIT */
/*
 * Making a slab out of pages, and giving it back.
 *
 * Answers to: mm/slub.c (allocate_slab, shuffle_freelist, setup_object, __free_slab, discard_slab).
 * Context: new_slab any (trylocks and the nolock page allocator if it may not spin); freeing a slab
 * task, softirq and irq, of a new slab any.
 */
#include "memcontrol.h"
#include "rcu.h"
#include "slab.h"

/* Where a slab lies is the cache's business, not the request's; zeroing is per object. */
#define PLACEMENT (__GFP_DMA | __GFP_HIGHMEM | __GFP_DMA32 | __GFP_MOVABLE | __GFP_RECLAIMABLE | __GFP_ZERO | \
		   __GFP_COMP | __GFP_WRITE | __GFP_ACCOUNT)

__slowtext void inc_slabs_node(struct kmem_cache *s, const struct page *slab)
{
	struct kmem_cache_node *n = slab_node(s, slab);

	atomic_add(&n->nr_slabs, 1);
	atomic_add(&n->total_objects, counters_objects(slab->counters));
}

__slowtext void dec_slabs_node(struct kmem_cache *s, const struct page *slab)
{
	struct kmem_cache_node *n = slab_node(s, slab);

	atomic_sub(&n->nr_slabs, 1);
	atomic_sub(&n->total_objects, counters_objects(slab->counters));
}

__slowtext static void account_slab(const struct page *slab, bool add)
{
	u64 *pages = &shm.nodes[page_node(slab)].nr_slab_pages;

	if (add)
		atomic_add(pages, 1ull << slab->order);
	else
		atomic_sub(pages, 1ull << slab->order);
}

/* i-th object in the order in which a fresh slab hands them out */
static u32 object_index(const struct kmem_cache *s, u32 i, u32 start, u32 objects, u32 *at)
{
	u32 seq_len = oo_objects(s->oo), index;

	if (!(shm.geo_flags & SHM_GEO_FREELIST_RANDOM) || seq_len > SHM_RANDOM_SEQ || seq_len < 2)
		return i;
	/* a fallback slab is smaller than the permutation: skip what lies beyond it */
	do {
		index = s->random_seq[(start + *at) % seq_len];
		++*at;
	} while (index >= objects);
	return index;
}

static void setup_object(const struct kmem_cache *s, u64 object)
{
	if (s->ctor)
		ctor_run(s->ctor, object, s->object_size);
}

__slowpath static void build_freelist(const struct kmem_cache *s, struct page *slab, u32 objects, u32 start)
{
	u64 first = page_to_off(slab) + s->red_left_pad, head = 0, tail = 0;
	u32 at = 0;

	for (u32 i = 0; i < objects; i++) {
		u64 object = first + (u64)object_index(s, i, start, objects, &at) * s->size;

		setup_object(s, object);
		if (tail)
			set_freepointer(s, tail, object);
		else
			head = object;
		tail = object;
	}
	set_freepointer(s, tail, 0);
	slab->freelist = head;
}

/* Where the permutation begins.  The locked generator is not for those who may not spin (K-18). */
static u32 random_start(gfp_t gfp)
{
	bool locked = shm.geo_flags & SHM_GEO_FREELIST_RANDOM && (gfpflags_allow_spinning(gfp) || broken(k18));

	return (u32)((locked ? get_random_u64() : random_next(&this_cpu()->random)) >> 33);
}

/* The usual order without trying hard, then the smallest order with all that the caller allows. */
static struct page *alloc_slab_pages(struct kmem_cache *s, gfp_t gfp, int node, u32 *oo)
{
	bool allow_spin = gfpflags_allow_spinning(gfp); /* before the flags are changed */
	gfp_t first = (gfp | s->allocflags | __GFP_NOWARN | __GFP_NORETRY) & ~__GFP_NOFAIL;
	struct page *page;

	if (gfpflags_allow_blocking(first) && oo_order(s->oo) > oo_order(s->min))
		first = (first | __GFP_NOMEMALLOC) & ~__GFP_RECLAIM;
	*oo = s->oo;
	page = allow_spin ? alloc_frozen_pages(first, node, oo_order(s->oo)) :
			    alloc_frozen_pages_nolock(0, node, oo_order(s->oo));
	if (page)
		return page;
	*oo = s->min;
	page = allow_spin ? alloc_frozen_pages(gfp | s->allocflags, node, oo_order(s->min)) :
			    alloc_frozen_pages_nolock(0, node, oo_order(s->min));
	if (page)
		stat(s, order_fallback);
	return page;
}

/* Its objects may be freed by the short way: never looked at, charged to nobody, and not of the reserves. */
static void set_slab_words(const struct kmem_cache *s, const struct page *slab)
{
	u64 pfn = page_to_pfn(slab);

	if (s->flags & SLAB_UNORDINARY || slab->flags & PG_pfmemalloc)
		return;
	for (u64 i = 0; i < 1ull << slab->order; i++)
		WRITE_ONCE(shm.slab_words[pfn + i], slab_word(s->index, counters_objects(slab->counters), i << SHM_PAGE_SHIFT));
}

__slowtext void clear_slab_words(const struct page *slab)
{
	u64 pfn = page_to_pfn(slab);

	for (u64 i = 0; i < 1ull << slab->order; i++)
		WRITE_ONCE(shm.slab_words[pfn + i], 0);
}

__slowpath struct page *new_slab(struct kmem_cache *s, gfp_t gfp, int node)
{
	u32 oo, pfmemalloc;
	struct page *slab = alloc_slab_pages(s, gfp & ~PLACEMENT, node, &oo);

	if (!slab)
		return NULL;
	pfmemalloc = slab->flags & PG_pfmemalloc;
	slab->refcount = 0;
	slab->slab_cache = s->index + 1;
	slab->counters = counters_make(0, oo_objects(oo), false);
	slab->order = oo_order(oo);
	if (unlikely(cache_debug(s)))
		setup_slab_debug(s, slab, oo_objects(oo));
	build_freelist(s, slab, oo_objects(oo), random_start(gfp));
	slab->flags = PG_slab | (slab->flags & PG_head) | pfmemalloc;
	account_slab(slab, true);
	if (s->flags & SLAB_ACCOUNT)
		memcg_account_new_slab(s, slab, gfp);
	set_slab_words(s, slab);
	return slab;
}

__slowtext static void free_slab_pages(struct page *slab)
{
	u32 order = slab->order;

	if (unlikely(slab->obj_exts))
		free_slab_obj_exts(slab);
	account_slab(slab, false);
	free_frozen_pages(slab, order, FPI_NONE);
}

/* The same for a slab that was never used, by trylocks only.  Any context. */
__slowpath void free_new_slab_nolock(struct kmem_cache *s, struct page *slab)
{
	u32 order = slab->order;

	(void)s;
	clear_slab_words(slab);
	if (unlikely(slab->obj_exts))
		free_slab_obj_exts(slab);
	account_slab(slab, false);
	free_frozen_pages(slab, order, FPI_TRYLOCK);
}

__slowpath void rcu_func_free_slab(u64 head)
{
	free_slab_pages(container_of((struct list_head *)ptr_of(head), struct page, lru));
}

/* Pages back, not counted among the node's slabs (any more). */
__slowpath void free_slab(struct kmem_cache *s, struct page *slab)
{
	check_discarded_slab(s, slab);
	clear_slab_words(slab);
	if (s->flags & SLAB_TYPESAFE_BY_RCU) /* its objects may be read for a grace period more */
		call_rcu(off_of(&slab->lru), RCU_FUNC_free_slab, 0);
	else
		free_slab_pages(slab);
}

__slowpath void discard_slab(struct kmem_cache *s, struct page *slab)
{
	dec_slabs_node(s, slab);
	free_slab(s, slab);
}
