/* SPDX-License-Identifier: MIT */
/*
 * irq_work: a piece of work to be run in irq context on this CPU, queued from any context.
 *
 * Answers to: kernel/irq_work.c, and to machines without a self-interrupt (arch_irq_work_raise).
 * Kept: PENDING and BUSY, queueing by llist, PENDING cleared before the callback so that it may be
 * queued again meanwhile.  Changed: callbacks are rows of irq_work.def.  An arena may be told that its
 * machine raises no interrupt for the work, so that it runs at the next tick, or not before somebody
 * asks.  A CPU's work and the list of it are queued and run by that CPU, or by who is it for the time being
 * (smp.c), so no instruction of it is locked: they were half of what a refill of bpf_mem_alloc cost.
 * Left out: lazy work, other CPUs' lists.
 * Context: queueing any; running irq; waiting task.
 */
#include "list.h"
#include "irq.h"
#include "smp.h"
#include "sys.h"
#include "trace.h"

typedef void (*work_fn)(struct irq_work *work);

/* indices are in struct irq_work.func; never a function pointer in shared memory */
#define IRQ_WORK(name) irq_work_func_##name,
static const work_fn work_table[NR_IRQ_WORK_FUNCS] = {
#include "irq_work.def"
};
#undef IRQ_WORK

bool irq_work_queue(struct irq_work *work)
{
	_Static_assert(IRQ_WORK_PENDING == 1, "bit 0");
	if (this_cpu_test_and_set_bit0(&work->flags))
		return false;
	trace_irq_work_queue(work, TRACED_FROM);
	if (this_cpu_llist_add(&work->llnode, &this_cpu()->raised_list) &&
	    likely(shm.hdr->geometry.irq_work == SHM_IRQ_WORK_INTERRUPT))
		irq_raise(IRQ_PENDING_WORK);
	return true;
}

void irq_work_tick(bool force)
{
	if (READ_ONCE(this_cpu()->raised_list.first) &&
	    (force || shm.hdr->geometry.irq_work != SHM_IRQ_WORK_NEVER))
		irq_raise(IRQ_PENDING_WORK);
}

void irq_work_run(struct shm_cpu *cpu)
{
	u64 at = this_cpu_llist_del_all(&cpu->raised_list);

	while (at) {
		struct irq_work *work = container_of((u64 *)ptr_of(at), struct irq_work, llnode);

		u64 began;

		at = work->llnode; /* before PENDING goes: then it may be queued again */
		WRITE_ONCE(work->flags, IRQ_WORK_BUSY); /* it was PENDING, and nothing else */
		barrier();
		this_cpu_inc64(&shm.tele->irq_work_runs);
		began = trace_irq_work_entry(work);
		if (work->func < NR_IRQ_WORK_FUNCS)
			work_table[work->func](work);
		trace_irq_work_exit(work, began);
		this_cpu_and32(&work->flags, ~IRQ_WORK_BUSY);
		irq_work_wake(cpu);
	}
}

#define WORK_UNFINISHED (IRQ_WORK_PENDING | IRQ_WORK_BUSY)

/*
 * Where no interrupt is raised for the work, and on RT, who waits for it sleeps, and there is one
 * place to say who: two waiters at a time, and the first one is never woken (K-28).
 */
__slowpath void irq_work_wake(struct shm_cpu *cpu)
{
	u32 waiter = broken(k28) ? xchg(&cpu->work_waiter, 0) : 0;

	if (waiter)
		store_release(&shm.cpus[waiter - 1].woken, 1);
}

__slowpath static void sleep_until_done(struct irq_work *work)
{
	struct shm_cpu *cpu = container_of(work, struct shm_cpu, defer_work), *self = this_cpu();

	WRITE_ONCE(self->woken, 0);
	(void)xchg(&cpu->work_waiter, self->id + 1);
	probe(irq_work_waiter);
	if (!(READ_ONCE(work->flags) & WORK_UNFINISHED))
		return;
	probe(irq_work_sleeping);
	while (!load_acquire(&self->woken) && !stopped_by_verdict()) {
		if (!(READ_ONCE(work->flags) & WORK_UNFINISHED) && READ_ONCE(cpu->work_waiter) != self->id + 1)
			fatal(VERDICT_STALL, CHECKER_RETRY_BOUND, NULL, LOCK_NONE, 0, 0,
			      "it sleeps until an irq_work is done, and the one wake-up went to another");
		yield_core();
	}
}

void irq_work_sync(struct irq_work *work)
{
	if (broken(k28) && work->func == IRQ_WORK_FUNC_free_deferred && READ_ONCE(work->flags) & WORK_UNFINISHED)
		sleep_until_done(work);
	while (READ_ONCE(work->flags) & WORK_UNFINISHED) {
		if (irq_work_run_all() || stopped_by_verdict())
			return;
		yield_core();
	}
}
