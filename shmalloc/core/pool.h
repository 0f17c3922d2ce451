/* SPDX-License-Identifier: MIT */
/* Element areas, preallocated pools and hash maps: what the pool-like designs share. */
#ifndef SHM_POOL_H
#define SHM_POOL_H

#include "design.h"

/* pool.c */
int area_alloc(struct shm_area *area, u32 nr_elems, u32 elem_size);
void area_free(struct shm_area *area);
u64 alloc_pages_exact(u64 bytes, int node);
void free_pages_exact(u64 off, u32 pages);
bool area_has(const struct shm_area *area, u64 off);

/* Where element i lies; i is below nr_elems. */
__helper u64 area_elem(const struct shm_area *area, u32 i)
{
	const struct area_block *block = area->blocks, *last = block + area->nr_blocks - 1;

	while (block < last && i >= block[1].first)
		block++;
	return block->offset + (u64)(i - block->first) * area->elem_size;
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
