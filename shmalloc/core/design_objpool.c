/* SPDX-License-Identifier: MIT */
/*
 * Design objpool: what kretprobes take their instances from.
 *
 * One pool, of the geometry's pool_size and pool_entries.  What it does not have it does not get: a larger
 * object, a constructed one and pages are refused.  Taken down, it lives until its last object is freed.
 */
#include "first.h"
#include "objpool.h"

/* The own ring has none: from another's, which waits for nothing either.  Irqs are still off. */
__fastpath __attribute__((noinline)) static u64 objpool_alloc_others(u64 size, rest_of_alloc *rest, u32 flags)
{
	u64 object = objpool_pop();

	if (!object)
		return pool_alloc_rest(DESIGN_objpool, size, rest, flags);
	return pool_alloc_end(DESIGN_objpool, object, size, flags);
}

__fastpath static u64 objpool_alloc_first(u32 design, u64 size, gfp_t gfp, int node, rest_of_alloc *rest)
{
	u64 slot, object;
	u32 flags;

	(void)design; /* it is this one: a constant takes no register */
	if (unlikely(!may_try_pool() || size - 1 >= shm.pool_size || gfp & __GFP_ZERO) || broken(k45))
		return rest(DESIGN_objpool, size, gfp, node);
	slot = shm.objpool_cpu->slot;
	if (unlikely(!slot))
		return rest(DESIGN_objpool, size, gfp, node);
	flags = local_irq_save();
	object = get_own(ptr_of(slot));
	if (unlikely(!object))
		return objpool_alloc_others(size, rest, flags);
	return pool_alloc_end(DESIGN_objpool, object, size, flags);
}

__fastpath __attribute__((noinline)) static int objpool_free_object(u32 design, u64 object, rest_of_free *rest)
{
	u32 flags;

	this_cpu_inc64(&this_counts(DESIGN_objpool)->frees);
	flags = local_irq_save();
	add_to_slot(shm.objpool_cpu, object);
	return pool_free_end(design, object, rest, flags, true);
}

__fastpath __attribute__((noinline)) static int objpool_free_owned(u32 design, u64 object, rest_of_free *rest)
{
	return oracle_release_kept(object) ? objpool_free_object(design, object, rest) :
					     rest(design, object, FREE_REFUSED);
}

/* Of another CPU's share, or of none. */
__fastpath __attribute__((noinline)) static int objpool_free_others(u32 design, u64 off, rest_of_free *rest)
{
	if (!objpool_has(off))
		return rest(design, off, FREE_NOT_TRIED);
	return oracle_on() ? objpool_free_owned(design, off, rest) : objpool_free_object(design, off, rest);
}

__fastpath static int objpool_free_first(u32 design, u64 off, rest_of_free *rest)
{
	if (unlikely(!may_try_pool() || shm.hdr->objpool.freed) || broken(k45))
		return rest(design, off, FREE_NOT_TRIED);
	if (unlikely(!objpool_share_has(shm.objpool_cpu, off)))
		return objpool_free_others(design, off, rest);
	if (unlikely(oracle_on()))
		return objpool_free_owned(design, off, rest);
	return objpool_free_object(design, off, rest);
}

__slowpath static u64 alloc(u64 size, gfp_t gfp, int node)
{
	u64 object;

	(void)node;
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
	} else if (gfp & __GFP_ZERO) {
		zero_bytes(ptr_of(object), size);
	}
	return object;
}

__slowpath static void free_object(u64 object)
{
	if (object <= SHM_ZERO_SIZE)
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
	.alloc_first = objpool_alloc_first,
	.free_first = objpool_free_first,
	.own_objects = true,
	.late_frees = true,
	.owns = objpool_has,
	.setup = setup,
	.teardown = objpool_fini,
};
