/* SPDX-License-Identifier: MIT */
/*
 * The arena: every structure that lies in shared memory, declared once, here and in the parts included here.
 *
 * C includes this file; cffi reads its declarations from it and its parts; the numpy dtypes are made from
 * the offsets that cffi reports; the ABI hash is taken over all of them.  Only plain declarations belong
 * here: no inline function, no bit-field.  A part includes what it needs.
 *
 * Links are offsets from the start of the arena in bytes (0 = none) or page frame numbers, never
 * pointers: each process maps the arena wherever it likes.
 *
 * Order in the segment: header, CPU areas (and each kswapd's), nodes, zones, pagesets, caches and their per-node and
 * per-CPU parts (7.x: sheaves and barns, too), pools, maps, memcgs and their per-CPU stocks, pageblocks,
 * struct pages, telemetry, shared slots, trace rings, oracle bitmaps, page memory.
 */
#ifndef SHM_ARENA_H
#define SHM_ARENA_H

#include "arena_base.h"
#include "arena_pages.h"
#include "arena_slab.h"
#include "arena_deferred.h"
#include "arena_pools.h"
#include "arena_memcg.h"
#include "arena_trace.h"
#include "arena_cpu.h"
#include "arena_ops.h"

/* geometry flags */
#define SHM_GEO_FREELIST_RANDOM 0x1u
#define SHM_GEO_FREELIST_HARDENED 0x2u
#define SHM_GEO_ORACLE 0x4u
#define SHM_GEO_NO_CMPXCHG_DOUBLE 0x8u
#define SHM_GEO_UP 0x10u             /* !SMP: one possible CPU, spinlocks are no-ops, trylocks succeed */
#define SHM_GEO_DEBUG_OBJECTS 0x20u  /* freed pages are looked up in a hash of live objects, under a lock */
#define SHM_GEO_SHEAVES 0x40u        /* Linux 7.x: per-cpu sheaves and barns instead of cpu slabs */

/* arena states */
#define SHM_STATE_FORMATTING 1
#define SHM_STATE_READY 2

struct shm_region {
	uint64_t offset;
	uint64_t bytes;
};

#define SHM_MAX_SHEAF_FACTOR 16
enum shm_region_id { REGION_CPUS, REGION_NODES, REGION_ZONES, REGION_PAGESETS, REGION_CACHES, REGION_CACHE_NODES,
	REGION_CACHE_CPUS, REGION_CACHE_STATS,
	REGION_CACHE_SHEAVES, REGION_BARNS,
	REGION_POOLS, REGION_FREELISTS, REGION_MAPS, REGION_BPF_CACHES,
	REGION_OBJPOOL_CPUS,
	REGION_MEMCGS, REGION_MEMCG_CPUS, REGION_PAGEBLOCKS, REGION_PAGES, REGION_SLAB_WORDS,
	REGION_TELEMETRY, REGION_SLOTS, REGION_TRACE,
	REGION_ORACLE_OWNED, REGION_ORACLE_START, REGION_ORACLE_END, REGION_MEMORY, NR_REGIONS };

/* What the arena is made from.  All of it is an input of shm_arena_format(). */
struct shm_geometry {
	uint64_t size_bytes;         /* of the whole segment, a multiple of the page size */
	uint64_t seed;
	uint32_t nr_cpus;            /* possible CPUs, 1..SHM_MAX_CPUS; decides slab orders */
	uint32_t nr_nodes;           /* 1..SHM_MAX_NODES */
	uint32_t max_caches;
	uint32_t pageblock_order;    /* 1..10 */
	uint32_t min_free_kbytes;    /* 0 = by the kernel's formula */
	uint32_t watermark_scale_factor; /* units of 1/10000 */
	uint32_t flags;              /* SHM_GEO_* */
	uint32_t slab_min_order;
	uint32_t slab_max_order;     /* 3 */
	uint32_t slab_min_objects;   /* 0 = by number of CPUs */
	uint32_t nr_slots;           /* shared slots for workloads */
	uint32_t slab_debug;         /* SLAB_DEBUG_FLAGS for the kmalloc caches, besides what the text says */
	char slab_debug_text[SHM_SLAB_DEBUG_TEXT]; /* what follows slab_debug=, "" = not given; for all caches */
	uint32_t irq_work;           /* SHM_IRQ_WORK_* */
	uint32_t bpf_low_bytes;      /* bpf_mem_alloc: low watermark of sizes above 256, bytes; high is three times that */
	uint32_t rcu_gp_us;          /* a grace period lasts at least so long, unless somebody waits for it */
	uint32_t rcu_stall_ms;       /* a reader that delays one for longer is named */
	uint32_t pool_size;          /* bytes of an element of the pools of prealloc and objpool; 0 = none */
	uint32_t pool_entries;
	uint32_t max_maps;           /* hash maps, 0..SHM_MAX_MAPS */
	uint32_t max_memcgs;         /* 0..SHM_MAX_MEMCGS; 0 = no memcg, nothing is ever charged */
	uint32_t sheaf_factor;       /* 7.x: sheaves hold so many times what the kernel's do, 0..SHM_MAX_SHEAF_FACTOR; 0 = 1 */
	uint32_t trace_bytes;        /* of each CPU's ring of events; 0 = none, and nothing can be recorded */
	uint32_t zone_permille[SHM_MAX_NODES][NR_ZONE_TYPES]; /* share of all pages, sums to 1000 */
	uint8_t distance[SHM_MAX_NODES][SHM_MAX_NODES];       /* SLIT: 10 = local */
	uint8_t cpu_node[SHM_MAX_CPUS];
};

enum shm_fault { FAULT_SLAB, FAULT_PAGES, NR_FAULTS };

/* When a request is made to fail; kernel names (debugfs).  Written before the run, counts by anyone. */
struct fault_attr {
	uint32_t probability;        /* percent */
	uint32_t interval;           /* only every n-th call that comes so far */
	int32_t times;               /* failures left, -1 = no limit; atomic */
	int32_t space;               /* bytes (slab) or pages that pass first; atomic */
	uint32_t task_filter;        /* only tasks marked make-it-fail */
	uint32_t ignore_gfp_wait;    /* leave requests that may block alone */
	uint32_t ignore_gfp_highmem; /* pages: and those for highmem */
	uint32_t min_order;          /* pages */
	uint32_t cache_filter;       /* slab: only caches marked SLAB_FAILSLAB */
	uint32_t armed;              /* some call may fail */
	uint64_t count;              /* calls that got as far as the interval; atomic */
};

struct shm_header {
	uint64_t magic;
	uint64_t abi_hash;
	uint64_t size_bytes;
	uint32_t state;
	uint32_t broken;             /* index of the broken variant in force, 0 = none */
	uint32_t creator_pid;
	uint32_t stop;               /* the run is over: 1 asked for, 2 by a verdict */
	uint64_t creator_start_time;
	uint64_t tsc_hz;
	struct shm_trace_control trace; /* read by every slow path: in a line that is seldom written */
	struct shm_geometry geometry;
	struct shm_region regions[NR_REGIONS];
	uint64_t nr_pages;
	uint32_t nr_zones;
	uint32_t nr_caches;          /* table entries ever used; slab_mutex */
	uint32_t tid_step;           /* power of two >= nr_cpus */
	uint32_t cache_cpus_stride;  /* bytes from one CPU's cpu slabs to the next CPU's */
	uint32_t cache_stats_stride;
	uint32_t bpf_caches_per_cpu; /* global sizes, then one for each map */
	uint32_t cache_sheaves_stride;
	uint32_t sheaves_ready;      /* kmalloc caches have theirs: sheaves can be allocated */
	struct slab_sheaf bootstrap_sheaf; /* empty for ever: main sheaf of every cache without sheaves */
	uint32_t phase;              /* barriers of a run; parent writes */
	uint32_t designs_ready;      /* bit for each design that was set up; task */
	uint32_t pad0;
	struct objpool_head objpool;
	struct spinlock slab_mutex;
	struct spinlock ipi_lock;
	struct rcu_domain rcu[NR_RCU_DOMAINS];
	struct spinlock objcg_lock;              /* lives of memcgs */
	struct spinlock kernfs_lock;             /* kernfs_notify's list of files to be notified */
	struct spinlock percpu_charge_mutex;     /* one drain of all stocks at a time; by trylock */
	struct work_struct kernfs_work;          /* notifies */
	uint32_t memcg_kmem_online;              /* a memcg was created */
	uint32_t pad_memcg;
	struct spinlock obj_hash_lock;           /* of debug objects */
	struct fault_attr failslab;
	struct fault_attr fail_page_alloc;
	uint32_t nr_violations;      /* atomic */
	uint32_t lock_rules;         /* checked flavour: report rule violations */
	uint32_t kmalloc_caches[NR_KMALLOC_TYPES][NR_KMALLOC_CACHES]; /* cache index */
	uint32_t slab_errors;        /* reports of debug checks, what was repaired included; atomic */
	uint32_t slab_errors_count;  /* they are only counted; else the first is a verdict */
	uint64_t slab_traces;        /* events of SLAB_TRACE caches; atomic */
	struct shm_slab_error slab_error_log[SHM_SLAB_ERROR_LOG]; /* the first ones */
	struct shm_slab_trace slab_trace_log[SHM_SLAB_TRACE_LOG]; /* the last ones, event n at n % length */
	uint32_t class_usage[NR_LOCK_CLASSES];   /* lock-rule checker: LOCK_USED_*; atomic */
	uint32_t class_after[NR_LOCK_CLASSES];   /* bit b: class b was waited for while this was held */
	uint32_t rule_reported[NR_LOCK_CLASSES]; /* once per class and rule */
	struct shm_violation violations[SHM_MAX_VIOLATIONS];
};

#endif
