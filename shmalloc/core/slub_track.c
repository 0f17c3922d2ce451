/* SPDX-License-Identifier: MIT */
/*
 * Who allocated and freed an object of a SLAB_STORE_USER cache, and the events of SLAB_TRACE caches.
 *
 * Answers to: mm/slub.c (set_track, init_tracking, trace).
 * Changed: an event is recorded in the header's ring instead of printed.  Left out: the stack depot;
 * a track has its caller's address only, which is the first one outside of the allocators.
 * Context: any.
 */
#include "signals.h"
#include "slub_debug.h"

#define MAX_FRAMES 16
#define MAX_FRAME_BYTES (1u << 20)

__export uint64_t shm_tsc(void)
{
	return read_tsc();
}

/* The second frame outside of the allocators: the first is the design's, which everybody comes through. */
__slowpath static u64 caller_address(void)
{
	const u64 *frame = __builtin_frame_address(0);
	u64 base = shm_text_base(), found = 0;
	u32 outside = 0;

	for (u32 i = 0; i < MAX_FRAMES; i++) {
		u64 next = frame[0], ret = frame[1] - base;

		if (ret > MAX_FRAME_BYTES) /* outside of the core there are no frame pointers to follow */
			return found;
		if (!rip_in_allocator(frame[1])) {
			found = ret;
			if (++outside == 2)
				return found;
		}
		if (next <= (u64)frame || next - (u64)frame > MAX_FRAME_BYTES || next & 7)
			return found;
		frame = (const u64 *)next;
	}
	return found;
}

__slowpath void set_track(const struct kmem_cache *s, u64 object, enum track_item item)
{
	if (s->flags & SLAB_STORE_USER)
		*track_of(s, object, item) = (struct track){
			.addr = caller_address(),
			.cpu = (s32)this_cpu()->id,
			.pid = (s32)this_cpu()->pid,
			.checked = SHM_CHECKED,
			.when = read_tsc(),
		};
}

__slowtext void init_tracking(const struct kmem_cache *s, u64 object)
{
	if (s->flags & SLAB_STORE_USER)
		fill_bytes(track_of(s, object, TRACK_ALLOC), 0, NR_TRACKS * sizeof(struct track));
}

__slowpath void trace(const struct kmem_cache *s, const struct page *slab, u64 object, bool alloc)
{
	u64 event;

	if (likely(!(s->flags & SLAB_TRACE)))
		return;
	this_cpu_inc64(&shm.tele->slab_traces);
	event = atomic_fetch_add(&shm.hdr->slab_traces, 1);
	shm.hdr->slab_trace_log[event % SHM_SLAB_TRACE_LOG] = (struct shm_slab_trace){
		object, slab->freelist, s->index, (u16)counters_inuse(slab->counters), alloc, (u8)this_cpu()->id,
	};
}
