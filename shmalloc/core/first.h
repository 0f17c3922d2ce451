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
 * multiple of an object's size is told by one multiplication), branches on data (sizes: a table), calls,
 * and cache lines: of an object's page a word is looked at, eight of which share a line, and not the
 * struct page.
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
	return unlikely(oracle_on()) ? oracle_owned(off, bytes) : off;
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

__helper bool sheaf_pop(u64 index, u64 *object)
{
	struct slub_percpu_sheaves *pcs = &shm.cpu_sheaves[index];
	struct slab_sheaf *main;

	if (unlikely(!lock_main_sheaf(pcs)))
		return false;
	main = sheaf_at(pcs->main);
	if (unlikely(!main->size)) {
		local_unlock(&pcs->lock);
		return false;
	}
	*object = sheaf_objects(main)[--main->size];
	local_unlock(&pcs->lock);
	this_cpu_inc64(&shm.cache_stats[index].alloc_fastpath);
	return true;
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

/* Not yet counted and owned; false: nothing was changed. */
__helper bool take_of_cache(u64 index, bool sheaves, u64 *object)
{
	struct kmem_cache *s = &shm.caches[index];

	if (unlikely(!ordinary_cache(s)))
		return false;
	if (sheaves)
		return sheaf_pop(index, object);
	*object = cpu_slab_usable(index) ? cpu_slab_pop(s, &shm.cpu_caches[index], NO_NODE, true) : 0;
	return *object;
}

/* kmalloc of a design that takes its objects from the kmalloc caches. */
__helper bool kmalloc_take(u64 size, gfp_t gfp, int node, bool sheaves, u64 *object)
{
	if (unlikely(!may_try_first(sheaves) || size - 1 >= KMALLOC_MAX_CACHE_SIZE || node != NO_NODE ||
		     gfp & (__GFP_DMA | __GFP_RECLAIMABLE | __GFP_ACCOUNT | __GFP_ZERO)))
		return false;
	return take_of_cache(shm.kmalloc_index[(size - 1) / 8], sheaves, object);
}

/* Of a named cache, which has no constructor. */
__helper bool kmem_cache_take(u32 cache, gfp_t gfp, int node, bool sheaves, u64 *object)
{
	const struct kmem_cache *s = &shm.caches[cache];

	if (unlikely(!may_try_first(sheaves) || cache >= shm.hdr->nr_caches || node != NO_NODE ||
		     gfp & (__GFP_ACCOUNT | __GFP_ZERO) || s->state != CACHE_LIVE || s->ctor))
		return false;
	return take_of_cache(cache, sheaves, object);
}

/* What looks like a live object, as far as its page's word tells. */
struct live_object {
	u64 cache;   /* index */
	u64 within;  /* where in its slab it begins */
	bool is_one; /* false: look closer */
};

__helper struct live_object look_at(u64 off)
{
	u64 at = off - shm.mem_off, word, within;
	unsigned __int128 multiple;
	const struct kmem_cache *s;

	if (unlikely(at >= shm.mem_bytes))
		return (struct live_object){ .is_one = false };
	word = READ_ONCE(shm.slab_words[at >> SHM_PAGE_SHIFT]);
	if (unlikely(!word))
		return (struct live_object){ .is_one = false };
	within = (at & (SHM_PAGE_SIZE - 1)) + slab_word_within(word);
	s = &shm.caches[slab_word_cache(word)];
	multiple = (unsigned __int128)within * s->divides;
	if (unlikely((u64)multiple >= s->divides || (u64)(multiple >> 64) >= slab_word_objects(word)))
		return (struct live_object){ .is_one = false };
	return (struct live_object){ slab_word_cache(word), within, true };
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
		done = cpu_slab_push(&shm.caches[live.cache], &shm.cpu_caches[live.cache], off_to_page(off - live.within), off,
				     allow_spin, true);
	return likely(done) ? FREE_DONE : FREE_RELEASED;
}

__helper enum first_free kfree_first(u32 design, u64 off, bool allow_spin, bool sheaves)
{
	struct live_object live;

	if (unlikely(!may_try_first(sheaves)))
		return FREE_NOT_TRIED;
	live = look_at(off);
	return likely(live.is_one) ? free_looked_at(design, live, off, allow_spin, sheaves) : FREE_NOT_TRIED;
}

__helper enum first_free kmem_cache_free_first(u32 design, u32 cache, u64 off, bool allow_spin, bool sheaves)
{
	struct live_object live;

	if (unlikely(!may_try_first(sheaves)))
		return FREE_NOT_TRIED;
	live = look_at(off);
	if (unlikely(!live.is_one || live.cache != cache || shm.caches[cache].state != CACHE_LIVE))
		return FREE_NOT_TRIED;
	return free_looked_at(design, live, off, allow_spin, sheaves);
}

/*
 * The first attempts of a design that takes its objects from the kmalloc caches, and a function for each kind of
 * arena: cmpxchg16b takes registers that a sheaf does not need, and whoever saves them pays for all.
 */
#define KMALLOC_FIRST(name, allow_spin) \
	__fastpath __attribute__((noinline)) static u64 name##_alloc_first_cpu_slabs(u32 design, u64 size, gfp_t gfp, int node, \
										     rest_of_alloc *rest) \
	{ \
		u64 object; \
		if (unlikely(!kmalloc_take(size, gfp, node, false, &object))) \
			return rest(design, size, gfp, node); \
		return account_object(DESIGN_##name, object, size); \
	} \
	__fastpath static u64 name##_alloc_first(u32 design, u64 size, gfp_t gfp, int node, rest_of_alloc *rest) \
	{ \
		u64 object; \
		if (!may_try_first(true)) \
			return name##_alloc_first_cpu_slabs(design, size, gfp, node, rest); \
		if (unlikely(!kmalloc_take(size, gfp, node, true, &object))) \
			return rest(design, size, gfp, node); \
		return account_object(DESIGN_##name, object, size); \
	} \
	KFREE_FIRST(name, allow_spin)

#define KFREE_FIRST(name, allow_spin) \
	__fastpath __attribute__((noinline)) static int name##_free_first_cpu_slabs(u32 design, u64 off, rest_of_free *rest) \
	{ \
		enum first_free first = kfree_first(DESIGN_##name, off, allow_spin, false); \
		return likely(first == FREE_DONE) ? 0 : rest(design, off, first); \
	} \
	__fastpath static int name##_free_first(u32 design, u64 off, rest_of_free *rest) \
	{ \
		enum first_free first; \
		if (!may_try_first(true)) \
			return name##_free_first_cpu_slabs(design, off, rest); \
		first = kfree_first(DESIGN_##name, off, allow_spin, true); \
		return likely(first == FREE_DONE) ? 0 : rest(design, off, first); \
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
