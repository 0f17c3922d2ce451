/* SPDX-License-Identifier: MIT */
/*
 * The tracepoints' far ends: an event is put together, and written.
 *
 * Call sites are what the kernel's _RET_IP_ is: who called kmalloc.  Between that and the caller there is the
 * design's layer here, so the design's caller is noted for each level, and whoever the design hands the
 * request to takes the note.  Context: any, of a CPU.
 */
#include "irq.h"
#include "page_alloc.h"
#include "slab.h"
#include "trace.h"

static u64 relative(u64 rip, u8 *flags)
{
	if (rip && !rip_in_core(rip)) {
		*flags |= TRACE_OUTSIDE;
		return rip;
	}
	return rip ? rip - shm_text_base() : 0;
}

void trace_write_from(u64 site, struct shm_trace_event *event)
{
	event->call_site = relative(site, &event->flags);
	trace_write(event);
}

static u32 clipped(u64 bytes)
{
	return bytes < ~0u ? (u32)bytes : ~0u;
}

/* Most events have no cache. */
#define EVENT(name, ...) (&(struct shm_trace_event){ .id = TRACE_##name, .cache = SHM_NO_CACHE, __VA_ARGS__ })

u64 trace_caller(u64 from)
{
	u64 *outer = &shm.outer_site[this_cpu()->level], site = *outer;

	WRITE_ONCE(*outer, 0);
	return site ? site : from;
}

/* --- group kmem -------------------------------------------------------------------------------------- */

__tracepoint void trace_kmalloc(u64 site, u64 off, u64 bytes_req, u64 bytes_alloc, gfp_t gfp, int node)
{
	trace_write_from(site, EVENT(kmalloc, .ptr = off, .bytes_req = clipped(bytes_req), .bytes_alloc = clipped(bytes_alloc),
			       .gfp_flags = gfp, .node = (s8)node, .flags = gfp & __GFP_ACCOUNT ? TRACE_ACCOUNTED : 0));
}

__tracepoint void trace_kmem_cache_alloc(u64 site, u64 off, const struct kmem_cache *s, gfp_t gfp, int node)
{
	bool accounted = gfp & __GFP_ACCOUNT || s->flags & SLAB_ACCOUNT;

	trace_write_from(site, &(struct shm_trace_event){ .id = TRACE_kmem_cache_alloc, .ptr = off, .cache = (u16)s->index,
						   .bytes_req = s->object_size, .bytes_alloc = s->size, .gfp_flags = gfp,
						   .node = (s8)node, .flags = accounted ? TRACE_ACCOUNTED : 0 });
}

static const struct kmem_cache *named_cache(u64 off)
{
	const struct page *page;
	const struct kmem_cache *s;

	if (off <= SHM_ZERO_SIZE)
		return NULL;
	page = virt_to_head_page(off);
	s = page->flags & PG_slab ? slab_cache(page) : NULL;
	return s && !(s->flags & SLAB_KMALLOC) ? s : NULL;
}

/* A design has one free for all objects: an object of a named cache is freed as its user would free it. */
__tracepoint void trace_kfree(u64 from, u64 off)
{
	bool outer = shm.outer_site[this_cpu()->level];
	const struct kmem_cache *s = outer ? named_cache(off) : NULL;
	u64 site = trace_caller(from);

	if (s && tracing(TRACE_BIT(kmem_cache_free)))
		trace_write_from(site, &(struct shm_trace_event){ .id = TRACE_kmem_cache_free, .ptr = off, .cache = (u16)s->index });
	else if (!s && tracing(TRACE_BIT(kfree)))
		trace_write_from(site, EVENT(kfree, .ptr = off));
}

__tracepoint void trace_mm_page_alloc_taken(const struct page *page, u32 order, gfp_t gfp, u32 migratetype)
{
	trace_write_from(0, EVENT(mm_page_alloc, .ptr = page ? page_to_off(page) : 0, .order = (u8)order, .gfp_flags = gfp,
			    .migratetype = (u8)migratetype));
}

__tracepoint void trace_mm_page_free_taken(const struct page *page, u32 order)
{
	trace_write_from(0, EVENT(mm_page_free, .ptr = page_to_off(page), .order = (u8)order));
}

__tracepoint void trace_mm_page_free_batched_taken(const struct page *page)
{
	trace_write_from(0, EVENT(mm_page_free_batched, .ptr = page_to_off(page)));
}

__tracepoint void trace_mm_page_alloc_zone_locked_taken(const struct page *page, u32 order, u32 migratetype)
{
	bool refill = pcp_allowed_order(order) && migratetype < MIGRATE_PCPTYPES;

	trace_write_from(0, EVENT(mm_page_alloc_zone_locked, .ptr = page_to_off(page), .order = (u8)order,
			    .migratetype = (u8)migratetype, .flags = refill ? TRACE_PERCPU_REFILL : 0));
}

__tracepoint void trace_mm_page_pcpu_drain_taken(const struct page *page, u32 order)
{
	trace_write_from(0, EVENT(mm_page_pcpu_drain, .ptr = page_to_off(page), .order = (u8)order,
			    .migratetype = (u8)pageblock_migratetype(page)));
}

__tracepoint void trace_mm_page_alloc_extfrag_taken(const struct page *page, u32 order, u32 fallback_order, u32 migratetype,
						    u32 fallback)
{
	bool changed = migratetype == pageblock_migratetype(page);

	trace_write_from(0, EVENT(mm_page_alloc_extfrag, .ptr = page_to_off(page), .order = (u8)order,
			    .fallback_order = (u8)fallback_order, .migratetype = (u8)migratetype,
			    .fallback_migratetype = (u8)fallback, .flags = changed ? TRACE_CHANGE_OWNERSHIP : 0));
}

/* --- groups lock and shmalloc ------------------------------------------------------------------------ */

__tracepoint void trace_contention_begin_taken(const u32 *word, u32 class)
{
	trace_write_from(0, EVENT(contention_begin, .ptr = off_of(word), .bytes_req = class));
}

__tracepoint void trace_contention_end_taken(const u32 *word, u32 class, int ret)
{
	trace_write_from(0, EVENT(contention_end, .ptr = off_of(word), .bytes_req = class, .node = (s8)ret));
}

__tracepoint u64 trace_handler_entry_taken(u32 kind, u64 rip, u32 pending)
{
	u64 began = read_tsc();

	if (tracing(TRACE_BIT(handler_entry)))
		trace_write_from(rip_in_core(rip) ? rip : 0, EVENT(handler_entry, .bytes_req = kind, .fallback_migratetype = (u8)pending,
							     .flags = rip ? 0 : TRACE_CALLED));
	return began;
}

__tracepoint void trace_handler_exit_taken(u32 kind, u64 began)
{
	if (tracing(TRACE_BIT(handler_exit)))
		trace_write_from(0, EVENT(handler_exit, .bytes_req = kind, .dur = read_tsc() - began));
}

__tracepoint void trace_irq_work_queue_taken(const struct irq_work *work, u64 from)
{
	trace_write_from(from, EVENT(irq_work_queue, .ptr = off_of(work), .bytes_req = work->func));
}

__tracepoint u64 trace_irq_work_entry_taken(const struct irq_work *work)
{
	u64 began = read_tsc();

	if (tracing(TRACE_BIT(irq_work_entry)))
		trace_write_from(0, EVENT(irq_work_entry, .ptr = off_of(work), .bytes_req = work->func));
	return began;
}

__tracepoint void trace_irq_work_exit_taken(const struct irq_work *work, u64 began)
{
	if (tracing(TRACE_BIT(irq_work_exit)))
		trace_write_from(0, EVENT(irq_work_exit, .ptr = off_of(work), .bytes_req = work->func, .dur = read_tsc() - began));
}

#define OBJECT_POINT(name) \
	__tracepoint void trace_##name##_taken(u64 object, const struct kmem_cache *s) \
	{ \
		trace_write_from(0, &(struct shm_trace_event){ .id = TRACE_##name, .ptr = object, .cache = (u16)s->index }); \
	}

OBJECT_POINT(defer_free)
OBJECT_POINT(free_deferred)

#define SLAB_POINT(name) \
	__tracepoint void trace_##name##_taken(const struct page *slab) \
	{ \
		trace_write_from(0, &(struct shm_trace_event){ .id = TRACE_##name, .ptr = page_to_off(slab), \
							.cache = (u16)slab_cache(slab)->index }); \
	}

SLAB_POINT(defer_deactivate_slab)
SLAB_POINT(deactivate_deferred)

#define BLOCK_POINT(name) \
	__tracepoint void trace_##name##_taken(const struct page *page, u32 order) \
	{ \
		trace_write_from(0, EVENT(name, .ptr = page_to_off(page), .order = (u8)order)); \
	}

BLOCK_POINT(park_page)
BLOCK_POINT(drain_parked_page)
