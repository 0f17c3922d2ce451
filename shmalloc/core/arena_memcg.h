/* SPDX-License-Identifier: MIT */
/*
 * Memory cgroups, what they are charged, and each CPU's stocks.
 */
#ifndef SHM_ARENA_MEMCG_H
#define SHM_ARENA_MEMCG_H

#include "arena_base.h"
#include "arena_deferred.h"

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

#endif
