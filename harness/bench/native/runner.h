/* SPDX-License-Identifier: MIT */
/*
 * The runner: one process measures one subject in one row, on command.
 *
 *   main.c     arguments, the protocol on stdin and stdout
 *   sides.c    the second side, thread or process, and how both start at once
 *   loops.c    what is timed
 *   verify.c   the same with every object's content watched
 */
#ifndef SHMALLOC_BENCH_RUNNER_H
#define SHMALLOC_BENCH_RUNNER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "subject.h"

#define LINE_BYTES 128 /* two cache lines: neighbours are fetched in pairs */
#define RING_ENTRIES 256u
#define SIDES 2

enum row_kind {
	ROW_PAIR,      /* alloc, free */
	ROW_BATCH,     /* count allocs, then count frees, the last allocated first */
	ROW_OPS,       /* an op array */
	ROW_HANDOVER,  /* side 0 allocates, side 1 frees */
	ROW_BOTH,      /* the op array, on both sides at once, each with objects of its own */
	NR_ROW_KINDS
};

/* An op of an array: frees what the slot holds, or, if it is empty, allocates into it; bytes 0 = frees only. */
struct op {
	uint32_t slot;
	uint32_t bytes;
};

struct row {
	enum row_kind kind;
	uint64_t bytes;
	uint64_t count;          /* ROW_BATCH: objects of a batch */
	const struct op *ops;
	uint64_t nr_ops;
	uint64_t nr_slots;       /* of the ops */
	bool whole;              /* a sample is of whole passes over the ops */
};

/* what a loop calls, and its constants */
struct calls {
	subject_alloc *alloc;
	subject_free *free;
	uint64_t alloc_args[2];
	uint64_t free_args[2];
	char *base;
};

/* entries on lines of their own: each is written by one side */
struct ring {
	_Alignas(LINE_BYTES) _Atomic uint64_t tail;  /* producer */
	_Alignas(LINE_BYTES) _Atomic uint64_t head;  /* consumer */
	_Alignas(LINE_BYTES) uint64_t entries[RING_ENTRIES];
	struct tag {
		uint64_t key;
		uint64_t bytes;
	} tags[RING_ENTRIES]; /* verify: what the entry's object holds */
};

/* a side's place in the row, from one sample to the next */
struct cursor {
	uint64_t *slots;         /* handles, one word for each slot of the ops; 0 = empty */
	uint64_t at;             /* next op */
};

struct result {
	uint64_t pairs;          /* allocations that were, or will be, freed */
	uint64_t refused;
};

/* loops.c: each runs so many allocations, or up to so many more as make a round whole */
struct result loop_pair(const struct calls *c, uint64_t bytes, uint64_t pairs);
struct result loop_batch(const struct calls *c, uint64_t bytes, uint64_t count, uint64_t *handles, uint64_t pairs);
struct result loop_ops(const struct calls *c, const struct row *row, struct cursor *cursor, uint64_t nr_ops);
struct result loop_produce(const struct calls *c, const struct row *row, struct ring *ring, uint64_t objects);
struct result loop_consume(const struct calls *c, struct ring *ring, uint64_t objects);
void drain(const struct calls *c, const struct row *row, struct cursor *cursor);

/* verify.c: the same rows, slower; *fault = what is wrong with the subject, NULL = nothing */
struct result verify_side(const struct calls *c, const struct row *row, unsigned int side, struct ring *ring,
	uint64_t pairs, const char **fault);

/* sides.c */
enum task { TASK_RUN, TASK_VERIFY, TASK_LINE, TASK_LEAVE };

#define MOST_SAMPLES 64

struct sample {
	double ns;               /* per alloc and free of one side */
	uint64_t pairs;          /* of one side */
	uint64_t refused;        /* of all sides */
	uint64_t switches;       /* involuntary, of all sides */
};

/* 0; or a negative errno, and *why if there is more to say */
int sides_start(const struct subject *subject, const struct row *row, const struct subject_options *options,
	const int cores[SIDES], const char **why);
/* all sides at once, so many samples (at most MOST_SAMPLES) of so many allocations of a side */
void sides_run(uint64_t pairs, unsigned int nr_samples, struct sample *samples);
struct result sides_verify(uint64_t pairs, const char **fault);
double sides_line_ns(void); /* how long a cache line takes from one side to the other; 0 with one side */
void sides_end(void);

/* main.c */
_Noreturn void cannot(const char *what, const char *why);

static inline void relax(void)
{
	__builtin_ia32_pause();
}

/* main.c */
_Noreturn void cannot(const char *what, const char *why);

#endif
