/* SPDX-License-Identifier: MIT */
/*
 * Arguments in their common form: an int in range, flags that have been seen before.  All else is refused
 * without an exception, and the Python function that is called then says what is wrong.
 */
#include "face.h"

static PyObject *gfp_bits;         /* text -> bits */
static PyObject *gfp_parser;       /* shmalloc.flags.gfp_flags */
PyObject *shmalloc_error;

bool as_u64(PyObject *number, u64 *value)
{
	if (small_u64(number, value))
		return true;
	if (!PyLong_Check(number))
		return false;
	*value = PyLong_AsUnsignedLong(number);
	if (unlikely(*value == ~0ull) && PyErr_Occurred()) {
		PyErr_Clear();
		return false;
	}
	return true;
}

static PyObject *parsed(PyObject *text)
{
	PyObject *bits = PyDict_GetItemWithError(gfp_bits, text);

	if (likely(bits))
		return bits;
	bits = PyErr_Occurred() ? NULL : PyObject_CallOneArg(gfp_parser, text);
	if (!bits)
		return NULL;
	if (PyDict_SetItem(gfp_bits, text, bits))
		Py_CLEAR(bits);
	else
		Py_DECREF(bits); /* the table holds it, and forgets nothing */
	return bits;
}

bool as_gfp(PyObject *flags, u32 *bits)
{
	u64 value;

	if (PyUnicode_CheckExact(flags)) {
		flags = parsed(flags);
		if (!flags) {
			PyErr_Clear(); /* Python parses it again, and raises */
			return false;
		}
	}
	if (!as_u64(flags, &value) || value > UINT32_MAX)
		return false;
	*bits = (u32)value;
	return true;
}

bool as_node(const struct calls *calls, PyObject *number, int *node)
{
	long value;

	if (!PyLong_CheckExact(number))
		return false;
	value = PyLong_AsLong(number);
	if (unlikely(value == -1) && PyErr_Occurred())
		PyErr_Clear();
	else if (value >= -1 && value < calls->nr_nodes) {
		*node = (int)value;
		return true;
	}
	return false;
}

/* set_up(gfp_flags, ShmallocError) */
PyObject *arguments_set_up(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	(void)module;
	if (nargs != 2) {
		PyErr_SetString(PyExc_TypeError, "set_up takes a parser of flags and an exception");
		return NULL;
	}
	if (!gfp_bits && !(gfp_bits = PyDict_New()))
		return NULL;
	Py_XSETREF(gfp_parser, Py_NewRef(args[0]));
	Py_XSETREF(shmalloc_error, Py_NewRef(args[1]));
	Py_RETURN_NONE;
}
