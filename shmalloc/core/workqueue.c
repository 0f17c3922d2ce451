/* SPDX-License-Identifier: MIT */
/*
 * Work for a worker in task context, queued on this CPU's pool.
 *
 * Answers to: kernel/workqueue.c (queue_work, __queue_work, insert_work), as far as a charge needs it.
 * Kept: a pending item is queued once; queueing takes the pool's lock, spinning, with irqs off, and is
 * therefore not for NMIs (K-48).  Changed: no worker thread runs by itself: shm_memcg_run_work is the
 * worker.  Left out: everything else, waking the worker (the runqueue's lock) included.
 * Context: queue_work task, softirq and irq; run_pool task.
 */
#include "memcontrol.h"

/* False: it is pending already, and nothing was locked. */
__slowpath bool queue_work(struct work_struct *work)
{
	struct memcg_cpu *pool = shm.memcg_cpu;
	u32 flags;

	if (xchg(&work->pending, 1))
		return false;
	flags = local_irq_save();
	spin_lock(&pool->pool_lock);
	probe(wq_pool_locked);
	work->next = pool->works;
	pool->works = off_of(work);
	spin_unlock(&pool->pool_lock);
	local_irq_restore(flags);
	return true;
}

__slowtext void run_pool(void)
{
	struct memcg_cpu *pool = shm.memcg_cpu;
	u32 flags = spin_lock_irqsave(&pool->pool_lock);
	u64 at = pool->works;

	pool->works = 0;
	spin_unlock_irqrestore(&pool->pool_lock, flags);
	while (at) {
		struct work_struct *work = ptr_of(at);
		struct mem_cgroup *memcg = memcg_by_id(work->memcg);

		at = work->next; /* before pending goes: then it may be queued again */
		xchg(&work->pending, 0);
		if (memcg)
			memcg_high_work(memcg);
	}
}
