/* SPDX-License-Identifier: MIT */
/*
 * The lock-rule checker: reports what could deadlock, without waiting for it to happen.
 *
 * Answers to: kernel/locking/lockdep.c.
 * Changed: locks are judged by class; a trylock is not exempt: it counts as held, may have to be
 * given back at the level that took it, and some classes may not even be tried in NMI.
 * A report is a broken_rule and does not stop the run: a harder verdict may still follow.
 * Checked flavour only.  May run in any context.
 */
#include "lock.h"

#if SHM_CHECKED

#define USED_WAITING_IN_IRQ 0x1u   /* spun for in irq context */
#define HELD_WITH_IRQS_ON 0x2u     /* taken in task context with irqs enabled */

#define RULE_SPIN_IN_NMI 0x1u
#define RULE_NEVER_IN_NMI 0x2u
#define RULE_IRQ_INVERSION 0x4u
#define RULE_ORDER 0x8u
#define RULE_NOT_RELEASED 0x10u
#define RULE_RECURSION 0x20u
#define RULE_UP_TRYLOCK 0x40u
#define RULE_PREEMPTIBLE 0x40u
#define RULE_WAKES_KSWAPD 0x80u

/* held with irqs off, and inside them no lock of the scheduler may be taken */
#define INNERMOST (1u << LOCK_LIST | 1u << LOCK_CPU_SLAB | 1u << LOCK_BARN | 1u << LOCK_PCP | 1u << LOCK_ZONE)

static void report(u32 class, u32 rule, const u32 *word, const char *text)
{
	if (!shm.hdr->lock_rules || class >= NR_LOCK_CLASSES)
		return;
	if (atomic_or(&shm.hdr->rule_reported[class], rule) & rule)
		return;
	violation(VERDICT_BROKEN_RULE, CHECKER_LOCK_RULES, word, class, 0, 0, text);
}

/* Is there a path a -> .. -> b in the graph "b was waited for while a was held"? */
static bool reachable(u32 from, u32 to)
{
	u32 reached = 1u << from, before;

	do {
		before = reached;
		for (u32 class = 0; class < NR_LOCK_CLASSES; class++)
			if (reached >> class & 1)
				reached |= READ_ONCE(shm.hdr->class_after[class]);
	} while (reached != before);
	return reached >> to & 1;
}

static void note_usage(u32 class, u32 bit, u32 conflict, const u32 *word)
{
	if ((READ_ONCE(shm.hdr->class_usage[class]) & bit) == 0)
		atomic_or(&shm.hdr->class_usage[class], bit);
	if (READ_ONCE(shm.hdr->class_usage[class]) & conflict)
		report(class, RULE_IRQ_INVERSION, word,
		       "waited for in irq context, but elsewhere held with irqs enabled");
}

/*
 * A path that may take the lock without having looked whether it is free: no matter whether it does
 * this time, it must not be entered in NMI.
 */
void lock_rules_might_wait(const u32 *word, u32 class)
{
	if (in_nmi())
		report(class, RULE_SPIN_IN_NMI, word, "waited for in NMI context: only a trylock may be used");
}

/* What is about to be done is with this CPU's own data: nothing may move the task meanwhile. */
void lock_rules_this_cpu(void)
{
	if (this_ctx() == CTX_TASK && !irqs_disabled() && !this_cpu()->preempt_count)
		report(LOCK_NONE, RULE_PREEMPTIBLE, NULL, "per-CPU data used in a context that may be preempted and moved");
}

/* What CONFIG_DEBUG_SPINLOCK calls "spinlock trylock failure on UP". */
void lock_rules_up(const u32 *word, u32 class)
{
	report(class, RULE_UP_TRYLOCK, word, "taken while an outer context holds it: without SMP nothing keeps that out");
}

/* Before a wait that may be long: every lock already held comes before this one. */
void lock_rules_wait(u32 *word, u32 class)
{
	struct shm_cpu *cpu = this_cpu();

	lock_rules_might_wait(word, class);
	if (this_ctx() == CTX_IRQ)
		note_usage(class, USED_WAITING_IN_IRQ, HELD_WITH_IRQS_ON, word);
	for (u32 i = 0; i < cpu->nr_held && i < SHM_MAX_HELD; i++) {
		u32 held = READ_ONCE(cpu->held[i].class);

		if (held == LOCK_NONE) /* an entry that was interrupted while it was written */
			continue;
		if (held == class) {
			report(class, RULE_RECURSION, word, "waited for while a lock of its class is held");
			continue;
		}
		if (reachable(class, held))
			report(class, RULE_ORDER, word,
			       "waited for while a lock is held that elsewhere is waited for in the other order");
		if (!(READ_ONCE(shm.hdr->class_after[held]) >> class & 1))
			atomic_or(&shm.hdr->class_after[held], 1u << class);
	}
}

/* The level at which this context began: probes within it are levels too, but what they interrupt has called them. */
static u32 level_of_context(const struct shm_cpu *cpu)
{
	u32 level = cpu->level;

	while (level && !cpu->levels[level].rip && cpu->levels[level].ctx == cpu->levels[level - 1].ctx)
		level--;
	return level;
}

/* Before kswapd is woken: that takes the scheduler's locks.  What an outer context holds is its own affair. */
void lock_rules_wakes_kswapd(void)
{
	const struct shm_cpu *cpu = this_cpu();
	u32 from = level_of_context(cpu);

	for (u32 i = 0; i < cpu->nr_held && i < SHM_MAX_HELD; i++)
		if (INNERMOST >> READ_ONCE(cpu->held[i].class) & 1 && cpu->held[i].level >= from)
			report(cpu->held[i].class, RULE_WAKES_KSWAPD, ptr_of(cpu->held[i].lock),
			       "kswapd is woken, which takes the scheduler's locks, while this is held");
}

/*
 * An entry beyond nr_held is LOCK_NONE, and an entry is counted before it is filled and until after
 * it is cleared: whoever interrupts in between sees a lock of no class, never a stale one.
 */
static void push_held(struct shm_cpu *cpu, const u32 *word, u32 class)
{
	u32 at = cpu->nr_held;

	WRITE_ONCE(cpu->nr_held, at + 1);
	barrier();
	if (at >= SHM_MAX_HELD)
		return;
	cpu->held[at].lock = off_of(word);
	cpu->held[at].level = cpu->level;
	barrier();
	WRITE_ONCE(cpu->held[at].class, class);
}

static void pop_held(struct shm_cpu *cpu, u32 at, u32 last)
{
	for (; at + 1 < last; at++)
		cpu->held[at] = cpu->held[at + 1];
	WRITE_ONCE(cpu->held[at].class, LOCK_NONE);
	barrier();
	WRITE_ONCE(cpu->nr_held, cpu->nr_held - 1);
}

void lock_rules_acquired(u32 *word, u32 class)
{
	push_held(this_cpu(), word, class);
	if (in_nmi() && (class == LOCK_SLAB_BIT || class == LOCK_SLAB_MUTEX))
		report(class, RULE_NEVER_IN_NMI, word, "of a class that may not be used in NMI, not even by trylock");
	if (!irqs_disabled() && this_ctx() == CTX_TASK)
		note_usage(class, HELD_WITH_IRQS_ON, USED_WAITING_IN_IRQ, word);
}

void lock_rules_released(u32 *word)
{
	struct shm_cpu *cpu = this_cpu();
	u64 lock = off_of(word);
	u32 last = min_of(cpu->nr_held, (u32)SHM_MAX_HELD);

	for (u32 i = last; i-- > 0;) {
		if (cpu->held[i].lock == lock && cpu->held[i].class != LOCK_NONE) {
			pop_held(cpu, i, last);
			return;
		}
	}
	if (cpu->nr_held > SHM_MAX_HELD)
		cpu->nr_held--;
	else
		violation(VERDICT_BROKEN_RULE, CHECKER_LOCK_RULES, word, LOCK_NONE, 0, 0,
			  "released, but not held by this CPU");
}

/* At the end of a handler or of a call from outside: what this level took must be given back. */
void lock_rules_level_end(u32 nr_held)
{
	struct shm_cpu *cpu = this_cpu();

	while (cpu->nr_held > nr_held) {
		u32 at = cpu->nr_held - 1;
		struct held_lock held = cpu->held[min_of(at, (u32)SHM_MAX_HELD - 1)];

		if (at < SHM_MAX_HELD)
			WRITE_ONCE(cpu->held[at].class, LOCK_NONE);
		WRITE_ONCE(cpu->nr_held, at);
		if (at < SHM_MAX_HELD)
			report(held.class, RULE_NOT_RELEASED, ptr_of(held.lock),
			       "still held at the end of the call or handler that took it");
	}
}

#else
void lock_rules_level_end(u32 nr_held)
{
	(void)nr_held;
}
#endif

/* What was unwound gave nothing back; the words stay locked, and the audit names them. */
void lock_rules_forget(u32 nr_held)
{
	struct shm_cpu *cpu = this_cpu();

	for (u32 i = nr_held; i < SHM_MAX_HELD; i++)
		cpu->held[i].class = LOCK_NONE;
	cpu->nr_held = nr_held;
}
