/* SPDX-License-Identifier: MIT */
/*
 * Being a node's kswapd: a process, or a step of a test, in a CPU slot beyond the possible CPUs.
 *
 * Answers to: mm/vmscan.c (kswapd, kswapd_try_to_sleep).
 * Changed: such a slot (nr_cpus + node) has telemetry and takes locks under its number, but has no
 * pagesets, no cpu slabs and no interrupts.  It sleeps on a futex in struct node.
 * Context: a thread that is no CPU, except shm_kswapd_step, which borrows the thread of one.
 */
#include "lock.h"
#include "page_alloc.h"
#include "sys.h"
#include "trace.h"

static struct shm_cpu *slot_of(u32 node)
{
	return &shm.cpus[shm.nr_cpus + node];
}

static bool mine(u32 node)
{
	return shm.base && node < shm.nr_nodes && slot_of(node)->pid == sys_getpid() &&
	       shm.nodes[node].kswapd_state != KSWAPD_NONE;
}

/* -EBUSY: another process that is alive is this node's kswapd */
__export int shm_kswapd_start(unsigned int node)
{
	struct shm_cpu *slot;
	u32 owner = 0, self = sys_getpid();

	if (!shm.base)
		return -ENOTCONN;
	if (node >= shm.nr_nodes || !shm.nodes[node].nr_thisnode)
		return -EINVAL;
	slot = slot_of(node);
	if (!try_cmpxchg(&slot->pid, &owner, self) &&
	    (shm_owner_alive(owner, slot->start_time) || !try_cmpxchg(&slot->pid, &owner, self)))
		return -EBUSY;
	slot->tid = sys_gettid();
	slot->start_time = shm_start_time(self);
	slot->levels[0] = (struct shm_level){ CTX_TASK, REASON_NONE, 0, 0 };
	slot->task_flags = PF_MEMALLOC;
	trace_mend(slot->id);
	store_release(&slot->state, CPU_ONLINE);
	store_release(&shm.nodes[node].kswapd_state, KSWAPD_ASLEEP);
	return 0;
}

/* Any process: have it end, when it has finished its pass. */
__export int shm_kswapd_stop(unsigned int node)
{
	u32 state;

	if (!shm.base || node >= shm.nr_nodes)
		return -EINVAL;
	state = load_acquire(&shm.nodes[node].kswapd_state);
	do {
		if (state == KSWAPD_NONE) /* also if it has ended by itself meanwhile */
			return 0;
	} while (!try_cmpxchg(&shm.nodes[node].kswapd_state, &state, KSWAPD_STOP));
	sys_futex_wake(&shm.nodes[node].kswapd_state);
	return 0;
}

static void release(u32 node)
{
	store_release(&shm.nodes[node].kswapd_state, KSWAPD_NONE);
	store_release(&slot_of(node)->state, CPU_OFFLINE);
	store_release(&slot_of(node)->pid, 0);
}

/* Go to sleep, unless something was asked for meanwhile; false: told to end. */
static bool fall_asleep(struct node *node)
{
	u32 awake = KSWAPD_AWAKE;

	if (!try_cmpxchg(&node->kswapd_state, &awake, KSWAPD_ASLEEP))
		return awake != KSWAPD_STOP;
	smp_mb();
	if (!kswapd_may_sleep(node)) { /* who asked has found it awake */
		u32 asleep = KSWAPD_ASLEEP;

		try_cmpxchg(&node->kswapd_state, &asleep, KSWAPD_AWAKE);
	}
	return true;
}

static u64 work(struct node *node)
{
	u64 freed = 0;

	do {
		freed += kswapd_pass(node);
	} while (!kswapd_may_sleep(node) && !READ_ONCE(shm.hdr->stop));
	return freed;
}

static u64 with_guard(struct node *node)
{
	return GUARDED(u64, 0, work(node));
}

/*
 * Be the node's kswapd for so long; 0: told to end, -ECANCELED: header.stop, -ETIMEDOUT: call again.
 */
__export int shm_kswapd_run(unsigned int node, double seconds)
{
	u64 deadline;
	int result = 0;

	if (!mine(node) || shm.cpu)
		return -EPERM;
	if (!(seconds >= 0))
		return -EINVAL;
	deadline = read_tsc() + (u64)(min_of(seconds, MAX_SECONDS) * (double)shm.hdr->tsc_hz);
	shm.pid = sys_getpid();
	shm.tele = cpu_telemetry(shm.nr_cpus + node);
	shm.thread = __builtin_thread_pointer();
	shm.cpu = slot_of(node);
	context_changed();
	for (;;) {
		u32 state = load_acquire(&shm.nodes[node].kswapd_state);

		if (state == KSWAPD_AWAKE) {
			with_guard(&shm.nodes[node]);
			if (!fall_asleep(&shm.nodes[node]))
				state = KSWAPD_STOP;
		}
		if (state == KSWAPD_STOP)
			break;
		result = READ_ONCE(shm.hdr->stop) ? -ECANCELED : read_tsc() > deadline ? -ETIMEDOUT : 0;
		if (result)
			break;
		sys_futex_wait(&shm.nodes[node].kswapd_state, KSWAPD_ASLEEP, 20000000);
	}
	shm.cpu = NULL;
	shm.tele = NULL;
	shm.thread = NULL;
	if (!result)
		release(node);
	return result;
}

/* Give the slot back: the node has no kswapd any more. */
__export int shm_kswapd_end(unsigned int node)
{
	if (!mine(node))
		return -EPERM;
	release(node);
	return 0;
}

/*
 * Tests: the thread, which may be a CPU, is kswapd for as long as that would be awake.  Returns pages
 * given back; 0 if it sleeps.
 */
__export int64_t shm_kswapd_step(unsigned int node)
{
	struct shm_env *env = &shm;
	struct shm_cpu *cpu = env->cpu;
	struct shm_telemetry *tele = env->tele;
	void *thread = env->thread;
	s64 freed = 0;
	u64 blocked;

	if (!mine(node) || (cpu && !thread_is_cpu()))
		return -EPERM;
	if (shm.nodes[node].kswapd_state != KSWAPD_AWAKE)
		return 0;
	blocked = sys_block_signals(1ull << (shm_signal_of(KIND_NMI) - 1) | 1ull << (shm_signal_of(KIND_IRQ) - 1));
	env->tele = cpu_telemetry(shm.nr_cpus + node);
	env->thread = __builtin_thread_pointer();
	WRITE_ONCE(env->cpu, slot_of(node));
	do {
		freed += (s64)with_guard(&shm.nodes[node]);
	} while (fall_asleep(&shm.nodes[node]) && shm.nodes[node].kswapd_state == KSWAPD_AWAKE && !shm.hdr->stop);
	WRITE_ONCE(env->cpu, cpu);
	env->tele = tele;
	env->thread = thread;
	sys_set_mask(blocked);
	return freed;
}
