/* SPDX-License-Identifier: MIT */
/* Subjects that are wrong in one way each: the runner's verifying mode must say so, and nothing may hang on them. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "subject.h"

#define OBJECTS 65536u
#define SPACING 4096u

static char *memory;
static uint64_t next;
static unsigned int my_side;
static int *volatile nowhere;

static int setup(const struct subject_options *options, const char **why)
{
	(void)options;
	memory = mmap(NULL, (size_t)OBJECTS * SPACING, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		*why = "no memory";
	return memory == MAP_FAILED ? -12 : 0;
}

static int join(unsigned int side, const char **why)
{
	(void)why;
	my_side = side;
	return 0;
}

static void release(uint64_t handle, uint64_t arg1, uint64_t arg2)
{
	(void)handle, (void)arg1, (void)arg2;
}

static uint64_t fresh(uint64_t spacing)
{
	return (uint64_t)(uintptr_t)memory + __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED) % (OBJECTS / 2) * spacing;
}

/* sound, as long as fewer live than it has */
static uint64_t sound(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	(void)bytes, (void)arg1, (void)arg2;
	return fresh(SPACING);
}

/* the 23rd is the 22nd once more */
static uint64_t twice(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	(void)bytes, (void)arg1, (void)arg2;
	if (next % 23 == 22)
		return (uint64_t)(uintptr_t)memory + (next++ - 1) % (OBJECTS / 2) * SPACING;
	return fresh(SPACING);
}

/* neighbours share their last eight bytes */
static uint64_t overlapping(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	(void)arg1, (void)arg2;
	return fresh(bytes - 8);
}

static uint64_t misaligned(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	(void)bytes, (void)arg1, (void)arg2;
	return fresh(SPACING) + 4;
}

/* writes into what it has given out */
static uint64_t scribbling(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	uint64_t handle = fresh(SPACING);

	(void)arg1, (void)arg2;
	if (next > 1)
		*(char *)(uintptr_t)(handle - SPACING + bytes - 1) ^= 1;
	return handle;
}

static uint64_t refusing(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	(void)bytes, (void)arg1, (void)arg2;
	return next++ % 3 ? fresh(SPACING) : 0;
}

static uint64_t crashing(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	(void)bytes, (void)arg1, (void)arg2;
	if (next > 100)
		*nowhere = 1;
	return fresh(SPACING);
}

static uint64_t hanging(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	(void)bytes, (void)arg1, (void)arg2;
	while (next > 100)
		pause();
	return fresh(SPACING);
}

/* of two processes the second dies */
static void dying(uint64_t handle, uint64_t arg1, uint64_t arg2)
{
	(void)handle, (void)arg1, (void)arg2;
	if (my_side)
		abort();
}

static int refuse_setup(const struct subject_options *options, const char **why)
{
	(void)options;
	*why = "it is Monday";
	return -1;
}

#define SUBJECT(name_, alloc_, ...) \
	{ .abi = SUBJECT_ABI, .name = name_, .setup = setup, .join = join, .alloc = alloc_, .free = release, __VA_ARGS__ }

static const struct subject subjects[] = {
	SUBJECT("sound", sound, .flags = 0),
	SUBJECT("twice", twice, .flags = 0),
	SUBJECT("overlapping", overlapping, .flags = 0),
	SUBJECT("misaligned", misaligned, .flags = 0),
	SUBJECT("scribbling", scribbling, .flags = 0),
	SUBJECT("refusing", refusing, .flags = 0),
	SUBJECT("crashing", crashing, .flags = 0),
	SUBJECT("hanging", hanging, .flags = 0),
	SUBJECT("small", sound, .max_bytes = 100),
	SUBJECT("fixed", sound, .flags = SUBJECT_FIXED),
	SUBJECT("alone", sound, .flags = SUBJECT_ONE_SIDE),
	SUBJECT("own", sound, .flags = SUBJECT_NO_HANDOVER),
	{ .abi = SUBJECT_ABI, .flags = SUBJECT_SHARED, .name = "dying", .setup = setup, .join = join, .alloc = sound,
	  .free = dying },
	{ .abi = SUBJECT_ABI, .name = "monday", .setup = refuse_setup, .alloc = sound, .free = release },
	{ .abi = SUBJECT_ABI + 1, .name = "future", .alloc = sound, .free = release },
};

SUBJECTS(subjects);
