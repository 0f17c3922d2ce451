/* SPDX-License-Identifier: MIT */
/*
 * Page frames, pagesets, zones and nodes.
 */
#ifndef SHM_ARENA_PAGES_H
#define SHM_ARENA_PAGES_H

#include "arena_base.h"

enum shm_zone_type { ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, ZONE_MOVABLE, NR_ZONE_TYPES };

enum shm_migratetype { MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_HIGHATOMIC,
	NR_MIGRATETYPES };
#define MIGRATE_PCPTYPES 3

/* pcp lists: 3 migratetypes x orders 0..3, and two for huge pages (order 9) */
#define NR_PCP_LISTS 14
#define PCP_COSTLY_ORDER 3
#define PCP_THP_ORDER 9

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

#endif
