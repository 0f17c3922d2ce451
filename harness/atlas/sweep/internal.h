/* SPDX-License-Identifier: MIT */
/* What the files of the sweep share. */
#ifndef SWEEP_INTERNAL_H
#define SWEEP_INTERNAL_H

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>
#include "sweep.h"

#define PAGE 4096ull
#define WORD 4ull
#define min_of(a, b) ((a) < (b) ? (a) : (b))

struct sweep {
	struct sweep_setup setup;        /* the pointers in it are to copies */
	struct sweep_range text[SWEEP_MAX_RANGES];
	struct sweep_range locals[SWEEP_MAX_RANGES];
	struct sweep_range watched[SWEEP_MAX_RANGES];
	bool open;
};

extern struct sweep sweep;

/* memory.c: the snapshot, what differs from it, and the way back */
int memory_open(void);
void memory_close(void);
int memory_snapshot(void);
void memory_restore(void);
void memory_collect(uint32_t *state, uint32_t *outcome); /* name what differs, and go back */
bool memory_write_fault(uint64_t address);               /* true: the page may be written now; try again */

/* distinct.c: sets of words, each kept once */
struct change {
	uint32_t at;             /* in words from the arena's start */
	uint32_t now;
};

struct distinct;
struct distinct *distinct_new(void);
void distinct_clear(struct distinct *set);
void distinct_free(struct distinct *set);
uint32_t distinct_number(struct distinct *set, const struct change *changes, uint32_t nr); /* SWEEP_NONE: no memory */
uint32_t distinct_count(const struct distinct *set);
const struct change *distinct_changes(const struct distinct *set, uint32_t number, uint32_t *nr);

/* traps.c */
int traps_open(void);
void traps_close(void);

#endif
