/* SPDX-License-Identifier: MIT */
/* Two values meet in a shared slot, and the design that finds them can free neither: none is lost. */
#include "check.h"
#include "design.h"
#include "slots.h"

static u64 value_of(u64 off)
{
	return off | (u64)DESIGN_kmalloc << SLOT_DESIGN_SHIFT;
}

int main(void)
{
	struct shm_geometry g = small_geometry(8 << 20, 1);
	const struct runner prealloc = { .design = DESIGN_prealloc };
	const struct shm_op op = { .code = OP_FREE, .flags = OPF_SHARED, .node = -1, .slot = 1 };
	void *base;
	u64 first, second;

	g.nr_slots = 3;
	base = make_arena(&g);
	first = shm_kmalloc(64, GFP_KERNEL);
	second = shm_kmalloc(64, GFP_KERNEL);
	CHECK(first && second);
	shm.slots[op.slot] = value_of(first);
	slot_store(&prealloc, &op, value_of(second));
	CHECK(shm.slots[0] && shm.slots[1] && shm.slots[0] != shm.slots[1]);
	CHECK(shm_drain_shared_slots(0, g.nr_slots) == 2);
	CHECK(shm_kfree(first) == -EINVAL);
	CHECK(shm_kfree(second) == -EINVAL);
	drop_arena(base, &g);
	return 0;
}
