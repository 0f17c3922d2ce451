/* SPDX-License-Identifier: MIT */
/*
 * Probe sites: a handler hooked at a named place inside the allocator (checked flavour).
 *
 * Answers to: kprobes and tracepoints that fire inside the slab allocator; lib/tests/slub_kunit.c.
 * A site may run its program as a synchronous probe (same context as what it interrupts), as an NMI
 * or an IRQ that arrives exactly there, or as another CPU of this process.  Context: any.
 */
#include "lock.h"
#include "replay.h"
#include "signals.h"

#define PROBE(name) #name,
static const char *const probe_names[NR_PROBE_SITES] = {
#include "probe.def"
};
#undef PROBE

__export const char *shm_probe_name(unsigned int site)
{
	return site < NR_PROBE_SITES ? probe_names[site] : NULL;
}

#if SHM_CHECKED

static struct probe probes[NR_PROBE_SITES];
static u64 probes_fired;

static void run_guarded(const struct shm_program *program)
{
	struct guard guard;

	if (!guard_enter(&guard))
		return;
	guard.runs_ops = true;
	if (!__builtin_setjmp(guard.buf)) {
		program_run_ops(program, 0, program->nr_ops);
		guard_exit(&guard);
	} else {
		guard_unwound(&guard);
	}
}

/* A kprobe or tracepoint: the context stays what it is. */
static void run_as_probe(const struct shm_program *program)
{
	if (!level_enter(this_ctx(), 0, (u64)__builtin_frame_address(0)))
		return;
	run_guarded(program);
	level_exit();
}

static void run_as_nmi(const struct shm_program *program)
{
	struct shm_program saved = shm.program[KIND_NMI];
	u64 saved_at = shm.program_at[KIND_NMI];
	u32 saved_on = shm.program_on[KIND_NMI];

	shm.program[KIND_NMI] = *program;
	shm.program_at[KIND_NMI] = 0;
	shm.program_on[KIND_NMI] = 1;
	atomic_add(&shm.tele->interrupts[KIND_NMI].sent, 1);
	nmi_take((u64)__builtin_return_address(0), (u64)__builtin_frame_address(0), true);
	shm.program[KIND_NMI] = saved;
	shm.program_at[KIND_NMI] = saved_at;
	shm.program_on[KIND_NMI] = saved_on;
	if (!irqs_disabled() && this_cpu()->irq_pending)
		irq_replay();
}

/* Masked, it stays pending and is taken where irqs are enabled again. */
static void run_as_irq(const struct shm_program *program)
{
	shm.probe_program = *program;
	atomic_add(&shm.tele->interrupts[KIND_IRQ].sent, 1);
	irq_raise(IRQ_PENDING_PROBE);
}

/* What another CPU does meanwhile, on the same thread: deterministic, but without its own time. */
static void run_as_other_cpu(const struct shm_program *program, u32 other)
{
	u32 self = this_cpu()->id;

	if (shm_cpu_switch(other))
		return;
	run_guarded(program);
	shm_cpu_switch(self);
}

static void fire(struct probe *p)
{
	const struct shm_program program = p->program;

	p->fire_at = 0;
	probes_fired++;
	switch (p->action) {
	case PROBE_PROBE:
		run_as_probe(&program);
		break;
	case PROBE_NMI:
		run_as_nmi(&program);
		break;
	case PROBE_IRQ:
		run_as_irq(&program);
		break;
	case PROBE_OTHER_CPU:
		run_as_other_cpu(&program, p->other_cpu);
		break;
	default:
		break;
	}
}

void probe_hit(enum shm_probe_site site)
{
	struct probe *p = &probes[site];

	if (++p->hits == p->fire_at)
		fire(p);
}

__export int shm_probe_arm(unsigned int site, enum shm_probe_action action, uint64_t nth,
			   const struct shm_program *program, unsigned int other_cpu)
{
	struct probe *p;

	if (site >= NR_PROBE_SITES || action > PROBE_OTHER_CPU || !nth)
		return -EINVAL;
	if (action != PROBE_NONE && (!shm.base || !program || !program_ok(program)))
		return -EINVAL;
	/* the kernel marks this place as not to be probed, because the pair is half written (K-42) */
	if (site == PROBE_SITE_cpu_slab_editing && action == PROBE_PROBE && !broken(k42))
		return -EINVAL;
	p = &probes[site];
	p->action = action;
	p->other_cpu = other_cpu;
	if (program)
		p->program = *program;
	p->fire_at = action == PROBE_NONE ? 0 : p->hits + nth;
	shm.probes_armed = 1;
	return 0;
}

__export int shm_probe_disarm(void)
{
	shm.probes_armed = 0;
	if (shm.cpu)
		atomic_and(&shm.cpu->irq_pending, ~IRQ_PENDING_PROBE);
	shm.probe_program = (struct shm_program){ 0 };
	for (u32 i = 0; i < NR_PROBE_SITES; i++)
		probes[i] = (struct probe){ 0 };
	probes_fired = 0;
	return 0;
}

__export uint64_t shm_probe_hits(unsigned int site)
{
	return site < NR_PROBE_SITES ? probes[site].hits : 0;
}

__export uint64_t shm_probe_fired(void)
{
	return probes_fired;
}

#else

__export int shm_probe_arm(unsigned int site, enum shm_probe_action action, uint64_t nth,
			   const struct shm_program *program, unsigned int other_cpu)
{
	(void)site, (void)action, (void)nth, (void)program, (void)other_cpu;
	return -EOPNOTSUPP;
}

__export int shm_probe_disarm(void)
{
	return -EOPNOTSUPP;
}

__export uint64_t shm_probe_hits(unsigned int site)
{
	(void)site;
	return 0;
}

__export uint64_t shm_probe_fired(void)
{
	return 0;
}

#endif
