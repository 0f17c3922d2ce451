/* SPDX-License-Identifier: MIT */
/* What both programs agree on: a ring of offsets in shared memory, which the arena's first root leads to. */
#ifndef MESSAGES_H
#define MESSAGES_H

#include <stdio.h>
#include <stdlib.h>
#include <shmalloc.h>

#define PLACES 64 /* a power of two */

struct message {
	uint32_t number;
	uint32_t length;
	char text[];  /* length bytes and a 0 */
};

/* One producer, one consumer.  Each counts on; what lies between the two is waiting. */
struct ring {
	uint64_t put;
	uint64_t taken;
	uint64_t done;  /* the producer has no more */
	uint64_t places[PLACES];
};

/* A call that must not fail. */
static inline int check(int result, const char *what)
{
	if (result >= 0)
		return result;
	fprintf(stderr, "%s: %s\n", what, shmalloc_error());
	exit(1);
}

#endif
