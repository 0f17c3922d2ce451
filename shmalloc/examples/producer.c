/* SPDX-License-Identifier: MIT */
/*
 * Makes messages in shared memory, and hands them to another process by offset.
 *
 *	cc -o producer producer.c $(shmalloc config --cflags --libs)
 *	cc -o consumer consumer.c $(shmalloc config --cflags --libs)
 *	./producer /messages 1000 & ./consumer /messages
 */
#include <sched.h>
#include <string.h>
#include "messages.h"

static struct shmalloc_arena arena;

/* Of any length: memory is taken as needed, and given back by who has read it. */
static uint64_t make_message(uint32_t number)
{
	uint32_t length = number * 37 % 900;
	uint64_t off = shm_malloc(sizeof(struct message) + length + 1);
	struct message *m = (struct message *)shmalloc_ptr(&arena, off);

	if (!m)
		return 0;
	m->number = number;
	m->length = length;
	memset(m->text, 'a' + (int)(number % 26), length);
	m->text[length] = 0;
	return off;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "/messages";
	uint32_t number, messages = argc > 2 ? (uint32_t)atoi(argv[2]) : 1000;
	struct ring *ring;
	uint64_t off;

	check(shmalloc_create(&arena, name, 16 << 20, NULL), "create");
	check(shmalloc_join(SHMALLOC_ANY_CPU), "join");
	ring = (struct ring *)shmalloc_calloc(&arena, 1, sizeof(*ring));
	if (!ring) {
		fprintf(stderr, "ring: %s\n", shmalloc_reason());
		return 1;
	}
	__atomic_store_n(&arena.roots[0], shmalloc_off(&arena, ring), __ATOMIC_RELEASE);

	for (number = 0; number < messages; number++) {
		while (!(off = make_message(number))) /* no memory: the consumer gives some back */
			sched_yield();
		while (ring->put - __atomic_load_n(&ring->taken, __ATOMIC_ACQUIRE) == PLACES)
			sched_yield();
		ring->places[ring->put % PLACES] = off;
		__atomic_store_n(&ring->put, ring->put + 1, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&ring->done, 1, __ATOMIC_RELEASE);
	printf("made %u messages\n", messages);
	/* What it has allocated stays, and is the consumer's. */
	check(shmalloc_detach(&arena), "detach");
	return 0;
}
