/* SPDX-License-Identifier: MIT */
/*
 * The state of this process: where the arena is mapped and which CPU the process is.
 *
 * One arena and one current CPU per process, so that signatures can stay the kernel's.  All of it
 * is process-local; what must survive or be seen by others lies in the arena.
 */
#ifndef SHM_CORE_H
#define SHM_CORE_H

#include "types.h"
#include "atomic.h"
#include "arena.h"
#include "gfp.h"
#include "api.h"

/* from here on: what is declared without a definition is this module's own, and called directly */
#pragma GCC visibility push(hidden)

#ifndef SHM_CHECKED
#define SHM_CHECKED 0
#endif

/* A lock's word: CPU + 1, then the execution level, then the generation of the acquisition. */
#define LOCK_CPU_MASK 0xffffu
#define LOCK_LEVEL_SHIFT 16
#define LOCK_GENERATION_SHIFT 24

#define MAX_SECONDS 1e8 /* longer durations are cut to this: for ever */

/* Where a proven deadlock unwinds to: one per execution level. */
struct guard {
	void *buf[5];
	u32 level;
	u32 irqs_disabled;
	u32 nr_held;
	u64 waiting_for;
	bool runs_ops;             /* handlers and replay: who calls the designs is in the core itself */
	struct guard *outer;
};

struct probe {
	u64 hits;
	u64 fire_at;               /* hit number at which to fire, 0 = not armed */
	enum shm_probe_action action;
	u32 other_cpu;
	struct shm_program program;
};

/* The first two cache lines are what every call needs. */
struct shm_env {
	char *base;                /* of the mapping; offset 0 */
	struct shm_cpu *cpu;       /* current CPU, NULL = unbound */
	struct kmem_cache *caches;
	struct kmem_cache_cpu *cpu_caches;   /* of the current CPU, by cache index */
	struct kmem_cache_stat *cache_stats; /* of the current CPU, by cache index */
	struct slub_percpu_sheaves *cpu_sheaves; /* of the current CPU, by cache index (7.x) */
	u64 *slab_words;           /* of each page; see SLAB_WORD in slab.h */
	u64 mem_off;               /* offset of page frame 0's memory */
	u64 mem_bytes;
	struct shm_counts *counts; /* of the current CPU in the running context; those of a design: this_counts() */
	void *sheaf_thread;        /* thread, if its calls may try sheaves first (first.h) ... */
	void *slab_thread;         /* ... or cpu slabs */
	void *pool_thread;         /* ... or what a design has of its own for each CPU */
	u64 tid_step;
	u32 geo_flags;
	u32 lock_word;             /* what names this CPU and level in a lock word */
	struct shm_header *hdr;
	u64 nr_pages;
	struct page *pages;
	struct shm_telemetry *tele;
	struct kmem_cache_node *cache_nodes;
	struct node_barn *barns;
	struct zone *zones;
	struct node *nodes;
	struct per_cpu_pages *pagesets;
	struct shm_pool *pools;
	struct pcpu_freelist_head *freelists; /* of pool 0, by CPU; then of pool 1, ... */
	struct pcpu_freelist_head *cpu_freelist; /* of pool 0 and the current CPU */
	struct shm_map *maps;
	struct objpool_cpu *objpool_cpus;
	struct objpool_cpu *objpool_cpu;     /* of the current CPU */
	struct bpf_mem_cache *bpf_lists;
	struct bpf_mem_cache *cpu_bpf_lists; /* of the current CPU */
	struct pageblock *pageblocks;
	struct shm_cpu *cpus;
	struct mem_cgroup *memcgs;
	struct memcg_cpu *memcg_cpus;
	struct memcg_cpu *memcg_cpu;         /* of the current CPU */
	u32 nr_memcgs;             /* entries of the table */
	u64 *owned;
	u64 *start;
	u64 *end;
	u64 *slots;
	u64 bytes;
	u64 bpf_lists_bytes;
	u32 pool_size;             /* bytes of an element of the pools of prealloc and objpool */
	u32 nr_cpus;
	u32 nr_nodes;
	u32 nr_zones;
	u32 nr_slots;
	u32 pageblock_order;
	u32 broken;                /* variant in force (checked) */
#if SHM_CHECKED
	u32 probes_armed;
#endif
	void *thread;              /* thread pointer of the bound thread */
	u32 tid;
	u32 pid;
	struct guard *guard;       /* innermost */
	struct shm_program program[NR_KINDS];
	u64 program_at[NR_KINDS];  /* next op of the program */
	u32 program_on[NR_KINDS];
#if SHM_CHECKED
	struct shm_program probe_program;    /* of a probe that is to arrive as an IRQ */
#endif
	struct shm_program *current_program;
	const struct shm_op *current_op;      /* of the running level */
	const struct shm_op *interrupted_op;  /* of the level below, for OPF_SAME */
	u32 terminated;
	u32 handlers;              /* installed */
	u32 nmi_nesting;           /* a handler's slots are then exchanged atomically */
	s32 timer_id[NR_KINDS];
	u64 timer_ns[NR_KINDS];
	u32 timer_jitter[NR_KINDS];  /* per mille */
	/*
	 * The kmalloc cache of (size - 1) / 8: a table, since the test whether a size is above 192 is guessed
	 * wrong half of the time where sizes are mixed, and a wrong guess costs as much as the call.
	 */
	u16 kmalloc_index[KMALLOC_MAX_CACHE_SIZE / 8];
	u64 trace_off;             /* rings: of CPU 0's, bytes from one to the next, places of one less one */
	u64 trace_stride;          /* 0 = there are none */
	u64 trace_mask;
	u64 outer_site[SHM_MAX_LEVELS]; /* while events are recorded: who has called the design, until that has gone on */
	u32 traced_again[SHM_MAX_LEVELS]; /* the next call of kmalloc or kfree has its traced variant as its caller */
	u32 trace_seen;            /* header.trace.generation that the first attempts are switched for */
} __attribute__((aligned(64)));

extern struct shm_env shm;

__helper struct shm_cpu *this_cpu(void)
{
	return shm.cpu;
}

__helper void *ptr_of(u64 off)
{
	return shm.base + off;
}

__helper u64 off_of(const void *p)
{
	return (u64)((const char *)p - shm.base);
}

__helper u64 page_to_pfn(const struct page *page)
{
	return (u64)(page - shm.pages);
}

__helper u64 page_to_off(const struct page *page)
{
	return shm.mem_off + (page_to_pfn(page) << SHM_PAGE_SHIFT);
}

__helper struct page *off_to_page(u64 off)
{
	return &shm.pages[(off - shm.mem_off) >> SHM_PAGE_SHIFT];
}

__helper bool off_in_memory(u64 off)
{
	return off >= shm.mem_off && off - shm.mem_off < shm.nr_pages << SHM_PAGE_SHIFT;
}

__helper struct shm_telemetry *cpu_telemetry(u32 cpu)
{
	return ptr_of(shm.hdr->regions[REGION_TELEMETRY].offset + (u64)cpu * ((sizeof(struct shm_telemetry) + 63) & ~63ull));
}

/* Head of the block that holds this address: slab or compound page, or the page itself. */
__helper struct page *virt_to_head_page(u64 off)
{
	struct page *page = off_to_page(off);

	return unlikely(page->flags & PG_tail) ? &shm.pages[page->compound_head] : page;
}

/* CPUs and, behind them, one slot for each node's kswapd. */
__helper u32 nr_cpu_slots(void)
{
	return shm.nr_cpus + shm.nr_nodes;
}

__helper u32 this_ctx(void)
{
	return this_cpu()->levels[this_cpu()->level].ctx;
}

/* The running level or its context has changed: interrupts in between leave the same behind. */
__helper void context_changed(void)
{
	struct shm_cpu *cpu = this_cpu();

	WRITE_ONCE(shm.lock_word, (cpu->id + 1) | cpu->level << LOCK_LEVEL_SHIFT);
	WRITE_ONCE(shm.counts, &shm.tele->counts[0][this_ctx()]);
}

__helper struct shm_counts *this_counts(u32 design)
{
	return &shm.counts[design * NR_CTX];
}

__helper bool in_nmi(void)
{
	return this_ctx() == CTX_NMI;
}

__helper bool gfpflags_allow_spinning(gfp_t gfp)
{
	return gfp & __GFP_RECLAIM;
}

__helper bool gfpflags_allow_blocking(gfp_t gfp)
{
	return gfp & __GFP_DIRECT_RECLAIM;
}

/*
 * Why the allocation in progress on this level fails.  A contention outlasts a shortage: with
 * another timing the request might have been served, and the two must not be one number.
 */
__helper void reason_reset(void)
{
	this_cpu()->levels[this_cpu()->level].reason = REASON_NONE;
}

__helper void reason_contention(enum shm_reason reason)
{
	this_cpu()->levels[this_cpu()->level].reason = reason;
}

__helper void reason_shortage(enum shm_reason reason)
{
	u32 *now = &this_cpu()->levels[this_cpu()->level].reason;

	if (*now == REASON_NONE || *now > REASON_ZONE_BUSY)
		*now = reason;
}

__helper u32 this_reason(void)
{
	return this_cpu()->levels[this_cpu()->level].reason;
}

/* xorshift64*, one state per CPU; a nested interrupt may repeat a number, which harms nobody. */
__helper u64 random_next(u64 *state)
{
	u64 x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dull;
}

/* broken variants: a switch in `checked`, a constant in a release-grade broken object, absent in `release` */
#define BROKEN(name, summary, set_off_by) BROKEN_##name,
enum shm_broken {
	BROKEN_none,
#include "broken.def"
	NR_BROKEN
};
#undef BROKEN

#if SHM_CHECKED
#define broken(name) unlikely(shm.broken == BROKEN_##name)
#elif defined(SHM_BROKEN_VARIANT)
#define broken(name) (BROKEN_##name == SHM_BROKEN_VARIANT)
#else
#define broken(name) false
#endif

#define PROBE(name) PROBE_SITE_##name,
enum shm_probe_site {
#include "probe.def"
	NR_PROBE_SITES
};
#undef PROBE

#if SHM_CHECKED
void probe_hit(enum shm_probe_site site);
#define probe(name) \
	do { \
		if (unlikely(shm.probes_armed)) \
			probe_hit(PROBE_SITE_##name); \
	} while (0)
#else
#define probe(name) do { } while (0)
#endif

/* verdict.c */
void violation(enum shm_verdict verdict, enum shm_checker checker, const u32 *lock_word, u32 lock_class,
	       u32 owner, u64 object, const char *text);
void fatal(enum shm_verdict verdict, enum shm_checker checker, const u32 *lock_word, u32 lock_class, u32 owner,
	   u64 object, const char *text) __attribute__((noreturn));
void unwind(void) __attribute__((noreturn));
bool stopped_by_verdict(void);
void warn_once(void);
bool rip_in_core(u64 rip);

/* string.c */
void zero_bytes(void *p, u64 bytes);
void *memcpy(void *to, const void *from, size_t bytes);
void fill_bytes(void *p, u8 value, u64 bytes);
void copy_bytes(void *to, const void *from, u64 bytes);

/* process.c */
bool thread_is_cpu(void);
u64 thread_cpu_ticks(u32 pid, u32 tid);
void page_alloc_init(void);
int kmem_cache_init(void);
void fault_inject_init(void);
int bootstrap_kmalloc_sheaves(void);
#define NO_CORE 0xffffffffu /* shm_cpu.core of one that is not pinned to a single core */

void first_attempts_load(void);  /* on or off, by what is recorded; any context of the CPU */
void cpu_load(u32 id); /* be this CPU, as far as the core is concerned */

/* Run `call` with a place to unwind to; `failed` is the value if it had to. */
#define GUARDED(type, failed, call) ({ \
	type result_ = (failed); \
	struct guard guard_; \
	if (guard_enter(&guard_)) { \
		if (!__builtin_setjmp(guard_.buf)) { \
			result_ = (call); \
			guard_exit(&guard_); \
		} else { \
			result_ = (failed); \
			guard_unwound(&guard_); \
		} \
	} \
	result_; })

bool guard_enter(struct guard *guard);
void guard_exit(struct guard *guard);
void guard_unwound(struct guard *guard);

#endif
