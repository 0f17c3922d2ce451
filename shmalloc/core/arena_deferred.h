/* SPDX-License-Identifier: MIT */
/*
 * What is done later: irq_work, work for a worker pool, RCU callbacks.
 */
#ifndef SHM_ARENA_DEFERRED_H
#define SHM_ARENA_DEFERRED_H

#include "arena_base.h"

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

/* A piece of work for the worker pool of the CPU that queues it; runs in task context. */
struct work_struct {
	uint64_t next;               /* on the pool's list; the pool's lock */
	uint32_t pending;            /* queued and not begun; atomic */
	uint32_t memcg;              /* whose high_work it is, 0 = kernfs' notifications */
};

#endif
