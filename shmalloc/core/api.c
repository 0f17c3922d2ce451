/* SPDX-License-Identifier: MIT */
/*
 * The outer face: thread check, a place to unwind to, offsets that are looked at before they are
 * followed.  Calls go through the designs, so that they are counted and owned like any other.
 */
#include "design.h"
#include "lock.h"
#include "oracle.h"
#include "page_alloc.h"
#include "slab_fast.h"
#include "sys.h"

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

static int free_object(u32 design, u64 off)
{
	if (off <= SHM_ZERO_SIZE)
		return off && off != SHM_ZERO_SIZE ? -EINVAL : 0;
	if (designs[design]->owns)
		return owned_by_design(design, off) ? design_free(design, off) : -EINVAL;
	if (!plausible_object(off) || (!designs[design]->frees_large && virt_to_head_page(off)->flags & PG_large))
		return -EINVAL;
	return design_free(design, off);
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

__export uint64_t shm_kmalloc(uint64_t size, uint32_t gfp)
{
	return GUARDED(u64, 0, design_alloc(DESIGN_kmalloc, size, gfp, NO_NODE));
}

__export uint64_t shm_kmalloc_node(uint64_t size, uint32_t gfp, int node)
{
	return GUARDED(u64, 0, design_alloc(DESIGN_kmalloc, size, gfp, node));
}

__export uint64_t shm_kmalloc_nolock(uint64_t size, uint32_t gfp, int node)
{
	return GUARDED(u64, 0, design_alloc(DESIGN_kmalloc_nolock, size, gfp, node));
}

__export int shm_kfree(uint64_t off)
{
	return GUARDED(int, REFUSED, free_object(DESIGN_kmalloc, off));
}

__export int shm_kfree_nolock(uint64_t off)
{
	return GUARDED(int, REFUSED, free_object(DESIGN_kmalloc_nolock, off));
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

__export uint64_t shm_design_cache_alloc(unsigned int design, unsigned int cache, uint32_t gfp, int node)
{
	struct kmem_cache *s = cache_of(cache);

	if (!s || design >= NR_DESIGNS)
		return 0;
	return GUARDED(u64, 0, design_cache_alloc(design, s, gfp, node));
}

__export uint64_t shm_kmem_cache_alloc(unsigned int cache, uint32_t gfp, int node)
{
	return shm_design_cache_alloc(DESIGN_kmalloc, cache, gfp, node);
}

__export uint64_t shm_kmem_cache_alloc_nolock(unsigned int cache, uint32_t gfp, int node)
{
	return shm_design_cache_alloc(DESIGN_kmalloc_nolock, cache, gfp, node);
}

static int free_to_cache(struct kmem_cache *s, u64 off)
{
	if (!plausible_object(off) || virt_to_head_page(off)->slab_cache != s->index + 1)
		return -EINVAL;
	return design_free(DESIGN_kmalloc, off);
}

__export int shm_kmem_cache_free(unsigned int cache, uint64_t off)
{
	struct kmem_cache *s = cache_of(cache);

	if (!s)
		return -EINVAL;
	return GUARDED(int, REFUSED, free_to_cache(s, off));
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

__export uint64_t shm_design_alloc(unsigned int design, uint64_t size, uint32_t gfp, int node)
{
	if (design >= NR_DESIGNS)
		return 0;
	return GUARDED(u64, 0, design_alloc(design, size, gfp, node));
}

__export uint64_t shm_design_pages_alloc(unsigned int design, uint32_t gfp, int node, unsigned int order)
{
	if (design >= NR_DESIGNS)
		return 0;
	return GUARDED(u64, 0, design_pages_alloc(design, gfp, node, order));
}

__export int shm_design_free(unsigned int design, uint64_t off)
{
	if (design >= NR_DESIGNS)
		return -EINVAL;
	return GUARDED(int, REFUSED, free_object(design, off));
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

/* The creator of the arena is the run's parent: without it there is nobody to wait for. */
__export int shm_phase_wait(uint32_t phase, double seconds)
{
	u64 deadline;

	if (!shm.base)
		return -ENOTCONN;
	if (!(seconds >= 0))
		return -EINVAL;
	deadline = read_tsc() + (u64)(min_of(seconds, MAX_SECONDS) * (double)shm.hdr->tsc_hz);
	for (u32 polls = 0; load_acquire(&shm.hdr->phase) < phase; polls++) {
		if (shm.terminated || READ_ONCE(shm.hdr->stop))
			return -ECANCELED;
		if (polls % 64 == 63 && !shm_owner_alive(shm.hdr->creator_pid, shm.hdr->creator_start_time))
			return -EOWNERDEAD;
		if (read_tsc() > deadline)
			return -ETIMEDOUT;
		sleep_ns(1000000);
	}
	return 0;
}
