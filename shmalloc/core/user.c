/* SPDX-License-Identifier: MIT */
/*
 * Calls for programs: an allocator like malloc, and any signal handler may call it, too.
 *
 * A program's own signals are interrupts that nobody announces: its handler runs in what looks like
 * task context, while the call that it has interrupted may hold locks and may have written half a pair.
 * But whatever may hold more than the flag of this CPU's own sheaf runs under a guard, and a guard of
 * the present level is therefore a call that was interrupted.  What the handler asks for is then done
 * as in an NMI, which is what it is: irqs off, a level of its own, trylocks only.  What that raises is
 * taken at the end, if the interrupted code has irqs on, as it is behind an NMI.
 * The design is sheaves, which serves task and NMI alike, on both kinds of arena.  What comes first is as in
 * every call (first.h), with its flags as constants; it needs no guard, and so not this either.
 * Context: any, on the CPU's own thread.
 */
#include "design.h"
#include "first.h"
#include "irq.h"
#include "lock.h"
#include "oracle.h"
#include "page_alloc.h"
#include "signals.h"
#include "trace.h"

/* why the last of these calls that yielded nothing did so, whoever made it */
static u32 last_failure;
static u64 handler_began[SHM_MAX_LEVELS]; /* of those that have entered: TSC, 0 = it is not traced */

__slowtext static bool handler_enter(u32 *flags)
{
	struct shm_cpu *cpu = this_cpu();

	*flags = cpu->irqs_disabled;
	WRITE_ONCE(cpu->irqs_disabled, 1); /* as on entry by the hardware */
	barrier();
	if (level_enter(CTX_NMI, 0, (u64)__builtin_frame_address(0))) {
		handler_began[cpu->level] = trace_handler_entry(KIND_NMI, 0, 0);
		return true;
	}
	WRITE_ONCE(cpu->irqs_disabled, *flags);
	return false;
}

__slowtext static void handler_exit(u32 flags)
{
	trace_handler_exit(KIND_NMI, handler_began[this_cpu()->level]);
	level_exit();
	barrier();
	WRITE_ONCE(this_cpu()->irqs_disabled, flags);
	barrier();
	if (!flags)
		irq_take(0, (u64)__builtin_frame_address(0), true);
}

__export int shm_handler_enter(void)
{
	u32 flags;

	if (!thread_is_cpu())
		return -EPERM;
	return handler_enter(&flags) ? (int)flags : -EBUSY;
}

__export int shm_handler_leave(int previous)
{
	if (!thread_is_cpu())
		return -EPERM;
	if (this_ctx() != CTX_NMI || (previous & ~1))
		return -EINVAL;
	handler_exit((u32)previous);
	return 0;
}

__slowtext static bool interrupted_a_call(void)
{
	return thread_is_cpu() && shm.guard && shm.guard->level == this_cpu()->level;
}

/* GUARDED, at a level of its own if a handler that nobody has announced is the caller. */
#define ANYWHERE(type, failed, call) ({ \
	type value_ = (failed); \
	u32 flags_ = 0; \
	if (!interrupted_a_call()) { \
		value_ = GUARDED(type, failed, call); \
	} else if (handler_enter(&flags_)) { \
		value_ = GUARDED(type, failed, call); \
		handler_exit(flags_); \
	} \
	value_; })

#define REFUSED (thread_is_cpu() ? -EDEADLK : -EPERM)

static u64 noted(u64 off)
{
	if (unlikely(!off))
		last_failure = this_reason();
	return off;
}

static struct kmem_cache *cache_of(u32 index)
{
	return shm.base && index < shm.hdr->nr_caches && shm.caches[index].state == CACHE_LIVE ? &shm.caches[index] :
												 NULL;
}

static __attribute__((noinline)) u64 alloc_rest(u32 design, u64 size, gfp_t gfp)
{
	return ANYWHERE(u64, 0, noted(design_alloc_whole(design, size, gfp, NO_NODE)));
}

static __attribute__((noinline)) u64 cache_alloc_rest(u32 design, u32 index)
{
	struct kmem_cache *s = cache_of(index);

	if (!s) {
		last_failure = REASON_NONE; /* it was no request */
		return 0;
	}
	return ANYWHERE(u64, 0, noted(design_cache_alloc(design, s, GFP_KERNEL, NO_NODE)));
}

/* kfree_nolock cannot free a large object, but its pages can be: nothing else belongs to it. */
static int free_object(u32 design, u64 off, enum first_free first)
{
	const struct page *page;

	if (first != FREE_NOT_TRIED)
		return design_free_rest(design, off, first);
	if (off <= SHM_ZERO_SIZE)
		return off && off != SHM_ZERO_SIZE ? -EINVAL : 0;
	if (!plausible_object(off))
		return -EINVAL;
	page = virt_to_head_page(off);
	if (page->flags & PG_large && (in_nmi() || !designs[design]->frees_large))
		return design_pages_free(design, off, page->order);
	return design_free_rest(design, off, first);
}

static __attribute__((noinline)) int free_rest(u32 design, u64 off, enum first_free first)
{
	return ANYWHERE(int, REFUSED, free_object(design, off, first));
}

static int cache_free(u32 design, u32 index, u64 off, enum first_free first)
{
	if (first == FREE_NOT_TRIED && (!plausible_object(off) || virt_to_head_page(off)->slab_cache != index + 1ull))
		return -EINVAL;
	return design_free_rest(design, off, first);
}

static __attribute__((noinline)) int cache_free_rest(u32 design, u32 index, u64 off, enum first_free first)
{
	return ANYWHERE(int, REFUSED, cache_free(design, index, off, first));
}

/* A function for each kind of arena, as in api.c. */
#define CALLS(name, design, gfp, allow_spin) \
	__fastpath __attribute__((noinline)) static u64 name##_alloc_cpu_slabs(u64 size) \
	{ \
		u64 object; \
		if (unlikely(!kmalloc_take(size, gfp, NO_NODE, false, &object))) \
			return alloc_rest(design, size, gfp); \
		return account_object(design, object, size); \
	} \
	__helper u64 name##_alloc(u64 size) \
	{ \
		u64 object; \
		if (!may_try_first(true)) \
			return name##_alloc_cpu_slabs(size); \
		if (unlikely(!kmalloc_take(size, gfp, NO_NODE, true, &object))) \
			return alloc_rest(design, size, gfp); \
		return account_object(design, object, size); \
	} \
	__fastpath __attribute__((noinline)) static int name##_free_cpu_slabs(u64 off) \
	{ \
		enum first_free first = kfree_first(design, off, allow_spin, false); \
		return likely(first == FREE_DONE) ? 0 : free_rest(design, off, first); \
	} \
	__helper int name##_free(u64 off) \
	{ \
		enum first_free first; \
		if (!may_try_first(true)) \
			return name##_free_cpu_slabs(off); \
		first = kfree_first(design, off, allow_spin, true); \
		return likely(first == FREE_DONE) ? 0 : free_rest(design, off, first); \
	} \
	__fastpath __attribute__((noinline)) static u64 name##_cache_alloc_cpu_slabs(u32 cache) \
	{ \
		u64 object; \
		if (unlikely(!kmem_cache_take(cache, gfp, NO_NODE, false, &object))) \
			return cache_alloc_rest(design, cache); \
		return account_object(design, object, shm.caches[cache].object_size); \
	} \
	__helper u64 name##_cache_alloc(u32 cache) \
	{ \
		u64 object; \
		if (!may_try_first(true)) \
			return name##_cache_alloc_cpu_slabs(cache); \
		if (unlikely(!kmem_cache_take(cache, gfp, NO_NODE, true, &object))) \
			return cache_alloc_rest(design, cache); \
		return account_object(design, object, shm.caches[cache].object_size); \
	} \
	__fastpath __attribute__((noinline)) static int name##_cache_free_cpu_slabs(u32 cache, u64 off) \
	{ \
		enum first_free first = kmem_cache_free_first(design, cache, off, allow_spin, false); \
		return likely(first == FREE_DONE) ? 0 : cache_free_rest(design, cache, off, first); \
	} \
	__helper int name##_cache_free(u32 cache, u64 off) \
	{ \
		enum first_free first; \
		if (!may_try_first(true)) \
			return name##_cache_free_cpu_slabs(cache, off); \
		first = kmem_cache_free_first(design, cache, off, allow_spin, true); \
		return likely(first == FREE_DONE) ? 0 : cache_free_rest(design, cache, off, first); \
	}

CALLS(user, DESIGN_sheaves, GFP_KERNEL, true)
CALLS(nolock, DESIGN_kmalloc_nolock, 0, false)

__export __fastpath uint64_t shm_malloc(uint64_t size)
{
	return user_alloc(size);
}

__export __fastpath uint64_t shm_malloc_nolock(uint64_t size)
{
	return nolock_alloc(size);
}

__export __fastpath int shm_free(uint64_t off)
{
	return user_free(off);
}

__export __fastpath int shm_free_nolock(uint64_t off)
{
	return nolock_free(off);
}

__export __fastpath uint64_t shm_cache_alloc(unsigned int cache)
{
	return user_cache_alloc(cache);
}

__export __fastpath uint64_t shm_cache_alloc_nolock(unsigned int cache)
{
	return nolock_cache_alloc(cache);
}

__export __fastpath int shm_cache_free(unsigned int cache, uint64_t off)
{
	return user_cache_free(cache, off);
}

__export __fastpath int shm_cache_free_nolock(unsigned int cache, uint64_t off)
{
	return nolock_cache_free(cache, off);
}

__export uint64_t shm_zalloc(uint64_t size)
{
	u64 off = user_alloc(size);

	if (off > SHM_ZERO_SIZE)
		zero_bytes(ptr_of(off), size);
	return off;
}

/*
 * In the object's own room if that is large enough: it never shrinks.  Else another one; then a
 * failure leaves the old one as it is.
 */
static u64 resize(u64 off, u64 size)
{
	u64 room, new;

	reason_reset();
	if (!size)
		return free_object(DESIGN_sheaves, off, FREE_NOT_TRIED) ? 0 : SHM_ZERO_SIZE;
	if (off <= SHM_ZERO_SIZE)
		return design_alloc(DESIGN_sheaves, size, GFP_KERNEL, NO_NODE);
	if (!plausible_object(off))
		return 0;
	room = ksize(off);
	if (size <= room) {
		if (!oracle_release(off))
			return 0;
		oracle_own(off, size);
		return off;
	}
	new = design_alloc(DESIGN_sheaves, size, GFP_KERNEL, NO_NODE);
	if (!new)
		return 0;
	copy_bytes(ptr_of(new), ptr_of(off), room);
	(void)free_object(DESIGN_sheaves, off, FREE_NOT_TRIED);
	return new;
}

__export uint64_t shm_realloc(uint64_t off, uint64_t size)
{
	return ANYWHERE(u64, 0, noted(resize(off, size)));
}

__export uint64_t shm_pages(unsigned int order)
{
	return ANYWHERE(u64, 0, noted(design_pages_alloc(DESIGN_sheaves, GFP_KERNEL, NO_NODE, order)));
}

static int free_block(u64 off, u32 order)
{
	return plausible_block(off, order) ? design_pages_free(DESIGN_sheaves, off, order) : -EINVAL;
}

__export int shm_pages_free(uint64_t off, unsigned int order)
{
	return ANYWHERE(int, REFUSED, free_block(off, order));
}

__export unsigned int shm_last_failure(void)
{
	return last_failure;
}
