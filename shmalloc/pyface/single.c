/* SPDX-License-Identifier: MIT */
/*
 * One object at a time: kmalloc, kfree, and the like of caches and designs.
 */
#include "face.h"

PyObject *no_result(void)
{
	PyErr_SetString(PyExc_SystemError, "what should have raised an exception did not");
	return NULL;
}

/* Python knows why there is none, and raises it. */
PyObject *no_object(const struct caller *caller, const char *text, PyObject *arguments)
{
	PyObject *result;

	if (!arguments)
		return NULL;
	result = PyObject_CallMethod((PyObject *)caller, "_no_object", "sN", text, arguments);
	if (!result)
		return NULL;
	Py_DECREF(result);
	return no_result();
}

static PyObject *refused(const struct caller *caller, int error, PyObject *offset, const char *text, PyObject *arguments)
{
	PyObject *result;

	if (!arguments)
		return NULL;
	result = PyObject_CallMethod((PyObject *)caller, "_bad_free", "iOsN", error, offset, text, arguments);
	if (!result)
		return NULL;
	Py_DECREF(result);
	return no_result();
}

/* size, gfp, node.  False: an argument is for Python to look at. */
static inline bool asked_for(struct request *r)
{
	return likely(as_u64(r->given[0], &r->number) && as_gfp(r->given[1], &r->gfp) &&
		      as_node(r->caller->calls, r->given[2], &r->node));
}

static PyObject *run_alloc(const struct kind *kind, struct request *r)
{
	u64 offset;

	if (!asked_for(r))
		return NULL;
	offset = kind->alloc(r->caller->calls, r);
	if (likely(offset))
		return PyLong_FromUnsignedLong(offset);
	return no_object(r->caller, kind->text, PyTuple_Pack(3, r->given[0], r->given[1], r->given[2]));
}

/* The same of one design among all. */
static PyObject *run_design_alloc(const struct kind *kind, struct request *r)
{
	u64 offset;

	if (!asked_for(r))
		return NULL;
	offset = kind->alloc(r->caller->calls, r);
	if (likely(offset))
		return PyLong_FromUnsignedLong(offset);
	return no_object(r->caller, kind->text,
			 Py_BuildValue("IOOO", r->caller->index, r->given[0], r->given[1], r->given[2]));
}

/* gfp, node */
static PyObject *run_cache_alloc(const struct kind *kind, struct request *r)
{
	const struct calls *calls = r->caller->calls;
	u64 offset;

	if (unlikely(!as_gfp(r->given[0], &r->gfp) || !as_node(calls, r->given[1], &r->node)))
		return NULL;
	offset = kind->alloc(calls, r);
	if (likely(offset))
		return PyLong_FromUnsignedLong(offset);
	return no_object(r->caller, kind->text, Py_BuildValue("IOO", r->caller->index, r->given[0], r->given[1]));
}

static PyObject *run_free(const struct kind *kind, struct request *r)
{
	int error;

	if (unlikely(!as_u64(r->given[0], &r->number)))
		return NULL;
	error = kind->free(r->caller->calls, r);
	if (likely(!error))
		Py_RETURN_NONE;
	return refused(r->caller, error, r->given[0], kind->text, PyTuple_Pack(1, r->given[0]));
}

/* Of one cache or design. */
static PyObject *run_indexed_free(const struct kind *kind, struct request *r)
{
	int error;

	if (unlikely(!as_u64(r->given[0], &r->number)))
		return NULL;
	error = kind->free(r->caller->calls, r);
	if (likely(!error))
		Py_RETURN_NONE;
	return refused(r->caller, error, r->given[0], kind->text, Py_BuildValue("IO", r->caller->index, r->given[0]));
}

static u64 call_kmalloc(const struct calls *calls, const struct request *r)
{
	if (likely(r->node == -1))
		return calls->core->kmalloc(r->number, r->gfp);
	return calls->core->kmalloc_node(r->number, r->gfp, r->node);
}

static u64 call_kmalloc_nolock(const struct calls *calls, const struct request *r)
{
	return calls->core->kmalloc_nolock(r->number, r->gfp, r->node);
}

static int call_kfree(const struct calls *calls, const struct request *r)
{
	return calls->core->kfree(r->number);
}

static int call_kfree_nolock(const struct calls *calls, const struct request *r)
{
	return calls->core->kfree_nolock(r->number);
}

static u64 call_cache_alloc(const struct calls *calls, const struct request *r)
{
	return calls->core->kmem_cache_alloc(r->caller->index, r->gfp, r->node);
}

static u64 call_cache_alloc_nolock(const struct calls *calls, const struct request *r)
{
	return calls->core->kmem_cache_alloc_nolock(r->caller->index, r->gfp, r->node);
}

static int call_cache_free(const struct calls *calls, const struct request *r)
{
	return calls->core->kmem_cache_free(r->caller->index, r->number);
}

static u64 call_design_alloc(const struct calls *calls, const struct request *r)
{
	return calls->core->design_alloc(r->caller->index, r->number, r->gfp, r->node);
}

static int call_design_free(const struct calls *calls, const struct request *r)
{
	return calls->core->design_free(r->caller->index, r->number);
}

/* --- the usual forms, without the general one's detours: kmalloc(size), kfree(offset), ... ------------- */

/* The bits of the default flags; -1: they are none. */
int64_t usual_gfp(struct method *self, int param)
{
	u32 bits;

	if (likely(self->gfp >= 0))
		return self->gfp;
	if (self->defaults[param] && as_gfp(self->defaults[param], &bits))
		self->gfp = bits;
	return self->gfp;
}

/* Of `given` arguments: the size, or none.  `call` yields the object. */
#define USUAL_ALLOC(name, given, call, arguments) \
	static PyObject *usual_##name(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames) \
	{ \
		struct method *self = (struct method *)callable; \
		const struct caller *caller = usual_caller(self, args, nargsf, kwnames, given); \
		const struct core *core; \
		int64_t gfp; \
		u64 size = 0, offset; \
		if (unlikely(!caller || ((given) && !small_u64(args[1], &size)) || (gfp = usual_gfp(self, given)) < 0)) \
			return method_call(callable, args, nargsf, kwnames); \
		core = caller->calls->core; \
		offset = call; \
		if (likely(offset)) \
			return PyLong_FromUnsignedLong(offset); \
		return no_object(caller, self->kind->text, arguments); \
	}

USUAL_ALLOC(kmalloc, 1, core->kmalloc(size, (u32)gfp),
	    PyTuple_Pack(3, args[1], self->defaults[1], self->defaults[2]))
USUAL_ALLOC(kmalloc_nolock, 1, core->kmalloc_nolock(size, (u32)gfp, -1),
	    PyTuple_Pack(3, args[1], self->defaults[1], self->defaults[2]))
USUAL_ALLOC(design_alloc, 1, core->design_alloc(caller->index, size, (u32)gfp, -1),
	    Py_BuildValue("IOOO", caller->index, args[1], self->defaults[1], self->defaults[2]))
USUAL_ALLOC(cache_alloc, 0, core->kmem_cache_alloc(caller->index, (u32)gfp, -1),
	    Py_BuildValue("IOO", caller->index, self->defaults[0], self->defaults[1]))
USUAL_ALLOC(cache_alloc_nolock, 0, core->kmem_cache_alloc_nolock(caller->index, (u32)gfp, -1),
	    Py_BuildValue("IOO", caller->index, self->defaults[0], self->defaults[1]))

#define USUAL_FREE(name, call, arguments) \
	static PyObject *usual_##name(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames) \
	{ \
		struct method *self = (struct method *)callable; \
		const struct caller *caller = usual_caller(self, args, nargsf, kwnames, 1); \
		const struct core *core; \
		u64 offset; \
		int error; \
		if (unlikely(!caller || !small_u64(args[1], &offset))) \
			return method_call(callable, args, nargsf, kwnames); \
		core = caller->calls->core; \
		error = call; \
		if (likely(!error)) \
			Py_RETURN_NONE; \
		return refused(caller, error, args[1], self->kind->text, arguments); \
	}

USUAL_FREE(kfree, core->kfree(offset), PyTuple_Pack(1, args[1]))
USUAL_FREE(kfree_nolock, core->kfree_nolock(offset), PyTuple_Pack(1, args[1]))
USUAL_FREE(cache_free, core->kmem_cache_free(caller->index, offset), Py_BuildValue("IO", caller->index, args[1]))
USUAL_FREE(design_free, core->design_free(caller->index, offset), Py_BuildValue("IO", caller->index, args[1]))

#define SIZED { "size", "gfp", "node" }
#define OF_CACHE { "gfp", "node" }
#define OFFSET { "offset" }

const struct kind single_kinds[] = {
	{ "kmalloc", SIZED, usual_kmalloc, run_alloc, "kmalloc_node", call_kmalloc, NULL },
	{ "kmalloc_nolock", SIZED, usual_kmalloc_nolock, run_alloc, "kmalloc_nolock", call_kmalloc_nolock, NULL },
	{ "kfree", OFFSET, usual_kfree, run_free, "kfree", NULL, call_kfree },
	{ "kfree_nolock", OFFSET, usual_kfree_nolock, run_free, "kfree_nolock", NULL, call_kfree_nolock },
	{ "cache_alloc", OF_CACHE, usual_cache_alloc, run_cache_alloc, "kmem_cache_alloc", call_cache_alloc, NULL },
	{ "cache_alloc_nolock", OF_CACHE, usual_cache_alloc_nolock, run_cache_alloc, "kmem_cache_alloc_nolock",
	  call_cache_alloc_nolock, NULL },
	{ "cache_free", OFFSET, usual_cache_free, run_indexed_free, "kmem_cache_free", NULL, call_cache_free },
	{ "design_alloc", SIZED, usual_design_alloc, run_design_alloc, "design_alloc", call_design_alloc, NULL },
	{ "design_free", OFFSET, usual_design_free, run_indexed_free, "design_free", NULL, call_design_free },
	{ 0 }
};
