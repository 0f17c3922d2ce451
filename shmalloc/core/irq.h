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
	u32 flags = this_cpu()->irqs_disabled;

	WRITE_ONCE(this_cpu()->irqs_disabled, 1);
	barrier();
	return flags;
}

__helper void local_irq_restore(u32 flags)
{
	if (flags)
		return;
	barrier();
	WRITE_ONCE(this_cpu()->irqs_disabled, 0);
	barrier();
	if (unlikely(READ_ONCE(this_cpu()->irq_pending)))
		irq_replay();
}

__helper bool irqs_disabled(void)
{
	return this_cpu()->irqs_disabled;
}

/*
 * A thread cannot be moved to another CPU slot here, so disabling preemption costs nothing; the
 * names stay where the kernel has them because they say which accesses must be to one CPU.
 */
__helper void preempt_disable(void)
{
	barrier();
}

__helper void preempt_enable(void)
{
	barrier();
}

void irq_raise(u32 pending);

/* Enter and leave an execution level; false if the levels are used up.  rip 0: rbp is the caller's frame. */
bool level_enter(u32 ctx, u64 rip, u64 rbp);
void level_exit(void);

/* irq_work.c */
bool irq_work_queue(struct irq_work *work);
void irq_work_run(void);

/* smp.c */
void ipi_run(void);

#endif
