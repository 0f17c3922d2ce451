/* SPDX-License-Identifier: MIT */
/*
 * kmalloc: the size classes over the slab allocator, and large requests over the page allocator.
 *
 * Answers to: mm/slab_common.c (kmalloc_slab, create_kmalloc_caches, krealloc), mm/slub.c (kfree,
 * ksize, large kmalloc).
 * Left out: random kmalloc copies, per-call buckets.
 * Context: task, softirq, irq.
 */
#include "slab_fast.h"
#include "trace.h"

const u8 kmalloc_size_index[24] = {
	3, 4, 5, 5, 6, 6, 6, 6, 1, 1, 1, 1, 7, 7, 7, 7, 2, 2, 2, 2, 2, 2, 2, 2,
};

static const char *const type_prefix[NR_KMALLOC_TYPES] = {
	[KMALLOC_NORMAL] = "kmalloc-",
	[KMALLOC_RECLAIM] = "kmalloc-rcl-",
	[KMALLOC_CGROUP] = "kmalloc-cg-",
	[KMALLOC_DMA] = "dma-kmalloc-",
};

static const u32 type_flags[NR_KMALLOC_TYPES] = {
	[KMALLOC_RECLAIM] = SLAB_RECLAIM_ACCOUNT,
	[KMALLOC_CGROUP] = SLAB_ACCOUNT,
	[KMALLOC_DMA] = SLAB_CACHE_DMA,
};

static u32 bucket_size(u32 bucket)
{
	return bucket == 1 ? 96 : bucket == 2 ? 192 : 1u << bucket;
}

static void cache_name(char *name, const char *prefix, u32 size)
{
	char digits[8];
	u32 n = 0;

	while (*prefix)
		*name++ = *prefix++;
	if (size >= 1024) {
		for (size /= 1024; size; size /= 10)
			digits[n++] = (char)('0' + size % 10);
		while (n)
			*name++ = digits[--n];
		*name++ = 'k';
	} else {
		for (; size; size /= 10)
			digits[n++] = (char)('0' + size % 10);
		while (n)
			*name++ = digits[--n];
	}
	*name = 0;
}

static int create_kmalloc_cache(u32 type, u32 bucket, const struct shm_geometry *g)
{
	u32 size = bucket_size(bucket), align = size & -size, index = shm.hdr->nr_caches;
	char name[SHM_CACHE_NAME];
	int error;

	if (index >= g->max_caches)
		return -ENOSPC;
	cache_name(name, type_prefix[type], size);
	error = kmem_cache_open(&shm.caches[index], name, size, align,
				SLAB_KMALLOC | type_flags[type] | g->slab_debug, 0);
	if (error)
		return error;
	shm.caches[index].kmalloc_type = type;
	shm.hdr->kmalloc_caches[type][bucket] = index;
	shm.hdr->nr_caches++;
	return 0;
}

static bool any_dma_zone(void)
{
	for (u32 i = 0; i < shm.nr_zones; i++)
		if (shm.zones[i].type == ZONE_DMA)
			return true;
	return false;
}

/* While the arena is formatted.  In order of size, as a reader of slabinfo expects. */
int kmem_cache_init(void)
{
	static const u8 order[] = { 3, 4, 5, 6, 1, 7, 2, 8, 9, 10, 11, 12, 13 };
	const struct shm_geometry *g = &shm.hdr->geometry;

	for (u32 type = 0; type < NR_KMALLOC_TYPES; type++) {
		if (type == KMALLOC_DMA && !any_dma_zone()) {
			for (u32 i = 0; i < NR_KMALLOC_CACHES; i++)
				shm.hdr->kmalloc_caches[type][i] = shm.hdr->kmalloc_caches[KMALLOC_NORMAL][i];
			continue;
		}
		for (u32 i = 0; i < ARRAY_SIZE(order); i++) {
			int error = create_kmalloc_cache(type, order[i], g);

			if (error)
				return error;
		}
	}
	return 0;
}

/* A process has its own copy of what the sizes' caches are, when it becomes a CPU. */
void kmalloc_index_load(void)
{
	for (u64 i = 0; i < ARRAY_SIZE(shm.kmalloc_index); i++)
		shm.kmalloc_index[i] = (u16)kmalloc_slab(i * 8 + 1, 0)->index;
}

__slowpath static u64 kmalloc_large(u64 size, gfp_t gfp, int node)
{
	u32 order = fls64((size - 1) >> SHM_PAGE_SHIFT);
	struct page *page;

	if (order > SHM_MAX_PAGE_ORDER) {
		reason_shortage(REASON_SIZE_LIMIT);
		return 0;
	}
	page = alloc_pages(gfp | __GFP_COMP, node, order);
	if (!page)
		return 0;
	page->flags |= PG_large;
	return page_to_off(page);
}

/* size: at most the object's */
__fastpath u64 kmalloc_cache(struct kmem_cache *s, gfp_t gfp, int node, u64 size)
{
	if (slab_should_fail(s, gfp))
		return 0;
	return post_alloc(s, slab_alloc_node_fast(s, gfp, node, size), gfp, size);
}

__slowtext static u64 bytes_of_kmalloc(u64 size, gfp_t gfp)
{
	if (size <= KMALLOC_MAX_CACHE_SIZE)
		return kmalloc_slab(size, gfp)->size;
	return (u64)SHM_PAGE_SIZE << fls64((size - 1) >> SHM_PAGE_SHIFT);
}

__slowpath static u64 kmalloc_traced(u64 size, gfp_t gfp, int node, u64 from)
{
	u64 site = trace_caller(from), object;

	traced_next();
	object = kmalloc_node(size, gfp, node);
	traced_done();
	if (size)
		trace_kmalloc(site, object, size, bytes_of_kmalloc(size, gfp), gfp, node);
	return object;
}

__fastpath u64 kmalloc_node(u64 size, gfp_t gfp, int node)
{
	if (traced_first(TRACE_BIT(kmalloc)))
		return kmalloc_traced(size, gfp, node, TRACED_FROM);
	if (unlikely(!size))
		return SHM_ZERO_SIZE;
	if (unlikely(size > KMALLOC_MAX_CACHE_SIZE))
		return kmalloc_large(size, gfp, node);
	return kmalloc_cache(kmalloc_slab(size, gfp), gfp, node, size);
}

__slowpath static void kfree_traced(u64 object, u64 from)
{
	trace_kfree(from, object);
	traced_next();
	kfree(object);
	traced_done();
}

__fastpath void kfree(u64 object)
{
	struct page *page;

	if (traced_first(TRACE_BIT(kfree) | TRACE_BIT(kmem_cache_free))) {
		kfree_traced(object, TRACED_FROM);
		return;
	}
	if (unlikely(object <= SHM_ZERO_SIZE))
		return;
	page = virt_to_head_page(object);
	if (likely(page->flags & PG_slab)) {
		struct kmem_cache *s = slab_cache(page);

		if (unlikely(page->obj_exts))
			memcg_slab_free_hook(s, page, object, true);
		if (unlikely(!slab_free_fast(s, page, object, true)))
			slab_free_slow(s, page, object);
	} else if (page->flags & PG_large) {
		free_pages(page, page->order);
	} else {
		warn_once();
	}
}

/* the cache of an object that lies in a slab, or NULL */
__slowtext static struct kmem_cache *cache_of_object(u64 object)
{
	const struct page *page;
	u32 index;

	if (object <= SHM_ZERO_SIZE || !off_in_memory(object))
		return NULL;
	page = virt_to_head_page(object);
	index = READ_ONCE(page->slab_cache);
	return page->flags & PG_slab && index ? &shm.caches[index - 1] : NULL;
}

__slowtext static u64 large_size(u64 object)
{
	const struct page *page;

	if (object <= SHM_ZERO_SIZE || !off_in_memory(object))
		return 0;
	page = virt_to_head_page(object);
	return page->flags & PG_large ? (u64)SHM_PAGE_SIZE << page->order : 0;
}

/* Who asks may use all of it from now on: then what was not asked for is no red zone any more. */
__slowtext u64 ksize(u64 object)
{
	const struct kmem_cache *s = cache_of_object(object);

	if (!s)
		return large_size(object);
	set_orig_size(s, object, s->object_size);
	return s->object_size;
}

__slowtext u64 krealloc(u64 object, u64 size, gfp_t gfp)
{
	const struct kmem_cache *s = cache_of_object(object);
	u64 old = s ? s->object_size : large_size(object), asked = s ? get_orig_size(s, object) : old, new;

	if (!size) {
		kfree(object);
		return SHM_ZERO_SIZE;
	}
	if (object > SHM_ZERO_SIZE && old >= size) {
		if (gfp & __GFP_ZERO && asked < size)
			zero_bytes(ptr_of(object + asked), size - asked);
		else if (gfp & __GFP_ZERO) /* so that what it grows by later is zero, too */
			zero_bytes(ptr_of(object + size), old - size);
		if (s)
			set_kmalloc_red_zone(s, object, size);
		return object;
	}
	new = kmalloc_node(size, gfp, NO_NODE);
	if (!new || object <= SHM_ZERO_SIZE)
		return new;
	copy_bytes(ptr_of(new), ptr_of(object), asked);
	kfree(object);
	return new;
}
