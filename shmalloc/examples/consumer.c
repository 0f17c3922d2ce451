/* SPDX-License-Identifier: MIT */
/* Reads the messages of producer.c, where they lie, and frees them; so it is the last to use the arena. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include "messages.h"

static struct shmalloc_arena arena;

static int is_as_made(const struct message *m)
{
	uint32_t i;

	for (i = 0; i < m->length; i++)
		if (m->text[i] != (char)('a' + m->number % 26))
			return 0;
	return strlen(m->text) == m->length;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "/messages";
	struct ring *ring;
	uint64_t off, taken = 0, bytes = 0;
	int error, done;

	while ((error = shmalloc_attach(&arena, name)) == -ENOENT) /* the producer has not made it yet */
		sched_yield();
	check(error, "attach");
	check(shmalloc_unlink(name), "unlink"); /* from here on nothing stays behind, whatever happens */
	check(shmalloc_join(SHMALLOC_ANY_CPU), "join");
	while (!(off = __atomic_load_n(&arena.roots[0], __ATOMIC_ACQUIRE)))
		sched_yield();
	ring = (struct ring *)shmalloc_ptr(&arena, off);

	for (;;) {
		const struct message *m;

		done = __atomic_load_n(&ring->done, __ATOMIC_ACQUIRE) != 0;
		if (taken == __atomic_load_n(&ring->put, __ATOMIC_ACQUIRE)) {
			if (done)
				break;
			sched_yield();
			continue;
		}
		off = ring->places[taken % PLACES];
		m = (const struct message *)shmalloc_ptr(&arena, off);
		if (m->number != taken || !is_as_made(m)) {
			fprintf(stderr, "message %lu is not as it was made\n", (unsigned long)taken);
			return 1;
		}
		bytes += m->length;
		check(shm_free(off), "free");
		taken++;
		__atomic_store_n(&ring->taken, taken, __ATOMIC_RELEASE);
	}
	printf("read %lu messages of %lu bytes\n", (unsigned long)taken, (unsigned long)bytes);
	check(shmalloc_free(&arena, ring), "free");
	check(shmalloc_detach(&arena), "detach");
	return 0;
}
