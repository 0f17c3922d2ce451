/* SPDX-License-Identifier: MIT */
/*
 * Work that only the owning CPU may do, asked for by another: a mailbox, an interrupt, a deadline.
 *
 * Answers to: kernel/smp.c (on_each_cpu), mm/slub.c (flush_all and its work items).
 * A CPU slot that nobody is bound to, or that this same thread is bound to as well, is served by
 * the caller, as the kernel does for a CPU that has gone offline.
 * Context: task; ipi_run irq.
 */
#include "lock.h"
#include "memcontrol.h"
#include "rcu.h"
#include "slab.h"
#include "smp.h"
#include "sys.h"

#define IPI_DEADLINE_S 2

typedef int (*ipi_fn)(u32 cpu, u64 arg);

static int flush_one(u32 cpu, u64 arg)
{
	int error = 0;

	for (u32 i = 0; i < shm.hdr->nr_caches; i++)
		if ((arg == ~0u || arg == i) && shm.caches[i].state != CACHE_UNUSED) {
			int result = flush_cpu_slab(&shm.caches[i], cpu);

			error = error ? error : result;
		}
	return error;
}

static int run_work(u32 cpu, u64 arg)
{
	u32 flags = local_irq_save();

	(void)arg;
	irq_work_run(&shm.cpus[cpu]);
	local_irq_restore(flags);
	return 0;
}

/* indices are in shm_cpu.ipi_func */
enum { IPI_FLUSH, IPI_RCU, IPI_WORK, IPI_MEMCG_DRAIN };
static const ipi_fn ipi_table[] = {
	[IPI_FLUSH] = flush_one, [IPI_RCU] = rcu_serve, [IPI_WORK] = run_work, [IPI_MEMCG_DRAIN] = drain_local_stock,
};

void ipi_run(void)
{
	struct shm_cpu *cpu = this_cpu();
	u32 request = load_acquire(&cpu->ipi_request);

	if (request == cpu->ipi_done)
		return;
	this_cpu_inc64(&shm.tele->ipi_runs);
	if (cpu->ipi_func < ARRAY_SIZE(ipi_table))
		cpu->ipi_result = ipi_table[cpu->ipi_func](cpu->id, cpu->ipi_arg);
	store_release(&cpu->ipi_done, request);
}

static int wait_for(struct shm_cpu *cpu, u32 request, u64 deadline)
{
	while (load_acquire(&cpu->ipi_done) != request) {
		if (read_tsc() > deadline)
			return -ETIMEDOUT;
		yield_core();
	}
	return 0;
}

static int interrupt(struct shm_cpu *cpu, u32 func, u64 arg, u64 deadline)
{
	u32 request;
	int error;

	if (!cpu->handlers) /* a signal would kill it */
		return -EOPNOTSUPP;
	cpu->ipi_func = func;
	cpu->ipi_arg = arg;
	request = cpu->ipi_request + 1;
	store_release(&cpu->ipi_request, request);
	atomic_or(&cpu->irq_pending, IRQ_PENDING_IPI);
	if (sys_tgkill(cpu->pid, cpu->tid, shm_signal_of(KIND_IRQ)))
		return -ESRCH;
	error = wait_for(cpu, request, deadline);
	return error ? error : cpu->ipi_result;
}

/* Nobody is the CPU: be it for the time of the call, so that nobody becomes it meanwhile. */
static bool serve(struct shm_cpu *cpu, u32 owner, u32 func, u64 arg, int *result)
{
	u64 start_time = cpu->start_time;
	u32 state = cpu->state;

	if (!try_cmpxchg(&cpu->pid, &owner, this_cpu()->pid))
		return false;
	cpu->start_time = this_cpu()->start_time;
	store_release(&cpu->state, CPU_SERVED);
	*result = ipi_table[func](cpu->id, arg);
	store_release(&cpu->state, state);
	cpu->start_time = start_time;
	store_release(&cpu->pid, owner);
	return true;
}

static int call_on(struct shm_cpu *cpu, u32 func, u64 arg)
{
	u64 deadline = read_tsc() + IPI_DEADLINE_S * shm.hdr->tsc_hz;
	int result = -ETIMEDOUT;

	if (cpu == this_cpu()) /* nobody else will let it get out of where it is */
		return ipi_table[func](cpu->id, arg);
	while (read_tsc() < deadline) {
		u32 pid = load_acquire(&cpu->pid), state = load_acquire(&cpu->state);

		if (pid == this_cpu()->pid && state == CPU_ONLINE) /* another CPU of this thread */
			return ipi_table[func](cpu->id, arg);
		if (!pid || (state != CPU_BINDING && !shm_owner_alive(pid, cpu->start_time))) {
			if (serve(cpu, pid, func, arg, &result))
				return result;
		} else if (state == CPU_ONLINE) {
			result = interrupt(cpu, func, arg, deadline);
			if (result != -EAGAIN)
				return result;
		}
		yield_core();
	}
	return result;
}

static int on_each_cpu(u32 func, u64 arg)
{
	int error = 0;

	spin_lock(&shm.hdr->ipi_lock);
	for (u32 i = 0; i < shm.nr_cpus; i++) {
		int result = call_on(&shm.cpus[i], func, arg);

		error = error ? error : result;
	}
	spin_unlock(&shm.hdr->ipi_lock);
	return error;
}

int flush_all(u32 cache)
{
	return on_each_cpu(IPI_FLUSH, cache);
}

int irq_work_run_all(void)
{
	return on_each_cpu(IPI_WORK, 0);
}

int rcu_serve_all(void)
{
	return on_each_cpu(IPI_RCU, 0);
}

/* arg: id of the memcg whose stocks, and those below it, are to be drained; 0 = all */
int memcg_drain_each_cpu(u64 arg)
{
	return on_each_cpu(IPI_MEMCG_DRAIN, arg);
}

__export int shm_flush_all(unsigned int cache)
{
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM, flush_all(cache));
}
