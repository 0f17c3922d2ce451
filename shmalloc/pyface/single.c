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
PyObject *no_object(const struct request *request, const char *text, PyObject *arguments)
{
	PyObject *result;

	if (!arguments)
		return NULL;
	result = PyObject_CallMethod((PyObject *)request->caller, "_no_object", "sN", text, arguments);
	if (!result)
		return NULL;
	Py_DECREF(result);
	return no_result();
}

static PyObject *refused(const struct request *request, int error, const char *text, PyObject *arguments)
{
	PyObject *result;

	if (!arguments)
		return NULL;
	result = PyObject_CallMethod((PyObject *)request->caller, "_bad_free", "iOsN", error, request->given[0], text,
				     arguments);
	if (!result)
		return NULL;
	Py_DECREF(result);
	return no_result();
}

/* size, gfp, node */
static PyObject *run_alloc(const struct kind *kind, struct request *r)
{
	const struct calls *calls = r->caller->calls;
	u64 offset;

	if (unlikely(!as_u64(r->given[0], &r->number) || !as_gfp(r->given[1], &r->gfp) ||
		     !as_node(calls, r->given[2], &r->node)))
		return NULL;
	offset = kind->alloc(calls, r);
	if (likely(offset))
		return PyLong_FromUnsignedLong(offset);
	return no_object(r, kind->text, PyTuple_Pack(3, r->given[0], r->given[1], r->given[2]));
}

/* The same of one design among all. */
static PyObject *run_design_alloc(const struct kind *kind, struct request *r)
{
	const struct calls *calls = r->caller->calls;
	u64 offset;

	if (unlikely(!as_u64(r->given[0], &r->number) || !as_gfp(r->given[1], &r->gfp) ||
		     !as_node(calls, r->given[2], &r->node)))
		return NULL;
	offset = kind->alloc(calls, r);
	if (likely(offset))
		return PyLong_FromUnsignedLong(offset);
	return no_object(r, kind->text,
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
	return no_object(r, kind->text, Py_BuildValue("IOO", r->caller->index, r->given[0], r->given[1]));
}

static PyObject *run_free(const struct kind *kind, struct request *r)
{
	int error;

	if (unlikely(!as_u64(r->given[0], &r->number)))
		return NULL;
	error = kind->free(r->caller->calls, r);
	if (likely(!error))
		Py_RETURN_NONE;
	return refused(r, error, kind->text, PyTuple_Pack(1, r->given[0]));
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
	return refused(r, error, kind->text, Py_BuildValue("IO", r->caller->index, r->given[0]));
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

#define SIZED { "size", "gfp", "node" }
#define OF_CACHE { "gfp", "node" }
#define OFFSET { "offset" }

const struct kind single_kinds[] = {
	{ "kmalloc", SIZED, run_alloc, "kmalloc_node", call_kmalloc, NULL },
	{ "kmalloc_nolock", SIZED, run_alloc, "kmalloc_nolock", call_kmalloc_nolock, NULL },
	{ "kfree", OFFSET, run_free, "kfree", NULL, call_kfree },
	{ "kfree_nolock", OFFSET, run_free, "kfree_nolock", NULL, call_kfree_nolock },
	{ "cache_alloc", OF_CACHE, run_cache_alloc, "kmem_cache_alloc", call_cache_alloc, NULL },
	{ "cache_alloc_nolock", OF_CACHE, run_cache_alloc, "kmem_cache_alloc_nolock", call_cache_alloc_nolock, NULL },
	{ "cache_free", OFFSET, run_indexed_free, "kmem_cache_free", NULL, call_cache_free },
	{ "design_alloc", SIZED, run_design_alloc, "design_alloc", call_design_alloc, NULL },
	{ "design_free", OFFSET, run_indexed_free, "design_free", NULL, call_design_free },
	{ 0 }
};
