/* SPDX-License-Identifier: MIT */
/* What begins in a pool is told from what does not, at every offset; a mark in front of an object from anything else. */
#include "check.h"
#include "design.h"

#define ENTRIES 101
#define CPUS 3

static const u32 pool_sizes[] = { 8, 24, 40, 104, 192, 1000, 4096, 4104, 12296, 65536 };

static bool among(const u64 *objects, u64 off)
{
	for (u32 i = 0; i < ENTRIES; i++)
		if (objects[i] == off)
			return true;
	return false;
}

/* All of them are out.  Around each nothing is one but those that were handed out; then these are, once. */
static void test_starts(u32 design, u32 size)
{
	u64 objects[ENTRIES];

	for (u32 i = 0; i < ENTRIES; i++) {
		objects[i] = shm_design_alloc(design, size, 0, SHM_NO_NODE);
		CHECK(objects[i]);
	}
	CHECK(!shm_design_alloc(design, size, 0, SHM_NO_NODE));
	for (u32 i = 0; i < ENTRIES; i++) {
		u64 step = size > 4096 ? 8 * 37 : 8;

		for (u64 off = objects[i] - size; off <= objects[i] + 2ull * size; off += step)
			if (!among(objects, off))
				CHECK(shm_design_free(design, off) == -EINVAL);
		for (u32 by = 1; by < 8; by++)
			CHECK(shm_design_free(design, objects[i] + by) == -EINVAL);
		CHECK(shm_design_free(design, objects[i] + (1ull << 32)) == -EINVAL);
		CHECK(shm_design_free(design, objects[i] - (1ull << 32)) == -EINVAL);
	}
	for (u32 i = 0; i < ENTRIES; i++) {
		CHECK(shm_cpu_switch(i % CPUS) == 0); /* whoever's it is */
		CHECK(shm_design_free(design, objects[i]) == 0);
	}
	CHECK(shm_cpu_switch(0) == 0);
}

static void test_size(u32 size)
{
	static const u32 designs_of_pools[] = { DESIGN_prealloc, DESIGN_objpool };
	struct shm_geometry g = small_geometry(64 << 20, CPUS);
	void *base;
	u64 before;

	g.flags = 0; /* the oracle knows what is live without asking the pools */
	g.pool_size = size;
	g.pool_entries = ENTRIES;
	base = make_arena(&g);
	before = free_pages_total();
	for (u32 i = 0; i < ARRAY_SIZE(designs_of_pools); i++) {
		CHECK(shm_design_free(designs_of_pools[i], shm.mem_off) == -EINVAL);
		CHECK(shm_design_setup(designs_of_pools[i]) == 0);
		for (u32 round = 0; round < 2; round++)
			test_starts(designs_of_pools[i], size);
		CHECK(shm_design_teardown(designs_of_pools[i]) == 0);
	}
	CHECK(free_pages_total() == before);
	drop_arena(base, &g);
}

static void test_marks(void)
{
	struct shm_geometry g = small_geometry(64 << 20, CPUS);
	u64 object, remote, mark, region, bytes, *header;
	void *base;

	g.flags = 0;
	g.max_maps = 1;
	g.bpf_low_bytes = 1024;
	base = make_arena(&g);
	CHECK(shm_design_free(DESIGN_bpf_mem_alloc, shm.mem_off) == -EINVAL); /* no header fits before it */
	CHECK(shm_design_setup(DESIGN_bpf_mem_alloc) == 0);
	region = shm.hdr->regions[REGION_BPF_CACHES].offset;
	bytes = shm.hdr->regions[REGION_BPF_CACHES].bytes;
	object = shm_design_alloc(DESIGN_bpf_mem_alloc, 100, 0, SHM_NO_NODE);
	CHECK(object);
	header = ptr_of(object - 8);
	mark = *header;
	CHECK(mark >= region && mark < region + bytes);
	for (u64 forged = region - 192; forged <= region + bytes + 192; forged += 8) {
		const struct bpf_mem_cache *c = ptr_of(forged);

		if (forged >= region && forged < region + bytes && (forged - region) % sizeof(*c) == 0 && c->unit_size)
			continue;
		*header = forged;
		CHECK(shm_design_free(DESIGN_bpf_mem_alloc, object) == -EINVAL);
	}
	*header = mark;
	CHECK(shm_design_free(DESIGN_bpf_mem_alloc, object + 8) == -EINVAL);
	CHECK(shm_design_free(DESIGN_bpf_mem_alloc, object + 4) == -EINVAL);
	CHECK(shm_cpu_switch(1) == 0);
	remote = shm_design_alloc(DESIGN_bpf_mem_alloc, 100, 0, SHM_NO_NODE);
	CHECK(remote && *(u64 *)ptr_of(remote - 8) != mark);
	CHECK(shm_design_free(DESIGN_bpf_mem_alloc, object) == 0); /* to CPU 1's list of that size */
	CHECK(shm_design_free(DESIGN_bpf_mem_alloc, object) == -EINVAL); /* its header is a link now */
	CHECK(shm_design_alloc(DESIGN_bpf_mem_alloc, 100, 0, SHM_NO_NODE) == object);
	CHECK(shm_design_free(DESIGN_bpf_mem_alloc, object) == 0);
	CHECK(shm_cpu_switch(0) == 0);
	CHECK(shm_design_free(DESIGN_bpf_mem_alloc, remote) == 0);
	CHECK(shm_design_teardown(DESIGN_bpf_mem_alloc) == 0);
	drop_arena(base, &g);
}

int main(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(pool_sizes); i++)
		test_size(pool_sizes[i]);
	test_marks();
	return 0;
}
