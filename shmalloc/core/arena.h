/* SPDX-License-Identifier: MIT */
/*
 * The arena: every structure that lies in shared memory, declared once.
 *
 * C includes this file; cffi reads its declarations from it; the numpy dtypes are made from the
 * offsets that cffi reports.  Only plain declarations belong here: no inline function, no bit-field.
 *
 * Links are offsets from the start of the arena in bytes (0 = none) or page frame numbers, never
 * pointers: each process maps the arena wherever it likes.
 *
 * Order in the segment: header, CPU areas (and each kswapd's), nodes, zones, pagesets, caches and their per-node and
 * per-CPU parts (7.x: sheaves and barns, too), pools, maps, memcgs and their per-CPU stocks, pageblocks,
 * struct pages, telemetry, shared slots, oracle bitmaps, page memory.
 */
#ifndef SHM_ARENA_H
#define SHM_ARENA_H

#define SHM_MAGIC 0x3163606c6c616d73ull
#define SHM_PAGE_SHIFT 12
#define SHM_PAGE_SIZE 4096
#define SHM_MAX_PAGE_ORDER 10
#define SHM_NR_ORDERS 11
#define SHM_MAX_CPUS 128
#define SHM_MAX_NODES 8
#define SHM_MAX_MEMCGS 1024
#define SHM_MAX_LEVELS 8
#define SHM_MAX_DESIGNS 16
#define SHM_MAX_VIOLATIONS 32
#define SHM_STACK_DEPTH 48
#define SHM_MAX_HELD 16
#define SHM_CACHE_NAME 40
#define SHM_MAX_MAPS 64
#define SHM_AREA_BLOCKS 48
#define SHM_MAX_POOL_SIZE 65536
#define SHM_MAX_POOL_ENTRIES 16777216
#define SHM_SLAB_DEBUG_TEXT 256
#define SHM_SLAB_ERROR_LOG 64
#define SHM_SLAB_TRACE_LOG 64
#define SHM_RANDOM_SEQ 512
#define SHM_NO_NODE (-1)
#define SHM_ZERO_SIZE 16
#define SHM_MAX_BULK 128     /* objects of one bulk call */

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

/* execution contexts, in the order of who may interrupt whom */
enum shm_ctx { CTX_TASK, CTX_SOFTIRQ, CTX_IRQ, CTX_NMI, NR_CTX };

/* interrupt kinds */
enum shm_irq_kind { KIND_NMI, KIND_IRQ, NR_KINDS };

/* states of a CPU slot */
enum shm_cpu_state { CPU_OFFLINE, CPU_ONLINE, CPU_BINDING, CPU_SERVED };

enum shm_zone_type { ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, ZONE_MOVABLE, NR_ZONE_TYPES };

enum shm_migratetype { MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_HIGHATOMIC,
	NR_MIGRATETYPES };
#define MIGRATE_PCPTYPES 3

/* pcp lists: 3 migratetypes x orders 0..3, and two for huge pages (order 9) */
#define NR_PCP_LISTS 14
#define PCP_COSTLY_ORDER 3
#define PCP_THP_ORDER 9

/* verdicts, worst last; the names are in verdict.c */
enum shm_verdict { VERDICT_OK, VERDICT_VACUOUS, VERDICT_BROKEN_RULE, VERDICT_STALL, VERDICT_DEAD_OWNER,
	VERDICT_LOST_MEMORY, VERDICT_DEADLOCK, VERDICT_CORRUPTION, NR_VERDICTS };

/* why an allocation returned nothing; the names are in verdict.c */
enum shm_reason { REASON_NONE, REASON_CPU_SLAB_BUSY, REASON_LIST_LOCK_BUSY, REASON_PCP_BUSY,
	REASON_ZONE_BUSY, REASON_BELOW_WATERMARK, REASON_ORDER_LIMIT, REASON_SIZE_LIMIT,
	REASON_MEMCG_LIMIT, REASON_PFMEMALLOC, REASON_FREELIST_EMPTY, REASON_REFILL_LAG,
	REASON_CONTEXT_REFUSED, REASON_INJECTED, NR_REASONS };

/* who found a violation */
enum shm_checker { CHECKER_NONE, CHECKER_ORACLE, CHECKER_DEADLOCK, CHECKER_LOCK_RULES, CHECKER_RETRY_BOUND,
	CHECKER_OWNER, CHECKER_SLAB, CHECKER_CTOR, CHECKER_PATTERN, CHECKER_HARDENING, CHECKER_API, CHECKER_RCU,
	CHECKER_POOL,
	CHECKER_RED_ZONE, CHECKER_POISON,
	CHECKER_MEMCG, CHECKER_PAGE,
	NR_CHECKERS };

/* lock classes, for the lock-rule checker and for messages */
enum shm_lock_class { LOCK_NONE, LOCK_SLAB_MUTEX, LOCK_LIST, LOCK_CPU_SLAB, LOCK_SLAB_BIT, LOCK_PCP, LOCK_ZONE,
	LOCK_LRU, LOCK_OBJ_HASH,
	LOCK_RCU,
	LOCK_SHEAVES, LOCK_BARN,
	LOCK_FREELIST, LOCK_BUCKET,
	LOCK_MEMCG_STOCK, LOCK_OBJ_STOCK, LOCK_OBJCG, LOCK_CHARGE, LOCK_KERNFS, LOCK_WQ_POOL, LOCK_RANDOM,
	LOCK_USER, NR_LOCK_CLASSES };

/*
 * A spinning lock.  The acquiring compare-and-exchange stores the owner:
 * bits 0-15 CPU + 1, 16-23 execution level, 24-31 a generation that tells acquisitions apart.
 */
struct spinlock {
	uint32_t word;    /* 0 = free */
	uint32_t class;   /* enum shm_lock_class, constant */
};

struct list_head {
	uint64_t next;    /* offset of a list_head */
	uint64_t prev;
};

struct llist_head {
	uint64_t first;   /* offset of a link word; pushed by compare-and-exchange from any context */
};

/* page flags; PG_buddy .. PG_deferred say where a block is and are set on its head only */
#define PG_lru 0x1u         /* page cache: clean, on its node's LRU list, given back by reclaim; node's lru_lock */
#define PG_partial 0x2u     /* slab is on its node's partial list; list_lock */
#define PG_pfmemalloc 0x4u  /* came from the reserves */
#define PG_slab 0x8u        /* head of a slab */
#define PG_buddy 0x10u      /* head of a free block on a zone's free list; zone lock */
#define PG_pcp 0x20u        /* head of a block on a pcp list; pcp lock */
#define PG_deferred 0x40u   /* head of a block on zone->trylock_free_pages */
#define PG_allocated 0x80u  /* head of a block handed out */
#define PG_large 0x100u     /* ... as a large kmalloc */
#define PG_tail 0x200u      /* tail of a compound block, see compound_head */
#define PG_head 0x400u      /* head of a compound block */
#define PG_disabled 0x800u  /* slab failed a consistency check and is out of use */
#define PG_uncounted 0x1000u /* ... before it was counted among its node's slabs */

/* One page frame, 64 bytes.  The comment names which use of the page a field belongs to. */
struct page {
	uint32_t flags;
	uint32_t refcount;       /* allocated blocks; 0 while free or frozen; slab: the slab lock's word */
	uint32_t order;          /* head: order of the block */
	uint32_t compound_head;  /* tail: pfn of the head */
	uint64_t freelist;       /* slab: first free object; cmpxchg16b with counters */
	uint64_t counters;       /* slab: inuse 0-15, objects 16-30, frozen 31 */
	struct list_head lru;    /* buddy, pcp: list; slab: node list,
				  * or cpu partial {next, slabs}, or deferred {llnode, flush_freelist} */
	uint32_t slab_cache;     /* slab: index of the cache + 1 */
	uint32_t migratetype;    /* pcp: list it is on; allocated: type it was taken for */
	uint64_t obj_exts;       /* slab: vector of u64, one per object: the id of the memcg it is charged to, or 0;
				  * other blocks: the id itself << 3; OBJEXTS_* and MEMCG_DATA_* in the low bits */
};

#define MEMCG_DATA_OBJEXTS 0x1u   /* a slab's vector; with no vector beside it: OBJEXTS_ALLOC_FAIL */
#define MEMCG_DATA_KMEM 0x2u      /* a block of pages charged to a memcg */
#define OBJEXTS_NOSPIN_ALLOC 0x4u /* the vector came from kmalloc_nolock and goes back by kfree_nolock */
#define OBJEXTS_FLAGS_MASK 0x7u
#define OBJEXTS_ALLOC_FAIL 0x1u

struct free_area {
	struct list_head free_list[NR_MIGRATETYPES];
	uint64_t nr_free;        /* blocks of this order */
};

struct pageblock {
	uint8_t migratetype;     /* zone lock */
	uint8_t zone;            /* index into the zone table, constant */
};

/* Per-cpu pages and per-cpu event counters of one zone.  Written by the owner CPU, or under lock. */
struct per_cpu_pages {
	struct spinlock lock;
	int32_t count;           /* pages on all lists */
	int32_t high;
	int32_t high_min;
	int32_t high_max;
	int32_t batch;
	uint32_t flags;
	int32_t alloc_factor;    /* doublings of the refill batch */
	int32_t free_count;      /* consecutive frees, in pages */
	struct list_head lists[NR_PCP_LISTS];
	uint64_t numa_hit;       /* events: written by the owner CPU only, one instruction each */
	uint64_t numa_miss;
	uint64_t numa_foreign;
	uint64_t numa_local;
	uint64_t numa_other;
	uint64_t pgalloc;        /* pages handed out */
	uint64_t pgfree;         /* pages given back */
	uint64_t pcp_refill;     /* bulk refills that took zone->lock */
	uint64_t pcp_drain;      /* bulk frees to the buddy */
	uint64_t pcp_busy;       /* trylock of this pageset failed */
	uint64_t zone_busy;      /* trylock of zone->lock failed */
	uint64_t pcp_alloc;      /* blocks served from the lists */
	uint64_t fallback_claim;
	uint64_t fallback_steal;
	uint32_t vmstat_seen;    /* pgalloc + pgfree at the last vmstat tick */
	int32_t expire;          /* ticks until a remote zone's idle pageset is drained */
};

struct zone {
	struct spinlock lock;
	uint32_t node;
	uint32_t type;           /* enum shm_zone_type */
	uint32_t index;          /* in the zone table */
	uint32_t flags;          /* ZONE_* below; atomic */
	uint64_t start_pfn;
	uint64_t spanned_pages;
	uint64_t managed_pages;
	uint64_t free_pages;     /* on buddy lists (NR_FREE_PAGES); lock */
	uint64_t free_highatomic;
	uint64_t wmark[4];       /* min, low, high, promo; pages */
	uint64_t wmark_boost;
	uint64_t lowmem_reserve[NR_ZONE_TYPES];
	struct llist_head trylock_free_pages; /* frees that did not get the lock; any context */
	uint64_t nr_deferred_free;   /* events: blocks parked there */
	uint64_t nr_deferred_drained;
	uint64_t nr_kswapd_wakeups;
	uint64_t nr_reserved_highatomic; /* pages in HIGHATOMIC pageblocks; lock */
	uint64_t nr_lru;             /* pages on the node's LRU list (NR_ZONE_INACTIVE_FILE); the node's lru_lock */
	struct free_area free_area[SHM_NR_ORDERS];
};
#define ZONE_BELOW_HIGH 0x1u
#define ZONE_BOOSTED_WATERMARK 0x2u

#define SHM_MAX_ZONES 32
#define SHM_MAX_ZONELIST 32

struct node {
	uint32_t id;
	uint32_t nr_zones;
	uint32_t nr_zonelist;        /* entries of the fallback list */
	uint32_t nr_thisnode;        /* entries of the list for __GFP_THISNODE */
	uint32_t zonelist[SHM_MAX_ZONELIST];  /* zone table indices, in order of preference */
	uint32_t thisnode[NR_ZONE_TYPES];
	uint64_t start_pfn;
	uint64_t spanned_pages;
	uint32_t kswapd_order;       /* largest order asked for since it last looked */
	uint32_t kswapd_wakeups;     /* events: wakeup_kswapd called */
	uint64_t nr_slab_pages;      /* pages in slabs, atomic */
	uint32_t kswapd_state;       /* enum shm_kswapd_state; a futex */
	uint32_t kswapd_highest_zone; /* + 1 of the highest zone asked for since it last looked, 0 = none */
	uint32_t kswapd_failures;    /* passes in a row that got nothing; 16 = hopeless, left to direct reclaim */
	uint32_t pad;
	struct spinlock lru_lock;
	struct list_head lru;        /* clean page-cache pages, the last used first; lru_lock */
	uint64_t nr_lru;             /* lru_lock */
	uint64_t kswapd_woken;       /* events from here on; atomic: it slept and was woken */
	uint64_t pageoutrun;         /* passes of balance_pgdat */
	uint64_t pgscan_kswapd;      /* pages looked at */
	uint64_t pgsteal_kswapd;     /* pages given back */
	uint64_t pgscan_direct;
	uint64_t pgsteal_direct;
	uint64_t allocstall;         /* direct reclaims entered, on the preferred node */
	uint64_t drain_all;          /* pagesets of all CPUs drained by the slow path */
	uint64_t oom;                /* requests failed where the kernel would kill somebody */
	uint64_t page_cache_added;   /* pages */
};

#define MAX_RECLAIM_RETRIES 16 /* without progress, by kswapd or by a request */

/* none: the node has no kswapd, and nobody waits for one */
enum shm_kswapd_state { KSWAPD_NONE, KSWAPD_ASLEEP, KSWAPD_AWAKE, KSWAPD_STOP };

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
	uint32_t reciprocal;         /* ceil(2^32 / size) */
	uint32_t kmalloc_type;
	uint32_t sheaf_capacity;     /* objects; 0 = no sheaves: a debug cache, or a 6.18 arena */
	uint32_t pad;
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

/* Elements of one size in blocks of pages; none crosses the end of its block. */
struct area_block {
	uint64_t offset;             /* of its first element */
	uint32_t first;              /* index of that */
	uint32_t order;
};

struct shm_area {
	uint32_t nr_elems;
	uint32_t elem_size;          /* bytes, a multiple of 8 */
	uint32_t nr_blocks;          /* 0: there is none */
	uint32_t nr_pages;           /* held */
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

/* One CPU's part of it. */
struct objpool_cpu {
	uint64_t slot;               /* offset of its objpool_slot */
	uint64_t objects;            /* offset of the first of its share of the objects */
	uint32_t nr_objs;
	uint32_t nr_pages;           /* that both lie in */
	uint32_t nesting;            /* pushes of this CPU in progress, one inside the other */
	uint32_t pad;
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

/* A piece of work to be run in irq context on the CPU that queued it. */
struct irq_work {
	uint64_t llnode;
	uint32_t flags;              /* IRQ_WORK_* */
	uint32_t func;               /* index into the work table */
};
/* how queued irq_work comes to run: by a self-interrupt, at the next tick, or only when asked for */
#define SHM_IRQ_WORK_INTERRUPT 0
#define SHM_IRQ_WORK_TICK 1
#define SHM_IRQ_WORK_NEVER 2
#define IRQ_WORK_PENDING 1u
#define IRQ_WORK_BUSY 2u

/* RCU: two kinds of readers, each with grace periods of its own */
enum shm_rcu_domain { RCU_PLAIN, RCU_TASKS_TRACE, NR_RCU_DOMAINS };

/* What is to be done after a grace period; lies in the object itself (16 bytes, as in the kernel). */
struct rcu_head {
	uint64_t next;               /* offset of the next head */
	uint32_t func;               /* row of rcu.def */
	uint32_t arg;
};

struct rcu_list {
	uint64_t first;              /* offsets of rcu_heads */
	uint64_t last;
	uint64_t count;
};

/* One CPU's part of a domain. */
struct rcu_cpu {
	uint64_t reader;             /* in a read-side section: grace periods begun before it << 1 | 1; 0 = not */
	uint32_t nesting;
	uint32_t invoking;
	struct rcu_list next;        /* not yet assigned to a grace period; irqs off */
	struct rcu_list wait;        /* for the end of wait_gp */
	struct rcu_list done;        /* to be invoked */
	uint64_t wait_gp;
	uint64_t queued;             /* events */
	uint64_t invoked;
};

struct rcu_domain {
	struct spinlock lock;        /* starting and ending grace periods: tried, never waited for */
	uint64_t gp_started;         /* grace periods so far */
	uint64_t gp_completed;
	uint64_t gp_wanted;          /* the last one that somebody needs */
	uint64_t gp_since;           /* tsc, of the one under way */
	uint32_t urgent;             /* somebody is in a hurry: no minimum duration */
	uint32_t stalls;             /* events: readers named for delaying one for too long */
	uint32_t stalled_cpu;        /* the last reader that was named, + 1; 0 = none */
	uint32_t pad;
};

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
	int32_t low_watermark;       /* objects */
	int32_t high_watermark;
	int32_t batch;               /* objects of a refill */
	uint32_t draining;
	uint32_t refill_failed;      /* the last refill found no memory */
	uint64_t tgt;                /* where the last freed object came from: a hint, for what is trimmed */
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
	uint64_t pad[3];
};

/* A piece of work for the worker pool of the CPU that queues it; runs in task context. */
struct work_struct {
	uint64_t next;               /* on the pool's list; the pool's lock */
	uint32_t pending;            /* queued and not begun; atomic */
	uint32_t memcg;              /* whose high_work it is, 0 = kernfs' notifications */
};

/* Pages charged, with limits.  A charge counts at its memcg and at every one above. */
struct page_counter {
	uint64_t usage;              /* pages; atomic */
	uint64_t max;                /* pages; a charge beyond it fails */
	uint64_t high;               /* pages; a charge beyond it has the group reclaim */
	uint64_t failcnt;            /* charges that max refused; atomic */
	uint64_t watermark;          /* largest usage seen */
};
#define SHM_PAGE_COUNTER_MAX 0x7ffffffffffffull

#define SHM_NR_MEMCG_STOCK 7
#define SHM_MEMCG_CHARGE_BATCH 64
#define SHM_MEMCG_NAME 32

enum shm_memcg_state { MEMCG_UNUSED, MEMCG_LIVE, MEMCG_DYING };

enum shm_memcg_event { MEMCG_LOW, MEMCG_HIGH, MEMCG_MAX, MEMCG_OOM, MEMCG_OOM_KILL, NR_MEMCG_EVENTS };

/* a memcg's bytes in slabs are kept apart by node and by whether the cache is reclaimable */
enum shm_slab_stat { STAT_SLAB_RECLAIMABLE, STAT_SLAB_UNRECLAIMABLE, NR_SLAB_STATS };

/*
 * A memory cgroup and its obj_cgroup in one.  Destroyed while objects are still charged to it, it is
 * DYING until the last is gone; what happens to its charges meanwhile happens to its parent's.
 */
struct mem_cgroup {
	uint32_t id;                 /* its place in the table + 1 */
	uint32_t state;              /* enum shm_memcg_state; objcg_lock */
	uint32_t parent;             /* id, 0 = the root, which is not charged */
	uint32_t nr_children;        /* live ones; objcg_lock */
	struct page_counter memory;
	uint32_t css_refs;           /* slots of page stocks, memcgs below; atomic */
	uint32_t objcg_refs;         /* charged objects and blocks, obj_stocks, 1 while it lives; atomic */
	uint64_t nr_charged_bytes;   /* charged with whole pages and used by no object, in no stock; atomic */
	uint64_t kmem_pages;         /* charged for objects and blocks (MEMCG_KMEM), no stocks; atomic */
	int64_t slab_bytes[SHM_MAX_NODES][NR_SLAB_STATS]; /* what obj_stocks have passed on; atomic */
	uint64_t events[NR_MEMCG_EVENTS];       /* here and below; atomic */
	uint64_t events_local[NR_MEMCG_EVENTS]; /* atomic */
	uint64_t nr_notified;        /* events told to whoever polls memory.events; atomic */
	uint64_t nr_notify_skipped;  /* ... not told, since the charge may not spin; atomic */
	uint64_t nr_high_work;       /* times high_work was queued; atomic */
	struct work_struct high_work;
	char name[SHM_MEMCG_NAME];
};

/* Pages charged in advance, by memcg: taken from without touching the counters. */
struct memcg_stock_pcp {
	struct spinlock lock;        /* local_trylock_t */
	uint32_t cached[SHM_NR_MEMCG_STOCK]; /* memcg id, 0 = the slot is empty */
	uint32_t evict;              /* slot to be emptied next for another memcg */
	uint8_t nr_pages[8];
};

/* The rest of a page charged for objects of one memcg, and what they add to its statistics. */
struct obj_stock_pcp {
	struct spinlock lock;        /* local_trylock_t */
	uint32_t cached_objcg;       /* memcg id, 0 = none */
	uint32_t nr_bytes;
	uint32_t cached_node;        /* + 1 that the two below are of, 0 = none */
	int32_t slab_bytes[NR_SLAB_STATS];
	uint32_t pad;
};

/* What one CPU has to do with memcgs.  Its own thread writes it; a drain, whoever serves it. */
struct memcg_cpu {
	struct memcg_stock_pcp stock;
	struct obj_stock_pcp obj;
	struct irq_work release_work;    /* memcgs whose last reference may not be dropped where it was */
	struct spinlock pool_lock;       /* of the CPU's worker pool */
	uint64_t pad0;
	uint64_t works;                  /* first work_struct of the pool's list; pool_lock */
	uint32_t task;                   /* memcg that the CPU's task runs in, 0 = the root */
	uint32_t active;                 /* ... charges instead (set_active_memcg), 0 = none */
	uint32_t int_active;             /* what interrupts and NMIs charge, 0 = nothing */
	uint32_t over_high;              /* pages charged beyond memory.high, to be paid for on return to user space */
	uint64_t memcg_stock_hit;        /* events from here on: charges served by the stock */
	uint64_t memcg_stock_miss;
	uint64_t memcg_stock_busy;       /* its lock is held by what was interrupted */
	uint64_t memcg_stock_evict;      /* a slot emptied for another memcg */
	uint64_t memcg_stock_overflow;   /* a slot emptied as it held more than a batch */
	uint64_t memcg_stock_bypass;     /* uncharged directly: too many pages, or the lock busy */
	uint64_t memcg_obj_hit;          /* objects charged from the obj_stock */
	uint64_t memcg_obj_miss;
	uint64_t memcg_obj_busy;
	uint64_t memcg_obj_drain;        /* the stock given up for another memcg */
	uint64_t memcg_obj_fallback;     /* bytes left to nr_charged_bytes, in times */
	uint64_t memcg_charged_pages;    /* added to the page counters by this CPU */
	uint64_t memcg_uncharged_pages;
	uint64_t memcg_charge_failed;
	uint64_t memcg_charge_forced;    /* over the limit: __GFP_NOFAIL, __GFP_HIGH, PF_MEMALLOC */
	uint64_t memcg_drain_all;        /* every CPU's stocks drained for a charge */
	uint64_t memcg_vector_alloc;     /* obj_exts vectors */
	uint64_t memcg_vector_failed;
	uint64_t memcg_vector_race;      /* somebody else's was there first */
	uint64_t memcg_objects;          /* objects charged */
	uint64_t memcg_unaccounted;      /* ... left uncharged for want of a vector */
	uint64_t memcg_abort;            /* ... freed again, as the charge failed */
	uint64_t memcg_high_throttle;    /* times a task had to pay for memory.high */
	uint64_t memcg_release_deferred; /* a last reference dropped where nothing may spin */
	uint64_t pad[7];
};

struct held_lock {
	uint64_t lock;               /* offset */
	uint32_t class;
	uint32_t level;
};

/* What an execution level of a CPU was interrupted at, for stacks and statistics. */
struct shm_level {
	uint32_t ctx;                /* enum shm_ctx */
	uint32_t reason;             /* why the current allocation fails, if it does */
	uint64_t rip;                /* where the level below was interrupted; 0: it called this one itself */
	uint64_t rbp;                /* its frame there; if called: the caller's frame */
};

/* Random numbers made in advance, for those who may wait for the batch's lock. */
struct batched_entropy {
	struct spinlock lock;        /* a local lock */
	uint32_t position;           /* words that are left */
	uint32_t made;               /* events: batches */
	uint64_t words[4];
};

/* One CPU.  Written by its own thread unless a field says otherwise. */
struct shm_cpu {
	uint32_t id;
	uint32_t node;
	uint32_t state;              /* enum shm_cpu_state */
	uint32_t pid;
	uint32_t tid;
	uint32_t core;               /* pinned to, or 0xffffffff */
	uint64_t start_time;         /* of the process, clock ticks since boot (/proc) */
	uint32_t irqs_disabled;      /* the mask that the IRQ handler honours */
	uint32_t irq_pending;        /* bit per IRQ_PENDING_*; atomic */
	uint32_t preempt_count;
	uint32_t bh_count;
	uint32_t level;              /* execution level: 0 task, +1 for each nested handler */
	uint32_t lock_generation;
	struct shm_level levels[SHM_MAX_LEVELS];
	uint64_t waiting_for;        /* lock word this CPU spins on: offset 0-55, waiting level 56-63; 0 = none */
	uint64_t wait_seq;           /* changes with every wait */
	uint32_t nr_held;
	uint32_t in_core;            /* a core entry is open at level 0 */
	struct held_lock held[SHM_MAX_HELD]; /* checked flavour */
	struct llist_head raised_list;       /* irq_work */
	struct llist_head defer_objects;     /* kfree_nolock: chained by the free pointer slot */
	struct llist_head defer_slabs;       /* defer_deactivate_slab */
	struct llist_head defer_rcu_sheaves; /* 7.x: full rcu sheaves that call_rcu could not be called for */
	struct llist_head defer_by_rcu;      /* 7.x: objects of kfree_rcu_nolock, by their rcu_heads */
	struct irq_work defer_work;
	uint32_t ipi_request;        /* other CPUs: sequence of the last request; under header.ipi_lock */
	uint32_t ipi_done;           /* sequence of the last request served */
	uint32_t ipi_func;           /* index into the IPI table */
	uint32_t phase_done;         /* last phase this CPU has finished (barriers of a run) */
	uint64_t ipi_arg;
	uint64_t random;             /* xorshift state */
	uint64_t ops_done;           /* heartbeat */
	uint64_t op_index;           /* of the op in progress, task level */
	uint64_t timer_ticks[NR_KINDS];  /* timer expirations seen */
	struct rcu_cpu rcu[NR_RCU_DOMAINS];
	struct batched_entropy entropy;
	uint32_t mems_allowed_seq;   /* of the task that runs here; odd while mems_allowed is being written */
	uint32_t mems_allowed;       /* nodes that its slabs may come from, a bit each */
	uint32_t work_waiter;        /* k28: the one place for a CPU, + 1, that sleeps until defer_work is done */
	uint32_t woken;              /* k28: by another CPU */
	uint32_t handlers;           /* it takes interrupts: its signal handlers are installed */
	uint32_t task_flags;         /* PF_*: of the task */
	uint32_t fail_nth;           /* the n-th call from here on that may be made to fail does; 0 = off */
	int32_t ipi_result;          /* of the last request served */
	uint64_t pad1[1];            /* to whole cache lines: arena.c checks */
};

/* what a CPU's task is; kernel names */
#define PF_MEMALLOC 0x800u       /* it frees memory: may use all reserves */
#define PF_MAKE_IT_FAIL 0x1u     /* task-filter lets faults be injected into it (make-it-fail) */
#define IRQ_PENDING_PROGRAM 1u
#define IRQ_PENDING_WORK 2u
#define IRQ_PENDING_IPI 4u
#define IRQ_PENDING_PROBE 8u     /* a probe site's program, for once */

/* Latency histogram: log-linear, HIST_SUB buckets per octave, unit: TSC ticks. */
#define HIST_SUB_BITS 5
#define HIST_SUB 32
#define HIST_BUCKETS 1120

struct shm_counts {
	uint64_t allocs;             /* that succeeded */
	uint64_t frees;
	uint64_t failures[NR_REASONS];
};

struct shm_interrupts {
	uint64_t sent;               /* by anyone; atomic */
	uint64_t handled;
	uint64_t in_allocator;       /* the interrupted instruction was in an allocator's code */
	uint64_t in_slow_path;       /* ... in a slow path's */
	uint64_t masked;             /* IRQ arrived while masked and was left pending */
	uint64_t nested;             /* landed while another handler ran */
};

/* What a CPU has measured.  Not part of the allocators' state. */
struct shm_telemetry {
	struct shm_counts counts[SHM_MAX_DESIGNS][NR_CTX];
	struct shm_interrupts interrupts[NR_KINDS];
	uint64_t irq_work_runs;
	uint64_t ipi_runs;
	uint64_t lock_waits;         /* spin_lock that did not get the lock at once */
	uint64_t lock_yields;
	uint64_t skipped_frees;      /* free ops that found an empty slot */
	uint64_t warnings;           /* WARN_ONCE conditions met */
	uint64_t retries_max;        /* most rounds of ___slab_alloc in one call */
	uint64_t slab_errors;        /* reports of debug checks, what was repaired included */
	uint64_t slab_traces;        /* allocations and frees of SLAB_TRACE caches */
	uint64_t map_updates;        /* calls, whatever came of them */
	uint64_t map_lookups;
	uint64_t map_deletes;
	uint64_t map_misses;         /* lookups and deletes that did not find the key */
	uint64_t map_e2big;          /* updates of a full map */
	uint64_t map_enomem;         /* updates whose element could not be allocated */
	uint64_t map_edeadlk;        /* bucket lock: an outer context of this CPU, or a ring of CPUs */
	uint64_t map_etimedout;      /* bucket lock: not within 250 ms */
	uint64_t map_restarts;       /* lookups that ended in another bucket's chain, and began again */
	uint64_t map_reads_reused;   /* values read under RCU that were another key's by then: the API allows it */
	uint64_t freelist_steals;    /* elements popped from another CPU's freelist */
	uint64_t objpool_steals;     /* objects popped from another CPU's ring */
	uint64_t objpool_misses;     /* pops that found all rings empty; nmissed of a kretprobe */
	uint64_t freelist_strays;    /* elements pushed to another CPU's freelist, as the own was locked */
	uint64_t node_requests;      /* arenas of several nodes: allocations for which a node was named */
	uint64_t node_elsewhere;     /* ... and that got memory of another one */
	uint64_t node_allocs[SHM_MAX_NODES]; /* arenas of several nodes: allocations by the node of their memory */
	uint64_t failslab;           /* slab requests that were made to fail */
	uint64_t fail_page_alloc;    /* page requests that were made to fail */
	uint64_t fault_dumps;        /* ... that the kernel would have reported: without __GFP_NOWARN */
	uint64_t pad;
	uint32_t latency[NR_CTX][HIST_BUCKETS];
};

struct shm_violation {
	uint32_t ready;              /* set last */
	uint32_t verdict;
	uint32_t checker;
	uint32_t cpu;
	uint32_t level;
	uint32_t ctx;
	uint32_t lock_class;
	uint32_t owner;              /* lock word of the other party, if any */
	uint64_t lock;               /* offset of the lock or 0 */
	uint64_t object;             /* offset of the object or page or 0 */
	uint64_t op_index;
	char text[128];
	uint32_t nr_stack;
	uint32_t level_of[SHM_STACK_DEPTH];  /* execution level of each frame */
	uint64_t stack[SHM_STACK_DEPTH]; /* return addresses relative to the core's load address */
};

struct shm_region {
	uint64_t offset;
	uint64_t bytes;
};

enum shm_region_id { REGION_CPUS, REGION_NODES, REGION_ZONES, REGION_PAGESETS, REGION_CACHES, REGION_CACHE_NODES,
	REGION_CACHE_CPUS, REGION_CACHE_STATS,
	REGION_CACHE_SHEAVES, REGION_BARNS,
	REGION_POOLS, REGION_FREELISTS, REGION_MAPS, REGION_BPF_CACHES,
	REGION_OBJPOOL_CPUS,
	REGION_MEMCGS, REGION_MEMCG_CPUS, REGION_PAGEBLOCKS, REGION_PAGES,
	REGION_TELEMETRY, REGION_SLOTS,
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

/* One line of a workload, 24 bytes. */
enum shm_op_code { OP_NOP, OP_ALLOC, OP_CACHE_ALLOC, OP_PAGES_ALLOC, OP_FREE, OP_IRQ_OFF, OP_IRQ_ON, OP_BH_OFF,
	OP_BH_ON, OP_NMI, OP_IRQ, OP_DELAY, OP_REALLOC, OP_SHRINK, OP_BULK_ALLOC, OP_BULK_FREE,
	OP_DEFER_BARRIER,
	OP_FREE_RCU, OP_RCU_LOCK, OP_RCU_UNLOCK,
	OP_MEMCG,
	OP_PAGE_CACHE,
	OP_MAP_UPDATE, OP_MAP_LOOKUP, OP_MAP_DELETE, NR_OP_CODES };

#define OPF_SHARED 0x1u   /* slot is in the arena and may be used by other CPUs or by handlers */
#define OPF_SAME 0x2u     /* handler: take size and cache of the op that was interrupted */
#define OPF_NOFREE 0x4u   /* alloc into a taken slot: skip instead of free + alloc */

struct shm_op {
	uint8_t code;             /* enum shm_op_code */
	uint8_t flags;            /* OPF_* */
	int8_t node;              /* -1 = any */
	uint8_t order;            /* OP_PAGES_ALLOC */
	uint32_t slot;            /* OP_MAP_*: the key */
	uint32_t size;            /* bytes (OP_ALLOC, OP_REALLOC), loops (OP_DELAY), objects (OP_BULK_*),
				   * BPF_* flag (OP_MAP_UPDATE), memcg id (OP_MEMCG), pages (OP_PAGE_CACHE) */
	uint32_t gfp;
	uint16_t cache;           /* index of the cache (OP_CACHE_ALLOC, OP_SHRINK, OP_BULK_*), of the map (OP_MAP_*) */
	uint16_t pad;
	uint32_t pad1;
};

#endif
