/* SPDX-License-Identifier: MIT */
/*
 * The rows once more, with every byte of every object written when it is allocated and compared when it is
 * freed.  No two live objects hold the same, so if two share a byte, one of them is found changed.
 */
#include <sched.h>
#include <stdlib.h>

#include "runner.h"

#define MISALIGNED "an object is not aligned to 8 bytes"
#define CHANGED "an object changed while it was allocated: its bytes have a second owner"
#define NO_MEMORY "no memory for the verifying run's own tables"

struct object {
	uint64_t handle;
	struct tag tag;
};

struct watch {
	const struct calls *calls;
	uint64_t next_key;
	struct result result;
	const char *fault;
};

static unsigned char byte_of(uint64_t key, uint64_t i)
{
	uint64_t word = (key + (i >> 3)) * 0x9e3779b97f4a7c15ull;

	return (unsigned char)((word ^ word >> 29) >> (i & 7) * 8);
}

static struct object take(struct watch *w, uint64_t bytes)
{
	const struct calls *c = w->calls;
	struct object o = { .tag = { .key = w->next_key, .bytes = bytes } };
	unsigned char *content;

	/* no two objects' words are alike: a key is further from the next than an object has words */
	w->next_key += 1ull << 24;
	o.handle = c->alloc(bytes, c->alloc_args[0], c->alloc_args[1]);
	w->result.pairs++;
	w->result.refused += !o.handle;
	if (o.handle & 7)
		w->fault = MISALIGNED;
	content = (unsigned char *)c->base + o.handle;
	for (uint64_t i = 0; o.handle && i < bytes; i++)
		content[i] = byte_of(o.tag.key, i);
	return o;
}

static void give(struct watch *w, const struct object *o)
{
	const struct calls *c = w->calls;
	const unsigned char *content = (unsigned char *)c->base + o->handle;

	if (!o->handle)
		return;
	for (uint64_t i = 0; i < o->tag.bytes; i++)
		if (content[i] != byte_of(o->tag.key, i))
			w->fault = CHANGED;
	if (!w->fault) /* a subject that is at fault is not asked to go on */
		c->free(o->handle, c->free_args[0], c->free_args[1]);
}

static void batches(struct watch *w, uint64_t bytes, uint64_t count, uint64_t pairs)
{
	struct object *objects = calloc(count, sizeof(*objects));

	if (!objects)
		w->fault = NO_MEMORY;
	while (!w->fault && w->result.pairs < pairs) {
		for (uint64_t i = 0; i < count; i++)
			objects[i] = take(w, bytes);
		for (uint64_t i = count; i-- > 0;)
			give(w, &objects[i]);
	}
	free(objects);
}

static void ops(struct watch *w, const struct row *row, uint64_t pairs)
{
	struct object *objects = calloc(row->nr_slots, sizeof(*objects));

	if (!objects)
		w->fault = NO_MEMORY;
	for (uint64_t at = 0; !w->fault && w->result.pairs < pairs; at = (at + 1) % row->nr_ops) {
		struct object *o = &objects[row->ops[at].slot];

		if (o->handle)
			give(w, o), o->handle = 0;
		else if (row->ops[at].bytes)
			*o = take(w, row->ops[at].bytes);
	}
	for (uint64_t i = 0; objects && i < row->nr_slots; i++)
		give(w, &objects[i]);
	free(objects);
}

static void produce(struct watch *w, const struct row *row, struct ring *ring, uint64_t objects)
{
	uint64_t tail = atomic_load(&ring->tail);

	for (uint64_t i = 0; i < objects; i++) {
		struct object o = take(w, row->ops[i % row->nr_ops].bytes);

		while (tail - atomic_load(&ring->head) == RING_ENTRIES)
			sched_yield();
		ring->entries[tail % RING_ENTRIES] = o.handle;
		ring->tags[tail % RING_ENTRIES] = o.tag;
		atomic_store(&ring->tail, ++tail);
	}
}

static void consume(struct watch *w, struct ring *ring, uint64_t objects)
{
	uint64_t head = atomic_load(&ring->head);

	for (uint64_t i = 0; i < objects; i++) {
		struct object o;

		while (atomic_load(&ring->tail) == head)
			sched_yield();
		o.handle = ring->entries[head % RING_ENTRIES];
		o.tag = ring->tags[head % RING_ENTRIES];
		give(w, &o);
		atomic_store(&ring->head, ++head);
	}
}

struct result verify_side(const struct calls *c, const struct row *row, unsigned int side, struct ring *ring,
	uint64_t pairs, const char **fault)
{
	struct watch w = { .calls = c, .next_key = 1 + ((uint64_t)side << 62) };

	switch (row->kind) {
	case ROW_PAIR:
		batches(&w, row->bytes, 1, pairs);
		break;
	case ROW_BATCH:
		batches(&w, row->bytes, row->count, pairs);
		break;
	case ROW_HANDOVER:
		if (side)
			consume(&w, ring, pairs);
		else
			produce(&w, row, ring, pairs);
		break;
	default:
		ops(&w, row, pairs);
	}
	*fault = w.fault;
	return w.result;
}
