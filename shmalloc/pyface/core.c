/* SPDX-License-Identifier: MIT */
/*
 * The core's functions, as addresses: looked up in the shared object that this process has loaded already.
 *
 * Not cffi's, which lead to its glue: a jump more for each call.
 */
#include <dlfcn.h>
#include "face.h"

static int core_init(struct core *self, PyObject *args, PyObject *kwargs)
{
	const char *path;
	void *object;

	if (kwargs && PyDict_GET_SIZE(kwargs)) {
		PyErr_SetString(PyExc_TypeError, "Core takes one argument: the path of the shared object");
		return -1;
	}
	if (!PyArg_ParseTuple(args, "s:Core", &path))
		return -1;
	object = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
	if (!object) {
		PyErr_Format(PyExc_ImportError, "%s is not loaded in this process", path);
		return -1;
	}
#define LOOK_UP(name) \
	self->name = (__typeof__(self->name))dlsym(object, "shm_" #name); \
	if (!self->name) { \
		dlclose(object); \
		PyErr_Format(PyExc_ImportError, "%s: the core has no shm_" #name, path); \
		return -1; \
	}
	CORE_FUNCTIONS(LOOK_UP)
#undef LOOK_UP
	dlclose(object); /* it stays: Python never unloads an extension module */
	return 0;
}

PyTypeObject core_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "shmalloc._fast.Core",
	.tp_doc = PyDoc_STR("Core(path)\n--\n\nThe functions of a loaded object of the core."),
	.tp_basicsize = sizeof(struct core),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = PyType_GenericNew,
	.tp_init = (initproc)core_init,
};
