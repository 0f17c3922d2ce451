/* SPDX-License-Identifier: MIT */
/*
 * Becoming a CPU: a thread takes a slot of the arena.
 *
 * One thread per process is the CPU; another thread's call is refused.  A unit test may bind several
 * slots to one thread and switch between them.  fork() leaves the child unbound.
 * Context: set-up, task.
 */
#include <pthread.h>
#include "lock.h"
#include "memcontrol.h"
#include "pool.h"
#include "signals.h"
#include "slab.h"
#include "sys.h"
#include "trace.h"

void cpu_load(u32 id)
{
	struct shm_header *h = shm.hdr;

	shm.cpu_caches = ptr_of(h->regions[REGION_CACHE_CPUS].offset + (u64)id * h->cache_cpus_stride);
	shm.cache_stats = ptr_of(h->regions[REGION_CACHE_STATS].offset + (u64)id * h->cache_stats_stride);
	shm.tele = cpu_telemetry(id);
	shm.memcg_cpu = &shm.memcg_cpus[id];
	shm.cpu_freelist = &shm.freelists[id];
	shm.objpool_cpu = &shm.objpool_cpus[id];
	shm.cpu_bpf_lists = shm.bpf_lists + (u64)id * h->bpf_caches_per_cpu;
	shm.cpu_sheaves = ptr_of(h->regions[REGION_CACHE_SHEAVES].offset + (u64)id * h->cache_sheaves_stride);
	barrier();
	WRITE_ONCE(shm.cpu, &shm.cpus[id]);
	context_changed();
}

/* This CPU, and the others that are this thread, too. */
static void followed(u32 generation)
{
	WRITE_ONCE(shm.trace_seen, generation);
	WRITE_ONCE(this_cpu()->trace_seen, generation);
	for (u32 i = 0; i < shm.nr_cpus; i++)
		if (shm.cpus[i].pid == shm.pid && shm.cpus[i].tid == shm.tid)
			store_release(&shm.cpus[i].trace_seen, generation);
}

/*
 * First attempts leave no trace: while what they do is recorded they are off, and cost nothing for it
 * otherwise.  An interrupt in between may do the same for a later switch, and then its word counts.
 */
void first_attempts_load(void)
{
	bool ordinary = shm.nr_nodes == 1 && !(shm.geo_flags & (SHM_GEO_UP | SHM_GEO_NO_CMPXCHG_DOUBLE));
	u32 generation;

	if (this_cpu()->id >= shm.nr_cpus) /* kswapd allocates nothing */
		return;
	do {
		void *self;

		generation = load_acquire(&shm.hdr->trace.generation);
		self = tracing(TRACE_CALLS) ? NULL : shm.thread;
		WRITE_ONCE(shm.sheaf_thread, ordinary && sheaf_arena() ? self : NULL);
		WRITE_ONCE(shm.slab_thread, ordinary && !sheaf_arena() ? self : NULL);
		WRITE_ONCE(shm.pool_thread, shm.nr_nodes == 1 ? self : NULL);
		followed(generation);
		barrier();
	} while (unlikely(generation != READ_ONCE(shm.hdr->trace.generation)));
}

/* From here on this thread is the CPU; last, since a signal handler of the caller's may call at any time. */
static void thread_load(void)
{
	barrier();
	shm.thread = __builtin_thread_pointer();
	first_attempts_load();
}

static void thread_drop(void)
{
	shm.sheaf_thread = shm.slab_thread = shm.pool_thread = shm.thread = NULL;
	barrier();
}

static void unbound_after_fork(void)
{
	thread_drop();
	shm.cpu = NULL;
	shm.guard = NULL;
	shm.handlers = 0;
	shm.terminated = 0;
	shm.current_op = shm.interrupted_op = NULL;
	for (u32 kind = 0; kind < NR_KINDS; kind++) { /* timers are not inherited, programs are the parent's */
		shm.timer_id[kind] = -1;
		shm.timer_ns[kind] = 0;
		shm.program_on[kind] = 0;
	}
	shm_probe_disarm();
	shm.pid = sys_getpid();
}

static void register_fork_handler(void)
{
	static bool registered;

	if (!registered)
		pthread_atfork(NULL, NULL, unbound_after_fork);
	registered = true;
}

#define STEAL_PAUSE_NS 10000000

static bool held_by(u32 word, u32 cpu)
{
	return word && lock_owner_cpu(word) == cpu;
}

static bool holds_sheaf_lock(const struct kmem_cache *s, u32 cpu)
{
	if (!sheaf_arena())
		return false;
	for (u32 node = 0; node < shm.nr_nodes; node++)
		if (held_by(cache_barn(s, node)->lock.word, cpu))
			return true;
	return cache_sheaves(s, cpu)->lock.word;
}

static bool holds_cache_lock(const struct kmem_cache *s, u32 cpu)
{
	const struct kmem_cache_cpu *c = ptr_of(shm.hdr->regions[REGION_CACHE_CPUS].offset +
						(u64)cpu * shm.hdr->cache_cpus_stride);

	for (u32 node = 0; node < shm.nr_nodes; node++)
		if (held_by(cache_node(s, node)->list_lock.word, cpu))
			return true;
	return c[s->index].lock.word || holds_sheaf_lock(s, cpu);
}

static bool holds_bucket_lock(const struct shm_map *map, u32 cpu)
{
	for (u32 i = 0; map->state == MAP_LIVE && i < map->n_buckets; i++)
		if (held_by(((struct bucket *)ptr_of(area_elem(&map->buckets, i)))->lock.word, cpu))
			return true;
	return false;
}

static bool holds_pool_lock(u32 cpu)
{
	u32 max_maps = shm.hdr->geometry.max_maps;

	for (u64 i = 0; i < (1ull + max_maps) * shm.nr_cpus; i++)
		if (held_by(shm.freelists[i].lock.word, cpu))
			return true;
	for (u32 i = 0; i < max_maps; i++)
		if (holds_bucket_lock(&shm.maps[i], cpu))
			return true;
	return false;
}

/* What a dead owner left locked would name its successor as the owner. */
static bool holds_any_lock(u32 cpu)
{
	if (shm.cpus[cpu].entropy.lock.word || held_by(shm.hdr->slab_mutex.word, cpu) || held_by(shm.hdr->ipi_lock.word, cpu) ||
	    held_by(shm.hdr->obj_hash_lock.word, cpu))
		return true;
	for (u32 i = 0; i < NR_RCU_DOMAINS; i++)
		if (held_by(shm.hdr->rcu[i].lock.word, cpu))
			return true;
	for (u32 i = 0; i < shm.nr_zones * shm.nr_cpus; i++)
		if (held_by(shm.pagesets[i].lock.word, cpu))
			return true;
	for (u32 i = 0; i < shm.nr_zones; i++)
		if (held_by(shm.zones[i].lock.word, cpu))
			return true;
	for (u32 i = 0; i < shm.nr_nodes; i++)
		if (held_by(shm.nodes[i].lru_lock.word, cpu))
			return true;
	for (u32 i = 0; i < shm.hdr->nr_caches; i++)
		if (holds_cache_lock(&shm.caches[i], cpu))
			return true;
	return holds_pool_lock(cpu) || memcg_holds_lock(cpu);
}

/* A thief looks twice: between pid and start time of a new owner the pair is that of nobody. */
static int steal_slot(struct shm_cpu *cpu, u32 owner, u32 self)
{
	u64 start_time = cpu->start_time;

	if (shm_owner_alive(owner, start_time))
		return -EBUSY;
	sleep_ns(STEAL_PAUSE_NS);
	if (cpu->start_time != start_time || !try_cmpxchg(&cpu->pid, &owner, self))
		return -EBUSY;
	if (!holds_any_lock(cpu->id))
		return 0;
	store_release(&cpu->pid, owner);
	return -EOWNERDEAD;
}

/* The slot's pid is what is claimed: two processes may want the same slot. */
static int claim_slot(struct shm_cpu *cpu, u32 flags)
{
	u32 self = sys_getpid();

	for (;;) {
		u32 owner = 0;

		if (try_cmpxchg(&cpu->pid, &owner, self))
			return 0;
		if (load_acquire(&cpu->state) != CPU_SERVED || !shm_owner_alive(owner, cpu->start_time))
			return flags & SHM_BIND_STEAL ? steal_slot(cpu, owner, self) : -EBUSY;
		yield_core(); /* somebody flushes it, as it is nobody's; that is soon over */
	}
}

/* The one core that this thread may run on, or none in particular. */
static u32 pinned_core(void)
{
	u64 mask[16] = { 0 };
	u32 core = NO_CORE;

	if (sys_call4(SYS_sched_getaffinity, 0, sizeof(mask), (long)mask, 0) < 0)
		return NO_CORE;
	for (u32 i = 0; i < ARRAY_SIZE(mask); i++) {
		if (!mask[i])
			continue;
		if (core != NO_CORE || mask[i] & (mask[i] - 1))
			return NO_CORE;
		core = i * 64 + (u32)__builtin_ctzll(mask[i]);
	}
	return core;
}

static void reset_slot(struct shm_cpu *cpu)
{
	cpu->core = pinned_core();
	cpu->irqs_disabled = 0;
	cpu->preempt_count = cpu->bh_count = 0;
	cpu->level = 0;
	cpu->levels[0] = (struct shm_level){ CTX_TASK, REASON_NONE, 0, 0 };
	cpu->waiting_for = 0;
	cpu->task_flags = cpu->fail_nth = 0;
	cpu->nr_held = 0;
	cpu->mems_allowed_seq = 0;
	cpu->mems_allowed = ~0u;
	for (u32 i = 0; i < NR_RCU_DOMAINS; i++) {
		cpu->rcu[i].reader = 0;
		cpu->rcu[i].nesting = cpu->rcu[i].invoking = 0;
	}
	for (u32 i = 0; i < SHM_MAX_HELD; i++)
		cpu->held[i].class = LOCK_NONE;
}

__export int shm_cpu_bind(unsigned int cpu, unsigned int flags)
{
	struct shm_cpu *slot;
	int error;

	if (!shm.base)
		return -ENOTCONN;
	if (cpu >= shm.nr_cpus)
		return -EINVAL;
	if (shm.cpu && shm.thread != __builtin_thread_pointer())
		return -EPERM;
	slot = &shm.cpus[cpu];
	error = claim_slot(slot, flags);
	if (error)
		return error;
	slot->state = CPU_BINDING;
	register_fork_handler();
	shm.pid = slot->pid;
	shm.tid = slot->tid = sys_gettid();
	slot->start_time = shm_start_time(slot->pid);
	reset_slot(slot);
	memcg_cpu_reset(cpu);
	kmalloc_index_load();
	cpu_load(cpu);
	trace_mend(cpu);
	thread_load();
	if (flags & SHM_BIND_HANDLERS && !shm.handlers)
		error = signals_install(flags & SHM_BIND_TERM, flags & SHM_BIND_NEST);
	/* last: from here on interrupts may be sent, and without a handler a signal kills */
	slot->handlers = shm.handlers;
	store_release(&slot->state, CPU_ONLINE);
	if (error)
		shm_cpu_unbind(cpu);
	return error;
}

static void release_slot(struct shm_cpu *slot)
{
	store_release(&slot->state, CPU_OFFLINE);
	slot->handlers = 0;
	store_release(&slot->pid, 0);
}

static bool bound_by_this_process(void)
{
	for (u32 i = 0; i < shm.nr_cpus; i++)
		if (shm.cpus[i].pid == shm.pid)
			return true;
	return false;
}

/* The last CPU is gone: no handlers, and no pointer to a caller's program. */
static void end_interrupts(void)
{
	if (shm.handlers)
		signals_remove();
	for (u32 kind = 0; kind < NR_KINDS; kind++)
		shm_set_program(kind, NULL);
	shm_probe_disarm();
}

__export int shm_cpu_unbind(unsigned int cpu)
{
	struct shm_cpu *slot;

	if (!shm.base || cpu >= shm.nr_cpus)
		return -EINVAL;
	slot = &shm.cpus[cpu];
	if (slot->state != CPU_ONLINE || slot->pid != sys_getpid())
		return -ENOTCONN;
	if (slot == shm.cpu && !thread_is_cpu())
		return -EPERM;
	if (slot == shm.cpu) { /* first: a handler must not work on what somebody else may become */
		thread_drop();
		shm.cpu = NULL;
	}
	release_slot(slot); /* no interrupt is sent to it any more; one under way is ignored */
	if (!bound_by_this_process())
		end_interrupts();
	return 0;
}

__export int shm_cpu_switch(unsigned int cpu)
{
	if (!shm.base || cpu >= shm.nr_cpus)
		return -EINVAL;
	if (shm.cpus[cpu].state != CPU_ONLINE || shm.cpus[cpu].pid != sys_getpid() ||
	    shm.cpus[cpu].tid != sys_gettid())
		return -ENOTCONN;
	cpu_load(cpu);
	thread_load();
	return 0;
}

__export int shm_cpu_current(void)
{
	return shm.cpu ? (int)shm.cpu->id : -1;
}

__export int shm_terminated(void)
{
	return (int)shm.terminated;
}
