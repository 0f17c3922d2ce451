/* SPDX-License-Identifier: MIT */
/*
 * Design objpool: what kretprobes take their instances from.
 *
 * One pool, of the geometry's pool_size and pool_entries.  What it does not have it does not get: a larger
 * object, a constructed one and pages are refused.  Taken down, it lives until its last object is freed.
 */
#include "objpool.h"

__slowpath static u64 pop(u64 size)
{
	u64 object;

	if (!size)
		return SHM_ZERO_SIZE;
	if (size > shm.pool_size) {
		reason_shortage(REASON_SIZE_LIMIT);
		return 0;
	}
	object = objpool_pop();
	if (!object) {
		this_cpu_inc64(&shm.tele->objpool_misses);
		reason_shortage(REASON_FREELIST_EMPTY);
	}
	return object;
}

__fastpath static u64 alloc(u64 size, gfp_t gfp, int node)
{
	u64 object = objpool_alloc_fast(size);

	(void)node;
	if (!object)
		object = pop(size);
	if (unlikely(gfp & __GFP_ZERO) && object > SHM_ZERO_SIZE)
		zero_bytes(ptr_of(object), size);
	return object;
}

__fastpath static void free_object(u64 object)
{
	if (object <= SHM_ZERO_SIZE || objpool_push_fast(object))
		return;
	if (unlikely(shm.hdr->objpool.freed))
		objpool_drop();
	else
		objpool_push(object);
}

__slowtext static int setup(void)
{
	return objpool_init(shm.hdr->geometry.pool_entries, shm.hdr->geometry.pool_size);
}

const struct design_ops design_objpool = {
	.name = "objpool",
	.summary = "a ring for each CPU, any of which can hold all objects, as kretprobes use it",
	.contexts = "task,softirq,irq,nmi",
	.alloc = alloc,
	.pages_alloc = refuse_pages,
	.free = free_object,
	.own_objects = true,
	.late_frees = true,
	.owns = objpool_has,
	.setup = setup,
	.teardown = objpool_fini,
};
