/* SPDX-License-Identifier: MIT */
#include "face.h"

#define FASTCALL(name, function, doc) { name, (PyCFunction)(void (*)(void))(function), METH_FASTCALL, doc }

static PyMethodDef functions[] = {
	FASTCALL("method", method_make,
		 "method(kind, function, /)\n--\n\nMake a method that does its common case itself, and calls the function else."),
	FASTCALL("run", method_run,
		 "run(kind, caller, /, *arguments)\n--\n\nDo what a method does, with arguments that Python has looked at."),
	FASTCALL("set_up", arguments_set_up,
		 "set_up(gfp_flags, error, /)\n--\n\nSay who reads flags, and what is raised."),
	FASTCALL("set_up_arrays", arrays_set_up,
		 "set_up_arrays(ndarray, uint64, writer, reader, /)\n--\n\nHand over what is needed of numpy."),
	FASTCALL("array_look", array_look,
		 "array_look(core, window, has_oracle, offset, /)\n--\n\nLook at an array; None: no live object is there."),
	{ 0 }
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "shmalloc._fast",
	.m_doc = "The calls that Python makes most, without cffi.",
	.m_size = -1,
	.m_methods = functions,
};

static int add_types(PyObject *module)
{
	PyTypeObject *types[] = { &core_type, &window_type, &calls_type, &caller_type, &method_type, &block_type };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (PyModule_AddType(module, types[i]))
			return -1;
	return PyModule_AddStringConstant(module, "BUILD_ID", SHM_FACE_ID);
}

PyMODINIT_FUNC PyInit__fast(void)
{
	PyObject *module = PyModule_Create(&definition);

	if (module && add_types(module))
		Py_CLEAR(module);
	if (module && register_fork_handler()) {
		PyErr_NoMemory();
		Py_CLEAR(module);
	}
	return module;
}
