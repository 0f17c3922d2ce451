/* SPDX-License-Identifier: MIT */
/*
 * Elements made in advance: areas, freelists, rings, hash maps; the lists of bpf_mem_alloc.
 */
#ifndef SHM_ARENA_POOLS_H
#define SHM_ARENA_POOLS_H

#include "arena_base.h"
#include "arena_deferred.h"

/*
 * Tells where elements begin without a division: an offset times the inverse of the size's odd part,
 * rotated by the size's power of two, is the quotient if there is no remainder, and larger than any
 * quotient if there is one.
 */
struct exact_divisor {
	uint32_t inverse;
	uint32_t shift;
};

/* Elements of one size in blocks of pages; none crosses the end of its block. */
struct area_block {
	uint64_t offset;             /* of its first element */
	uint32_t nr_elems;
	uint32_t order;
};

struct shm_area {
	uint32_t nr_elems;
	uint32_t elem_size;          /* bytes, a multiple of 8 */
	uint32_t nr_blocks;          /* 0: there is none */
	uint32_t nr_pages;           /* held */
	struct exact_divisor divide; /* by elem_size */
	struct area_block blocks[SHM_AREA_BLOCKS];
};

/* One CPU's part of a pool: one cache line. */
struct pcpu_freelist_head {
	uint64_t first;              /* link word of the first free element; lock */
	struct spinlock lock;        /* rqspinlock: any context, any CPU */
	uint64_t extra;              /* of a map: spare element for replacing updates; exchanged by its CPU */
	uint64_t nr_populated;       /* elements it was given at creation */
	uint64_t pad[4];
};

/* A preallocated pool; number 0 is the design prealloc's own, 1 + m that of map m. */
struct shm_pool {
	uint32_t index;
	uint32_t link;               /* offset of the link word in a free element */
	struct pcpu_freelist_head extralist; /* overflow before 6.15 (k35) */
	struct shm_area area;
};

/* A hash map's bucket. */
struct bucket {
	uint64_t first;              /* offset of an htab_elem, or number of the bucket << 1 | 1 */
	struct spinlock lock;        /* rqspinlock: writers */
};

/* Header of a map's element: 48 bytes, then the key and the value, each rounded up to 8 bytes. */
struct htab_elem {
	uint64_t next;               /* as bucket.first; readers follow it without a lock */
	uint64_t pprev;              /* offset of the word that leads here; free: link to the next free one */
	uint64_t rcu[2];             /* struct rcu_head, while it waits for a grace period */
	uint64_t priv;               /* for the design */
	uint32_t hash;
	uint32_t map;                /* index + 1 */
};

enum shm_map_state { MAP_UNUSED, MAP_LIVE };

struct shm_map {
	uint32_t index;
	uint32_t state;              /* enum shm_map_state; written in task context, nobody else working on it */
	uint32_t design;             /* whose elements */
	uint32_t flags;
	uint32_t key_size;           /* bytes */
	uint32_t value_size;
	uint32_t elem_size;          /* header and both */
	uint32_t max_entries;
	uint32_t n_buckets;          /* power of two */
	uint32_t hashrnd;
	uint64_t count;              /* elements in the buckets; atomic */
	struct shm_area buckets;
};

/* The pool of the design objpool. */
struct objpool_head {
	uint32_t nr_objs;
	uint32_t capacity;           /* entries of each ring: a power of two; 0 = there is no pool */
	uint32_t obj_size;           /* bytes, a multiple of 8 */
	uint32_t freed;              /* taken down: objects that come back are dropped */
	uint32_t ref;                /* objects, and one for the pool itself; atomic */
	uint32_t node_bytes;         /* k45: in front of each object */
	uint64_t freelist;           /* k45: offset of the first object, for all CPUs */
};

/* One CPU's part of it: a cache line that others read as well, and one of its own. */
struct objpool_cpu {
	uint64_t slot;               /* offset of its objpool_slot; 0 = there is no pool */
	uint64_t objects;            /* offset of the first of its share of the objects */
	uint32_t nr_objs;
	uint32_t nr_pages;           /* that both lie in */
	struct exact_divisor divide; /* by the distance from object to object */
	uint32_t nr_all;             /* objects of the pool */
	uint32_t pad;
	uint64_t pad1[3];
	uint32_t pushing;            /* a push of this CPU is in progress, or several, one inside the other */
	uint32_t pad2;
	uint64_t pad3[7];
};

/* A ring; the entries, offsets of objects, follow. */
struct objpool_slot {
	uint32_t head;               /* next to be popped; any CPU */
	uint32_t tail;               /* next place to be reserved; own CPU */
	uint32_t last;               /* places before it are written; own CPU */
	uint32_t mask;               /* capacity - 1 */
};

/* flags of an update, as the kernel's */
#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_EXIST 2

/* bpf_mem_alloc: sizes of the global allocator */
#define BPF_NR_BUCKETS 11

/*
 * Free objects of one size on one CPU.  Links lie in the first 8 bytes of an object, which while it is
 * in use hold the offset of the structure that it was taken from.  irqs off and `active`, or atomic.
 */
struct bpf_mem_cache {
	uint64_t free_llist;         /* what allocations take from; its CPU only */
	uint32_t active;             /* > 0: an update is under way on this CPU */
	int32_t free_cnt;
	struct llist_head free_llist_extra;  /* freed by an NMI that found it active */
	struct irq_work refill_work;
	uint32_t unit_size;          /* bytes, header included; 0 = not in use */
	int16_t low_watermark;       /* objects */
	int16_t high_watermark;
	int16_t batch;               /* objects of a refill */
	uint16_t draining;
	uint16_t refill_failed;      /* the last refill found no memory */
	uint16_t pad;
	uint64_t tgt;                /* where the last freed object came from: a hint, for what is trimmed */
	/* from here on: not on the cache line of allocations and frees */
	uint64_t free_by_rcu;        /* wait for a grace period, from the next refill on */
	uint64_t free_by_rcu_tail;
	struct llist_head free_llist_extra_rcu;
	struct llist_head waiting_for_gp;
	uint64_t waiting_for_gp_tail;
	struct rcu_head rcu;
	struct llist_head free_by_rcu_ttrace;    /* trimmed, or past a grace period: for tasks-trace */
	struct llist_head waiting_for_gp_ttrace;
	struct rcu_head rcu_ttrace;
	uint32_t call_rcu_in_progress;
	uint32_t call_rcu_ttrace_in_progress;
	uint64_t nr_refills;         /* events */
	uint64_t nr_trims;
	uint64_t nr_reused;          /* objects that a refill took from where they waited */
	uint64_t nr_extra;           /* frees that found it active */
};

#endif
