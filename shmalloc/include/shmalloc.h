/* SPDX-License-Identifier: MIT */
/*
 * shmalloc: a memory allocator in shared memory, which any context may call.
 *
 *	struct shmalloc_arena arena;
 *
 *	shmalloc_create(&arena, "/mine", 64 << 20, NULL);     one program; the others: shmalloc_attach(&arena, "/mine");
 *	shmalloc_join(SHMALLOC_ANY_CPU);                      each of them
 *	uint64_t off = shm_malloc(100);                       an offset: the same number in every process
 *	strcpy(shmalloc_ptr(&arena, off), "hello");           a pointer: in this one
 *	shm_free(off);                                        by whoever has it, in whichever process
 *
 *	cc program.c $(shmalloc config --cflags --libs)
 *
 * What begins with shm_ is the core's: it works on offsets, and is called directly.  What begins with shmalloc_ is
 * set-up, and the same on pointers.  An int result that can fail is 0 or more, or a negative errno, for which
 * shmalloc_strerror() has a text and shmalloc_error() a longer one; an offset or pointer that can fail is 0, and
 * shmalloc_reason() says why.
 *
 * Threads.  A process works on one arena at a time, and one thread of it at a time is a CPU of it: who calls joins
 * first.  From any other thread the calls below return 0 or -EPERM.  After fork() the child is no CPU, but still
 * attached: it joins for itself.  (A signal that hits the child inside of fork() finds it still its parent's CPU:
 * where that can be, and handlers allocate, block signals around fork().  A child made by _Fork() or a bare clone()
 * is not told apart from its parent: it must not call.)
 *
 * Signal handlers.  Every shm_ call below may be made from any signal handler of the thread that is the CPU, at
 * whatever instruction the signal has arrived, in the middle of these calls too: nothing is corrupted, and nothing
 * waits for what it has interrupted.  What it cannot have for that reason it does not get: 0, with a reason such as
 * zone_busy.  The handler must return: no longjmp() out of it.  shmalloc_ calls are not for handlers, but for
 * those that are inline here, and shmalloc_reason().
 *
 * Processes that die.  A CPU whose process has died is taken over by whoever joins next, unless it died in the
 * middle of a call, with a lock held.  Its objects stay allocated.  The segment stays until somebody unlinks it;
 * `shmalloc ls` and `shmalloc rm` know it.
 */
#ifndef SHMALLOC_H
#define SHMALLOC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- arenas: task context, not thread-safe ----------------------------------------------------------- */

struct shmalloc_arena {
	char *base;              /* where it is mapped in this process: offset 0 */
	uint64_t bytes;          /* of the whole segment */
	uint64_t *roots;         /* nr_roots words of shared memory, at first 0: for the offsets that everybody needs */
	unsigned int nr_roots;   /* SHMALLOC_ROOTS; in an arena that was made otherwise (Python) its nr_slots */
	unsigned int nr_cpus;    /* CPUs that it has, 0 .. nr_cpus - 1 */
};

#define SHMALLOC_ROOTS 64

/* options.flags */
#define SHMALLOC_SPARSE 0x1u      /* take memory as it is touched, not all of it now: a full machine is then a SIGBUS */
#define SHMALLOC_ORACLE 0x2u      /* keep a bitmap of who owns what: any double or wrong free is refused, at a cost */
#define SHMALLOC_LINUX_6_18 0x4u  /* the slab allocator of Linux 6.18 (cpu slabs) instead of 7.0's (sheaves) */

struct shmalloc_options {
	unsigned int flags;        /* SHMALLOC_* */
	unsigned int cpus;         /* CPUs: processes at a time, 1 .. 128; 0 = 16 */
	unsigned int caches;       /* named caches at a time, up to 1000; 0 = 32 */
	unsigned int sheaf_factor; /* what a CPU keeps for itself: so many times what Linux lets it, 1 .. 16; 0 = by the size of
	                            * the arena, 8 from 64 MiB on.  Long batches are the faster for it. */
	unsigned int reserved[4];  /* 0 */
};

/*
 * Make an arena and attach to it.  name: of the segment, as for shm_open(); NULL = none: for this process and
 * those that it forks, and gone with them.  bytes: of the whole segment; tables and reserves take 18 % of 16 MiB, 10 %
 * of 64 MiB, 3 % of 512 MiB.  options: NULL = all 0.  Nobody sees the arena before it is complete, and if this fails,
 * or the process dies in it, nothing is left behind.
 * -EEXIST there is one of this name; -ENOSPC it does not fit the machine; -EINVAL; -EBUSY attached to one already.
 */
int shmalloc_create(struct shmalloc_arena *arena, const char *name, uint64_t bytes,
	const struct shmalloc_options *options);
/* -ENOENT none of this name; -ENOEXEC no arena; -EPROTO of another build's layout; -EMSGSIZE truncated; -EBADMSG its
 * header contradicts itself; -EAGAIN not ready; -EACCES; -EBUSY attached to one already */
int shmalloc_attach(struct shmalloc_arena *arena, const char *name);
int shmalloc_detach(struct shmalloc_arena *arena);  /* leaves the CPU, too; its memory is not to be touched any more */
int shmalloc_unlink(const char *name);              /* who is attached stays so; -ENOENT */

#define SHMALLOC_ANY_CPU (-1)

/*
 * Become a CPU of the arena, on this thread, until it leaves or the process ends: a thread that exits without
 * leaving keeps the CPU, and no other of the process gets rid of it.  cpu: which, or any.  Returns its number.
 * -EBUSY it is taken, or all are; -EALREADY this process is one; -EINVAL no such CPU; -EOWNERDEAD its process died in
 * the middle of a call, with locks held; -ENOTCONN not attached.
 */
int shmalloc_join(int cpu);
int shmalloc_leave(void);  /* what it has allocated stays; -ENOTCONN is none; -EPERM another thread is */

/* --- memory: any context, on the thread that is the CPU ---------------------------------------------- */

uint64_t shm_malloc(uint64_t size);      /* up to 4 MiB; aligned to 8, and a power of two to itself; size 0: no NULL */
uint64_t shm_zalloc(uint64_t size);      /* filled with zeroes */
uint64_t shm_realloc(uint64_t off, uint64_t size);  /* 0: off is as it was; size 0 frees */
int shm_free(uint64_t off);              /* 0 is no error; -EINVAL: no object begins there, as far as can be told */
uint64_t shm_ksize(uint64_t off);        /* bytes that may be used; 0: no object begins there */

/* The same for whoever must not wait, not even for another process's lock; up to 8 KiB, else size_limit. */
uint64_t shm_malloc_nolock(uint64_t size);
int shm_free_nolock(uint64_t off);

/* Pages: 2^order in a row, aligned to their size; order up to 10. */
uint64_t shm_pages(unsigned int order);
int shm_pages_free(uint64_t off, unsigned int order);

/*
 * A cache has objects of one size, for all processes.  shmalloc_cache() finds the one of this name, or makes it
 * (align 0: to 8), and returns its number, which is the same everywhere: task context.  -EINVAL it has other objects,
 * or a bad name (1 to 39 characters); -ENOSPC no room in the table; -ENOMEM.
 */
int shmalloc_cache(const char *name, uint32_t size, uint32_t align);
/* 0, or how many slabs had objects: these are lost.  -EOPNOTSUPP while others are CPUs: they must have left. */
int shmalloc_cache_destroy(int cache);
uint64_t shm_cache_alloc(unsigned int cache);
uint64_t shm_cache_alloc_nolock(unsigned int cache);
int shm_cache_free(unsigned int cache, uint64_t off);  /* -EINVAL also: an object of another cache */
int shm_cache_free_nolock(unsigned int cache, uint64_t off);

/*
 * For a handler that calls much: between these two all of its calls run as in an NMI, which each finds out for itself
 * otherwise.  leave() gets what enter() has returned; they nest.  -EPERM not the CPU's thread; -EBUSY 7 deep already.
 */
int shm_handler_enter(void);
int shm_handler_leave(int previous);

/* --- the same on pointers: NULL and 0 are each other ------------------------------------------------- */

static inline void *shmalloc_ptr(const struct shmalloc_arena *arena, uint64_t off)
{
	return off ? (void *)(arena->base + off) : NULL;
}

static inline uint64_t shmalloc_off(const struct shmalloc_arena *arena, const void *p)
{
	return p ? (uint64_t)((const char *)p - arena->base) : 0;
}

static inline void *shmalloc_malloc(const struct shmalloc_arena *arena, size_t size)
{
	return shmalloc_ptr(arena, shm_malloc(size));
}

static inline void *shmalloc_calloc(const struct shmalloc_arena *arena, size_t number, size_t size)
{
	if (size && number > (size_t)-1 / size)
		return NULL;
	return shmalloc_ptr(arena, shm_zalloc(number * size));
}

static inline void *shmalloc_realloc(const struct shmalloc_arena *arena, void *p, size_t size)
{
	return shmalloc_ptr(arena, shm_realloc(shmalloc_off(arena, p), size));
}

static inline int shmalloc_free(const struct shmalloc_arena *arena, void *p)
{
	return shm_free(shmalloc_off(arena, p));
}

static inline size_t shmalloc_usable_size(const struct shmalloc_arena *arena, const void *p)
{
	return (size_t)shm_ksize(shmalloc_off(arena, p));
}

static inline void *shmalloc_malloc_nolock(const struct shmalloc_arena *arena, size_t size)
{
	return shmalloc_ptr(arena, shm_malloc_nolock(size));
}

static inline int shmalloc_free_nolock(const struct shmalloc_arena *arena, void *p)
{
	return shm_free_nolock(shmalloc_off(arena, p));
}

/* --- what went wrong ---------------------------------------------------------------------------------- */

const char *shmalloc_strerror(int error);  /* of a negative errno, as it is meant here */
const char *shmalloc_error(void);          /* what the last shmalloc_ call that failed has found, with its numbers */
/* Why the last shm_ call of this process that returned 0 did so: cpu_slab_busy, list_lock_busy, pcp_busy, zone_busy (a
 * lock that could not be waited for), below_watermark (no memory left), size_limit, order_limit, ...; none: it was no
 * request, as there is no such cache or live object. */
const char *shmalloc_reason(void);
/* NULL, or what was proved and stopped the arena: two owners of one byte, a wait that could never have ended */
const char *shmalloc_verdict(const struct shmalloc_arena *arena);
const char *shmalloc_version(void);

#ifdef __cplusplus
}
#endif

#endif
