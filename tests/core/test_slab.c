/* SPDX-License-Identifier: MIT */
/* Every size class, two CPUs, frees on the other CPU, caches made and destroyed; all pages come back. */
#include <string.h>
#include "check.h"

#define OBJECTS 2003

static u64 objects[OBJECTS];

/* Write the whole object, so that an overlap or a link in a live object is seen. */
static void fill(u64 off, u64 bytes, u32 key)
{
	memset(ptr_of(off), (int)(key & 0xff), bytes);
}

static void check_fill(u64 off, u64 bytes, u32 key)
{
	const u8 *p = ptr_of(off);

	for (u64 i = 0; i < bytes; i++)
		CHECK(p[i] == (u8)key);
}

static void test_size(u64 size, bool nolock)
{
	for (u32 i = 0; i < OBJECTS; i++) {
		CHECK(shm_cpu_switch(i & 1) == 0);
		objects[i] = nolock ? shm_kmalloc_nolock(size, 0, -1) : shm_kmalloc(size, GFP_KERNEL);
		if (!objects[i])
			CHECK(shm_last_reason() == REASON_BELOW_WATERMARK);
		else
			fill(objects[i], size, i);
	}
	for (u32 i = 0; i < OBJECTS; i++) {
		if (!objects[i])
			continue;
		check_fill(objects[i], size, i);
		CHECK(shm_cpu_switch(i >> 1 & 1) == 0);
		CHECK((nolock ? shm_kfree_nolock : shm_kfree)(objects[i]) == 0);
	}
	CHECK(shm_cpu_switch(0) == 0);
}

static void test_cache(u32 flags, u32 ctor)
{
	int cache = shm_kmem_cache_create("test-cache", 88, 0, flags, ctor);

	CHECK(cache >= 0);
	CHECK(shm_kmem_cache_create("test-cache", 88, 0, flags, ctor) == -EEXIST);
	for (u32 i = 0; i < OBJECTS; i++) {
		objects[i] = shm_kmem_cache_alloc((u32)cache, GFP_KERNEL, -1);
		CHECK(objects[i]);
	}
	for (u32 i = 0; i < OBJECTS; i++)
		CHECK(shm_kmem_cache_free((u32)cache, objects[i]) == 0);
	CHECK(shm_kmem_cache_free((u32)cache, objects[0]) == -EINVAL);
	CHECK(shm_kmem_cache_destroy((u32)cache) == 0);
}

static void test_krealloc(void)
{
	u64 off = shm_kmalloc(48, GFP_KERNEL), grown;

	fill(off, 48, 7);
	CHECK(shm_krealloc(off, 40, GFP_KERNEL) == off);
	CHECK(shm_ksize(off) == 64);
	grown = shm_krealloc(off, 9000, GFP_KERNEL);
	CHECK(grown && grown != off && shm_ksize(grown) == 16384);
	check_fill(grown, 40, 7);
	CHECK(shm_kfree(off) == -EINVAL);
	CHECK(shm_kfree(grown) == 0);
}

int main(void)
{
	struct shm_geometry g = small_geometry(32 << 20, 2);
	void *base;
	u64 before;

	g.flags |= SHM_GEO_FREELIST_RANDOM | SHM_GEO_FREELIST_HARDENED;
	base = make_arena(&g);
	before = free_pages_total();
	for (u64 size = 1; size <= KMALLOC_MAX_CACHE_SIZE; size = size * 3 / 2 + 1) {
		test_size(size, false);
		test_size(size, true);
	}
	test_cache(0, 0);
	test_cache(SLAB_HWCACHE_ALIGN, 1);
	test_cache(SLAB_TYPESAFE_BY_RCU, 0);
	test_cache(SLAB_CONSISTENCY_CHECKS | SLAB_STORE_USER, 0);
	test_krealloc();
	CHECK(shm_run_irq_work() == 0);
	CHECK(shm_flush_all(~0u) == 0);
	for (u32 i = 0; i < shm.hdr->nr_caches; i++)
		if (shm.caches[i].state == CACHE_LIVE)
			CHECK(shm_kmem_cache_shrink(i) == 0);
	CHECK(free_pages_total() == before);
	drop_arena(base, &g);
	return 0;
}
