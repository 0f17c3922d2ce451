/* SPDX-License-Identifier: MIT */
/*
 * Charging objects to memory cgroups: by bytes, from this CPU's stock of a page's rest.
 *
 * Answers to: mm/memcontrol.c (obj_cgroup_charge_account, refill_obj_stock, drain_obj_stock,
 * __account_obj_stock, the slab hooks), mm/slub.c (alloc_slab_obj_exts, memcg_alloc_abort_single).
 * Kept: an object costs its slot and a pointer; whole pages are charged and the rest is stocked; a busy
 * stock leaves the rest to an atomic; a slab's vector is attached by compare-and-exchange and is never
 * charged itself; without a vector the object stays uncharged; a failed charge frees the object by the
 * ordinary free, spinning, even if the request was a nolock one (K-46: that is how the kernel has it).
 * Changed: a vector holds ids of memcgs.  6.18.4 has K-25 and K-27; here both are mended as they were later:
 * a charge that may not spin leaves another memcg's obj_stock alone.  A vector is never taken from the
 * cache that it serves (K-21).
 * Context: any; what may spin is said by the request's flags or by the kind of the free.
 */
#include "memcontrol.h"
#include "slab_fast.h"

/* what a vector is not to be asked for with: it is placed and accounted as plain memory */
#define OBJCGS_CLEAR_MASK (__GFP_DMA | __GFP_RECLAIMABLE | __GFP_ACCOUNT | __GFP_NOFAIL)

/* what an object adds to its memcg's statistics */
struct slab_stat {
	s32 bytes;       /* negative: it is freed */
	u32 node;        /* + 1; 0 = no statistics */
	u32 kind;        /* enum shm_slab_stat */
};

/* --- who pays ------------------------------------------------------------------------------------ */

/* The memcg to charge, 0 = none.  An interrupt never charges the task that it interrupted. */
__slowtext u32 current_obj_cgroup(void)
{
	const struct memcg_cpu *mc = shm.memcg_cpu;

	if (!shm.nr_memcgs || !memcg_kmem_online())
		return 0;
	if (!in_task())
		return mc->int_active;
	return mc->active ? mc->active : mc->task;
}

/* Whose counters an obj_cgroup's charges go to: from its death on its parent's.  NULL = the root. */
__slowtext struct mem_cgroup *obj_cgroup_memcg(u32 objcg)
{
	struct mem_cgroup *memcg = memcg_by_id(objcg);

	while (memcg && READ_ONCE(memcg->state) == MEMCG_DYING)
		memcg = parent_mem_cgroup(memcg);
	return memcg;
}

__slowpath int obj_cgroup_charge_pages(u32 objcg, gfp_t gfp, u32 nr_pages)
{
	struct mem_cgroup *memcg = obj_cgroup_memcg(objcg);

	if (!memcg)
		return 0;
	if (try_charge_memcg(memcg, gfp, nr_pages))
		return -ENOMEM;
	atomic_add(&memcg->kmem_pages, nr_pages);
	return 0;
}

__slowpath void obj_cgroup_uncharge_pages(u32 objcg, u32 nr_pages)
{
	struct mem_cgroup *memcg = obj_cgroup_memcg(objcg);

	if (!memcg)
		return;
	atomic_sub(&memcg->kmem_pages, nr_pages);
	refill_stock(memcg, nr_pages);
}

/* --- statistics ---------------------------------------------------------------------------------- */

__slowtext static void mod_objcg_mlstate(u32 objcg, u32 node, u32 kind, s32 bytes)
{
	struct mem_cgroup *memcg = obj_cgroup_memcg(objcg);

	if (memcg && bytes)
		atomic_add(&memcg->slab_bytes[node - 1][kind], bytes);
}

__slowtext static void flush_stock_stats(struct obj_stock_pcp *stock)
{
	for (u32 kind = 0; stock->cached_node && kind < NR_SLAB_STATS; kind++) {
		mod_objcg_mlstate(stock->cached_objcg, stock->cached_node, kind, stock->slab_bytes[kind]);
		stock->slab_bytes[kind] = 0;
	}
}

/* Kept in the stock until they are more than a page, or of another node; stock locked. */
__slowtext static void account_obj_stock(struct obj_stock_pcp *stock, const struct slab_stat *stat)
{
	s32 *bytes = &stock->slab_bytes[stat->kind];

	if (stock->cached_node != stat->node) {
		flush_stock_stats(stock);
		stock->cached_node = stat->node;
	}
	if (!*bytes) { /* even one larger than a page is kept, once */
		*bytes = stat->bytes;
		return;
	}
	*bytes += stat->bytes;
	if (*bytes > SHM_PAGE_SIZE || *bytes < -SHM_PAGE_SIZE) {
		mod_objcg_mlstate(stock->cached_objcg, stat->node, stat->kind, *bytes);
		*bytes = 0;
	}
}

/* --- the stock ----------------------------------------------------------------------------------- */

/* stock locked */
__slowpath void drain_obj_stock(struct obj_stock_pcp *stock, bool allow_spin)
{
	struct mem_cgroup *old = memcg_by_id(stock->cached_objcg), *memcg;
	u32 nr_pages = stock->nr_bytes >> SHM_PAGE_SHIFT;

	if (!old)
		return;
	memcg = obj_cgroup_memcg(old->id);
	if (nr_pages && memcg) {
		atomic_sub(&memcg->kmem_pages, nr_pages);
		memcg_uncharge(memcg, nr_pages);
	}
	atomic_add(&old->nr_charged_bytes, stock->nr_bytes & (SHM_PAGE_SIZE - 1));
	stock->nr_bytes = 0;
	flush_stock_stats(stock);
	stock->cached_node = 0;
	stock->cached_objcg = 0;
	obj_cgroup_put(old->id, allow_spin);
}

static bool obj_stock_trylock(struct obj_stock_pcp *stock)
{
	if (stock_trylock(&stock->lock))
		return true;
	count_memcg(memcg_obj_busy);
	return false;
}

__slowpath static bool consume_obj_stock(u32 objcg, u32 nr_bytes, const struct slab_stat *stat)
{
	struct obj_stock_pcp *stock = &shm.memcg_cpu->obj;
	bool enough;

	if (!obj_stock_trylock(stock))
		return false;
	probe(obj_stock_locked);
	enough = stock->cached_objcg == objcg && stock->nr_bytes >= nr_bytes;
	if (enough) {
		stock->nr_bytes -= nr_bytes;
		account_obj_stock(stock, stat);
		count_memcg(memcg_obj_hit);
	} else {
		count_memcg(memcg_obj_miss);
	}
	stock_unlock(&stock->lock);
	return enough;
}

/* Bytes of an obj_cgroup that this CPU's stock does not take. */
__slowpath static void bypass_obj_stock(u32 objcg, u32 nr_bytes, const struct slab_stat *stat)
{
	struct mem_cgroup *memcg = memcg_by_id(objcg);

	count_memcg(memcg_obj_fallback);
	mod_objcg_mlstate(objcg, stat->node, stat->kind, broken(k25) ? (s32)nr_bytes : stat->bytes);
	atomic_add(&memcg->nr_charged_bytes, nr_bytes & (SHM_PAGE_SIZE - 1));
	if (nr_bytes >> SHM_PAGE_SHIFT)
		obj_cgroup_uncharge_pages(objcg, nr_bytes >> SHM_PAGE_SHIFT);
}

/* Make the stock this obj_cgroup's, with the bytes that others have left to it; stock locked. */
__slowpath static void take_obj_stock(struct obj_stock_pcp *stock, u32 objcg, bool allow_spin)
{
	u64 *left = &memcg_by_id(objcg)->nr_charged_bytes;

	if (stock->cached_objcg) {
		count_memcg(memcg_obj_drain);
		drain_obj_stock(stock, allow_spin);
	}
	obj_cgroup_get(objcg);
	stock->nr_bytes = READ_ONCE(*left) ? (u32)xchg(left, 0) : 0;
	stock->cached_objcg = objcg;
}

/*
 * Bytes that are charged and not needed.  More than a page of them goes back if that is allowed: a free may,
 * a charge has just fetched them.
 */
__slowpath static void refill_obj_stock(u32 objcg, u32 nr_bytes, bool allow_uncharge, bool allow_spin,
					const struct slab_stat *stat)
{
	struct obj_stock_pcp *stock = &shm.memcg_cpu->obj;
	u32 nr_pages = 0;

	if (!obj_stock_trylock(stock)) {
		bypass_obj_stock(objcg, nr_bytes, stat);
		return;
	}
	probe(obj_stock_locked);
	if (stock->cached_objcg != objcg) {
		if (stock->cached_objcg && !allow_spin && !broken(k27)) {
			/* the old one's last reference must not be dropped here (K-27) */
			stock_unlock(&stock->lock);
			bypass_obj_stock(objcg, nr_bytes, stat);
			return;
		}
		take_obj_stock(stock, objcg, allow_spin);
		allow_uncharge = true;
	}
	stock->nr_bytes += nr_bytes;
	account_obj_stock(stock, stat);
	if (allow_uncharge && stock->nr_bytes > SHM_PAGE_SIZE) {
		nr_pages = stock->nr_bytes >> SHM_PAGE_SHIFT;
		stock->nr_bytes &= SHM_PAGE_SIZE - 1;
	}
	stock_unlock(&stock->lock);
	if (nr_pages)
		obj_cgroup_uncharge_pages(objcg, nr_pages);
}

__slowpath static int obj_cgroup_charge_account(u32 objcg, gfp_t gfp, u32 size, const struct slab_stat *stat)
{
	u32 rest = size & (SHM_PAGE_SIZE - 1);

	if (consume_obj_stock(objcg, size, stat))
		return 0;
	if (obj_cgroup_charge_pages(objcg, gfp, (size >> SHM_PAGE_SHIFT) + (rest > 0)))
		return -ENOMEM;
	refill_obj_stock(objcg, rest ? SHM_PAGE_SIZE - rest : 0, false, gfpflags_allow_spinning(gfp), stat);
	return 0;
}

/* --- vectors ------------------------------------------------------------------------------------- */

static u64 *slab_obj_exts(const struct page *slab)
{
	u64 exts = READ_ONCE(slab->obj_exts);

	return exts & ~(u64)OBJEXTS_FLAGS_MASK ? ptr_of(exts & ~(u64)OBJEXTS_FLAGS_MASK) : NULL;
}

static void free_vector(u64 vector, bool allow_spin)
{
	if (allow_spin)
		kfree(vector);
	else
		kfree_nolock(vector);
}

__slowpath static u64 alloc_vector(struct kmem_cache *s, const struct page *slab, gfp_t gfp, bool allow_spin)
{
	u64 bytes = (u64)counters_objects(slab->counters) * 8;
	int node = (int)page_node(slab);

	gfp = (gfp & ~OBJCGS_CLEAR_MASK) | __GFP_ZERO | __GFP_NO_OBJ_EXT;
	if (broken(k21) && bytes <= s->object_size && allow_spin)
		return kmem_cache_alloc_node(s, gfp, node);
	if (bytes <= KMALLOC_MAX_CACHE_SIZE && kmalloc_slab(bytes, 0)->object_size == s->object_size)
		bytes = (u64)s->object_size + 1;
	return allow_spin ? kmalloc_node(bytes, gfp, node) :
			    kmalloc_nolock(bytes, __GFP_ZERO | __GFP_NO_OBJ_EXT, node);
}

/* Give a slab its vector.  False: it has none, and the objects of this request stay uncharged. */
__slowpath static bool alloc_slab_obj_exts(struct kmem_cache *s, struct page *slab, gfp_t gfp)
{
	bool allow_spin = gfpflags_allow_spinning(gfp);
	u64 vector = alloc_vector(s, slab, gfp, allow_spin), old = READ_ONCE(slab->obj_exts), new;

	if (!vector) {
		count_memcg(memcg_vector_failed);
		cmpxchg(&slab->obj_exts, 0, OBJEXTS_ALLOC_FAIL);
		return slab_obj_exts(slab);
	}
	count_memcg(memcg_vector_alloc);
	/*
	 * First: from the moment on when the vector is there, objects are charged by it, and a free must look whom;
	 * an interrupt behind the exchange may do both.
	 */
	if (!broken(late_words)) {
		clear_slab_words(slab);
		probe(memcg_vector);
	}
	new = vector | MEMCG_DATA_OBJEXTS | (allow_spin ? 0 : OBJEXTS_NOSPIN_ALLOC);
	do { /* over a mark of failure, but never over a vector */
		if (old & ~(u64)OBJEXTS_FLAGS_MASK) {
			count_memcg(memcg_vector_race);
			free_vector(vector, allow_spin);
			return true;
		}
	} while (!try_cmpxchg(&slab->obj_exts, &old, new));
	if (broken(late_words)) {
		probe(memcg_vector);
		clear_slab_words(slab);
	}
	return true;
}

/* A slab of a cache whose objects are all accounted gets its vector at once. */
__slowpath void memcg_account_new_slab(struct kmem_cache *s, struct page *slab, gfp_t gfp)
{
	if (shm.nr_memcgs && memcg_kmem_online() && !(gfp & __GFP_NO_OBJ_EXT) && !broken(k21))
		alloc_slab_obj_exts(s, slab, gfp);
}

/* The slab is given back.  The mark of a failure must not be left in the page (K-15). */
__slowpath void free_slab_obj_exts(struct page *slab)
{
	u64 exts = slab->obj_exts, vector = exts & ~(u64)OBJEXTS_FLAGS_MASK;

	if (!vector && broken(k15))
		return;
	slab->obj_exts = 0;
	if (vector)
		free_vector(vector, !(exts & OBJEXTS_NOSPIN_ALLOC));
}

/* --- the hooks ----------------------------------------------------------------------------------- */

static u32 obj_to_index(const struct kmem_cache *s, const struct page *slab, u64 object)
{
	return (u32)((object - page_to_off(slab) - s->red_left_pad) / s->size);
}

static u32 obj_full_size(const struct kmem_cache *s)
{
	return s->size + 8;
}

__slowtext static struct slab_stat stat_of(const struct kmem_cache *s, const struct page *slab, s32 bytes)
{
	return (struct slab_stat){ bytes, page_node(slab) + 1,
				   s->flags & SLAB_RECLAIM_ACCOUNT ? STAT_SLAB_RECLAIMABLE : STAT_SLAB_UNRECLAIMABLE };
}

/* The object's charge has failed: back with it, and by the ordinary free (K-46). */
__slowpath static u64 memcg_alloc_abort_single(struct kmem_cache *s, struct page *slab, u64 object)
{
	probe(memcg_abort);
	count_memcg(memcg_abort);
	if (!slab_free_fast(s, slab, object, true))
		__slab_free(s, slab, object, object, 1);
	reason_reset();
	reason_shortage(REASON_MEMCG_LIMIT);
	return 0;
}

__slowpath u64 memcg_slab_post_alloc_hook(struct kmem_cache *s, u64 object, gfp_t gfp)
{
	u32 objcg = current_obj_cgroup();
	struct slab_stat stat;
	struct page *slab;

	if (!objcg || gfp & __GFP_NO_OBJ_EXT || !(gfp & __GFP_ACCOUNT || s->flags & SLAB_ACCOUNT))
		return object;
	probe(memcg_charge);
	slab = virt_to_head_page(object);
	if (!slab_obj_exts(slab) && !alloc_slab_obj_exts(s, slab, gfp)) {
		count_memcg(memcg_unaccounted);
		return object;
	}
	stat = stat_of(s, slab, (s32)obj_full_size(s));
	if (obj_cgroup_charge_account(objcg, gfp, obj_full_size(s), &stat))
		return memcg_alloc_abort_single(s, slab, object);
	obj_cgroup_get(objcg);
	slab_obj_exts(slab)[obj_to_index(s, slab, object)] = objcg;
	count_memcg(memcg_objects);
	return object;
}

/* Before an object of a slab with a vector is freed. */
__slowpath void memcg_slab_free_hook(struct kmem_cache *s, struct page *slab, u64 object, bool allow_spin)
{
	u64 *exts = slab_obj_exts(slab);
	struct slab_stat stat;
	u32 objcg;

	if (!exts)
		return;
	exts += obj_to_index(s, slab, object);
	objcg = (u32)*exts;
	if (!objcg)
		return;
	if (!memcg_by_id(objcg)) {
		violation(VERDICT_CORRUPTION, CHECKER_MEMCG, NULL, LOCK_NONE, 0, object,
			  "a slab's vector names a memcg that does not exist");
		return;
	}
	*exts = 0;
	stat = stat_of(s, slab, -(s32)obj_full_size(s));
	refill_obj_stock(objcg, obj_full_size(s), true, allow_spin, &stat);
	obj_cgroup_put(objcg, allow_spin);
}
