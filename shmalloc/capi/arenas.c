/* SPDX-License-Identifier: MIT */
/*
 * Arenas for C programs: made without a name and named when they are complete, or found by name.
 * Context: set-up, task.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "capi.h"

#define DEFAULT_CPUS 16
#define DEFAULT_CACHES 32
#define MAX_CACHES 1000
#define MAX_FACTOR 8u
#define FACTOR_BYTES (8ull << 20)
#define FLAGS (SHMALLOC_SPARSE | SHMALLOC_ORACLE | SHMALLOC_LINUX_6_18)
#define MODE 0600 /* as Python's */
#define PATH_BYTES (sizeof(SHM_DIRECTORY) + 256)

/* The file that a name stands for; false: it cannot be a segment's. */
static bool path_of(const char *name, char *path)
{
	const char *bare = name && *name == '/' ? name + 1 : name;

	if (!bare || !*bare || strchr(bare, '/') || !strcmp(bare, ".") || !strcmp(bare, "..") || strlen(bare) >= 255)
		return false;
	snprintf(path, PATH_BYTES, "%s/%s", SHM_DIRECTORY, bare);
	return true;
}

static int bad_name(const char *name)
{
	return failed(-EINVAL, "name = \"%s\": allowed are 1 to 254 characters, and no slash but the first",
		      name ? name : "(null)");
}

/* --- what to make ------------------------------------------------------------------------------------- */

static int check_options(const struct shmalloc_options *o)
{
	if (o->flags & ~FLAGS)
		return failed(-EINVAL, "options.flags = %#x: allowed are the bits %#x", o->flags, FLAGS);
	if (o->cpus > SHM_MAX_CPUS)
		return failed(-EINVAL, "options.cpus = %u: allowed are 1 to %d, and 0 for %d", o->cpus, SHM_MAX_CPUS,
			      DEFAULT_CPUS);
	if (o->caches > MAX_CACHES)
		return failed(-EINVAL, "options.caches = %u: allowed are 1 to %d, and 0 for %d", o->caches, MAX_CACHES,
			      DEFAULT_CACHES);
	if (o->sheaf_factor > SHM_MAX_SHEAF_FACTOR)
		return failed(-EINVAL, "options.sheaf_factor = %u: allowed are 1 to %d, and 0", o->sheaf_factor,
			      SHM_MAX_SHEAF_FACTOR);
	for (size_t i = 0; i < ARRAY_SIZE(o->reserved); i++)
		if (o->reserved[i])
			return failed(-EINVAL, "options.reserved[%zu] = %u: allowed is 0", i, o->reserved[i]);
	return 0;
}

/* As much as does not hoard a small arena away: what lies in sheaves is free, but not for the other CPUs. */
static u32 factor_for(u64 bytes)
{
	u32 factor = MAX_FACTOR;

	while (factor > 1 && bytes / factor < FACTOR_BYTES)
		factor /= 2;
	return factor;
}

static struct shm_geometry geometry_of(u64 bytes, const struct shmalloc_options *o)
{
	struct shm_geometry g = {
		.size_bytes = round_up(bytes, SHM_PAGE_SIZE),
		.nr_cpus = o->cpus ? o->cpus : DEFAULT_CPUS,
		.nr_nodes = 1,
		.max_caches = (NR_KMALLOC_CACHES - 1) * (NR_KMALLOC_TYPES - 1) + (o->caches ? o->caches : DEFAULT_CACHES),
		.pageblock_order = 9,
		.watermark_scale_factor = 10,
		.slab_max_order = 3,
		.nr_slots = SHMALLOC_ROOTS,
		.bpf_low_bytes = 8192,
		.rcu_gp_us = 3000,
		.rcu_stall_ms = 21000,
		.pool_entries = 1,
		.sheaf_factor = o->sheaf_factor ? o->sheaf_factor : factor_for(bytes),
	};

	g.flags = (o->flags & SHMALLOC_ORACLE ? SHM_GEO_ORACLE : 0) |
		  (o->flags & SHMALLOC_LINUX_6_18 ? 0 : SHM_GEO_SHEAVES);
	g.zone_permille[0][ZONE_NORMAL] = 1000;
	g.distance[0][0] = 10;
	/* whole pageblocks: in a small arena smaller ones */
	while (g.pageblock_order > 4 && shm_arena_min_bytes(&g) > g.size_bytes)
		g.pageblock_order--;
	return g;
}

static int check_size(const struct shm_geometry *g, u64 bytes, bool sparse)
{
	u64 least = shm_arena_min_bytes(g);
	struct limit limit;

	if (!least || bytes > 1ull << 45 || g->size_bytes < least)
		return failed(-EINVAL, "bytes = %lu: allowed are %lu to %llu with %u CPUs and %u caches", bytes, least,
			      1ull << 45, g->nr_cpus, g->max_caches);
	if (sparse)
		return 0;
	limit = tightest_limit();
	if (limit.free_bytes < g->size_bytes)
		return failed(-ENOSPC, "an arena of %lu bytes does not fit: %s has %lu bytes", g->size_bytes,
			      limit.source, limit.free_bytes);
	return 0;
}

/* --- making it ---------------------------------------------------------------------------------------- */

/* A file that has no name yet; where that cannot be had, one with the name that it is to have. */
static int open_nameless(const char *path, bool *named)
{
	char fresh[PATH_BYTES];
	int fd = open(SHM_DIRECTORY, O_TMPFILE | O_RDWR | O_CLOEXEC, MODE);

	*named = false;
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd;
	if (!path) {
		snprintf(fresh, sizeof(fresh), "%s/shmalloc-%d-nameless", SHM_DIRECTORY, getpid());
		fd = open(fresh, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, MODE);
		if (fd >= 0)
			unlink(fresh);
		return fd;
	}
	fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, MODE);
	*named = fd >= 0;
	return fd;
}

static int give_name(int fd, const char *path)
{
	char from[64];

	snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, from, AT_FDCWD, path, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

static int take_memory(int fd, u64 bytes, bool sparse)
{
	int error;

	if (sparse)
		return ftruncate(fd, (off_t)bytes) ? -errno : 0;
	do
		error = posix_fallocate(fd, 0, (off_t)bytes);
	while (error == EINTR);
	return -error;
}

static int lay_out(int fd, const struct shm_geometry *g, bool sparse, void **base)
{
	int error = take_memory(fd, g->size_bytes, sparse);

	if (error)
		return error == -EFBIG ? -ENOSPC : error;
	*base = mmap(NULL, g->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*base == MAP_FAILED)
		return -errno;
	error = shm_arena_format(*base, g);
	if (error)
		munmap(*base, g->size_bytes);
	return error;
}

static int begin_with(struct shmalloc_arena *arena, void *base, u64 bytes)
{
	int error = shm_attach(base, bytes);

	if (error)
		return error;
	arena->base = base;
	arena->bytes = bytes;
	arena->nr_cpus = shm.nr_cpus;
	arena->nr_roots = shm.nr_slots;
	arena->roots = shm.nr_slots ? shm.slots : NULL;
	return 0;
}

static int make(struct shmalloc_arena *arena, const char *path, const struct shm_geometry *g, bool sparse)
{
	void *base = NULL;
	int fd, error;
	bool named;

	if (path && !access(path, F_OK))
		return -EEXIST;
	fd = open_nameless(path, &named);
	if (fd < 0)
		return -errno;
	error = lay_out(fd, g, sparse, &base);
	if (!error) {
		error = path && !named ? give_name(fd, path) : 0;
		if (error)
			munmap(base, g->size_bytes);
		else
			error = begin_with(arena, base, g->size_bytes);
	}
	if (error && named)
		unlink(path);
	close(fd);
	return error;
}

__export int shmalloc_create(struct shmalloc_arena *arena, const char *name, uint64_t bytes,
			     const struct shmalloc_options *options)
{
	const struct shmalloc_options none = { 0 }, *o = options ? options : &none;
	bool sparse = o->flags & SHMALLOC_SPARSE;
	char path[PATH_BYTES];
	struct shm_geometry g;
	int error;

	if (!arena)
		return failed(-EINVAL, "arena = NULL: allowed is a structure to be filled in");
	if (name && !path_of(name, path))
		return bad_name(name);
	if (shm.base)
		return failed(-EBUSY, "this process is attached to an arena; one at a time");
	error = check_options(o);
	if (error)
		return error;
	g = geometry_of(bytes, o);
	error = check_size(&g, bytes, sparse);
	if (error)
		return error;
	error = make(arena, name ? path : NULL, &g, sparse);
	return error ? failed(error, "%s: %s", name ? path : "an arena without a name", shmalloc_strerror(error)) : 0;
}

/* --- finding it --------------------------------------------------------------------------------------- */

static int map(int fd, void **base, u64 *bytes)
{
	struct stat status;

	if (fstat(fd, &status))
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -ENOEXEC;
	if ((u64)status.st_size < sizeof(struct shm_header))
		return status.st_size ? -ENOEXEC : -EAGAIN;
	*bytes = (u64)status.st_size;
	*base = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return *base == MAP_FAILED ? -errno : 0;
}

static int open_and_map(const char *path, void **base, u64 *bytes)
{
	int error, fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)
		return errno == ELOOP || errno == EISDIR || errno == ENXIO ? -ENOEXEC : -errno;
	error = map(fd, base, bytes);
	close(fd);
	return error;
}

__export int shmalloc_attach(struct shmalloc_arena *arena, const char *name)
{
	char path[PATH_BYTES];
	void *base = NULL;
	u64 bytes = 0;
	int error;

	if (!arena)
		return failed(-EINVAL, "arena = NULL: allowed is a structure to be filled in");
	if (!path_of(name, path))
		return bad_name(name);
	if (shm.base)
		return failed(-EBUSY, "this process is attached to an arena; one at a time");
	error = open_and_map(path, &base, &bytes);
	if (error)
		return failed(error, "%s: %s", path, shmalloc_strerror(error));
	error = begin_with(arena, base, bytes);
	if (!error)
		return 0;
	if (error == -EPROTO)
		failed(error, "%s: its layout's hash is %#lx, this library's is %#lx", path,
		       ((struct shm_header *)base)->abi_hash, shm_abi_hash());
	else
		failed(error, "%s: %lu bytes: %s", path, bytes, shmalloc_strerror(error));
	munmap(base, bytes);
	return error;
}

__export int shmalloc_detach(struct shmalloc_arena *arena)
{
	int error;

	if (!arena || !arena->base || shm.base != arena->base)
		return failed(-ENOTCONN, "this process is not attached to that arena");
	error = shm.cpu ? shmalloc_leave() : 0;
	if (error)
		return error;
	error = shm_detach();
	if (error)
		return failed(error, "%s", shmalloc_strerror(error));
	munmap(arena->base, arena->bytes);
	*arena = (struct shmalloc_arena){ 0 };
	return 0;
}

__export int shmalloc_unlink(const char *name)
{
	char path[PATH_BYTES];

	if (!path_of(name, path))
		return bad_name(name);
	return unlink(path) ? failed(-errno, "%s: %s", path, shmalloc_strerror(-errno)) : 0;
}
