/* SPDX-License-Identifier: MIT */
/*
 * Caches, their nodes and cpu slabs, what the debug checks keep; 7.x: sheaves and barns.
 */
#ifndef SHM_ARENA_SLAB_H
#define SHM_ARENA_SLAB_H

#include "arena_base.h"

/* kmem_cache flags, kernel names */
#define SLAB_CONSISTENCY_CHECKS 0x1u
#define SLAB_RED_ZONE 0x2u
#define SLAB_POISON 0x4u
#define SLAB_STORE_USER 0x8u
#define SLAB_TRACE 0x10u
#define SLAB_KMALLOC 0x20u
#define SLAB_HWCACHE_ALIGN 0x40u
#define SLAB_CACHE_DMA 0x80u
#define SLAB_CACHE_DMA32 0x100u
#define SLAB_TYPESAFE_BY_RCU 0x200u
#define SLAB_RECLAIM_ACCOUNT 0x400u
#define SLAB_ACCOUNT 0x800u
#define SLAB_PANIC 0x1000u
#define SLAB_NO_USER_FLAGS 0x2000u    /* slab_debug= leaves this cache alone */
#define SLAB_FAILSLAB 0x4000u         /* marked for failslab's cache filter */
#define SLAB_CMPXCHG_DOUBLE 0x10000u  /* set by the core: freelist updates by cmpxchg16b */
#define SLAB_OBJECT_POISON 0x20000u   /* set by the core: the content of free objects is poisoned */
#define SLAB_MAY_FAIL 0x40000u        /* set by the core while failslab is armed */
#define SLAB_UNORDINARY 0x80000u      /* set by the core: debugged, charged, hardened or without cmpxchg16b */
#define SLAB_DEBUG_FLAGS 0x1fu

/* what the debug checks write and expect, kernel values */
#define SLUB_RED_INACTIVE 0xbb
#define SLUB_RED_ACTIVE 0xcc
#define POISON_INUSE 0x5a             /* padding, and fresh pages */
#define POISON_FREE 0x6b
#define POISON_END 0xa5

/* Who allocated or freed an object last; two of them behind each object of a SLAB_STORE_USER cache. */
struct track {
	uint64_t addr;               /* of the caller, relative to the core's load address; 0: never */
	uint32_t handle;             /* of a stack: always 0, there is no stack depot */
	int32_t cpu;
	int32_t pid;
	uint32_t checked;            /* the address is one of the checked flavour */
	uint64_t when;               /* TSC ticks */
};

/* what a check of a debug cache can find, and from SLAB_FIX_RESTORED on what it did about it */
enum shm_slab_bug { SLAB_BUG_NONE, SLAB_BUG_NOT_A_SLAB, SLAB_BUG_OBJECTS, SLAB_BUG_INUSE, SLAB_BUG_DISABLED,
	SLAB_BUG_FREELIST_POINTER, SLAB_BUG_FREECHAIN, SLAB_BUG_FREEPOINTER, SLAB_BUG_CYCLE, SLAB_BUG_NR_OBJECTS,
	SLAB_BUG_OBJECT_COUNT, SLAB_BUG_FREES, SLAB_BUG_POINTER, SLAB_BUG_ALREADY_FREE, SLAB_BUG_WRONG_CACHE,
	SLAB_BUG_LEFT_REDZONE, SLAB_BUG_RIGHT_REDZONE, SLAB_BUG_KMALLOC_REDZONE, SLAB_BUG_ALIGN_PADDING,
	SLAB_BUG_POISON, SLAB_BUG_END_POISON, SLAB_BUG_OBJECT_PADDING, SLAB_BUG_SLAB_PADDING,
	SLAB_BUG_NR_PARTIAL, SLAB_BUG_NR_SLABS, SLAB_BUG_REMAINING_SLAB, SLAB_BUG_REMAINING_OBJECT,
	SLAB_FIX_RESTORED, SLAB_FIX_FREELIST_CLEARED, SLAB_FIX_NR_OBJECTS, SLAB_FIX_OBJECT_COUNT,
	SLAB_FIX_ALL_USED, SLAB_FIX_NOT_FREED, NR_SLAB_BUGS };

/* One report of a debug check. */
struct shm_slab_error {
	uint32_t ready;              /* set last */
	uint32_t kind;               /* enum shm_slab_bug */
	uint32_t cache;              /* index */
	uint32_t cpu;
	uint64_t object;             /* offset of the object, or of the slab's memory */
	uint64_t at;                 /* offset of the first wrong byte, or 0 */
	uint64_t found;              /* byte, count or pointer */
	uint64_t expected;
	uint64_t bytes;              /* from the first wrong one to the last */
};

/* One allocation or free of a SLAB_TRACE cache. */
struct shm_slab_trace {
	uint64_t object;
	uint64_t freelist;           /* of the slab */
	uint32_t cache;              /* index */
	uint16_t inuse;
	uint8_t alloc;               /* 1 allocation, 0 free */
	uint8_t cpu;
};

enum shm_kmalloc_type { KMALLOC_NORMAL, KMALLOC_RECLAIM, KMALLOC_CGROUP, KMALLOC_DMA, NR_KMALLOC_TYPES };
#define KMALLOC_SHIFT_HIGH 13
#define KMALLOC_MAX_CACHE_SIZE 8192
#define NR_KMALLOC_CACHES 14   /* index 1 = 96, 2 = 192, 3.. = 8.. ; 0 unused */

/* leaked: destroyed while it had objects; its slabs stay as they are, its name is free again */
enum shm_cache_state { CACHE_UNUSED, CACHE_LIVE, CACHE_DYING, CACHE_LEAKED };

struct kmem_cache {
	uint32_t index;              /* in the cache table */
	uint32_t state;              /* enum shm_cache_state; slab_mutex */
	uint32_t flags;
	uint32_t size;               /* with metadata, bytes */
	uint64_t divides;            /* ceil(2^64 / size): n * divides < divides if size divides n */
	uint32_t object_size;        /* without, bytes */
	uint32_t inuse;              /* offset of the metadata */
	uint32_t offset;             /* of the free pointer in a free object */
	uint32_t align;
	uint32_t red_left_pad;
	uint32_t oo;                 /* order << 16 | objects */
	uint32_t min;                /* the same for the fallback order */
	uint32_t min_partial;        /* slabs kept per node though empty */
	uint32_t cpu_partial;        /* objects */
	uint32_t cpu_partial_slabs;
	uint32_t allocflags;
	uint32_t ctor;               /* index into the constructor table, 0 = none */
	uint32_t remote_node_defrag_ratio; /* 0..1000 */
	uint32_t refcount;
	uint32_t kmalloc_type;
	uint32_t sheaf_capacity;     /* objects; 0 = no sheaves: a debug cache, or a 6.18 arena */
	uint64_t random;             /* hardening key */
	char name[SHM_CACHE_NAME];
	uint16_t random_seq[SHM_RANDOM_SEQ]; /* permutation of object indices, if randomised */
};

struct kmem_cache_node {
	struct spinlock list_lock;
	uint64_t nr_partial;         /* list_lock */
	struct list_head partial;    /* list_lock */
	uint64_t nr_slabs;           /* atomic */
	uint64_t total_objects;      /* atomic */
	struct list_head full;       /* debug caches with STORE_USER only; list_lock */
	uint64_t pad[7];
};

/* Event counters of one cache on one CPU, kernel names.  Owner CPU only, one instruction each. */
struct kmem_cache_stat {
	uint64_t alloc_fastpath;
	uint64_t alloc_slowpath;
	uint64_t free_fastpath;
	uint64_t free_slowpath;
	uint64_t free_frozen;
	uint64_t free_add_partial;
	uint64_t free_remove_partial;
	uint64_t alloc_from_partial;
	uint64_t alloc_slab;
	uint64_t alloc_refill;
	uint64_t alloc_node_mismatch;
	uint64_t free_slab;
	uint64_t cpuslab_flush;
	uint64_t deactivate_full;
	uint64_t deactivate_empty;
	uint64_t deactivate_to_head;
	uint64_t deactivate_to_tail;
	uint64_t deactivate_remote_frees;
	uint64_t deactivate_bypass;
	uint64_t order_fallback;
	uint64_t cmpxchg_double_cpu_fail;
	uint64_t cmpxchg_double_fail;
	uint64_t cpu_partial_alloc;
	uint64_t cpu_partial_free;
	uint64_t cpu_partial_node;
	uint64_t cpu_partial_drain;
	uint64_t defer_free;         /* ours: objects deferred to irq_work */
	uint64_t defer_deactivate;   /* ours: slabs deferred to irq_work */
	uint64_t bucket_retry;       /* ours: second try in the next larger cache */
	uint64_t list_lock_busy;     /* ours: trylock of list_lock failed */
	uint64_t cpu_slab_busy;      /* ours: cpu slab lock found held */
	uint64_t pad;
};

/* The cpu slab of one cache on one CPU: one cache line. */
struct kmem_cache_cpu {
	uint64_t freelist;           /* first free object; with tid one cmpxchg16b */
	uint64_t tid;
	uint64_t slab;               /* offset of the struct page of the frozen slab */
	uint64_t partial;            /* offset of the first cpu partial slab's struct page */
	struct spinlock lock;        /* local_trylock_t: slow path only */
	uint64_t pad[3];
};

/*
 * 7.x: an array of free objects of one cache, itself an object of a kmalloc cache: these 32 bytes,
 * then `capacity` offsets.  Whoever has taken it off a CPU or a barn owns it.
 */
struct slab_sheaf {
	struct list_head barn_list;  /* on its barn's list; while it waits for a grace period: the rcu_head */
	uint32_t cache;              /* index + 1, constant */
	uint32_t capacity;           /* objects, constant */
	uint32_t size;               /* objects in it */
	int32_t node;                /* rcu sheaf: whose barn it goes to */
};
#define MAX_FULL_SHEAVES 10      /* of a barn; soft limits, looked at without the lock */
#define MAX_EMPTY_SHEAVES 10

/* 7.x: the sheaves of one cache on one CPU, and its events there (owner CPU only), kernel names. */
struct slub_percpu_sheaves {
	struct spinlock lock;        /* local_trylock_t: preemption off, irqs stay on */
	uint64_t main;               /* offset of a sheaf: never 0 in a 7.x arena while unlocked */
	uint64_t spare;              /* empty, full, or 0 */
	uint64_t rcu_free;           /* being filled by kfree_rcu, or 0 */
	uint64_t sheaf_flush;        /* objects given back to their slabs */
	uint64_t sheaf_refill;       /* objects taken from slabs */
	uint64_t sheaf_alloc;        /* sheaves allocated */
	uint64_t sheaf_free;
	uint64_t barn_get;           /* full sheaves taken from a barn for an empty one */
	uint64_t barn_get_fail;
	uint64_t barn_put;           /* full sheaves put into a barn */
	uint64_t barn_put_fail;
	uint64_t free_rcu_sheaf;     /* objects */
	uint64_t free_rcu_sheaf_fail;
	uint64_t sheaves_busy;       /* ours: the CPU's lock was found held */
	uint64_t barn_busy;          /* ours: trylock of a barn failed */
};

/* 7.x: the sheaves that one cache keeps on one node. */
struct node_barn {
	struct spinlock lock;
	struct list_head sheaves_full;   /* lock */
	struct list_head sheaves_empty;  /* lock */
	uint32_t nr_full;            /* lock; read without it */
	uint32_t nr_empty;
	uint32_t present;            /* the node has memory that slabs can come from; constant */
	uint32_t pad[3];
};

#endif
