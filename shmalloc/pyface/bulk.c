/* SPDX-License-Identifier: MIT */
/*
 * Many objects by one call: an array of sizes in, an array of offsets out; an array of offsets to free.
 *
 * A plain loop over the core's calls, so whatever a single call does is done for each, interrupts included.
 * For many objects the GIL is released: to do so costs 75 ns, which is nothing to a thousand calls, and other
 * threads need not wait.  None of them can be this CPU.
 */
#include "face.h"

#define RELEASE_FROM 1024          /* objects: 4 us and more */

/* The loops are compiled once for each way to allocate: an object costs one call, the core's. */
#define always_inline inline __attribute__((always_inline))

typedef u64 alloc_one(const struct core *core, u64 size, u32 gfp, int node);
typedef int free_one(uint64_t offset);

struct wanted {
	Py_buffer sizes, out, reasons;
	u64 failed;                /* elements without an object */
	u64 first;                 /* of them */
	u32 reason;                /* why */
};

static bool is_number(const char *format)
{
	if (format && (*format == '<' || *format == '=' || *format == '@'))
		format++;
	return format && *format && strchr("LQlq", *format) && !format[1];
}

/* Any stride will do, so that what is freed the last first is offsets[::-1], without a copy. */
static inline u64 item(const Py_buffer *buffer, u64 at)
{
	return *(const u64 *)((const char *)buffer->buf + (Py_ssize_t)at * buffer->strides[0]);
}

/* One axis of 64-bit numbers.  False without an exception: Python makes such a thing of it, or says why not. */
static bool get_numbers(PyObject *object, Py_buffer *buffer, int flags)
{
	if (PyObject_GetBuffer(object, buffer, flags | PyBUF_FORMAT)) {
		PyErr_Clear();
		return false;
	}
	if (buffer->ndim == 1 && buffer->itemsize == 8 && is_number(buffer->format))
		return true;
	PyBuffer_Release(buffer);
	return false;
}

static bool get_reasons(PyObject *object, Py_buffer *buffer, Py_ssize_t count)
{
	if (PyObject_GetBuffer(object, buffer, PyBUF_WRITABLE | PyBUF_ND)) {
		PyErr_Clear();
		return false;
	}
	if (buffer->ndim == 1 && buffer->itemsize == 1 && buffer->len == count)
		return true;
	PyBuffer_Release(buffer);
	return false;
}

static bool none_negative(const Py_buffer *buffer)
{
	u64 signs = 0;

	if (!strpbrk(buffer->format, "lq"))
		return true;
	for (Py_ssize_t i = 0; i < buffer->len / 8; i++)
		signs |= item(buffer, (u64)i);
	return !(signs >> 63);
}

static void failed_at(struct wanted *w, u64 at, u32 reason)
{
	if (!w->failed++) {
		w->first = at;
		w->reason = reason;
	}
	if (w->reasons.obj)
		((uint8_t *)w->reasons.buf)[at] = (uint8_t)reason;
}

/* All, or none: unless reasons are asked for the first failure ends it, and what there was is free again. */
static always_inline void alloc_all(const struct core *core, struct wanted *w, u32 gfp, int node, alloc_one *alloc,
				    free_one *undo)
{
	u64 *out = w->out.buf, count = (u64)w->sizes.len / 8;
	const char *size = w->sizes.buf;
	Py_ssize_t stride = w->sizes.strides[0];

	if (w->reasons.obj)
		memset(w->reasons.buf, 0, count);
	for (u64 i = 0; i < count; i++, size += stride) {
		u64 object = alloc(core, *(const u64 *)size, gfp, node);

		out[i] = object;
		if (likely(object))
			continue;
		failed_at(w, i, core->last_reason());
		if (w->reasons.obj)
			continue;
		while (i) {
			undo(out[--i]);
			out[i] = 0;
		}
		return;
	}
}

static always_inline u64 alloc_kmalloc(const struct core *core, u64 size, u32 gfp, int node)
{
	(void)node;
	return core->kmalloc(size, gfp);
}

static always_inline u64 alloc_kmalloc_node(const struct core *core, u64 size, u32 gfp, int node)
{
	return core->kmalloc_node(size, gfp, node);
}

static always_inline u64 alloc_kmalloc_nolock(const struct core *core, u64 size, u32 gfp, int node)
{
	return core->kmalloc_nolock(size, gfp, node);
}

static bool share_memory(const Py_buffer *a, const Py_buffer *b)
{
	const Py_buffer *const both[] = { a, b };
	const char *low[2], *high[2];

	if (!a->obj || !b->obj || !a->len || !b->len)
		return false;
	for (int i = 0; i < 2; i++) {
		Py_ssize_t stride = both[i]->strides ? both[i]->strides[0] : both[i]->itemsize;
		const char *first = both[i]->buf, *last = first + (both[i]->len / both[i]->itemsize - 1) * stride;

		low[i] = first < last ? first : last;
		high[i] = (first < last ? last : first) + both[i]->itemsize;
	}
	return low[0] < high[1] && low[1] < high[0];
}

/* What is written must not be what is still to be read, or to be written otherwise. */
static bool apart(const struct wanted *w)
{
	if (!share_memory(&w->sizes, &w->out) && !share_memory(&w->reasons, &w->out) &&
	    !share_memory(&w->sizes, &w->reasons))
		return true;
	PyErr_SetString(PyExc_ValueError, "out, sizes and reasons: allowed are arrays that share no memory");
	return false;
}

static bool get_wanted(struct request *r, struct wanted *w, PyObject **result)
{
	Py_ssize_t count;

	if (!get_numbers(r->given[0], &w->sizes, PyBUF_STRIDES))
		return false;
	count = w->sizes.len / 8;
	*result = NULL;
	if (none_negative(&w->sizes))
		*result = r->given[3] == Py_None ? numbers(count) : Py_NewRef(r->given[3]);
	if (*result && get_numbers(*result, &w->out, PyBUF_ND | PyBUF_WRITABLE)) {
		if (w->out.len == w->sizes.len &&
		    (r->given[4] == Py_None || get_reasons(r->given[4], &w->reasons, count)) && apart(w))
			return true;
		if (w->reasons.obj)
			PyBuffer_Release(&w->reasons);
		PyBuffer_Release(&w->out);
	}
	Py_XDECREF(*result);
	PyBuffer_Release(&w->sizes);
	return false;
}

/* What has failed, and whether that is an error, Python says. */
static int explain(const struct request *r, const struct wanted *w, const char *name)
{
	PyObject *result = PyObject_CallMethod((PyObject *)r->caller->calls, "bulk_failed", "sIKKO", name, w->reason,
					       (unsigned long long)w->first,
					       (unsigned long long)item(&w->sizes, w->first),
					       w->reasons.obj ? Py_True : Py_False);

	Py_XDECREF(result);
	return result ? 0 : -1;
}

/* sizes, gfp, node, out, reasons */
static PyObject *run_alloc_bulk(const struct kind *kind, struct request *r)
{
	const struct calls *calls = r->caller->calls;
	const struct core *core = calls->core;
	struct wanted w = { 0 };
	PyThreadState *state = NULL;
	PyObject *result;

	if (!as_gfp(r->given[1], &r->gfp) || !as_node(calls, r->given[2], &r->node) || !core->thread_ok() ||
	    !get_wanted(r, &w, &result))
		return NULL;
	if (w.sizes.len / 8 >= RELEASE_FROM)
		state = PyEval_SaveThread();
	if (kind->alloc) /* nolock */
		alloc_all(core, &w, r->gfp, r->node, alloc_kmalloc_nolock, core->kfree_nolock);
	else if (r->node == -1)
		alloc_all(core, &w, r->gfp, -1, alloc_kmalloc, core->kfree);
	else
		alloc_all(core, &w, r->gfp, r->node, alloc_kmalloc_node, core->kfree);
	if (state)
		PyEval_RestoreThread(state);
	if (unlikely(w.failed) && explain(r, &w, kind->text))
		Py_CLEAR(result);
	if (w.reasons.obj)
		PyBuffer_Release(&w.reasons);
	PyBuffer_Release(&w.out);
	PyBuffer_Release(&w.sizes);
	return result;
}

/* How many are free now: all, unless one was refused. */
static u64 free_all(const Py_buffer *offsets, free_one *free, int *error)
{
	const char *at = offsets->buf;
	Py_ssize_t stride = offsets->strides[0];
	u64 count = (u64)offsets->len / 8;

	for (u64 i = 0; i < count; i++, at += stride) {
		*error = free(*(const u64 *)at);
		if (unlikely(*error))
			return i;
	}
	return count;
}

/* offsets */
static PyObject *run_free_bulk(const struct kind *kind, struct request *r)
{
	const struct core *core = r->caller->calls->core;
	free_one *free = kind->alloc ? core->kfree_nolock : core->kfree;
	PyThreadState *state = NULL;
	PyObject *result = NULL;
	Py_buffer offsets;
	int error = 0;
	u64 done;

	if (!core->thread_ok() || !get_numbers(r->given[0], &offsets, PyBUF_STRIDES))
		return NULL;
	if (!none_negative(&offsets)) {
		PyBuffer_Release(&offsets);
		return NULL;
	}
	if (offsets.len / 8 >= RELEASE_FROM)
		state = PyEval_SaveThread();
	done = free_all(&offsets, free, &error);
	if (state)
		PyEval_RestoreThread(state);
	if (likely(!error))
		result = Py_NewRef(Py_None);
	else
		result = PyObject_CallMethod((PyObject *)r->caller->calls, "bulk_refused", "siKK", kind->text, error,
					     (unsigned long long)done,
					     (unsigned long long)item(&offsets, done));
	PyBuffer_Release(&offsets);
	return result;
}

/* Marks the two that do not wait; the loops call the core themselves. */
static u64 nolock(const struct calls *calls, const struct request *r)
{
	return calls->core->kmalloc_nolock(r->number, r->gfp, r->node);
}

#define ARRAYS { "sizes", "gfp", "node", "out", "reasons" }

const struct kind bulk_kinds[] = {
	{ "kmalloc_bulk", ARRAYS, NULL, run_alloc_bulk, "kmalloc_bulk", NULL, NULL },
	{ "kmalloc_nolock_bulk", ARRAYS, NULL, run_alloc_bulk, "kmalloc_nolock_bulk", nolock, NULL },
	{ "kfree_bulk", { "offsets" }, NULL, run_free_bulk, "kfree_bulk", NULL, NULL },
	{ "kfree_nolock_bulk", { "offsets" }, NULL, run_free_bulk, "kfree_nolock_bulk", nolock, NULL },
	{ 0 }
};
