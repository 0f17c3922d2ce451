/* SPDX-License-Identifier: MIT */
/*
 * What every call tries first: an object off this CPU's cpu slab or main sheaf, or back onto it.
 *
 * Nothing in here waits, so nothing in here can be proved a deadlock: it needs no place to unwind to,
 * and no frame below it.  Whatever is not the ordinary case changes nothing and goes to the whole path,
 * which begins from the start: other sizes and caches, debug, faults, charging, nodes, an empty or full
 * sheaf, a lock held by what was interrupted.  There is no other fast path: calls from outside, handlers
 * and replayed ops run this one, with the oracle or without.
 *
 * What it is shaped by (Zen 3): a pair is bound by two chains through memory, the sheaf's size and the
 * object's offset, of 14 cycles together; around them four instructions a cycle are free.  So tests whose
 * branches are guessed right cost their slots and nothing else, and what must go are divisions (the
 * multiple of an object's size is told by one multiplication), branches on data (sizes: a table; tails of
 * a slab: a conditional move), calls, and increments that wait for each other.
 *
 * Context: any.
 */
#ifndef SHM_FIRST_H
#define SHM_FIRST_H

#include "design.h"
#include "irq.h"
#include "oracle.h"
#include "slab_fast.h"

/* One comparison for: bound, by this thread, in an arena of that kind, with one node, SMP and cmpxchg16b. */
__helper bool may_try_first(bool sheaves)
{
	return (sheaves ? shm.sheaf_thread : shm.slab_thread) == __builtin_thread_pointer();
}

__helper bool ordinary_cache(const struct kmem_cache *s)
{
	return !(s->flags & (SLAB_UNORDINARY | SLAB_MAY_FAIL));
}

/* Counted and owned: what surrounds every allocation that has yielded an object. */
__helper u64 account_object(u32 design, u64 off, u64 bytes)
{
	this_cpu_inc64(&this_counts(design)->allocs);
	if (unlikely(oracle_on()))
		oracle_own_kept(off, bytes);
	return off;
}

/* The same for a free, before the design gets it; false: this is not the start of a live object. */
__helper bool release_object(u32 design, u64 off)
{
	if (unlikely(oracle_on()) && !oracle_release_kept(off))
		return false;
	this_cpu_inc64(&this_counts(design)->frees);
	return true;
}

/* --- sheaves: by index of the cache, which is at hand before the cache is -------------------------------- */

__helper bool lock_main_sheaf(struct slub_percpu_sheaves *pcs)
{
	if (unlikely(!local_trylock(&pcs->lock)))
		return false;
	probe(sheaves_locked);
	probe(slab_attach_kprobe_locked);
	return true;
}

__helper u64 sheaf_pop(u64 index)
{
	struct slub_percpu_sheaves *pcs = &shm.cpu_sheaves[index];
	struct slab_sheaf *main;
	u64 object;

	if (unlikely(!lock_main_sheaf(pcs)))
		return 0;
	main = sheaf_at(pcs->main);
	if (unlikely(!main->size)) {
		local_unlock(&pcs->lock);
		return 0;
	}
	object = sheaf_objects(main)[--main->size];
	local_unlock(&pcs->lock);
	this_cpu_inc64(&shm.cache_stats[index].alloc_fastpath);
	return object;
}

__helper bool sheaf_push(u64 index, u64 object)
{
	struct slub_percpu_sheaves *pcs = &shm.cpu_sheaves[index];
	struct slab_sheaf *main;

	if (unlikely(!lock_main_sheaf(pcs)))
		return false;
	main = sheaf_at(pcs->main);
	if (unlikely(main->size >= main->capacity)) {
		local_unlock(&pcs->lock);
		return false;
	}
	sheaf_objects(main)[main->size++] = object;
	local_unlock(&pcs->lock);
	this_cpu_inc64(&shm.cache_stats[index].free_fastpath);
	return true;
}

/* --- cpu slabs ------------------------------------------------------------------------------------------- */

/* In an interrupt the pair may be half written; elsewhere too, if the caller's own signal handler calls. */
__helper bool cpu_slab_usable(u64 index)
{
	return likely(!local_lock_is_locked(&shm.cpu_caches[index].lock));
}

/* --- the attempts; sheaves: sheaf_arena(), a constant where there is a function for either ---------------- */

__helper u64 first_of_cache(u32 design, u64 index, u64 bytes, bool sheaves)
{
	struct kmem_cache *s = &shm.caches[index];
	u64 object;

	if (unlikely(!ordinary_cache(s)))
		return 0;
	if (sheaves)
		object = sheaf_pop(index);
	else
		object = cpu_slab_usable(index) ? cpu_slab_pop(s, &shm.cpu_caches[index], NO_NODE, true) : 0;
	return likely(object) ? account_object(design, object, bytes) : 0;
}

/* kmalloc of a design that takes its objects from the kmalloc caches; 0: nothing was changed. */
__helper u64 kmalloc_first(u32 design, u64 size, gfp_t gfp, int node, bool sheaves)
{
	if (unlikely(!may_try_first(sheaves) || size - 1 >= KMALLOC_MAX_CACHE_SIZE || node != NO_NODE ||
		     gfp & (__GFP_DMA | __GFP_RECLAIMABLE | __GFP_ACCOUNT | __GFP_ZERO)))
		return 0;
	return first_of_cache(design, shm.kmalloc_index[(size - 1) / 8], size, sheaves);
}

/* The same of a named cache, which has no constructor. */
__helper u64 kmem_cache_alloc_first(u32 design, u32 cache, gfp_t gfp, int node, bool sheaves)
{
	const struct kmem_cache *s = &shm.caches[cache];

	if (unlikely(!may_try_first(sheaves) || cache >= shm.hdr->nr_caches || node != NO_NODE ||
		     gfp & (__GFP_ACCOUNT | __GFP_ZERO) || s->state != CACHE_LIVE || s->ctor))
		return 0;
	return first_of_cache(design, cache, s->object_size, sheaves);
}

/* What looks like a live object, as far as one snapshot tells. */
struct live_object {
	u64 cache;          /* index */
	struct page *slab;  /* NULL: look closer */
};

__helper struct live_object look_at(u64 off)
{
	u64 at = off - shm.mem_off, pfn = at >> SHM_PAGE_SHIFT, cache;
	unsigned __int128 multiple;
	struct kmem_cache *s;
	struct page *page;

	if (unlikely(at >= shm.mem_bytes))
		return (struct live_object){ 0 };
	page = &shm.pages[pfn];
	pfn = select_by_flag(READ_ONCE(page->flags), PG_tail, READ_ONCE(page->compound_head), pfn);
	page = &shm.pages[pfn];
	if (unlikely((READ_ONCE(page->flags) & (PG_slab | PG_pfmemalloc | PG_disabled)) != PG_slab || page->obj_exts ||
		     __builtin_usubl_overflow(READ_ONCE(page->slab_cache), 1, &cache)))
		return (struct live_object){ 0 };
	s = &shm.caches[cache];
	multiple = (unsigned __int128)(at - (pfn << SHM_PAGE_SHIFT)) * s->divides;
	if (unlikely(!ordinary_cache(s) || (u64)multiple >= s->divides ||
		     (u64)(multiple >> 64) >= counters_objects(READ_ONCE(page->counters))))
		return (struct live_object){ 0 };
	return (struct live_object){ cache, page };
}

__helper enum first_free free_looked_at(u32 design, struct live_object live, u64 off, bool allow_spin, bool sheaves)
{
	bool done;

	if (!sheaves && unlikely(!cpu_slab_usable(live.cache)))
		return FREE_NOT_TRIED;
	if (unlikely(!release_object(design, off)))
		return FREE_REFUSED;
	if (sheaves)
		done = sheaf_push(live.cache, off);
	else
		done = cpu_slab_push(&shm.caches[live.cache], &shm.cpu_caches[live.cache], live.slab, off, allow_spin, true);
	return likely(done) ? FREE_DONE : FREE_RELEASED;
}

__helper enum first_free kfree_first(u32 design, u64 off, bool allow_spin, bool sheaves)
{
	struct live_object live;

	if (unlikely(!may_try_first(sheaves)))
		return FREE_NOT_TRIED;
	live = look_at(off);
	return likely(live.slab) ? free_looked_at(design, live, off, allow_spin, sheaves) : FREE_NOT_TRIED;
}

__helper enum first_free kmem_cache_free_first(u32 design, u32 cache, u64 off, bool allow_spin, bool sheaves)
{
	struct live_object live;

	if (unlikely(!may_try_first(sheaves)))
		return FREE_NOT_TRIED;
	live = look_at(off);
	if (unlikely(!live.slab || live.cache != cache || shm.caches[cache].state != CACHE_LIVE))
		return FREE_NOT_TRIED;
	return free_looked_at(design, live, off, allow_spin, sheaves);
}

/* --- designs that keep their objects themselves --------------------------------------------------------- */

/*
 * Their attempts have irqs off for a while, and call nothing but as their last deed: then the compiler gives them
 * no frame and saves no register, which would be a fifth of the instructions, and these are what they are bound by.
 */

/* One comparison for: bound, by this thread, not as a kswapd, in an arena with one node. */
__helper bool may_try_pool(void)
{
	return shm.pool_thread == __builtin_thread_pointer();
}

/* Irqs are as before.  False: they are on, and one is pending, which has to be taken by who comes last. */
__helper bool irqs_back(u32 flags)
{
	struct shm_cpu *cpu = this_cpu();

	barrier();
	if (flags)
		return true;
	WRITE_ONCE(cpu->irqs_disabled, 0);
	barrier();
	return likely(!READ_ONCE(cpu->irq_pending));
}

__helper void take_pending_irqs(void)
{
	if (!irqs_disabled() && READ_ONCE(this_cpu()->irq_pending))
		irq_replay();
}

u64 pool_allocated(u64 off, u64 bytes);
u64 pool_declined(u32 design, u64 size, rest_of_alloc *rest);
int pool_freed(void);
int pool_not_freed(u32 design, u64 off, rest_of_free *rest);

/* With an object in hand, irqs still off. */
__helper u64 pool_alloc_end(u32 design, u64 off, u64 bytes, u32 flags)
{
	this_cpu_inc64(&this_counts(design)->allocs);
	return likely(irqs_back(flags)) && likely(!oracle_on()) ? off : pool_allocated(off, bytes);
}

/* Without: nothing was changed.  Flags and node mattered to what was tested before, and keep no register. */
__helper u64 pool_alloc_rest(u32 design, u64 size, rest_of_alloc *rest, u32 flags)
{
	return irqs_back(flags) ? rest(design, size, 0, NO_NODE) : pool_declined(design, size, rest);
}

__helper int pool_free_end(u32 design, u64 off, rest_of_free *rest, u32 flags, bool done)
{
	if (likely(irqs_back(flags)))
		return likely(done) ? 0 : rest(design, off, FREE_RELEASED);
	return done ? pool_freed() : pool_not_freed(design, off, rest);
}

#endif
