/* SPDX-License-Identifier: MIT */
/*
 * Locks that know their owner.
 *
 * Answers to: include/linux/spinlock.h, local_lock_internal.h, bit_spinlock.h.
 * Changed: the owner's CPU and execution level are in the lock word, put there by the acquiring
 * compare-and-exchange, so that a wait that can never end is proved instead of suffered (lock.c).
 * spin_lock may be called from task, softirq and irq; the trylocks from any context.
 */
#ifndef SHM_LOCK_H
#define SHM_LOCK_H

#include "core.h"
#include "irq.h"

__helper u32 lock_owner_cpu(u32 word)
{
	return (word & LOCK_CPU_MASK) - 1;
}

__helper u32 lock_owner_level(u32 word)
{
	return word >> LOCK_LEVEL_SHIFT & 0xff;
}

/* What this CPU and level put into a lock word; never 0. */
__helper u32 lock_word_mine(void)
{
	return shm.lock_word | ++this_cpu()->lock_generation << LOCK_GENERATION_SHIFT;
}

void lock_wait(u32 *word, u32 class, u32 mine);
bool lock_try_up(u32 *word, u32 class);

/* No SMP: spinlocks are no-ops, so a trylock succeeds whoever holds the lock. */
__helper bool is_up(void)
{
	return unlikely(shm.geo_flags & SHM_GEO_UP);
}

/* A trylock tells something: with SMP always, without it not in NMI (K-23, K-24). */
__helper bool can_spin_trylock(void)
{
	return !is_up() || !in_nmi();
}
void lock_rules_level_end(u32 nr_held);
void lock_rules_forget(u32 nr_held);
#if SHM_CHECKED
void lock_rules_wait(u32 *word, u32 class);
void lock_rules_might_wait(const u32 *word, u32 class);
void lock_rules_acquired(u32 *word, u32 class);
void lock_rules_released(u32 *word);
void lock_rules_up(const u32 *word, u32 class);
void lock_rules_this_cpu(void);
void lock_rules_wakes_kswapd(void);
#else
#define lock_rules_wait(word, class) ((void)0)
#define lock_rules_might_wait(word, class) ((void)0)
#define lock_rules_acquired(word, class) ((void)0)
#define lock_rules_released(word) ((void)0)
#define lock_rules_up(word, class) ((void)0)
#define lock_rules_this_cpu() ((void)0)
#define lock_rules_wakes_kswapd() ((void)0)
#endif

__helper void lock_acquire(u32 *word, u32 class)
{
	u32 mine = lock_word_mine();

	lock_rules_wait(word, class);
	if (unlikely(cmpxchg(word, 0, mine) != 0))
		lock_wait(word, class, mine);
	lock_rules_acquired(word, class);
}

__helper bool lock_try(u32 *word, u32 class)
{
	(void)class;
	if (unlikely(READ_ONCE(*word) || cmpxchg(word, 0, lock_word_mine()) != 0) && !lock_try_up(word, class))
		return false;
	lock_rules_acquired(word, class);
	return true;
}

/* Pairs with the acquiring compare-and-exchange. */
__helper void lock_release(u32 *word)
{
	lock_rules_released(word);
	store_release(word, 0);
}

__helper void spin_lock(struct spinlock *lock)
{
	lock_acquire(&lock->word, lock->class);
}

__helper bool spin_trylock(struct spinlock *lock)
{
	return lock_try(&lock->word, lock->class);
}

__helper void spin_unlock(struct spinlock *lock)
{
	lock_release(&lock->word);
}

__helper u32 spin_lock_irqsave(struct spinlock *lock)
{
	u32 flags = local_irq_save();

	spin_lock(lock);
	return flags;
}

__helper bool spin_trylock_irqsave(struct spinlock *lock, u32 *flags)
{
	*flags = local_irq_save();
	if (spin_trylock(lock))
		return true;
	local_irq_restore(*flags);
	return false;
}

__helper void spin_unlock_irqrestore(struct spinlock *lock, u32 flags)
{
	spin_unlock(lock);
	local_irq_restore(flags);
}

/*
 * rqspinlock: a wait that can never end is an error of the call instead of a verdict.  -EDEADLK: an
 * outer context of this CPU holds it, or the owners wait in a ring; -ETIMEDOUT after 250 ms.
 * Any context, irqs off.
 */
int res_lock_wait(u32 *word, u32 class, u32 mine);

__helper int res_spin_lock(struct spinlock *lock)
{
	u32 mine = lock_word_mine();
	int error = 0;

	if (unlikely(cmpxchg(&lock->word, 0, mine) != 0))
		error = res_lock_wait(&lock->word, lock->class, mine);
	if (likely(!error))
		lock_rules_acquired(&lock->word, lock->class);
	return error;
}

/* The same without the wait.  False: it is held, whoever by. */
__helper bool res_spin_trylock(struct spinlock *lock)
{
	if (unlikely(cmpxchg(&lock->word, 0, lock_word_mine()) != 0))
		return false;
	lock_rules_acquired(&lock->word, lock->class);
	return true;
}

__helper bool lock_is_mine(const struct spinlock *lock)
{
	u32 word = READ_ONCE(lock->word);

	return word && lock_owner_cpu(word) == this_cpu()->id;
}

/*
 * local_trylock_t: a word that only its own CPU takes.  An NMI between "irqs off" and the store
 * sees it free, runs to completion and leaves it free: that window is legal.
 */
void local_lock_reentered(struct spinlock *lock) __attribute__((noreturn));

__helper bool local_lock_is_locked(const struct spinlock *lock)
{
	return READ_ONCE(lock->word) != 0;
}

__helper u32 local_lock_irqsave(struct spinlock *lock)
{
	u32 flags = local_irq_save();

	probe(cpu_slab_irq_off);
	if (unlikely(lock->word))
		local_lock_reentered(lock);
	WRITE_ONCE(lock->word, lock_word_mine());
	barrier();
	lock_rules_acquired(&lock->word, lock->class);
	return flags;
}

/* Held: by an outer context of this CPU, whom waiting would never end.  Irqs are then as before. */
__helper bool local_trylock_irqsave(struct spinlock *lock, u32 *flags)
{
	*flags = local_irq_save();
	probe(cpu_slab_irq_off);
	if (unlikely(lock->word)) {
		local_irq_restore(*flags);
		return false;
	}
	WRITE_ONCE(lock->word, lock_word_mine());
	barrier();
	lock_rules_acquired(&lock->word, lock->class);
	return true;
}

__helper void local_unlock_irqrestore(struct spinlock *lock, u32 flags)
{
	lock_rules_released(&lock->word);
	barrier();
	WRITE_ONCE(lock->word, 0);
	probe(cpu_slab_unlocked);
	local_irq_restore(flags);
}

/*
 * The same for sections that irqs may interrupt: preemption is off, irqs stay as they are.  Whoever
 * finds the word set is a handler or a probe on this CPU, and must do without.
 */
__helper bool local_trylock(struct spinlock *lock)
{
	preempt_disable();
	if (unlikely(READ_ONCE(lock->word))) {
		preempt_enable();
		return false;
	}
	WRITE_ONCE(lock->word, shm.lock_word); /* no generation: nobody ever waits for it */
	barrier();
	lock_rules_acquired(&lock->word, lock->class);
	return true;
}

__helper void local_unlock(struct spinlock *lock)
{
	lock_rules_released(&lock->word);
	barrier();
	WRITE_ONCE(lock->word, 0);
	preempt_enable();
}

/*
 * The slab bit spinlock.  It lies in page->refcount, which is 0 in a slab, because a single bit
 * could not name its owner.  Irqs off.  Never from NMI: it cannot be tried safely there.
 */
__helper void slab_lock(struct page *page)
{
	lock_acquire(&page->refcount, LOCK_SLAB_BIT);
}

__helper void slab_unlock(struct page *page)
{
	lock_release(&page->refcount);
}

#endif
