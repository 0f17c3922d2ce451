/* SPDX-License-Identifier: MIT */
/*
 * Many objects of one cache in one call.
 *
 * Answers to: mm/slub.c (kmem_cache_alloc_bulk, kmem_cache_free_bulk, build_detached_freelist).
 * Kept: the cpu slab's freelist is popped under its lock, the tid moves before the lock is dropped for
 * the slow path and at the end; frees are collected slab by slab, and a slab's search ends at the
 * third object of another one.  All or nothing.
 * Left out: kfree_bulk over several caches.
 * Context: task, softirq, irq.
 */
#include "lock.h"
#include "slab_fast.h"

#define LOOKAHEAD 3 /* objects of other slabs */

/* Objects of one slab, linked as they will lie on its freelist. */
struct detached_freelist {
	struct page *slab;
	u64 head;
	u64 tail;
	u32 count;
};

/* Take the last object and what else is of its slab out of p[0..size); returns how many are left. */
__slowpath static u32 build_detached_freelist(const struct kmem_cache *s, u32 size, u64 *p,
					      struct detached_freelist *df)
{
	u32 lookahead = LOOKAHEAD, same;
	u64 object = p[--size];

	*df = (struct detached_freelist){ virt_to_head_page(object), object, object, 1 };
	set_freepointer(s, object, 0);
	same = size;
	while (size) {
		object = p[--size];
		if (df->slab == virt_to_head_page(object)) {
			set_freepointer(s, object, df->head);
			df->head = object;
			df->count++;
			p[size] = p[--same]; /* what is left moves together */
			p[same] = object;
		} else if (!--lookahead) {
			break;
		}
	}
	return same;
}

__slowpath static void free_detached(struct kmem_cache *s, const struct detached_freelist *df)
{
	struct kmem_cache_cpu *c = cpu_slab(s);

	for (;;) {
		u64 tid = READ_ONCE(c->tid), freelist;

		barrier();
		if (off_of(df->slab) != READ_ONCE(c->slab)) {
			__slab_free(s, df->slab, df->head, df->tail, df->count);
			return;
		}
		freelist = READ_ONCE(c->freelist);
		set_freepointer(s, df->tail, freelist);
		probe(free_fastpath);
		if (likely(cpu_slab_cmpxchg(c, freelist, tid, df->head))) {
			this_cpu_add64(&shm.cache_stats[s->index].free_fastpath, df->count);
			return;
		}
		stat(s, cmpxchg_double_cpu_fail);
	}
}

/* p is the caller's, and is reordered. */
__slowpath void kmem_cache_free_bulk(struct kmem_cache *s, u32 size, u64 *p)
{
	struct detached_freelist df;

	for (u32 i = 0; i < size; i++) {
		struct page *slab = virt_to_head_page(p[i]);

		if (unlikely(slab->obj_exts))
			memcg_slab_free_hook(s, slab, p[i], true);
	}
	while (size) {
		size = build_detached_freelist(s, size, p, &df);
		free_detached(s, &df);
	}
}

/* Returns how many were got before one could not be. */
__slowpath static u32 alloc_bulk(struct kmem_cache *s, gfp_t gfp, u32 size, u64 *p)
{
	struct kmem_cache_cpu *c = cpu_slab(s);
	u32 flags = local_lock_irqsave(&c->lock);

	for (u32 i = 0; i < size; i++) {
		p[i] = c->freelist;
		if (p[i]) {
			probe(cpu_slab_editing);
			WRITE_ONCE(c->freelist, get_freepointer(s, p[i]));
			stat(s, alloc_fastpath);
			continue;
		}
		tid_bump(c); /* what was popped so far is gone for a fast path that this has interrupted (K-43) */
		local_unlock_irqrestore(&c->lock, flags);
		p[i] = __slab_alloc(s, gfp, NO_NODE, s->object_size);
		if (!p[i])
			return i;
		flags = local_lock_irqsave(&c->lock);
	}
	tid_bump(c);
	local_unlock_irqrestore(&c->lock, flags);
	return size;
}

/* size objects, or none: 0. */
__slowpath u32 kmem_cache_alloc_bulk(struct kmem_cache *s, gfp_t gfp, u32 size, u64 *p)
{
	u32 got = slab_should_fail(s, gfp) ? 0 : alloc_bulk(s, gfp, size, p), ready = 0;

	for (u32 i = 0; i < got; i++) { /* what its hook refuses is free again */
		u64 object = post_alloc(s, p[i], gfp, s->object_size);

		if (likely(object))
			p[ready++] = object;
	}
	if (ready == size)
		return size;
	kmem_cache_free_bulk(s, ready, p);
	return 0;
}
