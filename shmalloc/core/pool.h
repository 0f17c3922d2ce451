/* SPDX-License-Identifier: MIT */
/* Element areas, preallocated pools and hash maps: what the pool-like designs share. */
#ifndef SHM_POOL_H
#define SHM_POOL_H

#include "design.h"
#include "lock.h"

/* pool.c */
int area_alloc(struct shm_area *area, u32 nr_elems, u32 elem_size);
void area_free(struct shm_area *area);
u64 alloc_pages_exact(u64 bytes, int node);
void free_pages_exact(u64 off, u32 pages);
struct exact_divisor exact_divisor(u32 by);

__helper u32 quotient_of(const struct exact_divisor *divisor, u32 n)
{
	u32 x = n * divisor->inverse;

	return x >> divisor->shift | x << (-divisor->shift & 31);
}

#define MAX_BLOCK_BYTES ((u64)SHM_PAGE_SIZE << SHM_MAX_PAGE_ORDER)

/* Is this where an element begins? */
__helper bool area_has(const struct shm_area *area, u64 off)
{
	const struct area_block *block = area->blocks, *end = block + area->nr_blocks;

	for (; block < end; block++) {
		u64 within = off - block->offset;

		if (within < MAX_BLOCK_BYTES && quotient_of(&area->divide, (u32)within) < block->nr_elems)
			return true;
	}
	return false;
}

/* Where element i lies; i is below nr_elems. */
__helper u64 area_elem(const struct shm_area *area, u32 i)
{
	const struct area_block *block = area->blocks, *last = block + area->nr_blocks - 1;

	for (; block < last && i >= block->nr_elems; block++)
		i -= block->nr_elems;
	return block->offset + (u64)i * area->elem_size;
}

__helper struct pcpu_freelist_head *pool_head(const struct shm_pool *pool, u32 cpu)
{
	return &shm.freelists[(u64)pool->index * shm.nr_cpus + cpu];
}

__helper struct shm_pool *map_pool(const struct shm_map *map)
{
	return &shm.pools[1 + map->index];
}

/* percpu_freelist.c */
int pcpu_freelist_init(struct shm_pool *pool, u32 nr_elems, u32 spare, u32 elem_size, u32 link);
void pcpu_freelist_destroy(struct shm_pool *pool);
u64 __pcpu_freelist_pop(struct shm_pool *pool);
void __pcpu_freelist_push(struct shm_pool *pool, u64 elem);

/*
 * The own freelist of the design prealloc, whose links lie at the elements' starts, by one try.  Irqs off, any
 * context.  0, false: nothing was changed.
 */
__helper u64 pop_own(struct pcpu_freelist_head *head)
{
	u64 elem;

	if (unlikely(!READ_ONCE(head->first)) || unlikely(!res_spin_trylock(&head->lock)))
		return 0;
	probe(freelist_pop_locked);
	elem = head->first;
	if (likely(elem)) /* nobody has stolen it before the lock was taken */
		WRITE_ONCE(head->first, *(const u64 *)ptr_of(elem));
	spin_unlock(&head->lock);
	return elem;
}

__helper bool push_own(struct pcpu_freelist_head *head, u64 elem)
{
	if (unlikely(!res_spin_trylock(&head->lock)))
		return false;
	probe(freelist_push_locked);
	*(u64 *)ptr_of(elem) = head->first;
	WRITE_ONCE(head->first, elem);
	spin_unlock(&head->lock);
	return true;
}

/* hashtab.c: the caller is in a read-side section */
int htab_map_update(struct shm_map *map, const void *key, const void *value, u64 flags);
int htab_map_lookup(struct shm_map *map, const void *key, void *value);
int htab_map_delete(struct shm_map *map, const void *key);
/* the same for a key that is a number and a value that is that key's pattern */
int htab_map_update_number(struct shm_map *map, u32 number, u64 flags);
int htab_map_check_number(struct shm_map *map, u32 number);
int htab_map_delete_number(struct shm_map *map, u32 number);

/* A live map, or NULL. */
__helper struct shm_map *map_of(u32 index)
{
	return index < shm.hdr->geometry.max_maps && READ_ONCE(shm.maps[index].state) == MAP_LIVE ?
	       &shm.maps[index] : NULL;
}

#endif
