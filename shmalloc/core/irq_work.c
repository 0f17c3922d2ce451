/* SPDX-License-Identifier: MIT */
/*
 * irq_work: a piece of work to be run in irq context on this CPU, queued from any context.
 *
 * Answers to: kernel/irq_work.c, and kernel/bpf's use of it.
 * Kept: PENDING and BUSY, queueing by llist, PENDING cleared before the callback so that it may be
 * queued again meanwhile.  Changed: callbacks are table indices.  Left out: lazy work, other CPUs.
 */
#include "list.h"
#include "irq.h"
#include "slab.h"

typedef void (*work_fn)(void);

/* indices are in struct irq_work.func; never a function pointer in shared memory */
static const work_fn work_table[] = { free_deferred_objects };

bool irq_work_queue(struct irq_work *work)
{
	if (atomic_or(&work->flags, IRQ_WORK_PENDING) & IRQ_WORK_PENDING)
		return false;
	if (llist_add(&work->llnode, &this_cpu()->raised_list))
		irq_raise(IRQ_PENDING_WORK);
	return true;
}

void irq_work_run(void)
{
	u64 at = llist_del_all(&this_cpu()->raised_list);

	while (at) {
		struct irq_work *work = container_of((u64 *)ptr_of(at), struct irq_work, llnode);

		at = work->llnode; /* before PENDING goes: then it may be queued again */
		atomic_or(&work->flags, IRQ_WORK_BUSY);
		atomic_and(&work->flags, ~IRQ_WORK_PENDING);
		this_cpu_inc64(&shm.tele->irq_work_runs);
		if (work->func < ARRAY_SIZE(work_table))
			work_table[work->func]();
		atomic_and(&work->flags, ~IRQ_WORK_BUSY);
	}
}
