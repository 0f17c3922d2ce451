/* SPDX-License-Identifier: MIT */
/*
 * The calls that Python makes most, without cffi: what the files of this folder share.
 *
 * The module has no core of its own.  It is told which object of the core this process has loaded, and calls
 * that object's exported functions, so there is one core per process whatever the flavour.
 *
 * Interrupts are signals, which may arrive at any instruction here, with any lock of Python's held by what
 * they interrupt.  Their handlers are the core's and run nothing of Python; and nothing here is read by them.
 *
 * The GIL is kept during single calls: to release and take it again costs 75 ns, six times what the call
 * costs.  A slow path is short: a wait for a lock ends, or is proved to be endless.  And it cannot be a thread
 * of this process that is waited for, since all CPUs of a process are one thread.
 */
#ifndef SHM_FACE_H
#define SHM_FACE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <structmember.h>

#include "arena.h"
#include "gfp.h"
#include "api.h"

#pragma GCC visibility push(hidden)

typedef uint64_t u64;
typedef uint32_t u32;

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* What is called of the core. */
#define CORE_FUNCTIONS(f) \
	f(cpu_current) f(thread_ok) f(last_reason) f(ksize) f(oracle_extent) \
	f(kmalloc) f(kmalloc_node) f(kmalloc_nolock) f(kfree) f(kfree_nolock) \
	f(kmem_cache_alloc) f(kmem_cache_alloc_nolock) f(kmem_cache_free) \
	f(design_alloc) f(design_free)

struct core {
	PyObject_HEAD
#define CORE_POINTER(name) __typeof__(shm_##name) *name;
	CORE_FUNCTIONS(CORE_POINTER)
#undef CORE_POINTER
};

/* One mapping, which must not be unmapped while somebody looks at it. */
struct window {
	PyObject_HEAD
	PyObject *mapped;          /* the mmap; NULL: closed */
	Py_buffer buffer;          /* of it, while users > 0 */
	Py_ssize_t users;
	char *base;
	u64 bytes;
};

/* One CPU, to whom it is called: the base of shmalloc.calls.Calls. */
struct calls {
	PyObject_HEAD
	struct core *core;
	struct window *window;
	int number;
	int bound;                 /* the number, or NOBODY once it is closed */
	int nr_nodes;
	int has_oracle;
	u64 forks;                 /* of the process, when it became the CPU */
	u64 *left;                 /* freed by another thread: blocks that wait for this one */
	Py_ssize_t nr_left, max_left;
};

#define NOBODY (-2)                /* no CPU's number, and not what the core says when there is none */

/* Who has methods that allocate: the base of Cpu, KmemCache and DesignCalls. */
struct caller {
	PyObject_HEAD
	struct calls *calls;
	u32 index;                 /* of the cache or design */
};

extern PyTypeObject core_type, window_type, calls_type, caller_type, method_type, block_type;
extern u64 forks;                  /* how often this process is a fork of one that had loaded this */

/* window.c */
bool window_hold(struct window *window);
void window_drop(struct window *window);

/* One call and one comparison; which thread calls is what the core looks at.  False: for Python to see to. */
static inline bool calls_ready(const struct calls *calls)
{
	return likely(calls && calls->core && calls->core->cpu_current() == calls->bound);
}

/* May this thread free what the CPU has?  Any CPU of the arena will do, and the core serves no other meanwhile. */
static inline bool can_free(const struct calls *calls)
{
	return calls->forks == forks && calls->bound != NOBODY && calls->core->thread_ok();
}

/* calls.c */
int register_fork_handler(void);
void calls_leave(struct calls *calls, u64 offset);
void calls_take_up(struct calls *calls);

/* What most numbers are: an int of one or two digits. False: perhaps another one. */
static inline bool small_u64(PyObject *number, u64 *value)
{
	if (unlikely(!PyLong_CheckExact(number)))
		return false;
#if PY_VERSION_HEX >= 0x030c0000
	if (PyUnstable_Long_IsCompact((PyLongObject *)number)) {
		Py_ssize_t small = PyUnstable_Long_CompactValue((PyLongObject *)number);

		*value = (u64)small;
		return small >= 0;
	}
#else
	const digit *digits = ((PyLongObject *)number)->ob_digit;

	if (likely(Py_SIZE(number) == 1)) {
		*value = digits[0];
		return true;
	}
	if (Py_SIZE(number) == 0) {
		*value = 0;
		return true;
	}
	if (Py_SIZE(number) == 2) {
		*value = (u64)digits[1] << PyLong_SHIFT | digits[0];
		return true;
	}
#endif
	return false;
}

/* arguments.c: true, or false without an exception: it is for Python to look at */
bool as_u64(PyObject *number, u64 *value);
bool as_gfp(PyObject *flags, u32 *bits);
bool as_node(const struct calls *calls, PyObject *number, int *node);
extern PyObject *shmalloc_error;   /* shmalloc.ShmallocError */
PyObject *arguments_set_up(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* A method whose common case is in C, and all else in the Python function that it stands for. */
#define MAX_PARAMS 5

struct request {
	struct caller *caller;
	PyObject *given[MAX_PARAMS]; /* borrowed; what was left out is the function's default, or NULL */
	u64 number;                /* a size or an offset */
	u32 gfp;
	int node;
};

struct kind {
	const char *name;
	const char *params[MAX_PARAMS];
	vectorcallfunc call;       /* looks at the usual form of a call first; NULL: method_call alone */
	/* Returns NULL without an exception: it is for Python to do. */
	PyObject *(*run)(const struct kind *kind, struct request *request);
	const char *text;          /* of the core's function, for errors: its name; NULL otherwise */
	u64 (*alloc)(const struct calls *calls, const struct request *request);
	int (*free)(const struct calls *calls, const struct request *request);
};

struct method {
	PyObject_HEAD
	vectorcallfunc vectorcall;
	const struct kind *kind;
	PyTypeObject *usual;       /* of who called last: a kind of Caller */
	PyObject *function;        /* it stands for this one */
	PyObject *names[MAX_PARAMS]; /* of its parameters, interned, without self */
	PyObject *defaults[MAX_PARAMS]; /* NULL: the argument must be given */
	int nr_params;
	int64_t gfp;               /* the default's bits; -1: not looked up yet */
};

PyObject *method_call(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames);

/* Whose method is called, with so many arguments and no keyword, and all the rest is as usual?  NULL: not so. */
static inline struct caller *usual_caller(const struct method *self, PyObject *const *args, size_t nargsf,
					  PyObject *kwnames, Py_ssize_t nargs)
{
	struct caller *caller;

	if (unlikely(kwnames || PyVectorcall_NARGS(nargsf) != nargs + 1 || Py_TYPE(args[0]) != self->usual))
		return NULL;
	caller = (struct caller *)args[0];
	return likely(calls_ready(caller->calls)) ? caller : NULL;
}

extern const struct kind single_kinds[], bulk_kinds[], block_kinds[], array_kinds[];
PyObject *method_make(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

PyObject *method_run(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* single.c: always NULL, with an exception; arguments: a new reference */
PyObject *no_object(const struct caller *caller, const char *text, PyObject *arguments);
int64_t usual_gfp(struct method *self, int param);
PyObject *no_result(void);

/* Memory of an object, which it frees when it dies; or, without calls, somebody else's. */
struct block {
	PyObject_HEAD
	struct calls *calls;       /* NULL: not its to free */
	struct window *window;
	u64 offset;                /* 0: free, or given away */
	u64 bytes;                 /* that can be looked at, from head_bytes on */
	u32 head_bytes;            /* of an array: what says its shape and type */
	bool held;                 /* the window, from the first look on */
	Py_ssize_t exports;
};

/* block.c */
struct block *block_new(struct calls *calls, struct window *window, u64 offset, u64 bytes);
u64 room_at(const struct core *core, bool has_oracle, u64 offset); /* bytes of a live object, 0: there is none */
u64 block_give(struct block *block);     /* its offset; 0 with an exception: it has none */

/* array.c */
extern PyObject *ndarray;          /* numpy's type, once Python has set it up; else NULL */
PyObject *numbers(Py_ssize_t count); /* a fresh array of uint64 */
PyObject *array_look(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *arrays_set_up(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#pragma GCC visibility pop

#endif
