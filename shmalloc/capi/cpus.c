/* SPDX-License-Identifier: MIT */
/*
 * Being a CPU, and what only a CPU in task context may do: named caches.
 * Context: task.
 */
#include <string.h>
#include <unistd.h>
#include "capi.h"

/* A handler has interrupted a call, or has said that it is one: what may wait is refused. */
static bool in_handler(void)
{
	return shm.cpu->level || shm.guard;
}

static int no_cpu(void)
{
	if (!shm.base || !shm.cpu)
		return failed(-ENOTCONN, "%s", shm.base ? "this process is no CPU: join first" :
							  "this process is not attached to an arena");
	if (!thread_is_cpu())
		return failed(-EPERM, "this process is CPU %u, but by another thread", shm.cpu->id);
	return in_handler() ? failed(-EDEADLK, "not from a signal handler that has interrupted a call") : 0;
}

static int why_not(u32 cpu, int error)
{
	const struct shm_cpu *slot = &shm.cpus[cpu];

	if (error == -EBUSY)
		return failed(error, "CPU %u is process %u", cpu, slot->pid);
	return failed(error, "CPU %u: %s", cpu, shmalloc_strerror(error));
}

/* One that nobody is, else one whose process has died; a kernel would call it hotplug. */
static int join_any(void)
{
	int error = -EBUSY;

	for (u32 steal = 0; steal <= SHM_BIND_STEAL; steal += SHM_BIND_STEAL)
		for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
			if (!steal && READ_ONCE(shm.cpus[cpu].pid))
				continue;
			error = shm_cpu_bind(cpu, steal);
			if (!error)
				return (int)cpu;
		}
	return failed(-EBUSY, "all %u CPUs of the arena are taken", shm.nr_cpus);
}

__export int shmalloc_join(int cpu)
{
	int error;

	if (!shm.base)
		return failed(-ENOTCONN, "this process is not attached to an arena");
	if (shm.cpu)
		return failed(-EALREADY, "this process is CPU %u already", shm.cpu->id);
	if (cpu == SHMALLOC_ANY_CPU)
		return join_any();
	if (cpu < 0 || (u32)cpu >= shm.nr_cpus)
		return failed(-EINVAL, "cpu = %d: allowed are 0 to %u, and SHMALLOC_ANY_CPU", cpu, shm.nr_cpus - 1);
	error = shm_cpu_bind((u32)cpu, SHM_BIND_STEAL);
	return error ? why_not((u32)cpu, error) : cpu;
}

__export int shmalloc_leave(void)
{
	int error = no_cpu();

	return error ? error : shm_cpu_unbind(shm.cpu->id);
}

/* Whoever exits is no CPU any more, unless it does so in the middle of a call. */
__attribute__((destructor)) static void leave_at_exit(void)
{
	if (shm.base && thread_is_cpu() && !in_handler() && shm.cpu->pid == (u32)getpid())
		(void)shm_cpu_unbind(shm.cpu->id);
}

static int find_cache(const char *name)
{
	for (u32 i = 0; i < load_acquire(&shm.hdr->nr_caches); i++)
		if (load_acquire(&shm.caches[i].state) == CACHE_LIVE &&
		    !strncmp(shm.caches[i].name, name, sizeof(shm.caches[i].name)))
			return (int)i;
	return -ENOENT;
}

static int same_objects(u32 cache, u32 size, u32 align)
{
	const struct kmem_cache *s = &shm.caches[cache];

	if (s->object_size != size || s->align < align || s->ctor)
		return failed(-EINVAL, "cache \"%.40s\": its objects have %u bytes, aligned to %u%s", s->name,
			      s->object_size, s->align, s->ctor ? ", and a constructor" : "");
	return (int)cache;
}

__export int shmalloc_cache(const char *name, uint32_t size, uint32_t align)
{
	int cache = no_cpu();

	if (cache)
		return cache;
	if (!name || !*name || strlen(name) >= SHM_CACHE_NAME)
		return failed(-EINVAL, "name = \"%s\": allowed are 1 to %d characters", name ? name : "(null)",
			      SHM_CACHE_NAME - 1);
	cache = find_cache(name);
	if (cache < 0)
		cache = shm_kmem_cache_create(name, size, align, 0, 0);
	if (cache == -EEXIST) /* somebody else has just made it */
		cache = find_cache(name);
	if (cache < 0)
		return failed(cache, "cache \"%s\" of %u bytes, aligned to %u: %s", name, size, align,
			      shmalloc_strerror(cache));
	return same_objects((u32)cache, size, align);
}

__export int shmalloc_cache_destroy(int cache)
{
	int error = no_cpu();

	if (error)
		return error;
	error = cache < 0 ? -EINVAL : shm_kmem_cache_destroy((u32)cache);
	return error < 0 ? failed(error, "cache %d: %s", cache, shmalloc_strerror(error)) : error;
}
