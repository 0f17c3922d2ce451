/* SPDX-License-Identifier: MIT */
/*
 * Tracepoints.
 *
 * Answers to: include/trace/events/kmem.h, lock.h.
 * Off, a tracepoint is a load, a test and a branch of a slow path; the first attempts (first.h) have none at
 * all, and are switched off while what they do is recorded (cpu.c).  What is recorded is written out of line.
 * Context: any, of a CPU.
 */
#ifndef SHM_TRACE_H
#define SHM_TRACE_H

#include "core.h"

#define TRACE_EVENT(group, name, fields) TRACE_##name,
enum shm_trace_id {
#include "trace.def"
	NR_TRACE_EVENTS
};
#undef TRACE_EVENT

#define TRACE_BIT(name) (1ull << TRACE_##name)
/* what every allocation and free may leave */
#define TRACE_CALLS \
	(TRACE_BIT(kmalloc) | TRACE_BIT(kmem_cache_alloc) | TRACE_BIT(kfree) | TRACE_BIT(kmem_cache_free) | TRACE_BIT(alloc) | \
	 TRACE_BIT(free))

/* Is any of these recorded? */
__helper bool tracing(u64 events)
{
	return unlikely(READ_ONCE(shm.hdr->trace.events) & events);
}

#define TRACED_FROM ((u64)__builtin_return_address(0))
#define __tracepoint __attribute__((noinline, cold)) /* out of the way of who is not traced */

/* trace.c */
void trace_write(struct shm_trace_event *event);
void trace_write_from(u64 site, struct shm_trace_event *event); /* with a call site, 0 = none */
/* What a dead process of this CPU has left half written; when somebody becomes the CPU. */
void trace_mend(u32 cpu);

/* --- calls of a design: design_traced.c ------------------------------------------------------------- */

/* The allocator below goes another way than kmalloc and kfree: what these do on its behalf is its own doing. */
__helper void trace_no_outer_site(void)
{
	if (tracing(TRACE_CALLS))
		WRITE_ONCE(shm.outer_site[this_cpu()->level], 0);
}

/*
 * Allocations and frees go through their traced variants, which call them again: they exist once, so what is
 * traced is what is not.  True: this is the first of the two.
 */
__helper bool traced_first(u64 events)
{
	u32 *again;

	if (!tracing(events))
		return false;
	again = &shm.traced_again[this_cpu()->level];
	if (!*again)
		return true;
	WRITE_ONCE(*again, 0);
	return false;
}

__helper void traced_next(void)
{
	WRITE_ONCE(shm.traced_again[this_cpu()->level], 1);
}

/* Also if recording has ended in between, and nobody has taken notice. */
__helper void traced_done(void)
{
	WRITE_ONCE(shm.traced_again[this_cpu()->level], 0);
}

/* who has called kmalloc or kfree: whoever called the design, if that did no more than to call it */
u64 trace_caller(u64 from);

/* --- group kmem -------------------------------------------------------------------------------------- */

void trace_kmalloc(u64 site, u64 off, u64 bytes_req, u64 bytes_alloc, gfp_t gfp, int node);
void trace_kmem_cache_alloc(u64 site, u64 off, const struct kmem_cache *s, gfp_t gfp, int node);
void trace_kfree(u64 from, u64 off);

#define TRACE_POINT(name, parameters, arguments) \
	void trace_##name##_taken parameters; \
	__helper void trace_##name parameters \
	{ \
		if (tracing(TRACE_BIT(name))) \
			trace_##name##_taken arguments; \
	}

TRACE_POINT(mm_page_alloc, (const struct page *page, u32 order, gfp_t gfp, u32 migratetype), (page, order, gfp, migratetype))
TRACE_POINT(mm_page_free, (const struct page *page, u32 order), (page, order))
TRACE_POINT(mm_page_free_batched, (const struct page *page), (page))
TRACE_POINT(mm_page_alloc_zone_locked, (const struct page *page, u32 order, u32 migratetype), (page, order, migratetype))
TRACE_POINT(mm_page_pcpu_drain, (const struct page *page, u32 order), (page, order))
TRACE_POINT(mm_page_alloc_extfrag, (const struct page *page, u32 order, u32 fallback_order, u32 migratetype, u32 fallback),
	    (page, order, fallback_order, migratetype, fallback))

/* --- groups lock and shmalloc ------------------------------------------------------------------------ */

TRACE_POINT(contention_begin, (const u32 *word, u32 class), (word, class))
TRACE_POINT(contention_end, (const u32 *word, u32 class, int ret), (word, class, ret))
TRACE_POINT(irq_work_queue, (const struct irq_work *work, u64 from), (work, from))
TRACE_POINT(defer_free, (u64 object, const struct kmem_cache *s), (object, s))
TRACE_POINT(free_deferred, (u64 object, const struct kmem_cache *s), (object, s))
TRACE_POINT(defer_deactivate_slab, (const struct page *slab), (slab))
TRACE_POINT(deactivate_deferred, (const struct page *slab), (slab))
TRACE_POINT(park_page, (const struct page *page, u32 order), (page, order))
TRACE_POINT(drain_parked_page, (const struct page *page, u32 order), (page, order))

/* what has a beginning and an end: when it began, or 0 if that was not recorded; then its end is not either */
u64 trace_handler_entry_taken(u32 kind, u64 rip, u32 pending);
void trace_handler_exit_taken(u32 kind, u64 began);
u64 trace_irq_work_entry_taken(const struct irq_work *work);
void trace_irq_work_exit_taken(const struct irq_work *work, u64 began);

/* rip 0: called, it has hit nothing */
__helper u64 trace_handler_entry(u32 kind, u64 rip, u32 pending)
{
	return tracing(TRACE_BIT(handler_entry) | TRACE_BIT(handler_exit)) ? trace_handler_entry_taken(kind, rip, pending) : 0;
}

__helper void trace_handler_exit(u32 kind, u64 began)
{
	if (unlikely(began))
		trace_handler_exit_taken(kind, began);
}

__helper u64 trace_irq_work_entry(const struct irq_work *work)
{
	return tracing(TRACE_BIT(irq_work_entry) | TRACE_BIT(irq_work_exit)) ? trace_irq_work_entry_taken(work) : 0;
}

__helper void trace_irq_work_exit(const struct irq_work *work, u64 began)
{
	if (unlikely(began))
		trace_irq_work_exit_taken(work, began);
}

#endif
