/* SPDX-License-Identifier: MIT */
/*
 * Design no_prealloc: BPF_F_NO_PREALLOC before 6.1.  kmalloc(GFP_ATOMIC), and call_rcu at the free.
 *
 * What is freed stays allocated until its grace period is over: hence the memory spikes.  kmalloc spins,
 * so an NMI that enters it may deadlock, which is why tracing programs were not allowed such maps; nor may
 * call_rcu be called from there.  A freed object carries its rcu_head at its start, an element in its header.
 */
#include "design.h"
#include "pool.h"
#include "rcu.h"

#define ATOMIC (GFP_ATOMIC | __GFP_NOWARN)

__slowtext static u64 alloc(u64 size, gfp_t gfp, int node)
{
	if (!size)
		return SHM_ZERO_SIZE;
	if (size > KMALLOC_MAX_CACHE_SIZE) {
		reason_shortage(REASON_SIZE_LIMIT);
		return 0;
	}
	/* room for the head */
	return kmalloc_node(max_of(size, (u64)sizeof(struct rcu_head)),
			    ATOMIC | (gfp & (__GFP_ZERO | __GFP_ACCOUNT)), node);
}

__slowtext static void free_object(u64 object)
{
	if (object > SHM_ZERO_SIZE)
		kfree_rcu(object, 0);
}

__slowtext static u64 elem_alloc(struct shm_map *map)
{
	return kmalloc_node(map->elem_size, ATOMIC, NO_NODE);
}

__slowtext static void elem_free(struct shm_map *map, u64 elem)
{
	(void)map;
	kfree_rcu(elem, offsetof(struct htab_elem, rcu));
}

const struct design_ops design_no_prealloc = {
	.name = "no_prealloc",
	.summary = "BPF_F_NO_PREALLOC of old: kmalloc(GFP_ATOMIC), call_rcu at the free; not for NMI",
	.contexts = "task,softirq,irq",
	.alloc = alloc,
	.pages_alloc = refuse_pages,
	.free = free_object,
	.alloc_first = nothing_first,
	.free_first = nothing_freed_first,
	.elem_alloc = elem_alloc,
	.elem_free = elem_free,
};
