/* SPDX-License-Identifier: MIT */
/*
 * The lines of a workload: arrays of them are replayed, from the arena or from anywhere else.
 */
#ifndef SHM_ARENA_OPS_H
#define SHM_ARENA_OPS_H

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
