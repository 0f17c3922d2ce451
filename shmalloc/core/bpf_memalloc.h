/* SPDX-License-Identifier: MIT */
/*
 * The BPF allocator: per-CPU lists of one size each, refilled and trimmed by irq_work.
 * Answers to: include/linux/bpf_mem_alloc.h.
 */
#ifndef SHM_BPF_MEMALLOC_H
#define SHM_BPF_MEMALLOC_H

#include "slab.h"

/* in front of every object: its link while it is free, then the list that it came from */
#define BPF_HEADER_BYTES 8
#define BPF_MAX_SIZE (4096 - BPF_HEADER_BYTES)

/* offsets of objects are those behind the header, as the callers see them */
u64 unit_alloc(struct bpf_mem_cache *c);
void unit_free(struct bpf_mem_cache *c, u64 object);
void unit_free_rcu(struct bpf_mem_cache *c, u64 object);

/* this CPU's list for a size, without the header; NULL: it is served by none */
struct bpf_mem_cache *bpf_mem_bucket(u64 size);
/* this CPU's list of the global allocator that an object came from */
struct bpf_mem_cache *bpf_mem_bucket_of(u64 object);
/* this CPU's list of a map's own allocator */
struct bpf_mem_cache *bpf_mem_fixed(const struct shm_map *map);

/* task context; -ENOMEM if not even the prefill was to be had: then nothing is left behind */
int bpf_mem_alloc_init(void);
int bpf_mem_alloc_init_fixed(const struct shm_map *map);
/* task context, nobody else working on it: everything goes back, after the grace periods that it waits for */
void bpf_mem_alloc_destroy(void);
void bpf_mem_alloc_destroy_fixed(const struct shm_map *map);

#endif
