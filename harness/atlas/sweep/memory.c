/* SPDX-License-Identifier: MIT */
/*
 * The snapshot, what differs from it after a run, and the way back.
 *
 * The arena is write-protected at the snapshot.  The first write to a page faults; the page is then
 * "hot": writable from there on, and compared and put back after every run.  What one scenario touches
 * is some dozens of pages, whatever the size of the arena.
 */
#include <emmintrin.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "internal.h"

#define LINE 64ull
#define MAX_CHANGES (1u << 16)

static uint8_t *snapshot;        /* of the arena, then of the watched ranges, then of the locals */
static uint8_t *classes;
static uint32_t *hot;            /* page numbers, ascending: changes are then listed in one order */
static uint8_t *is_hot;
static uint32_t nr_hot, nr_pages;
static uint64_t side_bytes;      /* of watched and locals */
static struct change state_changes[MAX_CHANGES], outcome_changes[MAX_CHANGES];
static uint32_t nr_state, nr_outcome;
static struct distinct *states, *outcomes;

static uint64_t total(const struct sweep_range *ranges, uint32_t nr)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < nr; i++)
		bytes += ranges[i].bytes;
	return bytes;
}

int memory_open(void)
{
	const struct sweep_setup *s = &sweep.setup;

	nr_pages = (uint32_t)(s->arena_bytes / PAGE);
	side_bytes = total(sweep.watched, s->nr_watched) + total(sweep.locals, s->nr_locals);
	snapshot = aligned_alloc(PAGE, (s->arena_bytes + side_bytes + PAGE - 1) / PAGE * PAGE);
	classes = malloc(s->arena_bytes / WORD);
	hot = malloc(nr_pages * sizeof(*hot));
	is_hot = calloc(nr_pages, 1);
	states = distinct_new();
	outcomes = distinct_new();
	if (!snapshot || !classes || !hot || !is_hot || !states || !outcomes) {
		memory_close();
		return -ENOMEM;
	}
	memcpy(classes, s->classes, s->arena_bytes / WORD);
	nr_hot = 0;
	return 0;
}

void memory_close(void)
{
	if (sweep.setup.arena)
		mprotect((void *)sweep.setup.arena, sweep.setup.arena_bytes, PROT_READ | PROT_WRITE);
	free(snapshot);
	free(classes);
	free(hot);
	free(is_hot);
	distinct_free(states);
	distinct_free(outcomes);
	snapshot = classes = is_hot = NULL;
	hot = NULL;
	states = outcomes = NULL;
}

/* Copy the ranges to, or from, their place in the snapshot. */
static void copy_side(bool back)
{
	uint8_t *at = snapshot + sweep.setup.arena_bytes;
	const struct sweep_range *lists[2] = { sweep.watched, sweep.locals };
	uint32_t nr[2] = { sweep.setup.nr_watched, sweep.setup.nr_locals };

	for (uint32_t list = 0; list < 2; list++) {
		for (uint32_t i = 0; i < nr[list]; i++) {
			const struct sweep_range *range = &lists[list][i];

			if (back)
				memcpy((void *)range->start, at, range->bytes);
			else
				memcpy(at, (void *)range->start, range->bytes);
			at += range->bytes;
		}
	}
}

int memory_snapshot(void)
{
	if (mprotect((void *)sweep.setup.arena, sweep.setup.arena_bytes, PROT_READ))
		return -errno;
	memcpy(snapshot, (void *)sweep.setup.arena, sweep.setup.arena_bytes);
	copy_side(false);
	memset(is_hot, 0, nr_pages);
	nr_hot = 0;
	distinct_clear(states);
	distinct_clear(outcomes);
	return 0;
}

bool memory_write_fault(uint64_t address)
{
	uint64_t page = (address - sweep.setup.arena) / PAGE;
	uint32_t at = nr_hot;

	if (address < sweep.setup.arena || page >= nr_pages || is_hot[page])
		return false;
	if (mprotect((void *)(sweep.setup.arena + page * PAGE), PAGE, PROT_READ | PROT_WRITE))
		return false;
	is_hot[page] = 1;
	for (nr_hot++; at && hot[at - 1] > page; at--)
		hot[at] = hot[at - 1];
	hot[at] = (uint32_t)page;
	return true;
}

static bool line_differs(const uint8_t *a, const uint8_t *b)
{
	const __m128i *x = (const __m128i *)a, *y = (const __m128i *)b;
	__m128i same = _mm_and_si128(_mm_and_si128(_mm_cmpeq_epi8(x[0], y[0]), _mm_cmpeq_epi8(x[1], y[1])),
				     _mm_and_si128(_mm_cmpeq_epi8(x[2], y[2]), _mm_cmpeq_epi8(x[3], y[3])));

	return _mm_movemask_epi8(same) != 0xffff;
}

static void note(uint8_t class, uint32_t at, uint32_t now)
{
	if (class == SWEEP_STATE && nr_state < MAX_CHANGES)
		state_changes[nr_state++] = (struct change){ at, now };
	else if (class == SWEEP_OUTCOME && nr_outcome < MAX_CHANGES)
		outcome_changes[nr_outcome++] = (struct change){ at, now };
}

/* A line that differs: its words are noted, and it is put back. */
static void take_line(uint64_t offset)
{
	uint32_t *now = (uint32_t *)(sweep.setup.arena + offset);
	const uint32_t *was = (const uint32_t *)(snapshot + offset);
	uint32_t first = (uint32_t)(offset / WORD);

	for (uint32_t i = 0; i < LINE / WORD; i++)
		if (now[i] != was[i])
			note(classes[first + i], first + i, now[i]);
	memcpy(now, was, LINE);
}

static void take_pages(void)
{
	for (uint32_t i = 0; i < nr_hot; i++) {
		uint64_t offset = hot[i] * PAGE, end = offset + PAGE;

		for (; offset < end; offset += LINE)
			if (line_differs((uint8_t *)sweep.setup.arena + offset, snapshot + offset))
				take_line(offset);
	}
}

static void take_watched(void)
{
	uint64_t at = sweep.setup.arena_bytes;

	for (uint32_t i = 0; i < sweep.setup.nr_watched; i++) {
		const uint32_t *now = (const uint32_t *)sweep.watched[i].start;

		for (uint64_t word = 0; word < sweep.watched[i].bytes / WORD; word++, at += WORD)
			if (memcmp(&now[word], snapshot + at, WORD))
				note(SWEEP_OUTCOME, (uint32_t)(at / WORD), now[word]);
	}
}

void memory_collect(uint32_t *state, uint32_t *outcome)
{
	nr_state = nr_outcome = 0;
	take_pages();
	take_watched();
	copy_side(true);
	/* a full list may lack words: such a state is like no other */
	*state = nr_state < MAX_CHANGES ? distinct_number(states, state_changes, nr_state) : SWEEP_NONE;
	*outcome = nr_outcome < MAX_CHANGES ? distinct_number(outcomes, outcome_changes, nr_outcome) : SWEEP_NONE;
}

void memory_restore(void)
{
	for (uint32_t i = 0; i < nr_hot; i++)
		memcpy((void *)(sweep.setup.arena + hot[i] * PAGE), snapshot + hot[i] * PAGE, PAGE);
	copy_side(true);
}

uint32_t sweep_nr_states(void)
{
	return states ? distinct_count(states) : 0;
}

uint32_t sweep_nr_outcomes(void)
{
	return outcomes ? distinct_count(outcomes) : 0;
}

static uint32_t words_of(const struct distinct *set, uint32_t number, struct sweep_word *words, uint32_t max)
{
	const struct change *changes;
	uint32_t nr;

	if (!set || number >= distinct_count(set))
		return 0;
	changes = distinct_changes(set, number, &nr);
	for (uint32_t i = 0; i < min_of(nr, max); i++) {
		words[i].offset = changes[i].at * WORD;
		memcpy(&words[i].old, snapshot + words[i].offset, WORD);
		words[i].now = changes[i].now;
	}
	return nr;
}

uint32_t sweep_state_words(uint32_t state, struct sweep_word *words, uint32_t max)
{
	return words_of(states, state, words, max);
}

uint32_t sweep_outcome_words(uint32_t outcome, struct sweep_word *words, uint32_t max)
{
	return words_of(outcomes, outcome, words, max);
}

int sweep_load_state(uint32_t state)
{
	const struct change *changes;
	uint32_t nr;

	if (!sweep.open)
		return -ENOTCONN;
	if (state >= distinct_count(states))
		return -EINVAL;
	memory_restore();
	changes = distinct_changes(states, state, &nr);
	for (uint32_t i = 0; i < nr; i++)
		((uint32_t *)sweep.setup.arena)[changes[i].at] = changes[i].now;
	return 0;
}

uint32_t sweep_hot_pages(void)
{
	return nr_hot;
}
