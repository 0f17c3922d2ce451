/* SPDX-License-Identifier: MIT */
/*
 * One mapping of an arena, as blocks and arrays hold it: as long as there is one that can be looked at, the
 * mmap has an export, and refuses to be closed.
 */
#include "face.h"

bool window_hold(struct window *window)
{
	if (likely(window->users)) {
		window->users++;
		return true;
	}
	if (!window->mapped) {
		PyErr_SetString(PyExc_ValueError, "the arena of this block is closed");
		return false;
	}
	if (PyObject_GetBuffer(window->mapped, &window->buffer, PyBUF_WRITABLE))
		return false;
	window->users = 1;
	return true;
}

void window_drop(struct window *window)
{
	if (!--window->users)
		PyBuffer_Release(&window->buffer);
}

static int window_init(struct window *self, PyObject *args, PyObject *kwargs)
{
	PyObject *mapped;
	Py_buffer buffer;

	if (kwargs && PyDict_GET_SIZE(kwargs)) {
		PyErr_SetString(PyExc_TypeError, "Window takes one argument: the mmap");
		return -1;
	}
	if (self->mapped) {
		PyErr_SetString(PyExc_TypeError, "this Window has its mmap");
		return -1;
	}
	if (!PyArg_ParseTuple(args, "O:Window", &mapped) || PyObject_GetBuffer(mapped, &buffer, PyBUF_WRITABLE))
		return -1;
	self->base = buffer.buf;
	self->bytes = (u64)buffer.len;
	PyBuffer_Release(&buffer);
	self->mapped = Py_NewRef(mapped);
	return 0;
}

static PyObject *window_forget(struct window *self, PyObject *none)
{
	(void)none;
	Py_CLEAR(self->mapped);
	Py_RETURN_NONE;
}

static void window_dealloc(struct window *self)
{
	Py_CLEAR(self->mapped);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef window_methods[] = {
	{ "forget", (PyCFunction)window_forget, METH_NOARGS,
	  "forget($self, /)\n--\n\nLet go of the mmap; who looks at it now may go on." },
	{ 0 }
};

static PyMemberDef window_members[] = {
	{ "users", T_PYSSIZET, offsetof(struct window, users), READONLY, "How many blocks and arrays can be looked at." },
	{ 0 }
};

PyTypeObject window_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "shmalloc._fast.Window",
	.tp_doc = PyDoc_STR("Window(mapped)\n--\n\nA mapping that stays while blocks and arrays look at it."),
	.tp_basicsize = sizeof(struct window),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = PyType_GenericNew,
	.tp_init = (initproc)window_init,
	.tp_dealloc = (destructor)window_dealloc,
	.tp_methods = window_methods,
	.tp_members = window_members,
};
