/* SPDX-License-Identifier: MIT */
/*
 * A CPU: its state, what it has measured, and what a checker has found on it.
 */
#ifndef SHM_ARENA_CPU_H
#define SHM_ARENA_CPU_H

#include "arena_base.h"
#include "arena_deferred.h"

/* states of a CPU slot */
enum shm_cpu_state { CPU_OFFLINE, CPU_ONLINE, CPU_BINDING, CPU_SERVED };

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
	uint32_t trace_seen;         /* header.trace.generation that its first attempts are switched for */
	uint32_t pad1[1];            /* to whole cache lines: arena.c checks */
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
	uint64_t lock_wait_cycles;   /* of all these waits, those that gave up included */
	uint64_t lock_wait_max_cycles;
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

#endif
