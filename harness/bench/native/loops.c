/* SPDX-License-Identifier: MIT */
/*
 * What is timed.  The first word of each object is written, because whoever allocates writes: an allocator
 * that gives out cold memory has that in its numbers.
 */
#include <sched.h>

#include "runner.h"

#define PUBLISHED 16u /* entries: two lines of them; divides RING_ENTRIES */
#define SPINS 10000 /* before the core is offered to others: the other side may wait for this one's */

static inline uint64_t call_alloc(const struct calls *c, uint64_t bytes)
{
	uint64_t handle = c->alloc(bytes, c->alloc_args[0], c->alloc_args[1]);

	if (__builtin_expect(handle != 0, 1))
		*(volatile uint64_t *)(c->base + handle) = handle;
	return handle;
}

static inline void call_free(const struct calls *c, uint64_t handle)
{
	c->free(handle, c->free_args[0], c->free_args[1]);
}

struct result loop_pair(const struct calls *c, uint64_t bytes, uint64_t pairs)
{
	uint64_t refused = 0;

	for (uint64_t i = 0; i < pairs; i++) {
		uint64_t handle = call_alloc(c, bytes);

		if (__builtin_expect(!handle, 0)) {
			refused++;
			continue;
		}
		call_free(c, handle);
	}
	return (struct result){ pairs, refused };
}

struct result loop_batch(const struct calls *c, uint64_t bytes, uint64_t count, uint64_t *handles, uint64_t pairs)
{
	uint64_t done = 0, refused = 0;

	while (done < pairs) {
		for (uint64_t i = 0; i < count; i++) {
			handles[i] = call_alloc(c, bytes);
			refused += !handles[i];
		}
		for (uint64_t i = count; i-- > 0;)
			if (__builtin_expect(handles[i] != 0, 1))
				call_free(c, handles[i]);
		done += count;
	}
	return (struct result){ done, refused };
}

struct result loop_ops(const struct calls *c, const struct row *row, struct cursor *cursor, uint64_t nr_ops)
{
	const struct op *ops = row->ops;
	uint64_t *slots = cursor->slots, at = cursor->at, end = row->nr_ops, allocated = 0, refused = 0;

	for (uint64_t i = 0; i < nr_ops; i++) {
		uint32_t slot = ops[at].slot;
		uint64_t handle = slots[slot];

		if (handle) {
			slots[slot] = 0;
			call_free(c, handle);
		} else if (ops[at].bytes) {
			handle = call_alloc(c, ops[at].bytes);
			slots[slot] = handle;
			refused += !handle;
			allocated++;
		}
		if (++at == end)
			at = 0;
	}
	cursor->at = at;
	return (struct result){ allocated, refused };
}

void drain(const struct calls *c, const struct row *row, struct cursor *cursor)
{
	for (uint64_t i = 0; i < row->nr_slots; i++)
		if (cursor->slots[i])
			call_free(c, cursor->slots[i]);
	for (uint64_t i = 0; i < row->nr_slots; i++)
		cursor->slots[i] = 0;
	cursor->at = 0;
}

static inline void wait_a_little(unsigned int *spins)
{
	relax();
	if (++*spins % SPINS == 0)
		sched_yield();
}

/*
 * Both sides publish how far they are every few objects: a line of the ring's entries goes over at once, and what
 * is left in the numbers is the objects' own lines and the allocator's.
 */
struct result loop_produce(const struct calls *c, const struct row *row, struct ring *ring, uint64_t objects)
{
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
	uint64_t at = 0, refused = 0;
	unsigned int spins = 0;

	for (uint64_t i = 0; i < objects; i++) {
		uint64_t handle = call_alloc(c, row->ops[at].bytes);

		refused += !handle;
		if (++at == row->nr_ops)
			at = 0;
		while (tail - head == RING_ENTRIES) {
			head = atomic_load_explicit(&ring->head, memory_order_acquire);
			if (tail - head == RING_ENTRIES)
				wait_a_little(&spins);
		}
		ring->entries[tail++ % RING_ENTRIES] = handle;
		if (tail % PUBLISHED == 0)
			atomic_store_explicit(&ring->tail, tail, memory_order_release);
	}
	atomic_store_explicit(&ring->tail, tail, memory_order_release);
	return (struct result){ objects, refused };
}

struct result loop_consume(const struct calls *c, struct ring *ring, uint64_t objects)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed), tail = head;
	unsigned int spins = 0;

	for (uint64_t i = 0; i < objects; i++) {
		uint64_t handle;

		while (tail == head) {
			tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
			if (tail == head)
				wait_a_little(&spins);
		}
		handle = ring->entries[head++ % RING_ENTRIES];
		if (head % PUBLISHED == 0)
			atomic_store_explicit(&ring->head, head, memory_order_release);
		if (__builtin_expect(handle != 0, 1)) {
			(void)*(volatile uint64_t *)(c->base + handle);
			call_free(c, handle);
		}
	}
	atomic_store_explicit(&ring->head, head, memory_order_release);
	return (struct result){ 0, 0 };
}
