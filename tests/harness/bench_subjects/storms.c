/* SPDX-License-Identifier: MIT */
/*
 * What puts the storm on trial: allocators that a signal breaks, each in its own way, and one that it does not.
 *
 * All are of one size, in an array of their own, which is touched by one thread.  Accesses that an interrupt must be
 * able to come between are volatile, so that the compiler leaves them apart.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "subject.h"

#define NR 4096u
#define BYTES 64u

static _Alignas(64) char memory[NR + 1][BYTES];  /* 0 is no object */

static uint64_t handle_of(uint64_t index)
{
	return index ? (uint64_t)&memory[index] : 0;
}

static uint64_t index_of(uint64_t handle)
{
	return (handle - (uint64_t)memory) / BYTES;
}

/* --- an array, last in first out, and nothing that guards it ------------------------------------------ */

static volatile uint64_t stack[NR], top;

static int fill_stack(const struct subject_options *options, const char **why)
{
	(void)options;
	(void)why;
	for (top = 0; top < NR; top++)
		stack[top] = top + 1;
	return 0;
}

static uint64_t array_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	uint64_t last = top;

	(void)bytes;
	(void)arg1;
	(void)arg2;
	if (!last)
		return 0;
	last = stack[last - 1];
	top = top - 1;
	return handle_of(last);
}

static void array_free(uint64_t handle, uint64_t arg1, uint64_t arg2)
{
	(void)arg1;
	(void)arg2;
	stack[top] = index_of(handle);
	top = top + 1;
}

/* --- the array behind locks ------------------------------------------------------------------------------ */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static uint64_t mutex_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	uint64_t handle;

	pthread_mutex_lock(&mutex);
	handle = array_alloc(bytes, arg1, arg2);
	pthread_mutex_unlock(&mutex);
	return handle;
}

static void mutex_free(uint64_t handle, uint64_t arg1, uint64_t arg2)
{
	pthread_mutex_lock(&mutex);
	array_free(handle, arg1, arg2);
	pthread_mutex_unlock(&mutex);
}

static atomic_flag spinlock = ATOMIC_FLAG_INIT;

static uint64_t spin_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	uint64_t handle;

	while (atomic_flag_test_and_set(&spinlock))
		;
	handle = array_alloc(bytes, arg1, arg2);
	atomic_flag_clear(&spinlock);
	return handle;
}

static void spin_free(uint64_t handle, uint64_t arg1, uint64_t arg2)
{
	while (atomic_flag_test_and_set(&spinlock))
		;
	array_free(handle, arg1, arg2);
	atomic_flag_clear(&spinlock);
}

/* --- behind a flag: a handler that finds it set gets nothing, and leaves what it frees for later ---------- */

static volatile bool flag;
static _Atomic uint64_t later;  /* handles, linked through the objects */

static uint64_t flag_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	uint64_t handle;

	if (flag)
		return 0;
	flag = true;
	handle = array_alloc(bytes, arg1, arg2);
	flag = false;
	return handle;
}

static void flag_free(uint64_t handle, uint64_t arg1, uint64_t arg2)
{
	uint64_t next;

	if (flag) {  /* whom a handler interrupts has set it, and is not here */
		*(uint64_t *)handle = atomic_load(&later);
		atomic_store(&later, handle);
		return;
	}
	flag = true;
	array_free(handle, arg1, arg2);
	for (handle = atomic_exchange(&later, 0); handle; handle = next) {
		next = *(uint64_t *)handle;
		array_free(handle, arg1, arg2);
	}
	flag = false;
}

/* --- lists whose head is exchanged: without a tag, and with one beside the index --------------------------- */

static _Atomic uint64_t head;

static int fill_list(const struct subject_options *options, const char **why)
{
	(void)options;
	(void)why;
	for (uint64_t index = 1; index <= NR; index++)
		*(uint64_t *)memory[index] = index < NR ? index + 1 : 0;
	atomic_store(&head, 1);
	return 0;
}

static uint64_t list_alloc(uint64_t bytes, uint64_t tag_step, uint64_t arg2)
{
	uint64_t first = atomic_load(&head), next;

	(void)bytes;
	(void)arg2;
	do {
		if (!(uint32_t)first)
			return 0;
		next = *(volatile uint64_t *)memory[(uint32_t)first];
		next = (uint32_t)next | ((first >> 32) + tag_step) << 32;
	} while (!atomic_compare_exchange_weak(&head, &first, next));
	return handle_of((uint32_t)first);
}

static void list_free(uint64_t handle, uint64_t tag_step, uint64_t arg2)
{
	uint64_t first = atomic_load(&head), index = index_of(handle);

	(void)arg2;
	do
		*(volatile uint64_t *)handle = (uint32_t)first;
	while (!atomic_compare_exchange_weak(&head, &first, index | ((first >> 32) + tag_step) << 32));
}

/* --- what else may come of it ------------------------------------------------------------------------------- */

static volatile bool busy;
static volatile char *volatile nowhere = (char *)8;

static uint64_t abort_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	uint64_t handle;

	if (busy) {
		fputs("entered twice\n", stderr);
		abort();
	}
	busy = true;
	handle = array_alloc(bytes, arg1, arg2);
	busy = false;
	return handle;
}

static uint64_t fault_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	uint64_t handle;

	if (busy)
		*nowhere = 1;
	busy = true;
	handle = array_alloc(bytes, arg1, arg2);
	busy = false;
	return handle;
}

static uint64_t wild_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	uint64_t handle;

	if (busy)
		return 4096;
	busy = true;
	handle = array_alloc(bytes, arg1, arg2);
	busy = false;
	return handle;
}

/* Frees write a link into the neighbour, whoever has it. */
static void scribble_free(uint64_t handle, uint64_t arg1, uint64_t arg2)
{
	if (index_of(handle) > 1)
		*(uint64_t *)(handle - 8) = 1;
	flag_free(handle, arg1, arg2);
}

static uint64_t refuse(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	(void)bytes;
	(void)arg1;
	(void)arg2;
	return 0;
}

static const char *unsound(void)
{
	return "its own audit is not content";
}

static const char *proof(void)
{
	return "deadlock";
}

static int no_setup(const struct subject_options *options, const char **why)
{
	(void)options;
	*why = "not on this machine";
	return -1;
}

/* Waits in each allocation for a handler, once the calls that come before the storm are over, while there are any. */
#define CALLS_BEFORE 1024u

static volatile uint64_t handlers, allocations;
static bool no_more;

static void count_handler(void)
{
	handlers = handlers + 1;
}

static uint64_t wait_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	uint64_t before = handlers, spins = 1ull << 28;

	allocations = allocations + 1;
	while (allocations > CALLS_BEFORE && !no_more && handlers == before)
		no_more = !--spins;
	return list_alloc(bytes, arg1, arg2);
}

static const char *wrong_side;

static void at_enter(void)
{
	if (wrong_side)
		wrong_side = "a handler began in a handler";
	else
		wrong_side = "a handler has not ended";
}

static void at_exit(void)
{
	wrong_side = NULL;
}

static const char *sides(void)
{
	return wrong_side;
}

#define STORMED(text, what_setup, what_alloc, what_free) \
	.abi = SUBJECT_ABI, .flags = SUBJECT_FIXED, .max_bytes = BYTES, .name = text, .summary = text, \
	.setup = what_setup, .alloc = what_alloc, .free = what_free

static const struct subject subjects[] = {
	{ STORMED("array", fill_stack, array_alloc, array_free) },
	{ STORMED("mutex", fill_stack, mutex_alloc, mutex_free) },
	{ STORMED("spin", fill_stack, spin_alloc, spin_free) },
	{ STORMED("flag", fill_stack, flag_alloc, flag_free), .handler_enter = at_enter, .handler_exit = at_exit,
		.verdict = sides },
	{ STORMED("untagged", fill_list, list_alloc, list_free) },
	{ STORMED("tagged", fill_list, list_alloc, list_free), .alloc_args = { 1 }, .free_args = { 1 } },
	{ STORMED("waits", fill_list, wait_alloc, list_free), .alloc_args = { 1 }, .free_args = { 1 },
		.handler_alloc = list_alloc, .handler_enter = count_handler },
	{ STORMED("aborts", fill_stack, abort_alloc, flag_free) },
	{ STORMED("faults", fill_stack, fault_alloc, flag_free) },
	{ STORMED("wild", fill_stack, wild_alloc, flag_free) },
	{ STORMED("scribbles", fill_stack, flag_alloc, scribble_free) },
	{ STORMED("refuses", fill_stack, flag_alloc, flag_free), .handler_alloc = refuse },
	{ STORMED("unsound", fill_list, list_alloc, list_free), .alloc_args = { 1 }, .free_args = { 1 },
		.verdict = unsound },
	{ STORMED("proves", fill_list, list_alloc, list_free), .alloc_args = { 1 }, .free_args = { 1 },
		.verdict = proof },
	{ .abi = SUBJECT_ABI, .flags = SUBJECT_EMPTY, .name = "nothing", .alloc = refuse, .free = flag_free },
	{ STORMED("absent", no_setup, array_alloc, array_free) },
};

SUBJECTS(subjects);
