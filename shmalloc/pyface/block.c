/* SPDX-License-Identifier: MIT */
/*
 * A block: an object of the arena as an object of Python, which frees it when it dies.
 *
 * No base class in Python and nothing for the garbage collector to visit, so that making and dropping one costs
 * less than kmalloc and kfree with an int in between: two calls of the interpreter are one.
 */
#include "face.h"

u64 room_at(const struct core *core, bool has_oracle, u64 offset)
{
	return has_oracle ? core->oracle_extent(offset) : core->ksize(offset);
}

/* Blocks that have died, to be used again: cheaper than Python's own allocator. */
#define MAX_SPARE 64
static struct block *spare[MAX_SPARE];
static int nr_spare;

struct block *block_new(struct calls *calls, struct window *window, u64 offset, u64 bytes)
{
	struct block *self;

	if (likely(nr_spare))
		self = (struct block *)PyObject_Init((PyObject *)spare[--nr_spare], &block_type);
	else
		self = PyObject_New(struct block, &block_type);
	if (unlikely(!self))
		return NULL;
	self->calls = calls;
	self->window = window;
	Py_INCREF(calls ? (PyObject *)calls : (PyObject *)window); /* the calls hold their window */
	self->offset = offset;
	self->bytes = bytes;
	self->head_bytes = 0;
	self->held = false;
	self->exports = 0;
	return self;
}

/* Python frees it as another CPU, or warns that nobody can. */
static void free_late(struct block *self)
{
	PyObject *type, *value, *trace, *result;

	PyErr_Fetch(&type, &value, &trace);
	result = PyObject_CallMethod((PyObject *)self->calls, "free_late", "KK", (unsigned long long)self->offset,
				     (unsigned long long)self->bytes);
	if (!result)
		PyErr_WriteUnraisable((PyObject *)self->calls);
	Py_XDECREF(result);
	PyErr_Restore(type, value, trace);
}

static void free_refused(struct block *self, int error)
{
	PyObject *type, *value, *trace, *result;

	PyErr_Fetch(&type, &value, &trace);
	result = PyObject_CallMethod((PyObject *)self->calls, "refuse_free", "iKs(K)", error,
				     (unsigned long long)self->offset, "kfree", (unsigned long long)self->offset);
	if (!result)
		PyErr_WriteUnraisable((PyObject *)self->calls);
	Py_XDECREF(result);
	PyErr_Restore(type, value, trace);
}

static void dispose(struct block *self)
{
	struct calls *calls = self->calls;
	int error;

	if (likely(can_free(calls))) {
		error = calls->core->kfree(self->offset);
		if (unlikely(error))
			free_refused(self, error);
	} else if (calls->forks != forks)
		return; /* the block is the parent's */
	else if (calls->bound != NOBODY)
		calls_leave(calls, self->offset);
	else
		free_late(self);
}

static void block_dealloc(struct block *self)
{
	if (self->offset && self->calls)
		dispose(self);
	if (self->held)
		window_drop(self->window);
	Py_DECREF(self->calls ? (PyObject *)self->calls : (PyObject *)self->window);
	if (likely(nr_spare < MAX_SPARE))
		spare[nr_spare++] = self;
	else
		PyObject_Free(self);
}

static bool has_object(struct block *self)
{
	if (likely(self->offset))
		return true;
	PyErr_SetString(shmalloc_error, "this block holds no object any more: it was freed, or given away");
	return false;
}

u64 block_give(struct block *self)
{
	u64 offset = self->offset;

	if (!has_object(self))
		return 0;
	self->offset = 0;
	return offset;
}

static int block_free_now(struct block *self)
{
	PyObject *result;
	u64 offset = self->offset;
	int error;

	if (!can_free(self->calls)) {
		result = PyObject_CallMethod((PyObject *)self->calls, "refuse_caller", NULL);
		Py_XDECREF(result);
		if (result)
			no_result();
		return -1;
	}
	error = self->calls->core->kfree(offset);
	self->offset = 0;
	if (likely(!error))
		return 0;
	result = PyObject_CallMethod((PyObject *)self->calls, "refuse_free", "iKs(K)", error, (unsigned long long)offset,
				     "kfree", (unsigned long long)offset);
	Py_XDECREF(result);
	if (result)
		no_result();
	return -1;
}

static PyObject *method_free(struct block *self, PyObject *none)
{
	(void)none;
	if (!has_object(self))
		return NULL;
	if (!self->calls || self->head_bytes) {
		PyErr_SetString(shmalloc_error, "this block is an array's, and ends with it: drop the array");
		return NULL;
	}
	if (self->exports) {
		PyErr_Format(shmalloc_error, "this block is looked at by %zd views or arrays: drop them first, or leave a "
			     "with block, which lets them live on", self->exports);
		return NULL;
	}
	if (block_free_now(self))
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *method_give(struct block *self, PyObject *none)
{
	u64 offset;

	(void)none;
	if (!self->calls || self->head_bytes) {
		PyErr_SetString(shmalloc_error, "this block is an array's: give the array, by Cpu.give");
		return NULL;
	}
	offset = block_give(self);
	return offset ? PyLong_FromUnsignedLong(offset) : NULL;
}

static PyObject *method_enter(PyObject *self, PyObject *none)
{
	(void)none;
	return Py_NewRef(self);
}

/* Free already, given away or still looked at is all right; the destructor sees to what is left. */
static PyObject *method_exit(struct block *self, PyObject *const *args, Py_ssize_t nargs)
{
	(void)args, (void)nargs;
	if (self->offset && self->calls && !self->exports && !self->head_bytes && block_free_now(self))
		return NULL;
	Py_RETURN_NONE;
}

static int block_getbuffer(struct block *self, Py_buffer *view, int flags)
{
	u64 offset = self->offset + self->head_bytes;

	view->obj = NULL;
	if (!self->held) {
		if (!has_object(self) || !window_hold(self->window))
			return -1;
		/* For as long as the block lives: numpy keeps the object and not the view. */
		self->held = true;
	} else if (!has_object(self))
		return -1;
	if (PyBuffer_FillInfo(view, (PyObject *)self, self->window->base + offset, (Py_ssize_t)self->bytes, 0, flags))
		return -1;
	self->exports++;
	return 0;
}

static void block_releasebuffer(struct block *self, Py_buffer *view)
{
	(void)view;
	self->exports--;
}

static Py_ssize_t block_length(struct block *self)
{
	return (Py_ssize_t)self->bytes;
}

static PyObject *block_repr(struct block *self)
{
	if (!self->offset)
		return PyUnicode_FromFormat("<Block of %llu bytes, free or given away>", (unsigned long long)self->bytes);
	return PyUnicode_FromFormat("<Block of %llu bytes at %p>", (unsigned long long)self->bytes,
				    (void *)self->offset);
}

static PyObject *get_offset(struct block *self, void *closure)
{
	(void)closure;
	return has_object(self) ? PyLong_FromUnsignedLong(self->offset) : NULL;
}

static PyObject *get_owned(struct block *self, void *closure)
{
	(void)closure;
	return PyBool_FromLong(self->calls && self->offset);
}

static PyMethodDef block_methods[] = {
	{ "free", (PyCFunction)method_free, METH_NOARGS,
	  "free($self, /)\n--\n\nFree the object now.\n\n"
	  "Raises:\n    ShmallocError: a view or an array of it is in use; or there is no object any more.\n"
	  "    BadFree: somebody else has freed it.\n    WrongThread, NotBound: this is not its CPU." },
	{ "give", (PyCFunction)method_give, METH_NOARGS,
	  "give($self, /)\n--\n\nHand the object over: return its offset, and do not free it.\n\n"
	  "Whoever gets the offset may `Cpu.own` it, or kfree it, in any process." },
	{ "__enter__", method_enter, METH_NOARGS, NULL },
	{ "__exit__", (PyCFunction)(void (*)(void))method_exit, METH_FASTCALL,
	  "Free the object, or have its last view do it." },
	{ 0 }
};

static PyMemberDef block_members[] = {
	{ "size", T_ULONGLONG, offsetof(struct block, bytes), READONLY, "In bytes, as it was asked for." },
	{ "window", T_OBJECT, offsetof(struct block, window), READONLY, "The mapping that it lies in." },
	{ 0 }
};

static PyGetSetDef block_properties[] = {
	{ "offset", (getter)get_offset, NULL, "Of the object, in bytes from the arena's start.", NULL },
	{ "owned", (getter)get_owned, NULL, "Whether it is to be freed with this.", NULL },
	{ 0 }
};

static PySequenceMethods block_as_sequence = { .sq_length = (lenfunc)block_length };
static PyBufferProcs block_as_buffer = { (getbufferproc)block_getbuffer, (releasebufferproc)block_releasebuffer };

PyTypeObject block_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "shmalloc._fast.Block",
	.tp_doc = PyDoc_STR("An object of the arena that is freed with this; see `Cpu.block`.\n\n"
			    "A buffer: ``memoryview(block)`` and ``numpy.frombuffer(block, \"f8\")`` look at its memory."),
	.tp_basicsize = sizeof(struct block),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_dealloc = (destructor)block_dealloc,
	.tp_repr = (reprfunc)block_repr,
	.tp_as_sequence = &block_as_sequence,
	.tp_as_buffer = &block_as_buffer,
	.tp_methods = block_methods,
	.tp_members = block_members,
	.tp_getset = block_properties,
};

/* size, gfp, node */
static PyObject *run_block(const struct kind *kind, struct request *r)
{
	struct calls *calls = r->caller->calls;
	struct block *block;
	u64 offset;

	if (unlikely(!as_u64(r->given[0], &r->number) || !as_gfp(r->given[1], &r->gfp) ||
		     !as_node(calls, r->given[2], &r->node)))
		return NULL;
	if (unlikely(calls->nr_left))
		calls_take_up(calls);
	offset = r->node == -1 ? calls->core->kmalloc(r->number, r->gfp) :
				 calls->core->kmalloc_node(r->number, r->gfp, r->node);
	if (unlikely(!offset))
		return no_object(r->caller, kind->text, PyTuple_Pack(3, r->given[0], r->given[1], r->given[2]));
	block = block_new(calls, calls->window, offset, r->number);
	if (unlikely(!block))
		calls->core->kfree(offset);
	return (PyObject *)block;
}

/* offset */
static PyObject *run_own(const struct kind *kind, struct request *r)
{
	struct calls *calls = r->caller->calls;
	u64 room;

	(void)kind;
	if (!as_u64(r->given[0], &r->number) || !calls->core->thread_ok())
		return NULL;
	room = room_at(calls->core, calls->has_oracle, r->number);
	return room ? (PyObject *)block_new(calls, calls->window, r->number, room) : NULL;
}

/* block(size) */
static PyObject *usual_block(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
	struct method *self = (struct method *)callable;
	const struct caller *caller = usual_caller(self, args, nargsf, kwnames, 1);
	struct block *block;
	struct calls *calls;
	int64_t gfp;
	u64 size, offset;

	if (unlikely(!caller || !small_u64(args[1], &size) || caller->calls->nr_left || (gfp = usual_gfp(self, 1)) < 0))
		return method_call(callable, args, nargsf, kwnames);
	calls = caller->calls;
	offset = calls->core->kmalloc(size, (u32)gfp);
	if (unlikely(!offset))
		return no_object(caller, self->kind->text, PyTuple_Pack(3, args[1], self->defaults[1], self->defaults[2]));
	block = block_new(calls, calls->window, offset, size);
	if (unlikely(!block))
		calls->core->kfree(offset);
	return (PyObject *)block;
}

/* offset, size: a view of an object, from its start on; what lies within it is for Python to look up */
static PyObject *run_view(const struct kind *kind, struct request *r)
{
	struct calls *calls = r->caller->calls;
	struct block *block;
	PyObject *view;
	u64 room, size;

	(void)kind;
	if (!as_u64(r->given[0], &r->number) || !calls->core->thread_ok())
		return NULL;
	size = room = room_at(calls->core, calls->has_oracle, r->number);
	if (!room || (r->given[1] != Py_None && (!as_u64(r->given[1], &size) || size > room)))
		return NULL;
	block = block_new(NULL, calls->window, r->number, size);
	view = block ? PyMemoryView_FromObject((PyObject *)block) : NULL;
	Py_XDECREF(block);
	return view;
}

const struct kind block_kinds[] = {
	{ "view", { "offset", "size" }, NULL, run_view, NULL, NULL, NULL },
	{ "block", { "size", "gfp", "node" }, usual_block, run_block, "kmalloc_node", NULL, NULL },
	{ "own", { "offset" }, NULL, run_own, NULL, NULL, NULL },
	{ 0 }
};
