/* SPDX-License-Identifier: MIT */
/*
 * Execution levels, and what an interrupt does when it is taken.
 *
 * Answers to: kernel/softirq.c (irq_enter, irq_exit), arch/x86/kernel/nmi.c, kernel/irq_work.c's
 * arch_irq_work_raise.  The signal handlers themselves are in signals.c.
 */
#include "lock.h"
#include "replay.h"
#include "sys.h"
#include "signals.h"
#include "trace.h"

/* pending interrupts that run ops; there are no probes to run any in release */
#define IRQ_PENDING_OPS (IRQ_PENDING_PROGRAM | (SHM_CHECKED ? IRQ_PENDING_PROBE : 0))

bool level_enter(u32 ctx, u64 rip, u64 rbp)
{
	struct shm_cpu *cpu = this_cpu();
	u32 level = cpu->level + 1;

	if (level >= SHM_MAX_LEVELS)
		return false;
	/* publish first: an NMI from here on uses the level above and leaves this one alone */
	WRITE_ONCE(cpu->level, level);
	barrier();
	cpu->levels[level].ctx = ctx;
	cpu->levels[level].reason = REASON_NONE;
	cpu->levels[level].rip = rip;
	cpu->levels[level].rbp = rbp;
	context_changed();
	return true;
}

void level_exit(void)
{
	WRITE_ONCE(this_cpu()->level, this_cpu()->level - 1);
	barrier();
	context_changed();
}

bool guard_enter(struct guard *guard)
{
	struct shm_cpu *cpu = this_cpu();

	if (!cpu || !thread_is_cpu())
		return false;
	if (unlikely(shm.trace_seen != READ_ONCE(shm.hdr->trace.generation)))
		first_attempts_load();
	guard->runs_ops = false;
	guard->level = cpu->level;
	guard->irqs_disabled = cpu->irqs_disabled;
	guard->nr_held = cpu->nr_held;
	guard->waiting_for = cpu->waiting_for;
	guard->outer = shm.guard;
	shm.guard = guard;
	return true;
}

void guard_exit(struct guard *guard)
{
	shm.guard = guard->outer;
	lock_rules_level_end(guard->nr_held);
}

/* Nothing of the state of what was given up survives, except the locks it holds: they are lost. */
void guard_unwound(struct guard *guard)
{
	struct shm_cpu *cpu = this_cpu();

	shm.guard = guard->outer;
	cpu->level = guard->level;
	context_changed();
	cpu->irqs_disabled = guard->irqs_disabled;
	lock_rules_forget(guard->nr_held);
	for (u32 level = guard->level; level < SHM_MAX_LEVELS; level++)
		shm.outer_site[level] = shm.traced_again[level] = 0;
	cpu->waiting_for = guard->waiting_for;
}

static void count_landing(struct shm_interrupts *counts, u64 rip, u32 level)
{
	this_cpu_inc64(&counts->handled);
	if (rip_in_allocator(rip))
		this_cpu_inc64(&counts->in_allocator);
	if (rip_in_slow_path(rip))
		this_cpu_inc64(&counts->in_slow_path);
	if (level > 1)
		this_cpu_inc64(&counts->nested);
}

/* One level's work under a guard of its own, so that a deadlock proved in it unwinds only it. */
static void run_guarded(enum shm_irq_kind kind, u32 pending)
{
	struct guard guard;

	if (!guard_enter(&guard))
		return;
	guard.runs_ops = true;
	if (!__builtin_setjmp(guard.buf)) {
		if (pending & IRQ_PENDING_WORK)
			irq_work_run(this_cpu());
		if (pending & IRQ_PENDING_IPI)
			ipi_run();
		if (pending & IRQ_PENDING_PROGRAM)
			program_run(kind);
#if SHM_CHECKED
		if (pending & IRQ_PENDING_PROBE)
			program_run_ops(&shm.probe_program, 0, shm.probe_program.nr_ops);
#endif
		guard_exit(&guard);
	} else {
		guard_unwound(&guard);
	}
}

/* False: no level is left; what was pending stays so. */
static bool irq_once(u32 pending, u64 rip, u64 rbp, bool sync)
{
	struct shm_cpu *cpu = this_cpu();
	bool taken;
	u64 began;

	WRITE_ONCE(cpu->irqs_disabled, 1);
	barrier();
	taken = level_enter(CTX_IRQ, sync ? 0 : rip, rbp);
	if (taken) {
		if (pending & IRQ_PENDING_OPS)
			count_landing(&shm.tele->interrupts[KIND_IRQ], rip, cpu->level);
		began = trace_handler_entry(KIND_IRQ, sync ? 0 : rip, pending);
		run_guarded(KIND_IRQ, pending);
		trace_handler_exit(KIND_IRQ, began);
		level_exit();
	} else {
		atomic_or(&cpu->irq_pending, pending);
	}
	barrier();
	WRITE_ONCE(cpu->irqs_disabled, 0);
	barrier();
	return taken;
}

/* Take what is pending until nothing is; irqs are enabled on entry and on return. */
void irq_take(u64 rip, u64 rbp, bool sync)
{
	struct shm_cpu *cpu = this_cpu();

	while (!cpu->irqs_disabled && READ_ONCE(cpu->irq_pending)) {
		u32 pending = xchg(&cpu->irq_pending, 0);

		if (pending && !irq_once(pending, rip, rbp, sync))
			return;
	}
}

/* Irqs have just been enabled with something pending: the interrupt is taken here. */
__slowpath void irq_replay(void)
{
	if (this_ctx() != CTX_NMI)
		irq_take((u64)__builtin_return_address(0), (u64)__builtin_frame_address(0), true);
}

/*
 * Raise an interrupt on this CPU.  With irqs enabled it is taken at once, as a self-IPI is at the
 * next instruction; a signal to oneself would measure Linux's signal delivery (4 us) instead.
 * Masked, the unmasking takes it; in NMI, the handler's exit does (signals.c).
 */
void irq_raise(u32 pending)
{
	atomic_or(&this_cpu()->irq_pending, pending);
	if (!irqs_disabled())
		irq_replay();
}

void nmi_take(u64 rip, u64 rbp, bool sync)
{
	struct shm_cpu *cpu = this_cpu();
	u32 flags = cpu->irqs_disabled;
	u64 began;

	WRITE_ONCE(cpu->irqs_disabled, 1); /* as on entry by the hardware */
	barrier();
	if (level_enter(CTX_NMI, sync ? 0 : rip, rbp)) {
		count_landing(&shm.tele->interrupts[KIND_NMI], rip, cpu->level);
		began = trace_handler_entry(KIND_NMI, sync ? 0 : rip, 0);
		run_guarded(KIND_NMI, IRQ_PENDING_PROGRAM);
		trace_handler_exit(KIND_NMI, began);
		level_exit();
	}
	barrier();
	WRITE_ONCE(cpu->irqs_disabled, flags);
	barrier();
}

__export int shm_irq_save(void)
{
	return thread_is_cpu() ? (int)local_irq_save() : -EPERM;
}

static int restore(u32 previous)
{
	local_irq_restore(previous);
	return 0;
}

__export int shm_irq_restore(int previous)
{
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM, restore((u32)previous));
}

__export int shm_irq_pending(void)
{
	return thread_is_cpu() ? (int)this_cpu()->irq_pending : -EPERM;
}

/* Bottom halves off: the task is then in softirq context as far as an allocator can tell. */
__export int shm_bh_disable(void)
{
	if (!thread_is_cpu())
		return -EPERM;
	if (this_cpu()->bh_count++ == 0 && this_ctx() == CTX_TASK)
		this_cpu()->levels[this_cpu()->level].ctx = CTX_SOFTIRQ;
	context_changed();
	return 0;
}

__export int shm_bh_enable(void)
{
	if (!thread_is_cpu())
		return -EPERM;
	if (!this_cpu()->bh_count)
		return -EINVAL;
	if (--this_cpu()->bh_count == 0 && this_ctx() == CTX_SOFTIRQ)
		this_cpu()->levels[this_cpu()->level].ctx = CTX_TASK;
	context_changed();
	return 0;
}

static int run_irq_work(void)
{
	irq_work_tick(true);
	if (!irqs_disabled() && this_cpu()->irq_pending)
		irq_replay();
	return 0;
}

__export int shm_run_irq_work(void)
{
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM, run_irq_work());
}
