/* SPDX-License-Identifier: MIT */
/* An NMI sent from an NMI's handler: it waits for the handler's end, unless NMIs are told to nest. */
#include "check.h"

/* the first interrupt sends the second, which allocates */
static const struct shm_op ops[] = {
	{ .code = OP_NMI, .node = -1 },
	{ .code = OP_ALLOC, .size = 64, .node = -1 },
};

static void run(u32 flags, u64 nested)
{
	struct shm_geometry g = small_geometry(8 << 20, 1);
	void *base = mmap(NULL, g.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	u64 slots[1] = { 0 };
	struct shm_program program = { ops, ARRAY_SIZE(ops), 1, slots, 1, 1, SHM_REPLAY_PATTERN };

	CHECK(base != MAP_FAILED);
	CHECK(shm_arena_format(base, &g) == 0 && shm_attach(base, g.size_bytes) == 0);
	CHECK(shm_cpu_bind(0, SHM_BIND_HANDLERS | flags) == 0);
	CHECK(shm_set_program(KIND_NMI, &program) == 0);
	CHECK(shm_send_interrupt(0, KIND_NMI) == 0);
	CHECK(shm.tele->interrupts[KIND_NMI].handled == 2);
	CHECK(shm.tele->interrupts[KIND_NMI].nested == nested);
	CHECK(slots[0] && shm_drain_slots(slots, 1) == 1);
	CHECK(this_cpu()->level == 0 && !this_cpu()->irqs_disabled);
	drop_arena(base, &g);
}

int main(void)
{
	run(0, 0);
	run(SHM_BIND_NEST, 1);
	return 0;
}
