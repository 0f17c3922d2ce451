/* SPDX-License-Identifier: MIT */
/*
 * Looking at all objects of a debug cache: on request, and when a cache that is not empty goes.
 *
 * Answers to: mm/slub.c (validate_slab_cache, validate_slab_node, validate_slab, list_slab_objects).
 * Changed: the result is the number of reports.
 * Context: task.
 */
#include "list.h"
#include "slub_debug.h"
#include "smp.h"

#define MAP_WORDS 512 /* 32768 objects */

struct object_map {
	u64 free[MAP_WORDS];
};

__slowtext static u64 object_number(const struct kmem_cache *s, const struct page *slab, u64 object)
{
	return (object - first_object(s, slab)) / s->size;
}

/* of a freelist that is sound, or at least ends */
__slowpath static void fill_map(const struct kmem_cache *s, const struct page *slab, struct object_map *map)
{
	u32 left = counters_objects(slab->counters);

	zero_bytes(map, sizeof(*map));
	for (u64 at = slab->freelist; at && left-- && check_valid_pointer(s, slab, at); at = get_freepointer(s, at)) {
		u64 number = object_number(s, slab, at);

		map->free[number / 64] |= 1ull << number % 64;
	}
}

static bool is_free(const struct kmem_cache *s, const struct page *slab, const struct object_map *map, u64 object)
{
	u64 number = object_number(s, slab, object);

	return map->free[number / 64] >> number % 64 & 1;
}

__slowpath static void validate_slab(const struct kmem_cache *s, struct page *slab, struct object_map *map)
{
	if (!check_slab(s, slab) || !on_freelist(s, slab, 0))
		return;
	fill_map(s, slab, map);
	for_each_object(object, s, slab, counters_objects(slab->counters))
		if (!check_object(s, slab, object,
				  is_free(s, slab, map, object) ? SLUB_RED_INACTIVE : SLUB_RED_ACTIVE))
			return;
}

__slowtext static u64 validate_list(const struct kmem_cache *s, const struct list_head *list, struct object_map *map)
{
	u64 count = 0;

	for (u64 at = list->next; at != off_of(list); at = list_ptr(at)->next, count++)
		validate_slab(s, list_page(at), map);
	return count;
}

__slowpath static void validate_slab_node(const struct kmem_cache *s, struct kmem_cache_node *n)
{
	struct object_map map;
	u32 flags = spin_lock_irqsave(&n->list_lock);
	u64 count = validate_list(s, &n->partial, &map);

	if (count != n->nr_partial)
		slab_bug(s, SLAB_BUG_NR_PARTIAL, 0, 0, n->nr_partial, count, 0);
	if (s->flags & SLAB_STORE_USER) { /* else full slabs are on no list */
		count += validate_list(s, &n->full, &map);
		if (count != READ_ONCE(n->nr_slabs))
			slab_bug(s, SLAB_BUG_NR_SLABS, 0, 0, n->nr_slabs, count, 0);
	}
	spin_unlock_irqrestore(&n->list_lock, flags);
}

__slowpath static s64 validate_slab_cache(struct kmem_cache *s)
{
	u32 before = READ_ONCE(shm.hdr->slab_errors);
	int error = flush_all(s->index);

	if (error)
		return error;
	for (u32 node = 0; node < shm.nr_nodes; node++)
		validate_slab_node(s, cache_node(s, node));
	return READ_ONCE(shm.hdr->slab_errors) - before;
}

__export int64_t shm_validate_slab(unsigned int cache)
{
	struct kmem_cache *s;

	if (!shm.base || cache >= shm.hdr->nr_caches || shm.caches[cache].state != CACHE_LIVE)
		return -EINVAL;
	s = &shm.caches[cache];
	if (!cache_debug(s))
		return -EOPNOTSUPP;
	return GUARDED(s64, thread_is_cpu() ? -EDEADLK : -EPERM, validate_slab_cache(s));
}

/*
 * A cache is being destroyed: what is left on its partial lists is in use.  One report for each such
 * slab and each object, as in the kernel; full slabs of a cache without a list of them are not seen.
 */
__slowpath u32 list_remaining_objects(struct kmem_cache *s)
{
	struct object_map map;
	u32 slabs = 0;

	for (u32 node = 0; node < shm.nr_nodes; node++) {
		struct kmem_cache_node *n = cache_node(s, node);
		u32 flags = spin_lock_irqsave(&n->list_lock);

		for (u64 at = n->partial.next; at != off_of(&n->partial); at = list_ptr(at)->next) {
			struct page *slab = list_page(at);

			slab_bug(s, SLAB_BUG_REMAINING_SLAB, page_to_off(slab), 0, 0, 0, 0);
			fill_map(s, slab, &map);
			for_each_object(object, s, slab, counters_objects(slab->counters))
				if (!is_free(s, slab, &map, object))
					slab_fix(s, SLAB_BUG_REMAINING_OBJECT, object);
		}
		spin_unlock_irqrestore(&n->list_lock, flags);
		slabs += (u32)READ_ONCE(n->nr_slabs);
	}
	return slabs;
}
