/* SPDX-License-Identifier: MIT */
/*
 * The calls of a design while they leave events: the same functions are called once more, so what is traced is
 * what is not, and the event is written when they return.
 *
 * The call site is who called the design.  An exported call has its guard in its own frame: then it is that
 * call's caller.  Handlers and replay call from within the core.  The site is noted for kmalloc and kfree below,
 * which are to name the same one.
 * Context: any, of a CPU.
 */
#include "design.h"
#include "trace.h"

#define SITE_HOPS 8
#define FRAME_BYTES 65536

struct trace_call {
	u64 site;
	u64 outer; /* what shm.outer_site was before */
	u64 began; /* TSC; 0 = it took no time of its own */
};

/* frame: of a function that was called, by others of the design's layer, by whoever is to be found */
static u64 call_site(u64 from, u64 frame)
{
	const struct guard *guard = shm.guard;

	if (!guard || guard->runs_ops || guard->level != this_cpu()->level)
		return from;
	for (u32 i = 0; i < SITE_HOPS; i++) {
		u64 next = *(const u64 *)frame;

		if (next <= frame || next - frame > FRAME_BYTES)
			break;
		if ((u64)guard > frame && (u64)guard < next)
			return ((const u64 *)next)[1];
		frame = next;
	}
	return from;
}

static struct trace_call begin(u64 from)
{
	u64 *outer = &shm.outer_site[this_cpu()->level];
	struct trace_call call = { .site = call_site(from, (u64)__builtin_frame_address(0)), .outer = *outer,
				   .began = read_tsc() };

	WRITE_ONCE(*outer, call.site);
	traced_next();
	return call;
}

static void end(const struct trace_call *call)
{
	WRITE_ONCE(shm.outer_site[this_cpu()->level], call->outer);
	traced_done();
}

static u32 clipped(u64 bytes)
{
	return bytes < ~0u ? (u32)bytes : ~0u;
}

static u64 time_of(const struct trace_call *call)
{
	return call->began ? read_tsc() - call->began : 0;
}

static void note_alloc(const struct trace_call *call, u32 design, u64 off, struct shm_trace_event event)
{
	if (!tracing(TRACE_BIT(alloc)))
		return;
	event.id = TRACE_alloc;
	event.dur = time_of(call);
	event.ptr = off;
	event.design = (u8)design;
	event.reason = off ? REASON_NONE : (u8)this_reason();
	trace_write_from(call->site, &event);
}

static void note_free(const struct trace_call *call, u32 design, u64 off, int result, u32 flags, u32 order)
{
	if (tracing(TRACE_BIT(free)))
		trace_write_from(call->site, &(struct shm_trace_event){
			.id = TRACE_free, .cache = SHM_NO_CACHE, .dur = time_of(call), .ptr = off, .design = (u8)design,
			.node = (s8)result, .flags = (u8)flags, .order = (u8)order });
}

u64 traced_alloc(u32 design, u64 size, gfp_t gfp, int node, u64 from)
{
	struct trace_call call = begin(from);
	u64 off = design_alloc_whole(design, size, gfp, node);

	end(&call);
	note_alloc(&call, design, off, (struct shm_trace_event){ .cache = SHM_NO_CACHE, .bytes_req = clipped(size),
								 .gfp_flags = gfp, .node = (s8)node });
	return off;
}

u64 traced_cache_alloc(u32 design, struct kmem_cache *s, gfp_t gfp, int node, u64 from)
{
	struct trace_call call = begin(from);
	u64 off = design_cache_alloc(design, s, gfp, node);

	end(&call);
	note_alloc(&call, design, off, (struct shm_trace_event){ .cache = (u16)s->index, .bytes_req = s->object_size,
								 .gfp_flags = gfp, .node = (s8)node });
	return off;
}

u64 traced_pages_alloc(u32 design, gfp_t gfp, int node, u32 order, u64 from)
{
	struct trace_call call = begin(from);
	u64 off = design_pages_alloc(design, gfp, node, order);
	u64 bytes = order <= SHM_MAX_PAGE_ORDER ? (u64)SHM_PAGE_SIZE << order : ~0ull;

	end(&call);
	note_alloc(&call, design, off, (struct shm_trace_event){ .cache = SHM_NO_CACHE, .flags = TRACE_PAGES,
								 .bytes_req = clipped(bytes), .order = (u8)order,
								 .gfp_flags = gfp, .node = (s8)node });
	return off;
}

static struct shm_trace_event of_elem(const struct shm_map *map)
{
	return (struct shm_trace_event){ .cache = SHM_NO_CACHE, .bytes_req = map->elem_size, .gfp_flags = GFP_ATOMIC,
					 .node = NO_NODE };
}

u64 traced_elem_alloc(struct shm_map *map, u64 from)
{
	struct trace_call call = begin(from);
	u64 off = design_elem_alloc(map);

	end(&call);
	note_alloc(&call, map->design, off, of_elem(map));
	return off;
}

u64 traced_elem_taken(struct shm_map *map, u64 elem, u64 from)
{
	struct trace_call call = begin(from);
	u64 off = design_elem_taken(map, elem);

	end(&call);
	call.began = 0;
	note_alloc(&call, map->design, off, of_elem(map));
	return off;
}

/* An event for each object, or one for the failure; the first one has the time that all have taken. */
u32 traced_alloc_bulk(u32 design, struct kmem_cache *s, gfp_t gfp, u32 size, u64 *p, u64 from)
{
	struct trace_call call = begin(from);
	u32 got = design_alloc_bulk(design, s, gfp, size, p);

	end(&call);
	for (u32 i = 0; i < max_of(got, 1u); i++, call.began = 0)
		note_alloc(&call, design, got ? p[i] : 0,
			   (struct shm_trace_event){ .cache = (u16)s->index, .bytes_req = s->object_size, .gfp_flags = gfp,
						     .node = NO_NODE, .flags = TRACE_BULK });
	return got;
}

int traced_free(u32 design, u64 object, enum first_free first, u64 from)
{
	struct trace_call call = begin(from);
	int result = design_free_rest(design, object, first);

	end(&call);
	note_free(&call, design, object, result, 0, 0);
	return result;
}

int traced_pages_free(u32 design, u64 off, u32 order, u64 from)
{
	struct trace_call call = begin(from);
	int result = design_pages_free(design, off, order);

	end(&call);
	note_free(&call, design, off, result, TRACE_PAGES, order);
	return result;
}

void traced_given(u32 design, u64 object, u32 flags, u64 from)
{
	struct trace_call call = { .site = call_site(from, (u64)__builtin_frame_address(0)) };

	note_free(&call, design, object, 0, flags, 0);
}
