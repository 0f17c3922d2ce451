/* SPDX-License-Identifier: MIT */
/*
 * What every part of the arena builds on: limits, contexts, names of outcomes, locks and links.
 */
#ifndef SHM_ARENA_BASE_H
#define SHM_ARENA_BASE_H

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

/* execution contexts, in the order of who may interrupt whom */
enum shm_ctx { CTX_TASK, CTX_SOFTIRQ, CTX_IRQ, CTX_NMI, NR_CTX };

/* interrupt kinds */
enum shm_irq_kind { KIND_NMI, KIND_IRQ, NR_KINDS };

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

#endif
