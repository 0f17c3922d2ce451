/* SPDX-License-Identifier: MIT */
/*
 * The designs, as a C program meets them: libshmalloc.so, an arena in a memfd, a process for each CPU, each of
 * which maps it where there is room.  The oracle is off, as whoever uses it as an allocator has it; everything
 * else is as shipped, interrupt handlers installed.
 *
 * Designs with an entry of their own are called there, the others through shm_design_alloc; sheaves by the calls
 * for programs, which signal handlers make without a word.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"
#include "gfp.h"
#include "api.h"
#include "subject.h"

#define DESIGN(name) DESIGN_##name,
enum shm_design {
#include "designs.def"
	NR_DESIGNS
};
#undef DESIGN

#define MIB (1ull << 20)
#define CPUS 2u
#define EXTRA 64u     /* objects more than can be live: the other CPU may have some on their way back */
#define ARENA_MIB 64u /* beside the objects */
#define PROGRAM_SHEAVES 8u /* as arenas are that programs make: theirs hold so many times what the kernel's do */

static int memfd = -1;
static uint64_t arena_bytes;
static uint32_t sheaf_factor;
static char *arena;

/* What Python's Geometry has where nothing is said, for kernel "6.18" or "7.0". */
static struct shm_geometry geometry_for(const struct subject_options *options, uint32_t flags)
{
	uint64_t objects = CPUS * (options->objects + EXTRA);
	struct shm_geometry g = {
		.size_bytes = (ARENA_MIB + 2 * objects * options->object_bytes / MIB) * MIB,
		.nr_cpus = CPUS,
		.nr_nodes = 1,
		.max_caches = 64,
		.pageblock_order = 9,
		.watermark_scale_factor = 10,
		.slab_max_order = 3,
		.flags = flags,
		.bpf_low_bytes = 8192,
		.rcu_gp_us = 3000,
		.rcu_stall_ms = 21000,
		.pool_size = (uint32_t)(options->object_bytes + 7) & ~7u,
		.pool_entries = (uint32_t)objects,
		.max_maps = 4,
		.max_memcgs = 16,
		.sheaf_factor = sheaf_factor,
	};

	if (g.pool_size > SHM_MAX_POOL_SIZE)
		g.pool_size = SHM_MAX_POOL_SIZE;
	if (g.pool_entries > SHM_MAX_POOL_ENTRIES)
		g.pool_entries = SHM_MAX_POOL_ENTRIES;
	g.zone_permille[0][ZONE_NORMAL] = 1000;
	g.distance[0][0] = 10;
	return g;
}

static char *map(void)
{
	void *p = mmap(NULL, arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int make(const struct subject_options *options, uint32_t flags, const char **why)
{
	struct shm_geometry geometry = geometry_for(options, flags);
	int error;

	arena_bytes = geometry.size_bytes;
	memfd = memfd_create("shmalloc-bench", MFD_CLOEXEC);
	if (memfd < 0 || ftruncate(memfd, (off_t)arena_bytes) || !(arena = map())) {
		*why = "no memory for an arena";
		return -errno;
	}
	error = shm_arena_format(arena, &geometry);
	if (error)
		*why = "the core refuses the geometry";
	munmap(arena, arena_bytes); /* whoever joins maps it anew */
	return error;
}

static int setup_6_18(const struct subject_options *options, const char **why)
{
	return make(options, 0, why);
}

static int setup_7_0(const struct subject_options *options, const char **why)
{
	sheaf_factor = PROGRAM_SHEAVES;
	return make(options, SHM_GEO_SHEAVES, why);
}

static int setup_7_0_kernel(const struct subject_options *options, const char **why)
{
	return make(options, SHM_GEO_SHEAVES, why);
}

static int become_cpu(unsigned int cpu, const char **why)
{
	int error;

	arena = map();
	if (!arena)
		return -errno;
	error = shm_attach(arena, arena_bytes);
	if (!error)
		error = shm_cpu_bind(cpu, SHM_BIND_HANDLERS);
	if (error)
		*why = "the arena cannot be attached";
	return error;
}

static void leave(unsigned int cpu)
{
	shm_cpu_unbind(cpu);
	shm_detach();
}

static uint64_t base(void)
{
	return (uint64_t)(uintptr_t)arena;
}

static const char *verdict(void)
{
	const struct shm_header *header = (const struct shm_header *)arena;

	return header->nr_violations ? shm_verdict_name(header->violations[0].verdict) : NULL;
}

/* The storm's signal is an NMI to designs that are for any context; to kmalloc and its like it is what it is to malloc. */
static int level_before;

static void handler_enter(void)
{
	level_before = shm_handler_enter();
}

static void handler_exit(void)
{
	shm_handler_leave(level_before);
}

#define ANY_CONTEXT .handler_enter = handler_enter, .handler_exit = handler_exit

#define DESIGN(name) \
	static int name##_join(unsigned int cpu, const char **why) \
	{ \
		int error = become_cpu(cpu, why); \
\
		if (!error && !cpu) \
			error = shm_design_setup(DESIGN_##name); \
		return error; \
	}
#include "designs.def"
#undef DESIGN

#define CALLS(name) \
	static uint64_t name##_alloc(uint64_t bytes, uint64_t gfp, uint64_t node) \
	{ \
		return shm_design_alloc(DESIGN_##name, bytes, (uint32_t)gfp, (int)node); \
	} \
\
	static void name##_free(uint64_t off, uint64_t arg1, uint64_t arg2) \
	{ \
		(void)arg1, (void)arg2; \
		shm_design_free(DESIGN_##name, off); \
	}
CALLS(try_kmalloc)
CALLS(bpf_mem_alloc)
CALLS(no_prealloc)
CALLS(prealloc)
CALLS(objpool)

#define ANY_NODE ((uint64_t)-1)

#define COMMON(design, gfp, what) \
	.abi = SUBJECT_ABI, .name = #design, .summary = what, .join = design##_join, .leave = leave, .base = base, \
	.verdict = verdict, .alloc_args = { gfp, ANY_NODE }

#define THROUGH_TABLE(design) .alloc = design##_alloc, .free = design##_free

static const struct subject subjects[NR_DESIGNS + 1] = {
	[DESIGN_kmalloc] = {
		COMMON(kmalloc, GFP_KERNEL, "kmalloc of Linux 6.18"),
		.flags = SUBJECT_SHARED,
		.setup = setup_6_18,
		.alloc = (subject_alloc *)(void *)shm_kmalloc,
		.free = (subject_free *)(void *)shm_kfree,
	},
	[DESIGN_kmalloc_nolock] = {
		COMMON(kmalloc_nolock, 0, "kmalloc_nolock of Linux 6.18"),
		.flags = SUBJECT_SHARED,
		.max_bytes = 8192,
		.setup = setup_6_18,
		.alloc = (subject_alloc *)(void *)shm_kmalloc_nolock,
		.free = (subject_free *)(void *)shm_kfree_nolock,
		ANY_CONTEXT,
	},
	[DESIGN_try_kmalloc] = {
		COMMON(try_kmalloc, GFP_KERNEL, "the plan of the talk"),
		.flags = SUBJECT_SHARED,
		.max_bytes = 8192,
		.setup = setup_6_18,
		THROUGH_TABLE(try_kmalloc),
		ANY_CONTEXT,
	},
	[DESIGN_bpf_mem_alloc] = {
		COMMON(bpf_mem_alloc, GFP_KERNEL, "the BPF allocator"),
		.flags = SUBJECT_SHARED,
		.max_bytes = 4096 - 8, /* its header */
		.setup = setup_6_18,
		THROUGH_TABLE(bpf_mem_alloc),
		ANY_CONTEXT,
	},
	[DESIGN_no_prealloc] = {
		COMMON(no_prealloc, GFP_KERNEL, "BPF's way without preallocation"),
		.flags = SUBJECT_SHARED,
		.max_bytes = 8192,
		.setup = setup_6_18,
		THROUGH_TABLE(no_prealloc),
	},
	[DESIGN_prealloc] = {
		COMMON(prealloc, GFP_KERNEL, "preallocated per-CPU freelists"),
		.flags = SUBJECT_SHARED | SUBJECT_FIXED,
		.max_bytes = SHM_MAX_POOL_SIZE,
		.setup = setup_6_18,
		THROUGH_TABLE(prealloc),
		ANY_CONTEXT,
	},
	[DESIGN_objpool] = {
		COMMON(objpool, GFP_KERNEL, "per-CPU rings"),
		.flags = SUBJECT_SHARED | SUBJECT_FIXED,
		.max_bytes = SHM_MAX_POOL_SIZE,
		.setup = setup_6_18,
		THROUGH_TABLE(objpool),
		ANY_CONTEXT,
	},
	[DESIGN_sheaves] = {
		COMMON(sheaves, GFP_KERNEL, "per-CPU sheaves and barns of Linux 7.0, of eight times the kernel's capacity"),
		.flags = SUBJECT_SHARED,
		.setup = setup_7_0,
		.alloc = (subject_alloc *)(void *)shm_malloc,
		.free = (subject_free *)(void *)shm_free,
	},
	[NR_DESIGNS] = {
		.abi = SUBJECT_ABI,
		.name = "sheaves_kernel",
		.summary = "per-CPU sheaves and barns of Linux 7.0, of the kernel's capacity",
		.flags = SUBJECT_SHARED,
		.setup = setup_7_0_kernel,
		.join = sheaves_join,
		.leave = leave,
		.base = base,
		.verdict = verdict,
		.alloc = (subject_alloc *)(void *)shm_malloc,
		.free = (subject_free *)(void *)shm_free,
	},
};

SUBJECTS(subjects);
