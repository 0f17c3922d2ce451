/* SPDX-License-Identifier: MIT */
/*
 * Read-side sections and grace periods across the CPU processes.
 * Answers to: include/linux/rcupdate.h, rcupdate_trace.h.
 *
 * A reader stores, as its section begins, how many grace periods had been started by then; a grace
 * period is over when every CPU is outside any section or in one that began after it.  Unlike the
 * kernel, a CPU with irqs or preemption off is no reader: only these calls make one.
 */
#ifndef SHM_RCU_H
#define SHM_RCU_H

#include "core.h"

#define RCU_FUNC(name) RCU_FUNC_##name,
enum rcu_func {
#include "rcu.def"
	NR_RCU_FUNCS
};
#undef RCU_FUNC

#define RCU_FUNC(name) void rcu_func_##name(u64 head);
#include "rcu.def"
#undef RCU_FUNC

/*
 * Any context.  The nesting count comes first and the reader word second, both ways: an NMI in
 * between finds either a section that is open, or opens and closes one of its own.
 */
__helper void rcu_read_lock_domain(enum shm_rcu_domain domain)
{
	struct rcu_cpu *rcu = &this_cpu()->rcu[domain];

	this_cpu_inc32(&rcu->nesting);
	if (!READ_ONCE(rcu->reader)) /* a full barrier: nothing is read before the section is seen */
		(void)xchg(&rcu->reader, READ_ONCE(shm.hdr->rcu[domain].gp_started) << 1 | 1);
}

__helper void rcu_read_unlock_domain(enum shm_rcu_domain domain)
{
	struct rcu_cpu *rcu = &this_cpu()->rcu[domain];
	bool outermost;

	__asm__ volatile("decl %1" : "=@ccz"(outermost), "+m"(rcu->nesting)::"memory");
	if (outermost)
		store_release(&rcu->reader, 0);
}

__helper void rcu_read_lock(void)
{
	rcu_read_lock_domain(RCU_PLAIN);
}

__helper void rcu_read_unlock(void)
{
	rcu_read_unlock_domain(RCU_PLAIN);
}

/* head: offset of a struct rcu_head in memory that is now this layer's.  Task, softirq, irq. */
void call_rcu_domain(enum shm_rcu_domain domain, u64 head, enum rcu_func func, u32 arg);
/* kfree(object) after a grace period; its bytes from head_offset on become the head */
void kfree_rcu(u64 object, u32 head_offset);
/* somebody needs the grace period soon: it does not last its minimum */
void rcu_urgent(enum shm_rcu_domain domain);
/* wait for a full grace period; task context, irqs on */
void synchronize_rcu_domain(enum shm_rcu_domain domain);
/* until no callback is left anywhere */
int rcu_barrier(void);
u64 rcu_callbacks(void);
/* what the timer tick does: advance grace periods, invoke what is due on this CPU, as a softirq */
void rcu_tick(void);
/* the same for a CPU that does not run itself, or in its own interrupt (smp.c) */
int rcu_serve(u32 cpu, u64 arg);
/* nothing to do here and now, as far as one look tells */
__helper bool rcu_idle(void)
{
	for (u32 domain = 0; domain < NR_RCU_DOMAINS; domain++) {
		const struct rcu_cpu *rcu = &this_cpu()->rcu[domain];

		if (rcu->next.count || rcu->wait.count ||
		    READ_ONCE(shm.hdr->rcu[domain].gp_wanted) != READ_ONCE(shm.hdr->rcu[domain].gp_completed))
			return false;
	}
	return true;
}

__helper void call_rcu(u64 head, enum rcu_func func, u32 arg)
{
	call_rcu_domain(RCU_PLAIN, head, func, arg);
}

#endif
