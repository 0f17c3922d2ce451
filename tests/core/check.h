/* SPDX-License-Identifier: MIT */
/* A test is a program: CHECK prints what failed and ends it with status 1. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "core.h"

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

static inline struct shm_geometry small_geometry(u64 bytes, u32 cpus)
{
	struct shm_geometry g = {
		.size_bytes = bytes,
		.seed = 23,
		.nr_cpus = cpus,
		.nr_nodes = 1,
		.max_caches = 64,
		.pageblock_order = 5,
		.watermark_scale_factor = 10,
		.slab_max_order = 3,
		.flags = SHM_GEO_ORACLE,
	};

	g.zone_permille[0][ZONE_NORMAL] = 1000;
	g.distance[0][0] = 10;
	return g;
}

/* An arena of this process alone, attached, every CPU bound to this thread, CPU 0 current. */
static inline void *make_arena(const struct shm_geometry *g)
{
	void *base = mmap(NULL, g->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(base != MAP_FAILED);
	CHECK(shm_arena_format(base, g) == 0);
	CHECK(shm_attach(base, g->size_bytes) == 0);
	for (u32 cpu = g->nr_cpus; cpu-- > 0;)
		CHECK(shm_cpu_bind(cpu, cpu ? 0 : SHM_BIND_HANDLERS) == 0);
	return base;
}

static inline void drop_arena(void *base, const struct shm_geometry *g)
{
	CHECK(shm.hdr->nr_violations == 0);
	CHECK(shm_detach() == 0);
	munmap(base, g->size_bytes);
}

/* Pages that are free: on the buddy lists and on the pagesets. */
static inline u64 free_pages_total(void)
{
	u64 total = 0;

	for (u32 z = 0; z < shm.nr_zones; z++) {
		total += shm.zones[z].free_pages;
		for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
			total += (u64)shm.pagesets[z * shm.nr_cpus + cpu].count;
	}
	return total;
}

#endif
