/* SPDX-License-Identifier: MIT */
/*
 * objpool: a ring for each CPU, any of which can hold all objects.
 *
 * Answers to: lib/objpool.c, include/linux/objpool.h (6.18), and as the broken variant k45 to
 * include/linux/freelist.h (up to 6.6): one list for all CPUs, with a reference count in each node.
 * Kept: capacity, each CPU's share, objects beside their CPU's ring; a pop takes the oldest of the own ring, then
 * of the others' in order; a push goes to the own ring, in two steps: a place is reserved, then, when the object
 * is in it, `last` tells the poppers; the pool lives until its last object is back.
 * Changed: an NMI's push may come between those two steps.  In 6.18 it tells the poppers of its own place and
 * so of the one before it, which is not yet written, and the interrupted push takes `last` back (the broken
 * variant k50); here the outermost push of a CPU alone tells, and `last` only goes forward.
 * Changed, too: no locked instruction reserves a place, since `tail` is its own CPU's; there is no vmalloc, so a ring and its objects are pages in a row, 4 MiB at most.
 * Left out: kmalloc for GFP_ATOMIC pools, callbacks for objects.
 * Context: any; init and fini task.
 */
#include "objpool.h"

#define NODE_BYTES 16 /* freelist.h: {refs, next} in front of each object */
#define ON_FREELIST 0x80000000u
#define REFS_MASK 0x7fffffffu

struct freelist_node {
	u32 refs;
	u32 pad;
	u64 next;
};

__helper struct objpool_head *objpool(void)
{
	return &shm.hdr->objpool;
}

__helper struct objpool_slot *slot_of(u32 cpu)
{
	return ptr_of(shm.objpool_cpus[cpu].slot);
}

/* --- freelist.h ------------------------------------------------------------------------------------ */

__helper struct freelist_node *node_of(u64 object)
{
	return ptr_of(object - NODE_BYTES);
}

/* The count is 0 and nobody else adds it: link it, and if the head has moved, give it back and begin again. */
__slowtext static void freelist_link(u64 object)
{
	struct freelist_node *node = node_of(object);
	u64 head = READ_ONCE(objpool()->freelist);

	for (;;) {
		node->next = head;
		store_release(&node->refs, 1);
		if (try_cmpxchg(&objpool()->freelist, &head, object))
			return;
		/* somebody looked at it meanwhile: then the last of them links it */
		if (atomic_fetch_add(&node->refs, ON_FREELIST - 1) != 1)
			return;
	}
}

__slowtext static void freelist_add(u64 object)
{
	if (!atomic_fetch_add(&node_of(object)->refs, ON_FREELIST))
		freelist_link(object);
}

__slowtext static u64 freelist_get(void)
{
	u64 head = load_acquire(&objpool()->freelist);

	while (head) {
		struct freelist_node *node = node_of(head);
		u64 taken = head;
		u32 refs = READ_ONCE(node->refs);

		if (!(refs & REFS_MASK) || !try_cmpxchg(&node->refs, &refs, refs + 1)) {
			head = load_acquire(&objpool()->freelist);
			continue;
		}
		if (try_cmpxchg(&objpool()->freelist, &head, READ_ONCE(node->next))) {
			atomic_sub(&node->refs, 2u); /* ours, and the list's */
			return taken;
		}
		if (atomic_fetch_add(&node->refs, (u32)-1) == ON_FREELIST + 1)
			freelist_link(taken);
	}
	return 0;
}

/* --- rings ------------------------------------------------------------------------------------------- */

__helper u64 try_get_slot(u32 cpu)
{
	struct objpool_slot *slot = slot_of(cpu);
	u32 head = load_acquire(&slot->head);

	while (head != READ_ONCE(slot->last)) {
		u64 object;

		if (READ_ONCE(slot->last) - head - 1 >= objpool()->nr_objs) { /* head is long gone */
			head = READ_ONCE(slot->head);
			continue;
		}
		object = READ_ONCE(*objpool_entry(slot, head));
		if (try_cmpxchg(&slot->head, &head, head + 1))
			return object;
	}
	return 0;
}

/* 0: all rings are empty. */
__slowpath u64 objpool_pop(void)
{
	u32 at = this_cpu()->id % shm.nr_cpus, flags;
	u64 object = 0;

	if (!objpool()->capacity)
		return 0;
	flags = local_irq_save();
	if (unlikely(objpool()->node_bytes)) {
		object = freelist_get();
		local_irq_restore(flags);
		return object;
	}
	for (u32 i = 0; i < shm.nr_cpus && !object; i++) {
		object = try_get_slot(at);
		at = at + 1 < shm.nr_cpus ? at + 1 : 0;
		if (object && i)
			this_cpu_inc64(&shm.tele->objpool_steals);
	}
	local_irq_restore(flags);
	return object;
}

__slowpath void objpool_push(u64 object)
{
	u32 flags = local_irq_save();

	if (unlikely(objpool()->node_bytes))
		freelist_add(object);
	else
		add_to_slot(shm.objpool_cpu, object);
	local_irq_restore(flags);
}

/* --- creation ------------------------------------------------------------------------------------------ */

__slowtext static u32 share_of(u32 cpu)
{
	return objpool()->nr_objs / shm.nr_cpus + (cpu < objpool()->nr_objs % shm.nr_cpus);
}

static void objpool_free(void)
{
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
		struct objpool_cpu *of = &shm.objpool_cpus[cpu];

		if (of->slot)
			free_pages_exact(of->slot, of->nr_pages);
		*of = (struct objpool_cpu){ 0 };
	}
	*objpool() = (struct objpool_head){ 0 };
}

static int init_slot(u32 cpu)
{
	struct objpool_cpu *of = &shm.objpool_cpus[cpu];
	u32 stride = objpool()->obj_size + objpool()->node_bytes, share = share_of(cpu);
	u64 ring = sizeof(struct objpool_slot) + 8ull * objpool()->capacity, bytes = ring + (u64)share * stride;
	u64 off = alloc_pages_exact(bytes, (int)shm.cpus[cpu].node);
	struct objpool_slot *slot;

	if (!off)
		return -ENOMEM;
	*of = (struct objpool_cpu){
		.slot = off, .objects = off + ring + objpool()->node_bytes, .nr_objs = share,
		.nr_pages = (u32)((bytes + SHM_PAGE_SIZE - 1) >> SHM_PAGE_SHIFT),
		.nr_all = objpool()->nr_objs, .divide = exact_divisor(stride),
	};
	slot = ptr_of(of->slot);
	zero_bytes(slot, ring);
	slot->mask = objpool()->capacity - 1;
	for (u32 i = 0; i < share; i++) {
		u64 object = of->objects + (u64)i * stride;

		if (objpool()->node_bytes) {
			*node_of(object) = (struct freelist_node){ 0 };
			freelist_add(object);
		} else {
			*objpool_entry(slot, i) = object;
		}
	}
	slot->tail = slot->last = objpool()->node_bytes ? 0 : share;
	return 0;
}

/* -EBUSY: objects of a pool that was taken down are still out. */
int objpool_init(u32 nr_objs, u32 obj_size)
{
	u32 capacity = nr_objs > 1 ? 1u << fls64(nr_objs - 1) : 1;
	int error = 0;

	if (objpool()->ref)
		return -EBUSY;
	if (!nr_objs || !obj_size)
		return -EINVAL;
	*objpool() = (struct objpool_head){
		.nr_objs = nr_objs, .capacity = capacity, .obj_size = (u32)round_up(obj_size, 8), .ref = nr_objs + 1,
		.node_bytes = broken(k45) ? NODE_BYTES : 0,
	};
	for (u32 cpu = 0; cpu < shm.nr_cpus && !error; cpu++)
		error = init_slot(cpu);
	if (error)
		objpool_free();
	return error;
}

__slowtext static void put_refs(u32 count)
{
	if (atomic_fetch_add(&objpool()->ref, (u32)-count) == count)
		objpool_free();
}

/* What is out comes back by objpool_drop, and the last one frees the pool. */
void objpool_fini(void)
{
	u32 count = 1;

	if (!objpool()->ref)
		return;
	WRITE_ONCE(objpool()->freed, 1);
	while (objpool_pop())
		count++;
	put_refs(count);
}

__slowpath void objpool_drop(void)
{
	put_refs(1);
}

/* Does an object begin here, whose share ever it is? */
__slowpath bool objpool_has(u64 off)
{
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
		if (objpool_share_has(&shm.objpool_cpus[cpu], off))
			return true;
	return false;
}
