/* SPDX-License-Identifier: MIT */
/*
 * Recorded events: a ring for each CPU, written by that CPU's contexts only, read by anybody.
 */
#ifndef SHM_ARENA_TRACE_H
#define SHM_ARENA_TRACE_H

#include "arena_base.h"

/* geometry.trace_bytes: 0, or a power of two within these */
#define SHM_TRACE_MIN_BYTES 4096
#define SHM_TRACE_MAX_BYTES 1073741824

/* shm_trace_event.flags */
#define TRACE_ACCOUNTED 0x01u        /* to a memcg */
#define TRACE_PERCPU_REFILL 0x02u
#define TRACE_CHANGE_OWNERSHIP 0x04u
#define TRACE_BULK 0x08u             /* one of the objects of a bulk call */
#define TRACE_PAGES 0x10u            /* alloc, free: whole pages */
#define TRACE_OUTSIDE 0x20u          /* call_site is an address of the process, not within the core */
#define TRACE_RCU 0x40u              /* free: after a grace period */
#define TRACE_CALLED 0x80u           /* handler: taken where irqs were enabled again, or called */

#define SHM_NO_CACHE 0xffffu

/* One event, a cache line; what an event has is in trace.def, all else is 0.  shmalloc/trace.py decodes it. */
struct shm_trace_event {
	uint64_t seq;            /* 1 + its place; 0 = never written, or being written; written last */
	uint64_t ts;             /* TSC, read between looking for a place and getting it: grows along a ring */
	uint64_t dur;            /* TSC ticks that what ends here has taken */
	uint64_t call_site;      /* relative to the core's load address, or TRACE_OUTSIDE */
	uint64_t ptr;            /* offset of the object, page memory, lock or irq_work; 0 = NULL */
	uint32_t bytes_req;      /* ~0u = that or more; handlers: kind, locks: class, irq_work: func */
	uint32_t bytes_alloc;
	uint32_t gfp_flags;
	uint16_t cache;          /* index, or SHM_NO_CACHE */
	uint8_t id;              /* enum shm_trace_id */
	uint8_t flags;           /* TRACE_* */
	int8_t node;             /* contention_end, free: 0 or a negative errno */
	uint8_t order;
	uint8_t migratetype;
	uint8_t fallback_order;
	uint8_t fallback_migratetype; /* handlers: what was pending */
	uint8_t where;           /* execution level << 4 | context */
	uint8_t design;
	uint8_t reason;
};

/*
 * One CPU's, in front of its places.  Events that have happened = head + lost; of those up to head, `tail` were
 * taken or came to be overwritten (of these, `overwritten`), the others are there, or are being written.
 */
struct shm_trace_ring {
	uint64_t head;           /* places given out; the CPU's contexts, by an exchange of this CPU's */
	uint64_t lost;           /* events that got none; one instruction */
	uint64_t pid;            /* of the process that wrote last */
	uint64_t pad0[5];
	uint64_t tail;           /* places below it are free again; who consumes */
	uint64_t overwritten;    /* places that it came too late for; who consumes */
	uint64_t pad1[6];
};

/* What is recorded: in the header, for all CPUs. */
struct shm_trace_control {
	uint64_t events;         /* bit for each enum shm_trace_id; 0 = off */
	uint32_t generation;     /* changes with each switch; atomic */
	uint32_t overwrite;      /* a full ring loses its oldest events, not the newest */
	uint32_t consumer;       /* process that is consuming; atomic */
	uint32_t pad;
};

#endif
