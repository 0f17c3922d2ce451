/* SPDX-License-Identifier: MIT */
/*
 * kmalloc_nolock and kfree_nolock: allocation and free from any context.
 *
 * Answers to: mm/slub.c (kmalloc_nolock_noprof, kfree_nolock, defer_free, defer_deactivate_slab,
 * free_deferred_objects) of 6.18, !RT, SMP.
 * Changed: every failure has its reason.  kmem_cache_alloc_nolock is ours: a bucket retry makes no
 * sense for a named cache, so it fails at the first busy cpu slab.
 * Left out: the hooks of kmemleak and KASAN; with none of them to skip, kfree_nolock may be given an
 * object that kmalloc returned, which the kernel allows from 7.0 on.
 * Context: any; what it defers is freed in irq_work.
 */
#include "list.h"
#include "lock.h"
#include "slab_fast.h"
#include "sys.h"
#include "trace.h"

#define BARRIER_SECONDS 2

__helper u64 alloc_or_busy(struct kmem_cache *s, gfp_t gfp, int node, u64 orig_size)
{
	/*
	 * In NMI the pair may be half written if the lock is held.  Elsewhere the lock's holder cannot
	 * have been interrupted in between: irqs are off, and probes fire at whole steps only.
	 */
	if (unlikely(cpu_slab_locked_in_nmi(s))) {
		stat(s, cpu_slab_busy);
		return SLAB_EBUSY;
	}
	return slab_alloc_node_fast(s, gfp, node, orig_size);
}

/*
 * The wanted bucket is being edited by what was interrupted: the next larger one, once; 7.0 does so
 * whatever has failed.  What a debug cache there records as the requested size is this size, not the
 * caller's (K-47; 7.2 mends it).
 */
__slowpath static u64 retry_next_bucket(const struct kmem_cache *busy, u64 failed, gfp_t gfp, int node)
{
	u64 size = (u64)busy->object_size + 1, object;
	struct kmem_cache *s;

	if (failed == SLAB_EBUSY)
		reason_contention(REASON_CPU_SLAB_BUSY);
	else if (!sheaf_arena())
		return 0;
	if (size > KMALLOC_MAX_CACHE_SIZE)
		return 0;
	s = kmalloc_slab(size, gfp);
	stat(s, bucket_retry);
	object = alloc_or_busy(s, gfp, node, size);
	return object == SLAB_EBUSY ? 0 : post_alloc(s, object, gfp, size);
}

static bool cache_usable(const struct kmem_cache *s)
{
	if (!can_spin_trylock() && !broken(k23)) /* no SMP: nothing would keep us out of what we interrupted */
		return false;
	/* without the 16-byte exchange a slab is guarded by a bit spinlock, which NMI must not try */
	return s->flags & SLAB_CMPXCHG_DOUBLE || cache_debug(s);
}

__fastpath u64 kmalloc_nolock(u64 size, gfp_t gfp, int node)
{
	gfp_t alloc_gfp = gfp | __GFP_NOWARN | __GFP_NOMEMALLOC;
	struct kmem_cache *s;
	u64 object;

	if (broken(spin_in_nmi) && in_nmi())
		return kmalloc_node(size, GFP_ATOMIC, node);
	trace_no_outer_site();
	if (unlikely(gfp & ~(__GFP_ACCOUNT | __GFP_ZERO | __GFP_NO_OBJ_EXT)))
		warn_once();
	if (unlikely(!size))
		return SHM_ZERO_SIZE;
	if (unlikely(size > KMALLOC_MAX_CACHE_SIZE)) {
		reason_shortage(REASON_SIZE_LIMIT);
		return 0;
	}
	s = kmalloc_slab(size, alloc_gfp);
	if (unlikely(!cache_usable(s))) {
		reason_shortage(REASON_CONTEXT_REFUSED);
		return 0;
	}
	object = alloc_or_busy(s, alloc_gfp, node, size);
	if (unlikely(object <= SLAB_EBUSY))
		return retry_next_bucket(s, object, alloc_gfp, node);
	return post_alloc(s, object, alloc_gfp, size);
}

__fastpath u64 kmem_cache_alloc_nolock(struct kmem_cache *s, gfp_t gfp, int node)
{
	gfp_t alloc_gfp = (gfp & ~__GFP_RECLAIM) | __GFP_NOWARN | __GFP_NOMEMALLOC;
	u64 object;

	trace_no_outer_site();
	if (unlikely(!cache_usable(s))) {
		reason_shortage(REASON_CONTEXT_REFUSED);
		return 0;
	}
	object = alloc_or_busy(s, alloc_gfp, node, s->object_size);
	if (unlikely(object == SLAB_EBUSY)) {
		reason_contention(REASON_CPU_SLAB_BUSY);
		return 0;
	}
	return post_alloc(s, object, alloc_gfp, s->object_size);
}

/* The word of a free object that the deferred list is chained through: not offset 0 (K-09). */
__helper u64 defer_link_offset(const struct kmem_cache *s)
{
	return broken(k09) ? 0 : s->offset;
}

__slowpath static void defer_free(struct kmem_cache *s, u64 object)
{
	struct shm_cpu *cpu;

	if (!broken(k11))
		preempt_disable();
	lock_rules_this_cpu();
	cpu = this_cpu();
	stat(s, defer_free);
	trace_defer_free(object, s);
	if (llist_add(ptr_of(object + defer_link_offset(s)), &cpu->defer_objects) && !broken(k06))
		irq_work_queue(&cpu->defer_work);
	if (!broken(k11))
		preempt_enable();
}

__slowpath void defer_deactivate_slab(struct page *slab, u64 flush_freelist)
{
	struct shm_cpu *cpu = this_cpu();

	stat(slab_cache(slab), defer_deactivate);
	trace_defer_deactivate_slab(slab);
	slab->lru.prev = flush_freelist;
	if (llist_add(&slab->lru.next, &cpu->defer_slabs))
		irq_work_queue(&cpu->defer_work);
}

static void free_deferred(u64 at)
{
	while (at) {
		u64 object = at, next = *(u64 *)ptr_of(at);
		struct page *slab = virt_to_head_page(object);
		struct kmem_cache *s = slab_cache(slab);

		if (broken(k10))
			set_freepointer(s, object, 0);
		object -= defer_link_offset(s);
		/* the link is no free pointer: do not let the checks or hardening take it for one (K-10) */
		if (!broken(k10))
			set_freepointer(s, object, 0);
		trace_free_deferred(object, s);
		__slab_free(s, slab, object, object, 1);
		if (broken(double_free))
			__slab_free(s, slab, object, object, 1);
		at = next;
	}
}

static void deactivate_deferred(u64 at)
{
	while (at) {
		struct page *slab = list_page(at);
		struct kmem_cache *s = slab_cache(slab);
		u64 flush = slab->lru.prev;

		at = slab->lru.next;
		slab->lru.next = slab->lru.prev = 0;
		trace_deactivate_deferred(slab);
		if (counters_frozen(slab->counters))
			deactivate_slab(s, slab, flush);
		else
			free_slab(s, slab); /* never counted, so not counted out */
	}
}

__slowpath static void free_deferred_of(struct shm_cpu *cpu)
{
	u64 objects = llist_del_all(&cpu->defer_objects);
	u64 slabs = llist_del_all(&cpu->defer_slabs);

	probe(irq_work_detached);
	free_deferred(objects);
	deactivate_deferred(slabs);
	if (sheaf_arena())
		free_deferred_rcu(cpu);
}

__slowpath void irq_work_func_free_deferred(struct irq_work *work)
{
	free_deferred_of(container_of(work, struct shm_cpu, defer_work));
}

/*
 * Before a cache is destroyed: no free of any CPU waits any more.  What is queued is done here, by
 * whoever asks; what a CPU is doing is waited for.  The kernel waits for the irq_work instead, with
 * slab_mutex held, since it may have room for one only who waits (K-28).  0 or -ETIMEDOUT.  Task.
 */
__slowtext int defer_free_barrier(void)
{
	u64 deadline = read_tsc() + BARRIER_SECONDS * shm.hdr->tsc_hz;

	for (u32 i = 0; i < shm.nr_cpus; i++) {
		struct shm_cpu *cpu = &shm.cpus[i];

		if (broken(k28))
			irq_work_sync(&cpu->defer_work);
		free_deferred_of(cpu);
		while (READ_ONCE(cpu->defer_work.flags) & IRQ_WORK_BUSY) {
			if (read_tsc() > deadline)
				return -ETIMEDOUT;
			yield_core();
		}
	}
	return 0;
}

__fastpath void kfree_nolock(u64 object)
{
	struct page *slab;
	struct kmem_cache *s;

	if (unlikely(object <= SHM_ZERO_SIZE))
		return;
	if (broken(spin_in_nmi) && in_nmi()) {
		kfree(object);
		return;
	}
	trace_no_outer_site();
	slab = virt_to_head_page(object);
	if (unlikely(!(slab->flags & PG_slab))) {
		warn_once(); /* and leak: a large kmalloc cannot be freed without locks */
		return;
	}
	s = slab_cache(slab);
	if (unlikely(slab->obj_exts))
		memcg_slab_free_hook(s, slab, object, false);
	if (unlikely(!slab_free_fast(s, slab, object, false)) &&
	    !(sheaf_arena() && free_to_pcs(s, slab, object, false)))
		defer_free(s, object);
}
