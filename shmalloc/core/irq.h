/* SPDX-License-Identifier: MIT */
/*
 * Interrupt masking and execution levels.
 *
 * Answers to: include/linux/irqflags.h, preempt.h, hardirq.h.
 * Changed: the mask is a word that the IRQ signal's handler honours.  Masked, the handler marks the
 * interrupt pending and returns; restoring clears the mask first and then tests pending, in a loop,
 * so that nothing raised in between is lost.  The NMI signal's handler ignores the mask.
 */
#ifndef SHM_IRQ_H
#define SHM_IRQ_H

#include "core.h"

void irq_replay(void);

__helper u32 local_irq_save(void)
{
	struct shm_cpu *cpu = this_cpu();
	u32 flags = cpu->irqs_disabled;

	WRITE_ONCE(cpu->irqs_disabled, 1);
	barrier();
	return flags;
}

__helper void local_irq_restore(u32 flags)
{
	struct shm_cpu *cpu = this_cpu();

	if (flags)
		return;
	barrier();
	WRITE_ONCE(cpu->irqs_disabled, 0);
	barrier();
	if (unlikely(READ_ONCE(cpu->irq_pending)))
		irq_replay();
}

__helper bool irqs_disabled(void)
{
	return this_cpu()->irqs_disabled;
}

/*
 * A thread cannot be moved to another CPU slot here, so disabling preemption costs nothing; the
 * names stay where the kernel has them because they say which accesses must be to one CPU.  The
 * checked flavour counts, for those who ask whether they might have been moved (lock_rules.c).
 */
__helper void preempt_disable(void)
{
	if (SHM_CHECKED)
		WRITE_ONCE(this_cpu()->preempt_count, this_cpu()->preempt_count + 1);
	barrier();
}

__helper void preempt_enable(void)
{
	barrier();
	if (SHM_CHECKED)
		WRITE_ONCE(this_cpu()->preempt_count, this_cpu()->preempt_count - 1);
}

void irq_raise(u32 pending);

/* Enter and leave an execution level; false if the levels are used up.  rip 0: rbp is the caller's frame. */
bool level_enter(u32 ctx, u64 rip, u64 rbp);
void level_exit(void);

/* irq_work.c */
#define IRQ_WORK(name) IRQ_WORK_FUNC_##name,
enum irq_work_func {
#include "irq_work.def"
	NR_IRQ_WORK_FUNCS
};
#undef IRQ_WORK

#define IRQ_WORK(name) void irq_work_func_##name(struct irq_work *work);
#include "irq_work.def"
#undef IRQ_WORK

bool irq_work_queue(struct irq_work *work);
void irq_work_run(struct shm_cpu *cpu);
/* raise what is queued though no interrupt was: at a tick, if the arena's irq_work waits for that; or forced */
void irq_work_tick(bool force);
/* The way of a machine without a self-interrupt, which a broken variant takes (K-28). */
void irq_work_wake(struct shm_cpu *cpu);
/* until the work neither waits nor runs; task, irqs on; what a CPU left that nobody is any more is run here */
void irq_work_sync(struct irq_work *work);

/* smp.c */
void ipi_run(void);

#endif
