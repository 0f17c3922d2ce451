/* SPDX-License-Identifier: MIT */
/* The page allocator down to the last page and back: every order, both entries, nothing lost. */
#include "check.h"

static u64 taken[65536];

/*
 * Take blocks of one order until there are none; returns how many.  Not GFP_ATOMIC: for orders above 0
 * that would set a pageblock apart for urgent requests, which does not merge with others.
 */
static u32 exhaust(u32 order, bool nolock)
{
	u32 n = 0;

	for (;;) {
		u64 off = nolock ? shm_alloc_pages_nolock(0, -1, order) : shm_alloc_pages(GFP_NOWAIT, -1, order);

		if (!off)
			return n;
		CHECK(n < ARRAY_SIZE(taken));
		taken[n++] = off;
	}
}

static void test_order(u32 order, bool nolock)
{
	u64 before = free_pages_total();
	u32 n = exhaust(order, nolock);

	CHECK(nolock && order > 3 && order != 9 ? !n && shm_last_reason() == REASON_ORDER_LIMIT :
		      n && shm_last_reason() == REASON_BELOW_WATERMARK);
	CHECK(free_pages_total() == before - ((u64)n << order));
	for (u32 i = 0; i < n; i++) {
		CHECK((nolock ? shm_free_pages_nolock : shm_free_pages)(taken[i], order) == 0);
		CHECK(shm_free_pages(taken[i], order) == -EINVAL);
	}
	CHECK(free_pages_total() == before);
	CHECK(shm_drain_pages() == 0);
}

/* After a drain everything has merged again into the blocks of the largest order. */
static void test_merged(u64 free_at_start, const u64 *nr_free)
{
	CHECK(shm.zones[0].free_pages == free_at_start);
	for (u32 order = 0; order < SHM_NR_ORDERS; order++)
		CHECK(shm.zones[0].free_area[order].nr_free == nr_free[order]);
}

int main(void)
{
	struct shm_geometry g = small_geometry(32 << 20, 2);
	void *base = make_arena(&g);
	u64 free_at_start = shm.zones[0].free_pages, nr_free[SHM_NR_ORDERS];

	for (u32 order = 0; order < SHM_NR_ORDERS; order++)
		nr_free[order] = shm.zones[0].free_area[order].nr_free;
	for (u32 order = 0; order < SHM_NR_ORDERS; order++) {
		test_order(order, false);
		test_order(order, true);
	}
	test_merged(free_at_start, nr_free);
	CHECK(shm_alloc_pages(GFP_KERNEL, -1, 11) == 0);
	CHECK(shm_last_reason() == REASON_ORDER_LIMIT);
	drop_arena(base, &g);
	return 0;
}
