/* SPDX-License-Identifier: MIT */
/*
 * What an allocator is to the bench: a plugin, which the runner loads by dlopen.
 *
 * A plugin exports SUBJECTS(...), a table of its subjects.  One process of the runner measures one subject
 * in one row, in this order:
 *
 *   setup(options)    in the first process, before there is a second side
 *   join(0)           on the thread of side 0
 *   join(1)           if the row has two sides: on the thread of side 1, or, SUBJECT_SHARED, in its
 *                     process, which was forked between setup and join(0); after join(0) has returned
 *   alloc, free       by the sides that have joined
 *   leave(side)       each on its own thread, side 1 first
 *   teardown()        in the first process
 *
 * An object is a handle: base() + handle is its address in the calling process.  The handle of a subject
 * that lives in one process is the address, and base() is 0, or left out.  A handle may be freed by another
 * side than the one that allocated it.
 *
 * The loops call alloc and free through these pointers and nothing else, with the same instructions for
 * every subject.  They pass the subject's own constants behind the size, and whatever free returns is not
 * looked at, so that most allocators need no function of their own in between: malloc is
 * (subject_alloc *)malloc.  The calling convention of x86-64 allows it.
 *
 * Plain C, and C++ can read it.
 */
#ifndef SHMALLOC_BENCH_SUBJECT_H
#define SHMALLOC_BENCH_SUBJECT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SUBJECT_ABI 1u

#define SUBJECT_SHARED 0x1u    /* sides are processes; else threads */
#define SUBJECT_FIXED 0x2u     /* all objects are of options.object_bytes */
#define SUBJECT_ONE_SIDE 0x4u  /* nothing for a second side: sits out the rows that have one */
#define SUBJECT_NO_HANDOVER 0x8u /* two sides, but what one allocated no other may free */
#define SUBJECT_EMPTY 0x10u    /* allocates nothing: the loop alone.  Not verified, no ratio is taken to it */

struct subject_options {
	const char *text;          /* for the subject itself, as the parent wrote it: "key=value,..."; "" = nothing */
	uint64_t object_bytes;     /* the largest that will be asked for; SUBJECT_FIXED: the only one */
	uint64_t objects;          /* so many live at once at most, of all sides together */
	uint32_t sides;            /* 1 or 2 */
	uint32_t pad;
};

typedef uint64_t subject_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2); /* a handle, 0 = refused */
typedef void subject_free(uint64_t handle, uint64_t arg1, uint64_t arg2);

struct subject {
	uint32_t abi;              /* SUBJECT_ABI */
	uint32_t flags;            /* SUBJECT_* */
	const char *name;          /* [a-z0-9_]+ */
	const char *summary;       /* one line */
	uint64_t max_bytes;        /* largest object, 0 = no limit that matters here */

	/* 0, or a negative errno and, if there is more to say, *why, a text that stays; each may be left out */
	int (*setup)(const struct subject_options *options, const char **why);
	int (*join)(unsigned int side, const char **why);
	void (*leave)(unsigned int side);
	void (*teardown)(void);
	uint64_t (*base)(void);    /* after join, constant from then on */

	subject_alloc *alloc;
	subject_free *free;
	uint64_t alloc_args[2];    /* passed to alloc behind the size */
	uint64_t free_args[2];     /* passed to free behind the handle */

	/*
	 * The storm, whose signal handlers allocate and free while the thread of side 0 does.  NULL: alloc
	 * and free themselves, with their constants.  enter and exit are called at a handler's begin and end.
	 */
	subject_alloc *handler_alloc;
	subject_free *handler_free;
	void (*handler_enter)(void);
	void (*handler_exit)(void);
	const char *(*verdict)(void); /* after a storm: NULL = sound, as far as it can tell; "deadlock", proved; else what is wrong */
};

struct subject_table {
	uint32_t abi;              /* SUBJECT_ABI */
	uint32_t subject_bytes;    /* sizeof(struct subject) */
	uint64_t nr_subjects;
	const struct subject *subjects;
};

#define SUBJECT_TABLE_SYMBOL "shmalloc_bench_subjects"
/* at file scope, in one file of the plugin; array: a static const struct subject array[] */
#define SUBJECTS(array) \
	__attribute__((visibility("default"))) extern const struct subject_table shmalloc_bench_subjects; \
	const struct subject_table shmalloc_bench_subjects = { \
		SUBJECT_ABI, sizeof(struct subject), sizeof(array) / sizeof((array)[0]), array }

#ifdef __cplusplus
}
#endif

#endif
