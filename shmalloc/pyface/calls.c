/* SPDX-License-Identifier: MIT */
/*
 * A CPU as the calls see it, and those that have such calls.
 */
#include <pthread.h>
#include "face.h"

u64 forks;

static void forked(void)
{
	forks++;
}

/* The core's own handler has left a forked child without a CPU; this tells it from one that binds its own. */
int register_fork_handler(void)
{
	return pthread_atfork(NULL, NULL, forked);
}

/* A block dies in another thread than its CPU's: its memory waits for the CPU's next block, or its end. */
void calls_leave(struct calls *calls, u64 offset)
{
	if (calls->nr_left == calls->max_left) {
		Py_ssize_t more = calls->max_left ? 2 * calls->max_left : 16;
		u64 *grown = PyMem_Realloc(calls->left, (size_t)more * sizeof(u64));

		if (!grown) {
			PyErr_NoMemory();
			PyErr_WriteUnraisable((PyObject *)calls);
			return;
		}
		calls->left = grown;
		calls->max_left = more;
	}
	calls->left[calls->nr_left++] = offset;
}

void calls_take_up(struct calls *calls)
{
	while (calls->nr_left && can_free(calls))
		calls->core->kfree(calls->left[--calls->nr_left]);
}

static int calls_init(struct calls *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "core", "window", "number", "nr_nodes", "has_oracle", NULL };
	PyObject *core, *window;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!iip:Calls", names, &core_type, &core, &window_type, &window,
					 &self->number, &self->nr_nodes, &self->has_oracle))
		return -1;
	Py_XSETREF(self->core, (struct core *)Py_NewRef(core));
	Py_XSETREF(self->window, (struct window *)Py_NewRef(window));
	self->bound = self->number;
	self->forks = forks;
	return 0;
}

static PyObject *calls_end(struct calls *self, PyObject *none)
{
	(void)none;
	self->bound = NOBODY;
	Py_RETURN_NONE;
}

static PyObject *calls_free_left(struct calls *self, PyObject *none)
{
	(void)none;
	calls_take_up(self);
	return PyLong_FromSsize_t(self->nr_left);
}

static PyObject *calls_is_open(struct calls *self, void *closure)
{
	(void)closure;
	return PyBool_FromLong(self->bound != NOBODY && self->forks == forks);
}

static void calls_dealloc(struct calls *self)
{
	Py_CLEAR(self->core);
	Py_CLEAR(self->window);
	PyMem_Free(self->left);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef calls_methods[] = {
	{ "end", (PyCFunction)calls_end, METH_NOARGS, "end($self, /)\n--\n\nRefuse every further call." },
	{ "free_left", (PyCFunction)calls_free_left, METH_NOARGS,
	  "free_left($self, /)\n--\n\nFree the blocks that another thread has dropped; return how many are left." },
	{ 0 }
};

static PyMemberDef calls_members[] = {
	{ "window", T_OBJECT, offsetof(struct calls, window), READONLY, "The mapping of the arena." },
	{ "number", T_INT, offsetof(struct calls, number), READONLY, "Of the CPU." },
	{ "bound", T_INT, offsetof(struct calls, bound), READONLY, "What the core calls the current CPU if it is this." },
	{ "nr_nodes", T_INT, offsetof(struct calls, nr_nodes), READONLY, "Of the arena." },
	{ 0 }
};

static PyGetSetDef calls_properties[] = {
	{ "is_open", (getter)calls_is_open, NULL, "Whether this process is still the CPU: not closed, not forked.", NULL },
	{ 0 }
};

PyTypeObject calls_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "shmalloc._fast.Calls",
	.tp_doc = PyDoc_STR("Calls(core, window, number, nr_nodes, has_oracle)\n--\n\nA CPU, as it is called."),
	.tp_basicsize = sizeof(struct calls),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.tp_new = PyType_GenericNew,
	.tp_init = (initproc)calls_init,
	.tp_dealloc = (destructor)calls_dealloc,
	.tp_methods = calls_methods,
	.tp_members = calls_members,
	.tp_getset = calls_properties,
};

static int caller_traverse(struct caller *self, visitproc visit, void *arg)
{
	Py_VISIT(self->calls);
	return 0;
}

static int caller_clear(struct caller *self)
{
	Py_CLEAR(self->calls);
	return 0;
}

static void caller_dealloc(struct caller *self)
{
	PyObject_GC_UnTrack(self);
	caller_clear(self);
	Py_TYPE(self)->tp_free(self);
}

static PyObject *caller_calls(struct caller *self, void *closure)
{
	(void)closure;
	if (self->calls)
		return Py_NewRef(self->calls);
	PyErr_SetString(PyExc_AttributeError, "_calls");
	return NULL;
}

static int caller_set_calls(struct caller *self, PyObject *value, void *closure)
{
	(void)closure;
	if (!value || !PyObject_TypeCheck(value, &calls_type)) {
		PyErr_SetString(PyExc_TypeError, "_calls: allowed is a Calls");
		return -1;
	}
	Py_XSETREF(self->calls, (struct calls *)Py_NewRef(value));
	return 0;
}

static PyMemberDef caller_members[] = {
	{ "_index", T_UINT, offsetof(struct caller, index), 0, "Of the cache or design." },
	{ 0 }
};

static PyGetSetDef caller_properties[] = {
	{ "_calls", (getter)caller_calls, (setter)caller_set_calls, "The CPU.", NULL },
	{ 0 }
};

PyTypeObject caller_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "shmalloc._fast.Caller",
	.tp_doc = PyDoc_STR("Base of whatever allocates and frees as a CPU."),
	.tp_basicsize = sizeof(struct caller),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
	.tp_new = PyType_GenericNew,
	.tp_traverse = (traverseproc)caller_traverse,
	.tp_clear = (inquiry)caller_clear,
	.tp_dealloc = (destructor)caller_dealloc,
	.tp_members = caller_members,
	.tp_getset = caller_properties,
};
