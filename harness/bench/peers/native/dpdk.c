/* SPDX-License-Identifier: MIT */
/*
 * DPDK's mempool: objects of one size in a ring, and a cache for each lcore before it.
 *
 * Without hugepages (--no-huge) DPDK has one process only, so the sides are threads, each registered as an lcore of its
 * own.  It shares no files (--no-shconf); the folder that it makes for them all the same, the parent names in
 * RUNTIME_DIRECTORY.
 * The pool's ring is linked in: as a plugin of DPDK's it would bring all drivers with it.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_mempool.h>

#include "subject.h"

#define CACHE_OBJECTS RTE_MEMPOOL_CACHE_MAX_SIZE

static struct rte_mempool *pool;
static int in_use[2];             /* of side 1: whether it is registered */

static int first_core(const cpu_set_t *cores)
{
	int core = 0;

	while (core < CPU_SETSIZE - 1 && !CPU_ISSET(core, cores))
		core++;
	return core;
}

/* DPDK pins the thread that it is begun on, and logs to stdout and stderr. */
static int begin(uint64_t megabytes)
{
	char lcores[32], memory[32];
	char *words[] = { "shmalloc-bench", "--no-huge", "--no-shconf", "--no-pci", "--no-telemetry", "--log-level=3",
		lcores, "-m", memory, NULL };
	cpu_set_t cores;
	int done;

	if (sched_getaffinity(0, sizeof(cores), &cores))
		return -1;
	snprintf(lcores, sizeof(lcores), "--lcores=0@%d", first_core(&cores));
	snprintf(memory, sizeof(memory), "%llu", (unsigned long long)megabytes);
	done = rte_eal_init(sizeof(words) / sizeof(words[0]) - 1, words);
	sched_setaffinity(0, sizeof(cores), &cores);
	return done;
}

static int setup(const struct subject_options *options, const char **why)
{
	/* what lies in the caches is nobody's to take */
	uint64_t objects = options->objects + 2 * options->sides * CACHE_OBJECTS;
	uint64_t bytes = objects * (options->object_bytes + 128);

	if (begin(64 + (bytes >> 19)) < 0) {
		*why = rte_strerror(rte_errno);
		return -rte_errno;
	}
	pool = rte_mempool_create("bench", (unsigned int)objects, (unsigned int)options->object_bytes, CACHE_OBJECTS, 0,
		NULL, NULL, NULL, NULL, SOCKET_ID_ANY, 0);
	if (!pool) {
		*why = rte_strerror(rte_errno);
		return -rte_errno;
	}
	return 0;
}

/* Side 0 is on the thread that has begun DPDK, or registers as all others do. */
static int join(unsigned int side, const char **why)
{
	if (rte_lcore_id() != LCORE_ID_ANY)
		return 0;
	if (rte_thread_register()) {
		*why = rte_strerror(rte_errno);
		return -rte_errno;
	}
	in_use[side] = 1;
	return 0;
}

static void leave(unsigned int side)
{
	if (in_use[side])
		rte_thread_unregister();
	in_use[side] = 0;
}

static void teardown(void)
{
	rte_mempool_free(pool);
	rte_eal_cleanup();
}

static uint64_t get(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	void *object;

	(void)bytes;
	(void)arg1;
	(void)arg2;
	return rte_mempool_get(pool, &object) ? 0 : (uint64_t)object;
}

static void put(uint64_t handle, uint64_t arg1, uint64_t arg2)
{
	(void)arg1;
	(void)arg2;
	rte_mempool_put(pool, (void *)handle);
}

static const struct subject subjects[] = {
	{
		.abi = SUBJECT_ABI,
		.flags = SUBJECT_FIXED,
		.name = "dpdk",
		.summary = "DPDK mempool with a cache per lcore, --no-huge",
		.setup = setup,
		.join = join,
		.leave = leave,
		.teardown = teardown,
		.alloc = get,
		.free = put,
	},
};

SUBJECTS(subjects);
