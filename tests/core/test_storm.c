/* SPDX-License-Identifier: MIT */
/* Real signals: a replay under an NMI and an IRQ timer whose handlers allocate; nothing is lost. */
#include "check.h"

#define OPS 4001
#define SLOTS 251
#define HANDLER_OPS 7
#define REPLAYED 400003

static struct shm_op ops[OPS], handler_ops[HANDLER_OPS];
static u64 slots[SLOTS], nmi_slots[HANDLER_OPS], irq_slots[HANDLER_OPS];

static void make_ops(void)
{
	u64 seed = 101;

	for (u32 i = 0; i < OPS; i++) {
		u64 r = random_next(&seed);

		ops[i] = (struct shm_op){ .code = r & 1 ? OP_ALLOC : OP_FREE, .slot = (u32)(r >> 8) % SLOTS,
					  .size = 1 + (u32)(r >> 32) % 2048, .gfp = GFP_KERNEL, .node = -1 };
	}
	for (u32 i = 0; i < HANDLER_OPS; i++)
		handler_ops[i] = (struct shm_op){ .code = i & 1 ? OP_FREE : OP_ALLOC, .slot = i / 2,
						  .size = 64u << i, .node = -1, .flags = i % 3 ? 0 : OPF_SAME };
}

static void run(u32 design)
{
	struct shm_program nmi = { handler_ops, HANDLER_OPS, 3, nmi_slots, HANDLER_OPS, 1,
				   SHM_REPLAY_PATTERN };
	struct shm_program irq = { handler_ops, HANDLER_OPS, 2, irq_slots, HANDLER_OPS, design,
				   SHM_REPLAY_PATTERN };
	struct shm_replay replay = { .ops = ops, .nr_ops = OPS, .max_ops = REPLAYED, .slots = slots,
				     .nr_slots = SLOTS, .design = design, .sample = 61,
				     .flags = SHM_REPLAY_PATTERN };

	CHECK(shm_set_program(KIND_NMI, &nmi) == 0 && shm_set_program(KIND_IRQ, &irq) == 0);
	CHECK(shm_set_timer(KIND_NMI, 7000, 0.5) == 0 && shm_set_timer(KIND_IRQ, 3000, 0.5) == 0);
	/* as long as it takes: what counts is that interrupts landed, not when */
	do
		CHECK(shm_replay(&replay) == 0 && replay.done == REPLAYED);
	while (!shm.tele->interrupts[KIND_NMI].in_slow_path || !shm.tele->interrupts[KIND_IRQ].in_allocator);
	CHECK(shm_set_timer(KIND_NMI, 0, 0) == 0 && shm_set_timer(KIND_IRQ, 0, 0) == 0);
	CHECK(shm_set_program(KIND_NMI, NULL) == 0 && shm_set_program(KIND_IRQ, NULL) == 0);
	CHECK(shm_drain_slots(slots, SLOTS) >= 0);
	CHECK(shm_drain_slots(nmi_slots, HANDLER_OPS) >= 0 && shm_drain_slots(irq_slots, HANDLER_OPS) >= 0);
	CHECK(shm_run_irq_work() == 0 && shm_irq_pending() == 0);
}

int main(void)
{
	struct shm_geometry g = small_geometry(32 << 20, 1);
	void *base = make_arena(&g);
	u64 before = free_pages_total();

	make_ops();
	run(0);
	run(1);
	CHECK(shm_flush_all(~0u) == 0);
	for (u32 i = 0; i < shm.hdr->nr_caches; i++)
		CHECK(shm_kmem_cache_shrink(i) == 0);
	CHECK(free_pages_total() == before);
	drop_arena(base, &g);
	return 0;
}
