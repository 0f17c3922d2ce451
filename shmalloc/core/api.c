/* SPDX-License-Identifier: MIT */
/*
 * The outer face: thread check, a place to unwind to, offsets that are looked at before they are
 * followed.  Calls go through the designs, so that they are counted and owned like any other.
 *
 * Allocation and free try first what needs no such place (first.h).  The rest is out of line, so that the
 * attempt keeps its few registers: with both in one function it would save and restore five around each call.
 */
#include "first.h"
#include "lock.h"
#include "page_alloc.h"
#include "sys.h"
#include "trace.h"

#define REFUSED (thread_is_cpu() ? -EDEADLK : -EPERM)

__export const char *shm_flavour(void)
{
	return SHM_FLAVOUR;
}

__export const char *shm_build_id(void)
{
	return SHM_BUILD_ID;
}

__export uint64_t shm_abi_hash(void)
{
	return SHM_ABI_HASH;
}

__export const char *shm_compiler(void)
{
	return __VERSION__;
}

/*
 * The start of a live object: says the oracle, and then the page is its owner's and stands still.
 * Without it: at least a slot of a slab or a large block's first byte, as far as one snapshot tells.
 */
bool plausible_object(u64 off)
{
	const struct page *page;
	u32 flags, head, index, size;
	u64 within;

	if (off & 7 || !off_in_memory(off) || (oracle_on() && !oracle_is_live(off)))
		return false;
	page = off_to_page(off);
	head = READ_ONCE(page->compound_head);
	if (READ_ONCE(page->flags) & PG_tail)
		page = head < shm.nr_pages ? &shm.pages[head] : page;
	flags = READ_ONCE(page->flags);
	if (flags & PG_large)
		return off == page_to_off(page);
	index = READ_ONCE(page->slab_cache);
	if (!(flags & PG_slab) || !index || index > shm.hdr->nr_caches)
		return false;
	size = READ_ONCE(shm.caches[index - 1].size);
	within = off - page_to_off(page) - shm.caches[index - 1].red_left_pad;
	return size && within % size == 0 && within / size < counters_objects(READ_ONCE(page->counters));
}

bool plausible_block(u64 off, u32 order)
{
	const struct page *page;

	if (off & (SHM_PAGE_SIZE - 1) || !off_in_memory(off))
		return false;
	page = off_to_page(off);
	return page->flags & PG_allocated && !(page->flags & PG_large) && page->order == order;
}

static bool owned_by_design(u32 design, u64 off)
{
	return !(off & 7) && off_in_memory(off) && (!oracle_on() || oracle_is_live(off)) && designs[design]->owns(off);
}

static bool may_free(u32 design, u64 off)
{
	if (designs[design]->owns)
		return owned_by_design(design, off);
	return plausible_object(off) && (designs[design]->frees_large || !(virt_to_head_page(off)->flags & PG_large));
}

static int free_object(u32 design, u64 off, enum first_free first)
{
	if (first == FREE_NOT_TRIED) {
		if (off <= SHM_ZERO_SIZE)
			return off && off != SHM_ZERO_SIZE ? -EINVAL : 0;
		if (!may_free(design, off))
			return -EINVAL;
	}
	return design_free_rest(design, off, first);
}

static __attribute__((noinline)) int free_guarded(u32 design, u64 off, enum first_free first)
{
	return GUARDED(int, REFUSED, free_object(design, off, first));
}

static __attribute__((noinline)) u64 alloc_guarded(u32 design, u64 size, gfp_t gfp, int node)
{
	return GUARDED(u64, 0, design_alloc_whole(design, size, gfp, node));
}

static int free_rcu(u64 off, u32 head_offset)
{
	return plausible_object(off) ? design_free_rcu(DESIGN_kmalloc, off, head_offset) : -EINVAL;
}

__export int shm_kfree_rcu(uint64_t off, uint32_t head_offset)
{
	return GUARDED(int, REFUSED, free_rcu(off, head_offset));
}

static int free_rcu_nolock(u64 off, u32 head_offset)
{
	if (!sheaf_arena())
		return -EOPNOTSUPP;
	return plausible_object(off) ? design_free_rcu(DESIGN_kmalloc_nolock, off, head_offset) : -EINVAL;
}

__export int shm_kfree_rcu_nolock(uint64_t off, uint32_t head_offset)
{
	return GUARDED(int, REFUSED, free_rcu_nolock(off, head_offset));
}

static int free_block(u32 design, u64 off, u32 order)
{
	return plausible_block(off, order) ? design_pages_free(design, off, order) : -EINVAL;
}

__export uint64_t shm_alloc_pages(uint32_t gfp, int node, unsigned int order)
{
	return GUARDED(u64, 0, design_pages_alloc(DESIGN_kmalloc, gfp, node, order));
}

__export uint64_t shm_alloc_pages_nolock(uint32_t gfp, int node, unsigned int order)
{
	return GUARDED(u64, 0, design_pages_alloc(DESIGN_kmalloc_nolock, gfp, node, order));
}

__export int shm_free_pages(uint64_t off, unsigned int order)
{
	return GUARDED(int, REFUSED, free_block(DESIGN_kmalloc, off, order));
}

__export int shm_free_pages_nolock(uint64_t off, unsigned int order)
{
	return GUARDED(int, REFUSED, free_block(DESIGN_kmalloc_nolock, off, order));
}

static int drain_this_cpu(void)
{
	drain_pages(this_cpu()->id);
	return 0;
}

__export int shm_drain_pages(void)
{
	return GUARDED(int, REFUSED, drain_this_cpu());
}

static int drain_every_cpu(void)
{
	drain_all_pages();
	return 0;
}

__export int shm_drain_all_pages(void)
{
	return GUARDED(int, REFUSED, drain_every_cpu());
}

static int tick(void)
{
	vmstat_tick();
	return 0;
}

__export int shm_vmstat_tick(void)
{
	return GUARDED(int, REFUSED, tick());
}

__export int64_t shm_page_cache_add(uint32_t nr, uint32_t gfp, int node)
{
	return GUARDED(s64, REFUSED, page_cache_add(nr, gfp_for_context(gfp ? gfp : GFP_HIGHUSER_MOVABLE), node));
}

static s64 drop_caches(void)
{
	s64 dropped = 0;

	for (u32 node = 0; node < shm.nr_nodes; node++)
		dropped += (s64)page_cache_drop(node);
	return dropped;
}

__export int64_t shm_page_cache_drop(void)
{
	return GUARDED(s64, REFUSED, drop_caches());
}

__export int shm_set_memalloc(int on)
{
	if (!thread_is_cpu())
		return -EPERM;
	this_cpu()->task_flags = (this_cpu()->task_flags & ~PF_MEMALLOC) | (on ? PF_MEMALLOC : 0);
	return 0;
}

/*
 * The whole path of each call, and a function for each kind of arena: cmpxchg16b takes registers that a sheaf
 * does not need.
 */
#define ALLOC_CALLS(name) \
	static __attribute__((noinline)) u64 name##_guarded(u64 size, gfp_t gfp, int node) \
	{ \
		return GUARDED(u64, 0, design_alloc_whole(DESIGN_##name, size, gfp, node)); \
	} \
	__fastpath __attribute__((noinline)) static u64 name##_cpu_slabs(u64 size, gfp_t gfp, int node) \
	{ \
		u64 object; \
		if (unlikely(!kmalloc_take(size, gfp, node, false, &object))) \
			return name##_guarded(size, gfp, node); \
		return account_object(DESIGN_##name, object, size); \
	} \
	__helper u64 name##_outer(u64 size, gfp_t gfp, int node) \
	{ \
		u64 object; \
		if (!may_try_first(true)) \
			return name##_cpu_slabs(size, gfp, node); \
		if (unlikely(!kmalloc_take(size, gfp, node, true, &object))) \
			return name##_guarded(size, gfp, node); \
		return account_object(DESIGN_##name, object, size); \
	}

#define FREE_CALLS(name, design, allow_spin) \
	static __attribute__((noinline)) int name##_guarded(u64 off, enum first_free first) \
	{ \
		return GUARDED(int, REFUSED, free_object(design, off, first)); \
	} \
	__fastpath __attribute__((noinline)) static int name##_cpu_slabs(u64 off) \
	{ \
		enum first_free first = kfree_first(design, off, allow_spin, false); \
		return likely(first == FREE_DONE) ? 0 : name##_guarded(off, first); \
	} \
	__helper int name##_outer(u64 off) \
	{ \
		enum first_free first; \
		if (!may_try_first(true)) \
			return name##_cpu_slabs(off); \
		first = kfree_first(design, off, allow_spin, true); \
		return likely(first == FREE_DONE) ? 0 : name##_guarded(off, first); \
	}

ALLOC_CALLS(kmalloc)
ALLOC_CALLS(kmalloc_nolock)
FREE_CALLS(kfree, DESIGN_kmalloc, true)
FREE_CALLS(kfree_nolock, DESIGN_kmalloc_nolock, false)

__export __fastpath uint64_t shm_kmalloc(uint64_t size, uint32_t gfp)
{
	return kmalloc_outer(size, gfp, NO_NODE);
}

__export __fastpath uint64_t shm_kmalloc_node(uint64_t size, uint32_t gfp, int node)
{
	return kmalloc_outer(size, gfp, node);
}

__export __fastpath uint64_t shm_kmalloc_nolock(uint64_t size, uint32_t gfp, int node)
{
	return kmalloc_nolock_outer(size, gfp, node);
}

__export __fastpath int shm_kfree(uint64_t off)
{
	return kfree_outer(off);
}

__export __fastpath int shm_kfree_nolock(uint64_t off)
{
	return kfree_nolock_outer(off);
}

/* Ownership moves with the object: nobody owns the memory while it does. */
static u64 krealloc_owned(u64 off, u64 size, gfp_t gfp)
{
	u64 bytes, new;

	reason_reset();
	if (off > SHM_ZERO_SIZE && !plausible_object(off))
		return 0;
	bytes = oracle_extent(off);
	if (!oracle_release(off))
		return 0;
	new = krealloc(off, size, gfp);
	if (new)
		oracle_own(new, size);
	else if (bytes)
		oracle_own(off, bytes);
	return new;
}

__export uint64_t shm_krealloc(uint64_t off, uint64_t size, uint32_t gfp)
{
	return GUARDED(u64, 0, krealloc_owned(off, size, gfp));
}

__export uint64_t shm_ksize(uint64_t off)
{
	return shm.base && off > SHM_ZERO_SIZE && plausible_object(off) ? ksize(off) : 0;
}

static struct kmem_cache *cache_of(u32 index)
{
	return shm.base && index < shm.hdr->nr_caches && shm.caches[index].state == CACHE_LIVE ?
	       &shm.caches[index] : NULL;
}

static __attribute__((noinline)) u64 cache_alloc_guarded(u32 design, u32 cache, gfp_t gfp, int node)
{
	struct kmem_cache *s = cache_of(cache);

	if (!s || design >= NR_DESIGNS)
		return 0;
	return GUARDED(u64, 0, design_cache_alloc(design, s, gfp, node));
}

__helper u64 cache_alloc_outer(u32 design, u32 cache, gfp_t gfp, int node)
{
	u64 object;

	if (unlikely(!kmem_cache_take(cache, gfp, node, sheaf_arena(), &object)))
		return cache_alloc_guarded(design, cache, gfp, node);
	return account_object(design, object, shm.caches[cache].object_size);
}

__export uint64_t shm_design_cache_alloc(unsigned int design, unsigned int cache, uint32_t gfp, int node)
{
	return cache_alloc_guarded(design, cache, gfp, node);
}

__export __fastpath uint64_t shm_kmem_cache_alloc(unsigned int cache, uint32_t gfp, int node)
{
	return cache_alloc_outer(DESIGN_kmalloc, cache, gfp, node);
}

__export __fastpath uint64_t shm_kmem_cache_alloc_nolock(unsigned int cache, uint32_t gfp, int node)
{
	return cache_alloc_outer(DESIGN_kmalloc_nolock, cache, gfp, node);
}

static int free_to_cache(struct kmem_cache *s, u64 off, enum first_free first)
{
	if (first == FREE_NOT_TRIED && (!plausible_object(off) || virt_to_head_page(off)->slab_cache != s->index + 1))
		return -EINVAL;
	return design_free_rest(DESIGN_kmalloc, off, first);
}

static __attribute__((noinline)) int cache_free_guarded(u32 cache, u64 off, enum first_free first)
{
	struct kmem_cache *s = cache_of(cache);

	if (!s)
		return -EINVAL;
	return GUARDED(int, REFUSED, free_to_cache(s, off, first));
}

__export __fastpath int shm_kmem_cache_free(unsigned int cache, uint64_t off)
{
	enum first_free first = kmem_cache_free_first(DESIGN_kmalloc, cache, off, true, sheaf_arena());

	return likely(first == FREE_DONE) ? 0 : cache_free_guarded(cache, off, first);
}

static u64 kmalloc_cache_owned(struct kmem_cache *s, u64 size, gfp_t gfp, int node)
{
	u64 off;

	reason_reset();
	if (!(s->flags & SLAB_KMALLOC) || !size || size > s->object_size) {
		reason_shortage(REASON_SIZE_LIMIT);
		return 0;
	}
	off = kmalloc_cache(s, gfp_for_context(gfp), node, size);
	if (tracing(TRACE_BIT(kmalloc)))
		trace_kmalloc(trace_caller(TRACED_FROM), off, size, s->size, gfp_for_context(gfp), node);
	if (off)
		oracle_own(off, size);
	return off;
}

__export uint64_t shm_kmalloc_cache(unsigned int cache, uint64_t size, uint32_t gfp, int node)
{
	struct kmem_cache *s = cache_of(cache);

	return s ? GUARDED(u64, 0, kmalloc_cache_owned(s, size, gfp, node)) : 0;
}

__export uint32_t shm_kmalloc_index(uint64_t size, uint32_t gfp)
{
	if (!shm.base || !size || size > KMALLOC_MAX_CACHE_SIZE)
		return 0xffffffff;
	return kmalloc_slab(size, gfp)->index;
}

__export unsigned int shm_last_reason(void)
{
	return shm.cpu ? shm.cpu->levels[0].reason : REASON_NONE;
}

__export __fastpath uint64_t shm_design_alloc(unsigned int design, uint64_t size, uint32_t gfp, int node)
{
	if (unlikely(design >= NR_DESIGNS))
		return 0;
	return designs[design]->alloc_first(design, size, gfp, node, alloc_guarded);
}

__export uint64_t shm_design_pages_alloc(unsigned int design, uint32_t gfp, int node, unsigned int order)
{
	if (design >= NR_DESIGNS)
		return 0;
	return GUARDED(u64, 0, design_pages_alloc(design, gfp, node, order));
}

__export __fastpath int shm_design_free(unsigned int design, uint64_t off)
{
	if (unlikely(design >= NR_DESIGNS))
		return -EINVAL;
	return designs[design]->free_first(design, off, free_guarded);
}

__export int shm_design_pages_free(unsigned int design, uint64_t off, unsigned int order)
{
	if (design >= NR_DESIGNS)
		return -EINVAL;
	return GUARDED(int, REFUSED, free_block(design, off, order));
}

__export void shm_phase_finish(uint32_t phase)
{
	if (shm.cpu)
		store_release(&shm.cpu->phase_done, phase);
}

__export void shm_phase_open(uint32_t phase)
{
	if (!shm.base)
		return;
	store_release(&shm.hdr->phase, phase);
	sys_futex_wake_all(&shm.hdr->phase);
}

#define PHASE_LOOK_NS 50000000 /* whether the run is over, or its parent dead: nobody may be left to wake us */

/*
 * The creator of the arena is the run's parent: without it there is nobody to wait for.  The waiters sleep until they
 * are woken: looking each millisecond, 64 of them took half of two cores from those that were still starting.
 */
__export int shm_phase_wait(uint32_t phase, double seconds)
{
	u64 deadline, look;

	if (!shm.base)
		return -ENOTCONN;
	if (!(seconds >= 0))
		return -EINVAL;
	deadline = read_tsc() + (u64)(min_of(seconds, MAX_SECONDS) * (double)shm.hdr->tsc_hz);
	look = read_tsc();
	for (u32 now; (now = load_acquire(&shm.hdr->phase)) < phase;) {
		if (shm.terminated || READ_ONCE(shm.hdr->stop))
			return -ECANCELED;
		if (read_tsc() > deadline)
			return -ETIMEDOUT;
		if (read_tsc() > look) {
			if (!shm_owner_alive(shm.hdr->creator_pid, shm.hdr->creator_start_time))
				return -EOWNERDEAD;
			look = read_tsc() + shm.hdr->tsc_hz / 16;
		}
		sys_futex_wait(&shm.hdr->phase, now, PHASE_LOOK_NS);
	}
	return 0;
}
