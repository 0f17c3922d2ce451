/* SPDX-License-Identifier: MIT */
/*
 * The fast paths: one unlocked cmpxchg16b on {freelist, tid} of this CPU.
 *
 * Answers to: mm/slub.c (__slab_alloc_node, do_slab_free).
 * The tid is read first: whatever changes the pair later bumps it, and the exchange then fails.  The
 * link read from the object may be garbage if an interrupt has taken the object meanwhile; it is
 * never followed, because then the tid has moved.  No lock, no irqs off.  Any context, except that
 * in NMI the caller must have found the cpu slab unlocked.
 */
#ifndef SHM_SLAB_FAST_H
#define SHM_SLAB_FAST_H

#include "fault_inject.h"
#include "memcontrol.h"
#include "slab.h"

/* Transaction ids: id mod step = CPU, and each event adds a step, so no two CPUs ever share one. */
__helper u64 next_tid(u64 tid)
{
	return tid + shm.tid_step;
}

__helper void tid_bump(struct kmem_cache_cpu *c)
{
	if (!broken(k43))
		WRITE_ONCE(c->tid, next_tid(c->tid));
}

__helper u32 kmalloc_type(gfp_t gfp)
{
	if (likely(!(gfp & (__GFP_DMA | __GFP_RECLAIMABLE | __GFP_ACCOUNT))))
		return KMALLOC_NORMAL;
	if (gfp & __GFP_DMA)
		return KMALLOC_DMA;
	return gfp & __GFP_RECLAIMABLE ? KMALLOC_RECLAIM : KMALLOC_CGROUP;
}

/* size: 1 .. KMALLOC_MAX_CACHE_SIZE */
__helper struct kmem_cache *kmalloc_slab(u64 size, gfp_t gfp)
{
	u32 bucket = size <= 192 ? kmalloc_size_index[(size - 1) / 8] : fls64(size - 1);

	return &shm.caches[shm.hdr->kmalloc_caches[kmalloc_type(gfp)][bucket]];
}

__helper bool cpu_slab_cmpxchg(struct kmem_cache_cpu *c, u64 freelist, u64 tid, u64 next)
{
	if (broken(no_tid)) {
		bool ok;

		__asm__ volatile("cmpxchgq %3, %1"
				 : "=@ccz"(ok), "+m"(c->freelist), "+a"(freelist)
				 : "r"(next)
				 : "memory");
		return ok;
	}
	return this_cpu_cmpxchg_double(&c->freelist, freelist, tid, next, next_tid(tid));
}

/* Of a cache that is known not to be hardened. */
__helper u64 get_plain_freepointer(const struct kmem_cache *s, u64 object)
{
	return READ_ONCE(*(u64 *)ptr_of(object + s->offset));
}

__helper void set_plain_freepointer(const struct kmem_cache *s, u64 object, u64 next)
{
	*(u64 *)ptr_of(object + s->offset) = next;
}

/*
 * An object of the cpu slab, or 0: there is none, or the slab is of another node.  plain: a constant, the
 * cache is not hardened.
 */
__helper u64 cpu_slab_pop(struct kmem_cache *s, struct kmem_cache_cpu *c, int node, bool plain)
{

	for (;;) {
		u64 tid = READ_ONCE(c->tid), object, slab, next;

		barrier();
		object = READ_ONCE(c->freelist);
		slab = READ_ONCE(c->slab);
		if (unlikely(!object || !slab || !node_match(slab, node)))
			return 0;
		next = plain ? get_plain_freepointer(s, object) : get_freepointer(s, object);
		probe(alloc_fastpath);
		if (likely(cpu_slab_cmpxchg(c, object, tid, next))) {
			stat(s, alloc_fastpath);
			return object;
		}
		stat(s, cmpxchg_double_cpu_fail);
	}
}

__helper u64 slab_alloc_node_fast(struct kmem_cache *s, gfp_t gfp, int node, u64 orig_size)
{
	u64 object = cpu_slab_pop(s, cpu_slab(s), node, false);

	return likely(object) ? object : __slab_alloc(s, gfp, node, orig_size);
}

/* What precedes every allocation that may spin: one flag says whether faults are injected at all. */
__helper bool slab_should_fail(const struct kmem_cache *s, gfp_t gfp)
{
	return unlikely(s->flags & SLAB_MAY_FAIL) && should_failslab(s, gfp);
}

/* What follows every allocation: it is zeroed, and charged; one that cannot be charged is free again. */
__helper u64 post_alloc(struct kmem_cache *s, u64 object, gfp_t gfp, u64 orig_size)
{
	if (likely(!(gfp & (__GFP_ZERO | __GFP_ACCOUNT)) && !(s->flags & SLAB_ACCOUNT)) || !object)
		return object;
	if (gfp & __GFP_ZERO)
		zero_object(s, object, orig_size);
	return memcg_slab_post_alloc_hook(s, object, gfp);
}

__helper bool cpu_slab_locked_in_nmi(const struct kmem_cache *s)
{
	return unlikely(local_lock_is_locked(&cpu_slab(s)->lock)) && in_nmi() && !broken(k42);
}

/* Push on the cpu slab's freelist.  False: the slab is not (any more) this CPU's cpu slab. */
__helper bool cpu_slab_push(struct kmem_cache *s, struct kmem_cache_cpu *c, struct page *slab, u64 object, bool allow_spin,
			    bool plain)
{
	for (;;) {
		u64 tid = READ_ONCE(c->tid), freelist;

		barrier();
		if (unlikely(off_of(slab) != READ_ONCE(c->slab))) {
			if (broken(k07) && allow_spin) {
				__slab_free(s, slab, object, object, 1);
				return true;
			}
			return false;
		}
		if (!allow_spin && unlikely(cpu_slab_locked_in_nmi(s)))
			return false;
		freelist = READ_ONCE(c->freelist);
		if (plain)
			set_plain_freepointer(s, object, freelist);
		else
			set_freepointer(s, object, freelist);
		probe(free_fastpath);
		if (likely(cpu_slab_cmpxchg(c, freelist, tid, object))) {
			stat(s, free_fastpath);
			return true;
		}
		stat(s, cmpxchg_double_cpu_fail);
		if (broken(k07))
			allow_spin = true;
	}
}

__helper bool slab_free_fast(struct kmem_cache *s, struct page *slab, u64 object, bool allow_spin)
{
	return cpu_slab_push(s, cpu_slab(s), slab, object, allow_spin, false);
}

#endif
