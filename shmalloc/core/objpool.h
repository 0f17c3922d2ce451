/* SPDX-License-Identifier: MIT */
#ifndef SHM_OBJPOOL_H
#define SHM_OBJPOOL_H

#include "irq.h"
#include "pool.h"

int objpool_init(u32 nr_objs, u32 obj_size);
void objpool_fini(void);
void objpool_drop(void);
u64 objpool_pop(void);
void objpool_push(u64 object);
bool objpool_has(u64 off);

__helper u64 *objpool_entry(struct objpool_slot *slot, u32 at)
{
	return (u64 *)(slot + 1) + (at & slot->mask);
}

/* Is this where an object of a CPU's share begins? */
__helper bool objpool_share_has(const struct objpool_cpu *of, u64 off)
{
	u64 within = off - of->objects;

	return within < MAX_BLOCK_BYTES && quotient_of(&of->divide, (u32)within) < of->nr_objs;
}

/*
 * The poppers are told of all places that are reserved, and these are written.  A handler's push may
 * reserve one meanwhile and leaves it to this one to tell of it, which therefore looks once more at the end.
 */
__helper void objpool_publish(struct objpool_slot *slot, u32 *pushing)
{
	for (;;) {
		u32 tail = READ_ONCE(slot->tail);

		store_release(&slot->last, tail);
		WRITE_ONCE(*pushing, 0);
		if (likely(READ_ONCE(slot->tail) == tail))
			return;
		WRITE_ONCE(*pushing, 1);
	}
}

/*
 * Only this CPU writes `tail` and `last`, so that one unlocked instruction reserves, and a store tells: what
 * it has to be whole against is a handler.  Irqs off.
 */
__helper void add_to_slot(struct objpool_cpu *mine, u64 object)
{
	struct objpool_slot *slot = ptr_of(mine->slot);
	bool outermost = !READ_ONCE(mine->pushing);
	u32 tail;

	WRITE_ONCE(mine->pushing, 1);
	tail = this_cpu_fetch_inc32(&slot->tail);
	if (unlikely(tail - READ_ONCE(slot->head) > mine->nr_all))
		this_cpu_inc64(&shm.tele->warnings); /* warn_once(): a call here would need a frame */
	probe(objpool_reserved);
	WRITE_ONCE(*objpool_entry(slot, tail), object);
	probe(objpool_written);
	if (broken(k50)) {
		WRITE_ONCE(mine->pushing, !outermost);
		store_release(&slot->last, tail + 1);
	} else if (likely(outermost)) {
		objpool_publish(slot, &mine->pushing);
	}
	probe(objpool_published);
}

/* The oldest of the own ring, by one try.  Irqs off, any context.  0: nothing was changed. */
__helper u64 get_own(struct objpool_slot *slot)
{
	u32 head = load_acquire(&slot->head);
	u64 object;

	if (unlikely(head == READ_ONCE(slot->last)))
		return 0;
	object = READ_ONCE(*objpool_entry(slot, head));
	return likely(try_cmpxchg(&slot->head, &head, head + 1)) ? object : 0;
}

#endif
