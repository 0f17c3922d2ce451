/* SPDX-License-Identifier: MIT */
/*
 * A method whose common case is in C.
 *
 * It stands for a Python function of the same signature, which documents it, and which is called for whatever
 * is not common: a CPU that is not the current one, another thread, a fork, arguments that are out of range
 * or of an unusual type.  So there is one place that says what is wrong with a call, and it is in Python.
 *
 * To the interpreter it is a method descriptor: obj.method(...) makes no bound method on the way.
 */
#include "face.h"

/* Which parameter a keyword names, or -1. */
static int param_of(const struct method *self, PyObject *name)
{
	for (int i = 0; i < self->nr_params; i++)
		if (self->names[i] == name)
			return i;
	return -1;
}

static bool take_keywords(const struct method *self, PyObject *const *values, PyObject *kwnames, PyObject **given)
{
	Py_ssize_t nr = PyTuple_GET_SIZE(kwnames);

	for (Py_ssize_t i = 0; i < nr; i++) {
		int at = param_of(self, PyTuple_GET_ITEM(kwnames, i));

		if (at < 0 || given[at])
			return false;
		given[at] = values[i];
	}
	return true;
}

static bool take_arguments(struct method *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
			   struct request *request)
{
	PyObject **given = request->given;
	int nr = self->nr_params;

	if (nargs < 1 || nargs > nr + 1 || !PyObject_TypeCheck(args[0], &caller_type))
		return false;
	if (Py_TYPE(args[0]) != self->usual)
		Py_XSETREF(self->usual, (PyTypeObject *)Py_NewRef(Py_TYPE(args[0])));
	request->caller = (struct caller *)args[0];
	for (int i = 0; i < nr; i++)
		given[i] = i + 1 < nargs ? args[i + 1] : NULL;
	if (kwnames && !take_keywords(self, args + nargs, kwnames, given))
		return false;
	for (int i = 0; i < nr; i++) {
		if (!given[i])
			given[i] = self->defaults[i];
		if (unlikely(!given[i]))
			return false;
	}
	return true;
}

PyObject *method_call(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
	struct method *self = (struct method *)callable;
	struct request request;

	if (likely(take_arguments(self, args, PyVectorcall_NARGS(nargsf), kwnames, &request)) &&
	    likely(calls_ready(request.caller->calls))) {
		PyObject *result = self->kind->run(self->kind, &request);

		if (likely(result) || PyErr_Occurred())
			return result;
	}
	return PyObject_Vectorcall(self->function, args, nargsf, kwnames);
}

static PyObject *method_get(PyObject *self, PyObject *object, PyObject *type)
{
	(void)type;
	return object && object != Py_None ? PyMethod_New(self, object) : Py_NewRef(self);
}

/* What it does not have itself is the function's: __name__, __module__, __defaults__, ... */
static PyObject *method_getattro(PyObject *object, PyObject *name)
{
	PyObject *found = PyObject_GenericGetAttr(object, name);

	if (found || !PyErr_ExceptionMatches(PyExc_AttributeError))
		return found;
	PyErr_Clear();
	return PyObject_GetAttr(((struct method *)object)->function, name);
}

static PyObject *method_get_doc(struct method *self, void *closure)
{
	(void)closure;
	return PyObject_GetAttrString(self->function, "__doc__");
}

static PyObject *method_repr(struct method *self)
{
	return PyUnicode_FromFormat("<fast %R>", self->function);
}

static int method_traverse(struct method *self, visitproc visit, void *arg)
{
	Py_VISIT(self->function);
	Py_VISIT(self->usual);
	for (int i = 0; i < self->nr_params; i++)
		Py_VISIT(self->defaults[i]);
	return 0;
}

static int method_clear(struct method *self)
{
	Py_CLEAR(self->function);
	Py_CLEAR(self->usual);
	for (int i = 0; i < MAX_PARAMS; i++) {
		Py_CLEAR(self->names[i]);
		Py_CLEAR(self->defaults[i]);
	}
	return 0;
}

static void method_dealloc(struct method *self)
{
	PyObject_GC_UnTrack(self);
	method_clear(self);
	Py_TYPE(self)->tp_free(self);
}

static PyMemberDef method_members[] = {
	{ "__wrapped__", T_OBJECT_EX, offsetof(struct method, function), READONLY, "The function that it stands for." },
	{ 0 }
};

static PyGetSetDef method_properties[] = {
	{ "__doc__", (getter)method_get_doc, NULL, NULL, NULL }, /* here, for who asks object.__getattribute__ */
	{ 0 }
};

PyTypeObject method_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "shmalloc._fast.Method",
	.tp_doc = PyDoc_STR("A method whose common case is in C."),
	.tp_basicsize = sizeof(struct method),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_HAVE_VECTORCALL,
	.tp_vectorcall_offset = offsetof(struct method, vectorcall),
	.tp_call = PyVectorcall_Call,
	.tp_descr_get = method_get,
	.tp_getattro = method_getattro,
	.tp_repr = (reprfunc)method_repr,
	.tp_traverse = (traverseproc)method_traverse,
	.tp_clear = (inquiry)method_clear,
	.tp_dealloc = (destructor)method_dealloc,
	.tp_members = method_members,
	.tp_getset = method_properties,
};

static const struct kind *find_kind(const char *name)
{
	static const struct kind *const tables[] = { single_kinds, bulk_kinds, block_kinds, array_kinds };

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct kind *kind = tables[i]; kind->name; kind++)
			if (!strcmp(kind->name, name))
				return kind;
	PyErr_Format(PyExc_ValueError, "kind = '%s': there is no such call", name);
	return NULL;
}

/* The parameters by name, from the kind; the function must have the same, in this order. */
static int set_names(struct method *self, PyObject *code_names)
{
	for (self->nr_params = 0; self->nr_params < MAX_PARAMS; self->nr_params++) {
		int i = self->nr_params;
		const char *name = self->kind->params[i];

		if (!name)
			break;
		if (i + 1 >= PyTuple_GET_SIZE(code_names) ||
		    PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(code_names, i + 1), name)) {
			PyErr_Format(PyExc_TypeError, "%s: the function's parameter %d is not %s", self->kind->name, i + 1, name);
			return -1;
		}
		self->names[i] = PyUnicode_InternFromString(name);
		if (!self->names[i])
			return -1;
	}
	return 0;
}

static int set_defaults(struct method *self, PyObject *defaults, PyObject *keyword_defaults)
{
	Py_ssize_t nr = PyTuple_Check(defaults) ? PyTuple_GET_SIZE(defaults) : 0;
	int keyword_only = PyDict_Check(keyword_defaults) ? (int)PyDict_GET_SIZE(keyword_defaults) : 0;
	int positional = self->nr_params - keyword_only;

	for (int i = 0; i < self->nr_params; i++) {
		PyObject *value = NULL;

		if (i >= positional)
			value = PyDict_GetItemWithError(keyword_defaults, self->names[i]);
		else if (i >= positional - nr)
			value = PyTuple_GET_ITEM(defaults, i - (positional - nr));
		self->defaults[i] = Py_XNewRef(value);
	}
	return PyErr_Occurred() ? -1 : 0;
}

static int describe(struct method *self)
{
	PyObject *code = PyObject_GetAttrString(self->function, "__code__");
	PyObject *names = code ? PyObject_GetAttrString(code, "co_varnames") : NULL;
	PyObject *defaults = PyObject_GetAttrString(self->function, "__defaults__");
	PyObject *keyword_defaults = PyObject_GetAttrString(self->function, "__kwdefaults__");
	int result = names && defaults && keyword_defaults && !set_names(self, names) ?
		     set_defaults(self, defaults, keyword_defaults) : -1;

	Py_XDECREF(code);
	Py_XDECREF(names);
	Py_XDECREF(defaults);
	Py_XDECREF(keyword_defaults);
	return result;
}

/* method(kind, function) */
PyObject *method_make(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	const char *name = nargs == 2 ? PyUnicode_AsUTF8(args[0]) : NULL;
	const struct kind *kind = name ? find_kind(name) : NULL;
	struct method *self;

	(void)module;
	if (!kind) {
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_TypeError, "method takes a kind and a function");
		return NULL;
	}
	self = PyObject_GC_New(struct method, &method_type);
	if (!self)
		return NULL;
	self->vectorcall = kind->call ? kind->call : method_call;
	self->kind = kind;
	self->usual = NULL;
	self->gfp = -1;
	self->function = Py_NewRef(args[1]);
	self->nr_params = 0;
	memset(self->names, 0, sizeof(self->names));
	memset(self->defaults, 0, sizeof(self->defaults));
	PyObject_GC_Track(self);
	if (describe(self))
		Py_CLEAR(self);
	return (PyObject *)self;
}

/* run(kind, caller, ...): what the method does, with all arguments given and looked at by Python. */
PyObject *method_run(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	const char *name = nargs >= 2 ? PyUnicode_AsUTF8(args[0]) : NULL;
	const struct kind *kind = name ? find_kind(name) : NULL;
	struct request request = { 0 };
	PyObject *result = NULL;
	int nr = 0;

	(void)module;
	while (kind && nr < MAX_PARAMS && kind->params[nr])
		nr++;
	if (kind && nargs == nr + 2 && PyObject_TypeCheck(args[1], &caller_type)) {
		request.caller = (struct caller *)args[1];
		memcpy(request.given, args + 2, (size_t)nr * sizeof(args[0]));
		if (calls_ready(request.caller->calls))
			result = kind->run(kind, &request);
	}
	if (!result && !PyErr_Occurred())
		PyErr_Format(PyExc_TypeError, "%s: not with such arguments", kind ? kind->name : "run");
	return result;
}
