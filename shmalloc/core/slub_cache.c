/* SPDX-License-Identifier: MIT */
/*
 * Caches: how large their slabs are, creating them, emptying them.
 *
 * Answers to: mm/slub.c (calculate_sizes, calculate_order, set_cpu_partial, flush_cpu_slab,
 * __kmem_cache_do_shrink), mm/slab_common.c (kmem_cache_create, kmem_cache_destroy).
 * Kept: a cache that is destroyed while it has objects is warned about, and leaks with its slabs.
 * Left out: merging, aliases, sysfs.
 * Context: task.
 */
#include "list.h"
#include "rcu.h"
#include "slab_fast.h"
#include "smp.h"

#define CACHE_LINE 64
#define SHRINK_PROMOTE_MAX 32 /* free objects */
#define MIN_PARTIAL 5
#define MAX_PARTIAL 10
#define MAX_OBJS_PER_PAGE 32767 /* what the counters word can hold */

static u32 get_order(u64 bytes)
{
	return bytes <= SHM_PAGE_SIZE ? 0 : fls64((bytes - 1) >> SHM_PAGE_SHIFT);
}

static u32 order_objects(u32 order, u32 size)
{
	return (SHM_PAGE_SIZE << order) / size;
}

/* The smallest order that wastes little; more objects per slab the more CPUs there are. */
static u32 calculate_order(u32 size, const struct shm_geometry *g)
{
	u32 min_objects = g->slab_min_objects ? g->slab_min_objects : 4 * (fls64(g->nr_cpus) + 1);
	u32 min_order;

	min_objects = min_of(min_objects, max_of(order_objects(g->slab_max_order, size), 1u));
	min_order = max_of(g->slab_min_order, get_order((u64)min_objects * size));
	if (order_objects(min_order, size) > MAX_OBJS_PER_PAGE)
		return get_order((u64)size * MAX_OBJS_PER_PAGE) - 1;
	for (u32 fraction = 16; fraction > 1; fraction /= 2)
		for (u32 order = min_order; order <= g->slab_max_order; order++)
			if ((SHM_PAGE_SIZE << order) % size <= (SHM_PAGE_SIZE << order) / fraction)
				return order;
	return get_order(size);
}

/* Where the metadata of a free or allocated object lies, and how large a slot becomes. */
static void calculate_layout(struct kmem_cache *s)
{
	u32 size = (u32)round_up(s->object_size, 8);
	bool kmalloc = s->flags & SLAB_KMALLOC;
	bool orig_size = s->flags & SLAB_STORE_USER && kmalloc;

	if (s->flags & SLAB_RED_ZONE && size == s->object_size)
		size += 8;
	s->inuse = size;
	s->offset = s->object_size / 2 & ~7u;
	if (s->flags & (SLAB_TYPESAFE_BY_RCU | SLAB_POISON) || s->ctor ||
	    (s->flags & SLAB_RED_ZONE && (s->object_size < 8 || orig_size))) {
		s->offset = size; /* the content of a free object matters: keep the link out of it */
		size += 8;
	}
	if (s->flags & SLAB_STORE_USER)
		size += 2 * (u32)sizeof(struct track) + (kmalloc ? 4 : 0);
	s->red_left_pad = 0;
	if (s->flags & SLAB_RED_ZONE) {
		s->red_left_pad = (u32)round_up(8, s->align);
		size += 8 + s->red_left_pad;
	}
	s->size = (u32)round_up(size, s->align);
}

static u32 cpu_partial_objects(const struct kmem_cache *s)
{
	if (cache_debug(s))
		return 0;
	if (s->size >= SHM_PAGE_SIZE)
		return 6;
	if (s->size >= 1024)
		return 24;
	return s->size >= 256 ? 52 : 120;
}

/* s->object_size, align, flags and ctor are given. */
void calculate_sizes(struct kmem_cache *s, const struct shm_geometry *g)
{
	u32 order, objects;

	calculate_layout(s);
	order = calculate_order(s->size, g);
	objects = order_objects(order, s->size);
	s->oo = order << 16 | objects;
	s->min = get_order(s->size) << 16 | order_objects(get_order(s->size), s->size);
	s->min_partial = (u32)clamp_of(ilog2(s->size) / 2, (u32)MIN_PARTIAL, (u32)MAX_PARTIAL);
	s->cpu_partial = g->flags & SHM_GEO_SHEAVES ? 0 : cpu_partial_objects(s);
	s->cpu_partial_slabs = (u32)((2ull * s->cpu_partial + objects - 1) / (objects ? objects : 1));
	s->divides = ~0ull / s->size + 1;
	s->allocflags = (order ? __GFP_COMP : 0) | (s->flags & SLAB_CACHE_DMA ? __GFP_DMA : 0) |
			(s->flags & SLAB_CACHE_DMA32 ? __GFP_DMA32 : 0) |
			(s->flags & SLAB_RECLAIM_ACCOUNT ? __GFP_RECLAIMABLE : 0);
	if (!(shm.geo_flags & SHM_GEO_NO_CMPXCHG_DOUBLE) &&
	    !(s->flags & (SLAB_CONSISTENCY_CHECKS | SLAB_STORE_USER | SLAB_TRACE)))
		s->flags |= SLAB_CMPXCHG_DOUBLE;
}

static void init_random_seq(struct kmem_cache *s, u64 *seed)
{
	u32 objects = oo_objects(s->oo);

	if (objects > SHM_RANDOM_SEQ)
		return;
	for (u32 i = 0; i < objects; i++)
		s->random_seq[i] = (u16)i;
	for (u32 i = objects; i > 1; i--) {
		u32 j = (u32)((random_next(seed) >> 32) * i >> 32);
		u16 swap = s->random_seq[i - 1];

		s->random_seq[i - 1] = s->random_seq[j];
		s->random_seq[j] = swap;
	}
}

static void init_cache_nodes(const struct kmem_cache *s)
{
	for (u32 node = 0; node < shm.nr_nodes; node++) {
		struct kmem_cache_node *n = cache_node(s, node);

		n->list_lock = (struct spinlock){ 0, LOCK_LIST };
		n->nr_partial = n->nr_slabs = n->total_objects = 0;
		list_init(&n->partial);
		list_init(&n->full);
	}
}

static struct kmem_cache_cpu *cache_cpu_of(const struct kmem_cache *s, u32 cpu)
{
	return (struct kmem_cache_cpu *)((char *)ptr_of(shm.hdr->regions[REGION_CACHE_CPUS].offset) +
					 (u64)cpu * shm.hdr->cache_cpus_stride) + s->index;
}

static void init_cache_cpus(const struct kmem_cache *s)
{
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
		struct kmem_cache_cpu *c = cache_cpu_of(s, cpu);

		c->freelist = c->slab = c->partial = 0;
		if (!c->tid)
			c->tid = cpu; /* init_tid; a reused entry goes on counting */
		c->lock = (struct spinlock){ 0, LOCK_CPU_SLAB };
	}
}

static u32 calculate_alignment(u32 flags, u32 align, u32 size)
{
	if (flags & SLAB_HWCACHE_ALIGN) {
		u32 line = CACHE_LINE;

		while (size <= line / 2)
			line /= 2;
		align = max_of(align, line);
	}
	return (u32)round_up(max_of(align, 8u), 8);
}

static bool name_ok(const char *name)
{
	u32 length = 0;

	while (name[length])
		if ((u8)name[length] <= ' ' || ++length >= SHM_CACHE_NAME)
			return false;
	return length;
}

static bool same_name(const char *a, const char *b)
{
	for (; *a == *b; a++, b++)
		if (!*a)
			return true;
	return false;
}

static int check_request(const char *name, u32 size, u32 align, u32 flags, u32 ctor)
{
	const u32 known = SLAB_DEBUG_FLAGS | SLAB_HWCACHE_ALIGN | SLAB_CACHE_DMA | SLAB_CACHE_DMA32 |
			  SLAB_TYPESAFE_BY_RCU | SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT | SLAB_PANIC | SLAB_KMALLOC |
			  SLAB_NO_USER_FLAGS | SLAB_FAILSLAB;

	if (!name_ok(name) || !size || size > SHM_PAGE_SIZE << SHM_MAX_PAGE_ORDER || flags & ~known)
		return -EINVAL;
	if (align & (align - 1) || align > SHM_PAGE_SIZE || ctor >= nr_ctors())
		return -EINVAL;
	for (u32 i = 0; i < shm.hdr->nr_caches; i++)
		if (shm.caches[i].state != CACHE_UNUSED && shm.caches[i].state != CACHE_LEAKED &&
		    same_name(shm.caches[i].name, name))
			return -EEXIST;
	return 0;
}

/* Initialise a free entry of the cache table; slab_mutex held, or nobody else there yet. */
int kmem_cache_open(struct kmem_cache *s, const char *name, u32 size, u32 align, u32 flags, u32 ctor)
{
	u64 seed = shm.hdr->geometry.seed ^ (s - shm.caches + 1) * 0x9e3779b97f4a7c15ull;
	u32 i = 0;
	int error;

	zero_bytes(s, sizeof(*s));
	s->index = (u32)(s - shm.caches);
	s->object_size = size;
	s->flags = kmem_cache_flags(flags, name);
	if (s->flags & SLAB_POISON && !(flags & SLAB_TYPESAFE_BY_RCU) && !ctor)
		s->flags |= SLAB_OBJECT_POISON;
	if (shm.hdr->failslab.armed)
		s->flags |= SLAB_MAY_FAIL;
	s->ctor = ctor;
	s->align = calculate_alignment(flags, align, size);
	s->remote_node_defrag_ratio = 1000;
	s->refcount = 1;
	for (; name[i]; i++)
		s->name[i] = name[i];
	calculate_sizes(s, &shm.hdr->geometry);
	if (slab_debug_no_larger_order() && get_order(s->size) > get_order(s->object_size)) {
		s->flags &= ~(SLAB_RED_ZONE | SLAB_POISON | SLAB_OBJECT_POISON | SLAB_STORE_USER);
		calculate_sizes(s, &shm.hdr->geometry);
	}
	if (!oo_objects(s->oo) || oo_order(s->oo) > SHM_MAX_PAGE_ORDER)
		return -EINVAL;
	seed = seed ? seed : 1;
	if (shm.geo_flags & SHM_GEO_FREELIST_HARDENED)
		s->random = random_next(&seed) | 1;
	if (shm.geo_flags & SHM_GEO_FREELIST_RANDOM)
		init_random_seq(s, &seed);
	if (cache_debug(s) || s->flags & SLAB_ACCOUNT || s->random || !(s->flags & SLAB_CMPXCHG_DOUBLE))
		s->flags |= SLAB_UNORDINARY; /* not for first.h */
	init_cache_nodes(s);
	init_cache_cpus(s);
	error = init_cache_sheaves(s);
	if (!error)
		WRITE_ONCE(s->state, CACHE_LIVE);
	return error;
}

static int create(const char *name, u32 size, u32 align, u32 flags, u32 ctor)
{
	int error = check_request(name, size, align, flags, ctor);
	u32 index = 0;

	if (error)
		return error;
	while (index < shm.hdr->nr_caches && shm.caches[index].state != CACHE_UNUSED)
		index++;
	if (index >= shm.hdr->geometry.max_caches)
		return -ENOSPC;
	error = kmem_cache_open(&shm.caches[index], name, size, align, flags, ctor);
	if (error)
		return error;
	if (index == shm.hdr->nr_caches)
		WRITE_ONCE(shm.hdr->nr_caches, index + 1);
	return (int)index;
}

static int create_locked(const char *name, u32 size, u32 align, u32 flags, u32 ctor)
{
	int result;

	spin_lock(&shm.hdr->slab_mutex);
	result = create(name, size, align, flags, ctor);
	spin_unlock(&shm.hdr->slab_mutex);
	return result;
}

__export int shm_kmem_cache_create(const char *name, uint32_t size, uint32_t align, uint32_t flags, uint32_t ctor)
{
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM, create_locked(name, size, align, flags, ctor));
}

/*
 * On the owner CPU, or for a CPU that nobody is.  -EOWNERDEAD: its owner died in the middle of an
 * update, and what it held cannot be told.
 */
__slowtext int flush_cpu_slab(struct kmem_cache *s, u32 cpu)
{
	struct kmem_cache_cpu *c = cache_cpu_of(s, cpu);
	u64 slab, freelist, partial;
	u32 flags;

	if (sheaf_arena())
		return flush_cpu_sheaves(s, cpu);
	if (cpu != this_cpu()->id && local_lock_is_locked(&c->lock))
		return -EOWNERDEAD;
	flags = local_lock_irqsave(&c->lock);
	slab = c->slab;
	freelist = c->freelist;
	partial = c->partial;

	WRITE_ONCE(c->slab, 0);
	WRITE_ONCE(c->freelist, 0);
	WRITE_ONCE(c->partial, 0);
	tid_bump(c);
	local_unlock_irqrestore(&c->lock, flags);
	if (slab) {
		stat(s, cpuslab_flush);
		deactivate_slab(s, ptr_of(slab), freelist);
	}
	if (partial)
		put_partials(s, partial);
	return 0;
}

/* Slabs with few free objects go to the head, those with the fewest first; list_lock held. */
__slowtext static void promote_fullest(struct kmem_cache_node *n)
{
	for (u32 nr_free = SHRINK_PROMOTE_MAX; nr_free; nr_free--) {
		for (u64 at = n->partial.next, next; at != off_of(&n->partial); at = next) {
			struct page *slab = list_page(at);

			next = slab->lru.next;
			if (counters_objects(slab->counters) - counters_inuse(slab->counters) != nr_free)
				continue;
			list_del(&slab->lru);
			list_add(&slab->lru, &n->partial);
		}
	}
}

/* Give the empty slabs of the partial lists back; of the rest the fullest go first from now on. */
__slowtext void kmem_cache_shrink(struct kmem_cache *s)
{
	for (u32 node = 0; node < shm.nr_nodes; node++) {
		struct kmem_cache_node *n = cache_node(s, node);
		u32 flags;
		u64 empty = 0;

		if (sheaf_arena())
			barn_shrink(s, node);
		flags = spin_lock_irqsave(&n->list_lock);

		for (u64 at = n->partial.next, next; at != off_of(&n->partial); at = next) {
			struct page *slab = list_page(at);

			next = slab->lru.next;
			if (counters_inuse(slab->counters))
				continue;
			remove_partial(n, slab);
			slab->lru.next = empty;
			empty = off_of(slab);
			dec_slabs_node(s, slab);
		}
		promote_fullest(n);
		spin_unlock_irqrestore(&n->list_lock, flags);
		while (empty) {
			struct page *slab = ptr_of(empty);

			empty = slab->lru.next;
			stat(s, free_slab);
			free_slab(s, slab);
		}
	}
}

static struct kmem_cache *live_cache(u32 index)
{
	if (index >= shm.hdr->nr_caches || shm.caches[index].state != CACHE_LIVE)
		return NULL;
	return &shm.caches[index];
}

static int shrink(u32 index)
{
	struct kmem_cache *s = live_cache(index);
	int error;

	if (!s)
		return -EINVAL;
	error = flush_all(index);
	kmem_cache_shrink(s);
	return error;
}

__export int shm_kmem_cache_shrink(unsigned int cache)
{
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM, shrink(cache));
}

static bool is_kmalloc_bucket(u32 index)
{
	for (u32 type = 0; type < NR_KMALLOC_TYPES; type++)
		for (u32 i = 1; i < NR_KMALLOC_CACHES; i++)
			if (shm.hdr->kmalloc_caches[type][i] == index)
				return true;
	return false;
}

/*
 * 0, or how many slabs are lost with the cache, or an errno: then nothing was destroyed.
 * slab_mutex held: nobody else destroys the cache meanwhile, or waits for the same irq_work (K-28).
 * Other CPUs are interrupted, which they allow while they wait for the mutex.
 */
static int shutdown_cache(u32 index)
{
	struct kmem_cache *s = live_cache(index);
	int error, leaked;

	if (!s)
		return -EINVAL;
	WRITE_ONCE(s->state, CACHE_DYING);
	error = broken(no_free_barrier) ? 0 : defer_free_barrier();
	error = error ? error : flush_all(index);
	if (error) {
		WRITE_ONCE(s->state, CACHE_LIVE);
		return error;
	}
	kmem_cache_shrink(s);
	if (sheaves_unflushed(s)) {
		WRITE_ONCE(s->state, CACHE_LIVE);
		return -EBUSY;
	}
	leaked = (int)list_remaining_objects(s);
	if (leaked) {
		warn_once();
		if (!shm.hdr->slab_errors_count)
			violation(VERDICT_BROKEN_RULE, CHECKER_API, NULL, LOCK_NONE, 0, 0,
				  "a cache was destroyed while it had objects");
	}
	return leaked;
}

/* Grace periods are waited for without the mutex: who waits for that is no reader. */
static int destroy(u32 index)
{
	struct kmem_cache *s = live_cache(index);
	int result = 0;

	if (!s || is_kmalloc_bucket(index))
		return -EINVAL;
	if (sheaf_arena()) /* so that sheaves which kfree_rcu has begun to fill are on their way, too */
		result = defer_free_barrier();
	if (sheaf_arena() && !result)
		result = flush_all(index);
	result = result ? result : rcu_barrier(); /* objects on their way by kfree_rcu */
	if (result)
		return result;
	spin_lock(&shm.hdr->slab_mutex);
	result = shutdown_cache(index);
	spin_unlock(&shm.hdr->slab_mutex);
	if (result < 0)
		return result;
	if (s->flags & SLAB_TYPESAFE_BY_RCU)
		(void)rcu_barrier(); /* slabs on their way */
	if (!result)
		free_cache_sheaves(s);
	WRITE_ONCE(s->state, result ? CACHE_LEAKED : CACHE_UNUSED);
	return result;
}

__export int shm_kmem_cache_destroy(unsigned int cache)
{
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM, destroy(cache));
}

static int barrier_locked(void)
{
	int error;

	spin_lock(&shm.hdr->slab_mutex);
	error = defer_free_barrier();
	spin_unlock(&shm.hdr->slab_mutex);
	return error;
}

__export int shm_defer_free_barrier(void)
{
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM, barrier_locked());
}

__export int shm_slab_sizing(uint32_t size, uint32_t flags, const struct shm_geometry *geometry, uint32_t *out)
{
	struct kmem_cache s = { .object_size = size, .flags = flags, .align = 8 };

	if (!size || size > SHM_PAGE_SIZE << SHM_MAX_PAGE_ORDER || !geometry->nr_cpus ||
	    geometry->slab_max_order > SHM_MAX_PAGE_ORDER || geometry->slab_min_order > geometry->slab_max_order ||
	    geometry->slab_min_objects > 32767)
		return -EINVAL;
	if (flags & SLAB_KMALLOC)
		s.align = max_of(8u, size & -size);
	calculate_sizes(&s, geometry);
	out[0] = oo_order(s.oo);
	out[1] = oo_objects(s.oo);
	out[2] = s.cpu_partial_slabs;
	out[3] = s.min_partial;
	return 0;
}
