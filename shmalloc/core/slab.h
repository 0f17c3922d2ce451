/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the slab allocator share.
 * Answers to: mm/slab.h, include/linux/slub_def.h.
 */
#ifndef SHM_SLAB_H
#define SHM_SLAB_H

#include "page_alloc.h"

/* internal result: the cpu slab's lock is held by an outer context of this CPU */
#define SLAB_EBUSY 1ull
#define NO_NODE SHM_NO_NODE

#define stat(s, field) this_cpu_inc64(&shm.cache_stats[(s)->index].field)

/* the counters word of a slab */
#define COUNTERS_FROZEN (1ull << 31)

__helper u32 counters_inuse(u64 counters)
{
	return counters & 0xffff;
}

__helper u32 counters_objects(u64 counters)
{
	return counters >> 16 & 0x7fff;
}

__helper bool counters_frozen(u64 counters)
{
	return counters & COUNTERS_FROZEN;
}

__helper u64 counters_make(u32 inuse, u32 objects, bool frozen)
{
	return inuse | (u64)objects << 16 | (frozen ? COUNTERS_FROZEN : 0);
}

__helper u32 oo_order(u32 oo)
{
	return oo >> 16;
}

__helper u32 oo_objects(u32 oo)
{
	return oo & 0xffff;
}

/*
 * What a free must know of a page, in one load, so that it need not look at the struct page: of each page of a
 * slab whose objects may be freed by the short way (first.h) the cache's index + 1, the slab's objects from bit
 * 16 on, and where in the slab the page lies, in bytes, from bit 32 on.  Of any other page 0.  A word is written
 * before the slab's first object is handed out, and cleared before its pages are freed.
 */
__helper u64 slab_word(u32 cache, u32 objects, u64 within)
{
	return (cache + 1) | (u64)objects << 16 | within << 32;
}

__helper u32 slab_word_cache(u64 word)
{
	return (u16)word - 1;
}

__helper u32 slab_word_objects(u64 word)
{
	return (u16)(word >> 16);
}

__helper u64 slab_word_within(u64 word)
{
	return word >> 32;
}

__helper struct kmem_cache_cpu *cpu_slab(const struct kmem_cache *s)
{
	return &shm.cpu_caches[s->index];
}

__helper struct kmem_cache_node *cache_node(const struct kmem_cache *s, u32 node)
{
	return &shm.cache_nodes[s->index * shm.nr_nodes + node];
}

__helper struct kmem_cache_node *slab_node(const struct kmem_cache *s, const struct page *slab)
{
	return cache_node(s, page_node(slab));
}

__helper struct kmem_cache *slab_cache(const struct page *slab)
{
	return &shm.caches[slab->slab_cache - 1];
}

__helper bool cache_debug(const struct kmem_cache *s)
{
	return s->flags & SLAB_DEBUG_FLAGS;
}

__helper bool has_cpu_partial(const struct kmem_cache *s)
{
	return !cache_debug(s) && s->cpu_partial_slabs;
}

/* Hardening: the stored link is mangled with a key of the cache and its own address. */
__helper u64 freeptr_mangle(const struct kmem_cache *s, u64 value, u64 at)
{
	return unlikely(s->random) ? value ^ s->random ^ __builtin_bswap64(at) : value;
}

__helper u64 get_freepointer(const struct kmem_cache *s, u64 object)
{
	u64 at = object + s->offset;

	return freeptr_mangle(s, READ_ONCE(*(u64 *)ptr_of(at)), at);
}

__helper void set_freepointer(const struct kmem_cache *s, u64 object, u64 next)
{
	u64 at = object + s->offset;

	if (unlikely(s->random) && unlikely(object == next))
		violation(VERDICT_CORRUPTION, CHECKER_HARDENING, NULL, LOCK_NONE, 0, object,
			  "an object is freed that is the first of its freelist already");
	*(u64 *)ptr_of(at) = freeptr_mangle(s, next, at);
}

__helper bool node_match(u64 slab, int node)
{
	return node == NO_NODE || page_node(ptr_of(slab)) == (u32)node;
}

__helper bool pfmemalloc_match(const struct page *slab, gfp_t gfp)
{
	if (likely(!(slab->flags & PG_pfmemalloc)))
		return true;
	return gfp_pfmemalloc_allowed(gfp);
}

__helper bool node_has_memory(int node)
{
	return (u32)node < shm.nr_nodes && shm.nodes[node].nr_thisnode;
}

/* nearest node with memory, for this CPU */
__helper u32 numa_mem_id(void)
{
	return shm.zones[shm.nodes[this_cpu()->node].zonelist[0]].node;
}

/* --- 7.x: sheaves instead of cpu slabs ----------------------------------------------------------- */

__helper bool sheaf_arena(void)
{
	return shm.geo_flags & SHM_GEO_SHEAVES;
}

__helper struct slab_sheaf *sheaf_at(u64 off)
{
	return ptr_of(off);
}

__helper u64 *sheaf_objects(struct slab_sheaf *sheaf)
{
	return (u64 *)(sheaf + 1);
}

__helper struct slub_percpu_sheaves *this_sheaves(const struct kmem_cache *s)
{
	return &shm.cpu_sheaves[s->index];
}

__helper struct slub_percpu_sheaves *cache_sheaves(const struct kmem_cache *s, u32 cpu)
{
	return (struct slub_percpu_sheaves *)((char *)ptr_of(shm.hdr->regions[REGION_CACHE_SHEAVES].offset) +
					      (u64)cpu * shm.hdr->cache_sheaves_stride) + s->index;
}

__helper struct node_barn *cache_barn(const struct kmem_cache *s, u32 node)
{
	return &shm.barns[s->index * shm.nr_nodes + node];
}

#define sheaf_stat(s, field) this_cpu_inc64(&this_sheaves(s)->field)
#define sheaf_stat_add(s, field, n) this_cpu_add64(&this_sheaves(s)->field, (n))

struct partial_context {
	gfp_t gfp;
	u64 object;   /* out: debug caches get one object instead of a slab */
	u64 orig_size; /* debug caches: bytes asked for */
	bool passed_over; /* out: there are objects, in slabs of the reserves */
};

/* slub_lists.c */
bool slab_update_freelist(const struct kmem_cache *s, struct page *slab, u64 freelist_old, u64 counters_old,
			  u64 freelist_new, u64 counters_new);
u64 get_freelist(const struct kmem_cache *s, struct page *slab);
u64 freeze_slab(const struct kmem_cache *s, struct page *slab);
void add_partial(struct kmem_cache_node *n, struct page *slab, bool tail);
void remove_partial(struct kmem_cache_node *n, struct page *slab);
void deactivate_slab(struct kmem_cache *s, struct page *slab, u64 freelist);
void put_cpu_partial(struct kmem_cache *s, struct page *slab, bool drain);
void put_partials(struct kmem_cache *s, u64 partial);
bool list_lock_irqsave(struct kmem_cache *s, struct kmem_cache_node *n, bool allow_spin, u32 *flags);
struct page *get_partial(struct kmem_cache *s, int node, struct partial_context *pc);

/* slub_slabs.c */
struct page *new_slab(struct kmem_cache *s, gfp_t gfp, int node);
void free_slab(struct kmem_cache *s, struct page *slab);
void clear_slab_words(const struct page *slab);
void free_new_slab_nolock(struct kmem_cache *s, struct page *slab);
void discard_slab(struct kmem_cache *s, struct page *slab);
void inc_slabs_node(struct kmem_cache *s, const struct page *slab);
void dec_slabs_node(struct kmem_cache *s, const struct page *slab);

/* slub_barn.c */
struct node_barn *node_barn_of(const struct kmem_cache *s, u32 node);
u64 barn_get_empty_sheaf(const struct kmem_cache *s, struct node_barn *barn, bool allow_spin);
void barn_put_empty_sheaf(struct node_barn *barn, u64 sheaf);
void barn_put_full_sheaf(struct node_barn *barn, u64 sheaf);
u64 barn_replace_empty_sheaf(const struct kmem_cache *s, struct node_barn *barn, u64 empty, bool allow_spin);
u64 barn_replace_full_sheaf(const struct kmem_cache *s, struct node_barn *barn, u64 full, bool allow_spin,
			    int *error);
u64 alloc_empty_sheaf(struct kmem_cache *s, gfp_t gfp);
void free_empty_sheaf(struct kmem_cache *s, u64 sheaf);
void free_empty_sheaf_nolock(struct kmem_cache *s, u64 sheaf);
void sheaf_flush_unused(struct kmem_cache *s, u64 sheaf);
void barn_shrink(struct kmem_cache *s, u32 node);

/* slub_sheaves.c */
u64 slab_alloc_sheaves(struct kmem_cache *s, gfp_t gfp, int node, u64 orig_size);
void slab_free_sheaves(struct kmem_cache *s, struct page *slab, u64 object);
bool free_to_pcs(struct kmem_cache *s, struct page *slab, u64 object, bool allow_spin);

/* slub_sheaf_rcu.c */
bool kfree_rcu_sheaf(struct kmem_cache *s, u64 object, bool allow_spin);
void kfree_rcu_nolock(u64 object, u32 head_offset);
void flush_rcu_sheaf(u64 sheaf);
void free_deferred_rcu(struct shm_cpu *cpu);

/* slub_sheaf_slow.c */
u64 ___slab_alloc_sheaves(struct kmem_cache *s, gfp_t gfp, int node, u64 orig_size);
u32 refill_objects(struct kmem_cache *s, u64 *objects, gfp_t gfp, u32 min, u32 max);
void sheaf_free_bulk(struct kmem_cache *s, u64 *objects, u32 count);

/* slub_sheaf_cache.c */
u32 calculate_sheaf_capacity(const struct kmem_cache *s);
int init_cache_sheaves(struct kmem_cache *s);
void free_cache_sheaves(struct kmem_cache *s);
int flush_cpu_sheaves(struct kmem_cache *s, u32 cpu);
bool sheaves_unflushed(struct kmem_cache *s);

/* slub_debug.c */
u64 alloc_single_from_partial(struct kmem_cache *s, struct kmem_cache_node *n, struct page *slab, u64 orig_size);
u64 alloc_single_from_new_slab(struct kmem_cache *s, struct page *slab, gfp_t gfp, u64 orig_size);
void free_to_partial_list(struct kmem_cache *s, struct page *slab, u64 head, u64 tail, u32 count);
void setup_slab_debug(const struct kmem_cache *s, struct page *slab, u32 objects);
void check_discarded_slab(const struct kmem_cache *s, const struct page *slab);

/* slub_check.c: bytes that were asked for, as far as a debug cache records them; else the object's */
u32 get_orig_size(const struct kmem_cache *s, u64 object);
void set_orig_size(const struct kmem_cache *s, u64 object, u64 size);
void set_kmalloc_red_zone(const struct kmem_cache *s, u64 object, u64 size);

/* slub_validate.c */
u32 list_remaining_objects(struct kmem_cache *s);

/* slub_params.c */
u32 kmem_cache_flags(u32 flags, const char *name);
bool slab_debug_no_larger_order(void);

/* slub.c */
u64 __slab_alloc(struct kmem_cache *s, gfp_t gfp, int node, u64 orig_size);
void zero_object(const struct kmem_cache *s, u64 object, u64 orig_size);
void __slab_free(struct kmem_cache *s, struct page *slab, u64 head, u64 tail, u32 count);
void slab_free_slow(struct kmem_cache *s, struct page *slab, u64 object);
u64 kmem_cache_alloc_node(struct kmem_cache *s, gfp_t gfp, int node);

/* slub_bulk.c */
u32 kmem_cache_alloc_bulk(struct kmem_cache *s, gfp_t gfp, u32 size, u64 *p);
void kmem_cache_free_bulk(struct kmem_cache *s, u32 size, u64 *p);

/* slub_nolock.c */
u64 kmalloc_nolock(u64 size, gfp_t gfp, int node);
u64 kmem_cache_alloc_nolock(struct kmem_cache *s, gfp_t gfp, int node);
void kfree_nolock(u64 object);
void defer_deactivate_slab(struct page *slab, u64 flush_freelist);
int defer_free_barrier(void);

/* try_kmalloc.c */
u64 try_kmalloc(u64 size, gfp_t gfp, int node);
u64 try_kmem_cache_alloc(struct kmem_cache *s, gfp_t gfp, int node);

/* slub_cache.c */
void calculate_sizes(struct kmem_cache *s, const struct shm_geometry *geometry);
int kmem_cache_open(struct kmem_cache *s, const char *name, u32 size, u32 align, u32 flags, u32 ctor);
int flush_cpu_slab(struct kmem_cache *s, u32 cpu);
void kmem_cache_shrink(struct kmem_cache *s);

/* slab_common.c */
/* bucket of (size - 1) / 8 for sizes up to 192; indices as in header.kmalloc_caches */
extern const u8 kmalloc_size_index[24];
void kmalloc_index_load(void);
u64 kmalloc_cache(struct kmem_cache *s, gfp_t gfp, int node, u64 size);
u64 kmalloc_node(u64 size, gfp_t gfp, int node);
void kfree(u64 object);
u64 ksize(u64 object);
u64 krealloc(u64 object, u64 size, gfp_t gfp);

/* ctor.c */
void ctor_run(u32 ctor, u64 object, u32 bytes);
bool ctor_intact(u32 ctor, u64 object, u32 bytes);
u32 nr_ctors(void);

#endif
