/* SPDX-License-Identifier: MIT */
/*
 * Waiting for a lock, and proving that a wait can never end.
 *
 * Answers to: kernel/locking/qspinlock.c, and to what rqspinlock detects by timeout.
 * Three proofs, each a verdict: the owner is an outer context of this very CPU; the owners wait for
 * each other in a ring; the owner's process is dead.  A fourth verdict is measured: the owner has
 * used seconds of CPU time and still holds the same acquisition.
 */
#include "lock.h"
#include "sys.h"
#include "trace.h"

/*
 * A wait spins while its owner may be running, and gives its core away where it cannot be: what a lock protects takes
 * less than a microsecond, 512 spins some ten; an owner that holds it for longer has been preempted.
 * Without that the others would burn their time slices, one after the other, until its turn comes: 16 CPUs on 2 cores
 * that refill from one node then take 1.3 to 2.3 times the processor time for an op (`shmalloc bench growth` measures
 * both), where with it an op costs what it costs on 2 CPUs.
 */
#define SPINS_BEFORE_YIELD 512
#define YIELDS_BEFORE_OWNER_CHECK 256
#define STALL_TICKS 500 /* of the owner's CPU time: 5 s in USER_HZ */
#define STOP_GRACE_S 2

struct wait_state {
	u32 *word;
	u32 class;
	u32 owner;        /* acquisition that is being watched */
	u64 owner_ticks;  /* CPU time of its thread when first seen */
	u64 stop_seen;    /* tsc when header.stop was first seen */
	u64 began;        /* tsc */
	u32 yields;
};

__slowtext static struct shm_cpu *owner_of(u32 word)
{
	u32 cpu = lock_owner_cpu(word);

	return cpu < nr_cpu_slots() ? &shm.cpus[cpu] : NULL;
}

#define WAIT_LEVEL_SHIFT 56

__slowtext static u64 wait_mark(const u32 *word)
{
	return off_of(word) | (u64)this_cpu()->level << WAIT_LEVEL_SHIFT;
}

/*
 * Follow owner -> the lock that the owner waits for -> its owner, until this CPU is reached.  A hop
 * counts only if the lock is held at or below the level that waits: a handler above it may still
 * finish and release.  Returns the number of hops, 0 if there is no ring; `seen` gets what was read.
 */
__slowtext static u32 find_ring(const u32 *word, u64 *seen, u32 max)
{
	u32 hops = 0;

	while (hops + 1 < max) {
		u32 value = READ_ONCE(*word);
		struct shm_cpu *owner = value ? owner_of(value) : NULL;
		u64 waiting;

		if (!owner)
			return 0;
		seen[hops++] = value;
		if (owner == this_cpu())
			return hops;
		waiting = READ_ONCE(owner->waiting_for);
		if (!waiting || lock_owner_level(value) > waiting >> WAIT_LEVEL_SHIFT)
			return 0;
		seen[hops++] = waiting ^ READ_ONCE(owner->wait_seq) << 32;
		word = ptr_of(waiting & ((1ull << WAIT_LEVEL_SHIFT) - 1));
	}
	return 0;
}

__slowtext static u32 proven_ring(const u32 *word)
{
	u64 first[2 * 16], second[2 * 16];
	u32 hops = find_ring(word, first, ARRAY_SIZE(first));

	if (hops < 2 || find_ring(word, second, ARRAY_SIZE(second)) != hops)
		return 0;
	for (u32 i = 0; i < hops; i++)
		if (first[i] != second[i])
			return 0;
	return (u32)first[0];
}

__slowtext static void check_ring(struct wait_state *wait)
{
	u32 owner = proven_ring(wait->word);

	if (owner)
		fatal(VERDICT_DEADLOCK, CHECKER_DEADLOCK, wait->word, wait->class, owner, 0,
		      "CPUs wait for each other's locks in a ring");
}

__slowtext static void check_owner(struct wait_state *wait, u32 word)
{
	struct shm_cpu *owner = owner_of(word);
	u64 ticks;

	if (!owner)
		fatal(VERDICT_CORRUPTION, CHECKER_OWNER, wait->word, wait->class, word, 0,
		      "the lock word names a CPU that does not exist");
	if (!shm_owner_alive(owner->pid, owner->start_time)) {
		if (READ_ONCE(*wait->word) == word)
			fatal(VERDICT_DEAD_OWNER, CHECKER_OWNER, wait->word, wait->class, word, 0,
			      "the lock's owner is dead");
		return;
	}
	ticks = thread_cpu_ticks(owner->pid, owner->tid);
	if (!ticks)
		return;
	if (wait->owner != word) {
		wait->owner = word;
		wait->owner_ticks = ticks;
	} else if (ticks > wait->owner_ticks + STALL_TICKS && READ_ONCE(*wait->word) == word) {
		fatal(VERDICT_STALL, CHECKER_OWNER, wait->word, wait->class, word, 0,
		      "the owner ran for seconds and still holds the lock");
	}
}

__slowtext static void check_stop(struct wait_state *wait)
{
	u32 stop = READ_ONCE(shm.hdr->stop);

	if (!stop)
		return;
	if (stop > 1)
		unwind();
	if (!wait->stop_seen)
		wait->stop_seen = read_tsc();
	else if (read_tsc() - wait->stop_seen > STOP_GRACE_S * shm.hdr->tsc_hz)
		unwind();
}

/* A lock held by this CPU, or by another CPU of this same thread, is never released while we spin. */
__slowtext static void check_self(struct wait_state *wait, u32 word)
{
	struct shm_cpu *owner = owner_of(word);

	if (owner == this_cpu())
		fatal(VERDICT_DEADLOCK, CHECKER_DEADLOCK, wait->word, wait->class, word, 0,
		      "an outer context of this CPU holds the lock");
	if (owner && owner->tid == this_cpu()->tid && owner->pid == this_cpu()->pid)
		fatal(VERDICT_DEADLOCK, CHECKER_DEADLOCK, wait->word, wait->class, word, 0,
		      "another CPU of this thread holds the lock");
}

/* We run on the one core that the owner may run on, so it does not run: spinning would only keep it from it. */
__slowtext static bool keeps_from_running(u32 word)
{
	struct shm_cpu *owner = owner_of(word);

	return owner && owner->core == this_cpu()->core && owner->core != NO_CORE;
}

__slowtext static bool spun_enough(u32 spins, u32 word)
{
	return spins % SPINS_BEFORE_YIELD == SPINS_BEFORE_YIELD - 1 || keeps_from_running(word);
}

__slowtext static void wait_begins(struct wait_state *wait)
{
	this_cpu_inc64(&shm.tele->lock_waits);
	this_cpu()->wait_seq++;
	WRITE_ONCE(this_cpu()->waiting_for, wait_mark(wait->word));
	trace_contention_begin(wait->word, wait->class);
	wait->began = read_tsc();
}

__slowtext static void wait_ends(const struct wait_state *wait, u64 outer, int error)
{
	u64 cycles = read_tsc() - wait->began;

	trace_contention_end(wait->word, wait->class, error);
	WRITE_ONCE(this_cpu()->waiting_for, outer);
	this_cpu_add64(&shm.tele->lock_wait_cycles, cycles);
	if (cycles > shm.tele->lock_wait_max_cycles)
		shm.tele->lock_wait_max_cycles = cycles;
}

__slowtext static void wait_longer(struct wait_state *wait, u32 word)
{
	u32 yields = wait->yields++;

	check_ring(wait);
	check_stop(wait);
	if (yields % YIELDS_BEFORE_OWNER_CHECK == YIELDS_BEFORE_OWNER_CHECK - 1)
		check_owner(wait, word);
	this_cpu_inc64(&shm.tele->lock_yields);
	yield_core();
}

/* The lock is held.  Without SMP a spinlock is a no-op: "acquired" all the same, and it is reported. */
__slowpath bool lock_try_up(u32 *word, u32 class)
{
	if (!is_up() || (class != LOCK_PCP && class != LOCK_ZONE && class != LOCK_LIST && class != LOCK_LRU))
		return false;
	(void)word; /* release has no lock rules */
	lock_rules_up(word, class);
	return true;
}

__slowpath void lock_wait(u32 *word, u32 class, u32 mine)
{
	struct wait_state wait = { .word = word, .class = class };
	u64 outer = this_cpu()->waiting_for;

	if (lock_try_up(word, class))
		return;
	wait_begins(&wait);
	for (u32 spins = 0;; spins++) {
		u32 now = READ_ONCE(*word);

		if (!now && cmpxchg(word, 0, mine) == 0)
			break;
		if (!now)
			continue;
		check_self(&wait, now);
		cpu_relax();
		if (spun_enough(spins, now))
			wait_longer(&wait, now);
	}
	wait_ends(&wait, outer, 0);
}

#define RES_TIMEOUT_FRACTION 4 /* of a second: 250 ms */

/* Nobody will release it: the owner is this CPU, or another CPU of this same thread. */
__slowtext static int res_never(u32 word)
{
	struct shm_cpu *owner = owner_of(word);

	if (owner == this_cpu())
		return -EDEADLK;
	return owner && owner->tid == this_cpu()->tid && owner->pid == this_cpu()->pid ? -ETIMEDOUT : 0;
}

__slowtext static int res_wait_longer(struct wait_state *wait, u64 deadline)
{
	if (proven_ring(wait->word))
		return -EDEADLK;
	if (read_tsc() > deadline)
		return -ETIMEDOUT;
	check_stop(wait);
	this_cpu_inc64(&shm.tele->lock_yields);
	yield_core();
	return 0;
}

/*
 * Answers to: kernel/bpf/rqspinlock.c.  Changed: the owner is in the word, so the AA case is found at
 * the first look instead of after a millisecond; no queue.
 */
__slowpath int res_lock_wait(u32 *word, u32 class, u32 mine)
{
	struct wait_state wait = { .word = word, .class = class };
	u64 outer = this_cpu()->waiting_for, deadline = read_tsc() + shm.hdr->tsc_hz / RES_TIMEOUT_FRACTION;
	int error = 0;

	wait_begins(&wait);
	for (u32 spins = 0; !error; spins++) {
		u32 now = READ_ONCE(*word);

		if (!now && cmpxchg(word, 0, mine) == 0)
			break;
		if (!now)
			continue;
		error = res_never(now);
		cpu_relax();
		if (!error && spun_enough(spins, now))
			error = res_wait_longer(&wait, deadline);
	}
	wait_ends(&wait, outer, error);
	return error;
}

/*
 * A local lock taken again by its own CPU.  PREEMPT_RT would wait for ever; !RT would go on and
 * corrupt the cpu slab.  Neither may be green.
 */
__slowpath void local_lock_reentered(struct spinlock *lock)
{
	fatal(VERDICT_DEADLOCK, CHECKER_DEADLOCK, &lock->word, lock->class, lock->word, 0,
	      "a local lock is taken again by the CPU that holds it");
}
