/* SPDX-License-Identifier: MIT */
#ifndef SHM_SLOTS_H
#define SHM_SLOTS_H

#include "core.h"

#define SLOT_OFFSET ((1ull << 48) - 1)
#define SLOT_ORDER_SHIFT 48
#define SLOT_PAGES (1ull << 53)
#define SLOT_PATTERN (1ull << 54)
#define SLOT_DESIGN_SHIFT 56

/* what surrounds the ops of one array */
struct runner {
	u64 *slots;
	u64 nr_slots;
	u32 design;
	u32 flags;
	bool atomic;     /* the program may interrupt itself: private slots are exchanged, too */
};

bool constructed(u64 off);
void bad_free(u64 off);
u64 pattern_write(u32 flags, u64 off, u64 bytes);
void pattern_check(u64 off);
void slot_store(const struct runner *r, const struct shm_op *op, u64 value);
bool free_value(u32 design, u64 value);

__helper u64 slot_take(const struct runner *r, const struct shm_op *op)
{
	u64 value;

	if (op->flags & OPF_SHARED)
		return op->slot < shm.nr_slots ? xchg(&shm.slots[op->slot], 0) : 0;
	if (op->slot >= r->nr_slots)
		return 0;
	if (r->atomic)
		return xchg(&r->slots[op->slot], 0);
	value = r->slots[op->slot];
	r->slots[op->slot] = 0;
	return value;
}

__helper u64 slot_put(const struct runner *r, const struct shm_op *op, u64 value)
{
	if (op->flags & OPF_SHARED)
		return op->slot < shm.nr_slots ? xchg(&shm.slots[op->slot], value) : value;
	if (op->slot >= r->nr_slots)
		return value;
	if (r->atomic)
		return xchg(&r->slots[op->slot], value);
	r->slots[op->slot] = value;
	return 0;
}

__helper bool slot_filled(const struct runner *r, const struct shm_op *op)
{
	if (op->flags & OPF_SHARED)
		return op->slot < shm.nr_slots && READ_ONCE(shm.slots[op->slot]);
	return op->slot < r->nr_slots && r->slots[op->slot];
}

#endif
