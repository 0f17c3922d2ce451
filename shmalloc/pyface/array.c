/* SPDX-License-Identifier: MIT */
/*
 * numpy arrays in an arena, that say themselves what they are: shape and type lie in front of the numbers, so
 * that an offset, 64 bits, is all that another process needs.
 *
 * What lies there may have been overwritten by anybody, so it is read once, and believed only as far as the
 * object reaches.  numpy is not imported here: Python does, when the first array is made, and hands over what
 * is needed of it.
 */
#include "face.h"

#define ARRAY_MAGIC 0x79617261u    /* "aray" */
#define HEAD_ALIGN 64u             /* the numbers begin on a cache line, if the object does */
#define MAX_AXES 32
#define MAX_TEXT 4096

struct head {
	u32 magic;
	uint16_t text_bytes;       /* of the type */
	uint16_t nr_axes;
	u64 axes[];                /* then the type, as text */
};

/* What types are called in heads, for those that were met lately: by the first eight bytes of short names. */
#define NR_KNOWN 16
struct known {
	u64 name;
	PyObject *type;
	u64 item_bytes;
};

PyObject *ndarray;
static PyObject *writer;           /* of a type: (dtype, its name as bytes, bytes of an item) */
static PyObject *reader;           /* of a name: (dtype, bytes of an item), or raises */
static PyObject *uint64_type;
static PyObject *base_name;        /* "base" */
static PyObject *written;          /* what writer has said, by what it was asked for */
static struct known known[NR_KNOWN];
static u32 next_known;

/* set_up_arrays(ndarray, uint64, writer, reader) */
PyObject *arrays_set_up(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	(void)module;
	if (nargs != 4) {
		PyErr_SetString(PyExc_TypeError, "set_up_arrays takes ndarray, uint64, a writer and a reader");
		return NULL;
	}
	if ((!written && !(written = PyDict_New())) || (!base_name && !(base_name = PyUnicode_InternFromString("base"))))
		return NULL;
	Py_XSETREF(uint64_type, Py_NewRef(args[1]));
	Py_XSETREF(writer, Py_NewRef(args[2]));
	Py_XSETREF(reader, Py_NewRef(args[3]));
	Py_XSETREF(ndarray, Py_NewRef(args[0]));
	Py_RETURN_NONE;
}

/* NULL without an exception: numpy was not asked for yet. */
PyObject *numbers(Py_ssize_t count)
{
	PyObject *result, *shape;

	if (!ndarray)
		return NULL;
	shape = Py_BuildValue("(n)", count);
	if (!shape)
		return NULL;
	result = PyObject_CallFunctionObjArgs(ndarray, shape, uint64_type, NULL);
	Py_DECREF(shape);
	return result;
}

static u32 head_bytes(u32 nr_axes, u32 text_bytes)
{
	return (u32)((sizeof(struct head) + nr_axes * sizeof(u64) + text_bytes + HEAD_ALIGN - 1) & ~(HEAD_ALIGN - 1));
}

/* --- types ---------------------------------------------------------------------------------------- */

/* A borrowed (dtype, name, item bytes), or NULL with an exception. */
static PyObject *name_of(PyObject *type)
{
	PyObject *entry = PyDict_GetItemWithError(written, type);

	if (likely(entry) || PyErr_Occurred())
		return entry;
	entry = PyObject_CallOneArg(writer, type);
	if (entry && PyDict_SetItem(written, type, entry))
		Py_CLEAR(entry);
	Py_XDECREF(entry);
	return entry;
}

static u64 short_name(const char *text, u32 bytes)
{
	u64 name = 0;

	memcpy(&name, text, bytes <= sizeof(name) ? bytes : 0);
	return name;
}

/* A borrowed dtype, or NULL with an exception. */
static PyObject *type_of(const char *text, u32 bytes, u64 *item_bytes)
{
	u64 name = short_name(text, bytes);
	struct known *entry;
	PyObject *read, *type;

	for (entry = known; name && entry < known + NR_KNOWN; entry++)
		if (entry->name == name) {
			*item_bytes = entry->item_bytes;
			return entry->type;
		}
	read = PyObject_CallFunction(reader, "y#", text, (Py_ssize_t)bytes);
	if (!read)
		return NULL;
	if (!PyArg_ParseTuple(read, "OK", &type, item_bytes)) {
		Py_DECREF(read);
		return NULL;
	}
	entry = &known[next_known++ % NR_KNOWN];
	entry->name = name; /* 0, a long one, is never found, and keeps the type alive */
	entry->item_bytes = *item_bytes;
	Py_XSETREF(entry->type, Py_NewRef(type));
	Py_DECREF(read);
	return entry->type;
}

/* --- made ------------------------------------------------------------------------------------------- */

/* The array that lies behind a head; the block is used up. */
static PyObject *array_of(struct block *block, PyObject *shape, PyObject *type)
{
	PyTypeObject *class = (PyTypeObject *)ndarray;
	PyObject *args, *result;

	if (unlikely(!block->held && !window_hold(block->window))) {
		Py_DECREF(block);
		return NULL;
	}
	block->held = true;
	args = PyTuple_Pack(3, shape, type, (PyObject *)block);
	Py_DECREF(block);
	if (!args)
		return NULL;
	result = class->tp_new(class, args, NULL); /* it has no __init__ */
	Py_DECREF(args);
	return result;
}

struct plan {
	PyObject *shape;           /* a tuple of ints, borrowed */
	PyObject *entry;           /* (dtype, name, bytes of an item), borrowed */
	const char *text;
	u32 text_bytes, nr_axes, head;
	u64 item_bytes, data_bytes;
	u64 axes[MAX_AXES];
};

/* False without an exception: it is for Python to look at. */
static bool plan_array(struct plan *plan)
{
	PyObject *name = PyTuple_GET_ITEM(plan->entry, 1);
	u64 bytes;

	plan->nr_axes = (u32)PyTuple_GET_SIZE(plan->shape);
	if (PyTuple_GET_SIZE(plan->shape) > MAX_AXES || !as_u64(PyTuple_GET_ITEM(plan->entry, 2), &plan->item_bytes))
		return false;
	bytes = plan->item_bytes;
	for (u32 i = 0; i < plan->nr_axes; i++)
		if (!as_u64(PyTuple_GET_ITEM(plan->shape, i), &plan->axes[i]) ||
		    __builtin_mul_overflow(bytes, plan->axes[i], &bytes))
			return false;
	plan->text = PyBytes_AS_STRING(name);
	plan->text_bytes = (u32)PyBytes_GET_SIZE(name);
	plan->head = head_bytes(plan->nr_axes, plan->text_bytes);
	plan->data_bytes = bytes;
	return bytes < 1ull << 62;
}

static PyObject *array_at(struct calls *calls, u64 offset, const struct plan *plan)
{
	struct head *head = (struct head *)(calls->window->base + offset);
	struct block *block = block_new(calls, calls->window, offset, plan->data_bytes);

	if (unlikely(!block)) {
		calls->core->kfree(offset);
		return NULL;
	}
	block->head_bytes = plan->head;
	head->magic = ARRAY_MAGIC;
	head->text_bytes = (uint16_t)plan->text_bytes;
	head->nr_axes = (uint16_t)plan->nr_axes;
	memcpy(head->axes, plan->axes, plan->nr_axes * sizeof(u64));
	memcpy(head->axes + plan->nr_axes, plan->text, plan->text_bytes);
	return array_of(block, plan->shape, PyTuple_GET_ITEM(plan->entry, 0));
}

/* shape, dtype, gfp, node */
static PyObject *run_empty(const struct kind *kind, struct request *r)
{
	struct calls *calls = r->caller->calls;
	struct plan plan;
	PyObject *result = NULL, *shape = NULL;
	u64 offset;

	if (unlikely(!ndarray || !as_gfp(r->given[2], &r->gfp) || !as_node(calls, r->given[3], &r->node)))
		return NULL;
	plan.entry = name_of(r->given[1]);
	if (!plan.entry) {
		PyErr_Clear(); /* no type: Python asks again, and raises */
		return NULL;
	}
	if (PyLong_CheckExact(r->given[0])) {
		shape = PyTuple_Pack(1, r->given[0]);
		if (!shape)
			return NULL;
	}
	plan.shape = shape ? shape : r->given[0];
	if (likely(PyTuple_CheckExact(plan.shape) && plan_array(&plan))) {
		if (unlikely(calls->nr_left))
			calls_take_up(calls);
		r->number = plan.head + plan.data_bytes;
		offset = r->node == -1 ? calls->core->kmalloc(r->number, r->gfp) :
					 calls->core->kmalloc_node(r->number, r->gfp, r->node);
		if (likely(offset))
			result = array_at(calls, offset, &plan);
		else
			no_object(r->caller, kind->text, Py_BuildValue("KOO", (unsigned long long)r->number, r->given[2],
							       r->given[3]));
	}
	Py_XDECREF(shape);
	return result;
}

/* --- handed over ------------------------------------------------------------------------------------- */

static PyObject *no_array(u64 offset, const char *why)
{
	return PyErr_Format(shmalloc_error, "offset %p: no array: %s", (void *)offset, why);
}

/* The array that a head describes, as far as it lies within room. */
static PyObject *array_from(struct calls *calls, struct window *window, u64 offset, u64 room)
{
	const volatile struct head *there = (const struct head *)(window->base + offset);
	struct block *block;
	PyObject *type, *shape, *result;
	char text[MAX_TEXT];
	u64 item_bytes, bytes;
	u32 nr_axes, text_bytes, head;

	if (room < sizeof(*there) || there->magic != ARRAY_MAGIC)
		return no_array(offset, "the object was not made by Cpu.empty or Cpu.zeros");
	nr_axes = there->nr_axes;
	text_bytes = there->text_bytes;
	head = head_bytes(nr_axes, text_bytes);
	if (nr_axes > MAX_AXES || text_bytes > MAX_TEXT || head > room)
		return no_array(offset, "its head is damaged");
	memcpy(text, (const char *)(window->base + offset) + sizeof(*there) + nr_axes * sizeof(u64), text_bytes);
	type = type_of(text, text_bytes, &item_bytes);
	if (!type)
		return NULL;
	shape = PyTuple_New(nr_axes);
	bytes = item_bytes;
	for (u32 i = 0; shape && i < nr_axes; i++) {
		u64 axis = there->axes[i];
		PyObject *number = PyLong_FromUnsignedLong(axis);

		if (__builtin_mul_overflow(bytes, axis, &bytes))
			bytes = room;
		if (number)
			PyTuple_SET_ITEM(shape, i, number);
		else
			Py_CLEAR(shape);
	}
	if (!shape)
		return NULL;
	if (bytes > room - head) {
		Py_DECREF(shape);
		return no_array(offset, "its head says that it is larger than the object");
	}
	block = block_new(calls, window, offset, bytes);
	if (!block) {
		Py_DECREF(shape);
		return NULL;
	}
	block->head_bytes = head;
	Py_INCREF(type);
	result = array_of(block, shape, type);
	Py_DECREF(type);
	Py_DECREF(shape);
	return result;
}

/* offset */
static PyObject *run_take(const struct kind *kind, struct request *r)
{
	struct calls *calls = r->caller->calls;
	u64 room;

	(void)kind;
	if (unlikely(!ndarray || !as_u64(r->given[0], &r->number) || !calls->core->thread_ok()))
		return NULL;
	room = room_at(calls->core, calls->has_oracle, r->number);
	return likely(room) ? array_from(calls, calls->window, r->number, room) : NULL;
}

/* offset, shape, dtype: what Python knows the object to hold, which has no head */
static PyObject *run_array(const struct kind *kind, struct request *r)
{
	struct calls *calls = r->caller->calls;
	PyObject *shape, *result = NULL;
	struct block *block;
	struct plan plan;

	(void)kind;
	if (!ndarray || !as_u64(r->given[0], &r->number) || !calls->core->thread_ok())
		return NULL;
	plan.entry = name_of(r->given[2]);
	if (!plan.entry) {
		PyErr_Clear();
		return NULL;
	}
	shape = PyLong_CheckExact(r->given[1]) ? PyTuple_Pack(1, r->given[1]) : Py_NewRef(r->given[1]);
	plan.shape = shape;
	if (shape && PyTuple_CheckExact(shape) && plan_array(&plan) &&
	    plan.data_bytes <= room_at(calls->core, calls->has_oracle, r->number)) {
		block = block_new(NULL, calls->window, r->number, plan.data_bytes);
		if (block)
			result = array_of(block, shape, PyTuple_GET_ITEM(plan.entry, 0));
	}
	Py_XDECREF(shape);
	return result;
}

/* array */
static PyObject *run_give(const struct kind *kind, struct request *r)
{
	PyObject *array = r->given[0], *base;
	struct block *block;
	u64 offset = 0;

	(void)kind;
	if (!ndarray || !PyObject_TypeCheck(array, (PyTypeObject *)ndarray))
		return NULL;
	base = PyObject_GetAttr(array, base_name);
	if (!base)
		return NULL;
	block = (struct block *)base;
	if (Py_TYPE(base) == &block_type && block->calls && block->head_bytes &&
	    block->calls->window == r->caller->calls->window)
		offset = block_give(block);
	Py_DECREF(base);
	return offset ? PyLong_FromUnsignedLong(offset) : NULL;
}

/* array_look(core, window, has_oracle, offset): not to be freed by who looks */
PyObject *array_look(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	u64 offset, room;

	(void)module;
	if (nargs != 4 || Py_TYPE(args[0]) != &core_type || Py_TYPE(args[1]) != &window_type || !ndarray) {
		PyErr_SetString(PyExc_TypeError, "array_look takes a Core, a Window, whether there is an oracle, an offset");
		return NULL;
	}
	room = as_u64(args[3], &offset) ? room_at((struct core *)args[0], args[2] == Py_True, offset) : 0;
	if (!room)
		Py_RETURN_NONE;
	return array_from(NULL, (struct window *)args[1], offset, room);
}

const struct kind array_kinds[] = {
	{ "empty", { "shape", "dtype", "gfp", "node" }, NULL, run_empty, "kmalloc_node", NULL, NULL },
	{ "take", { "offset" }, NULL, run_take, NULL, NULL, NULL },
	{ "array", { "offset", "shape", "dtype" }, NULL, run_array, NULL, NULL, NULL },
	{ "give", { "array" }, NULL, run_give, NULL, NULL, NULL },
	{ 0 }
};
