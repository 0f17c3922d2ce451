/* SPDX-License-Identifier: MIT */
/*
 * Random numbers from this CPU's batch, under its lock.
 *
 * Answers to: drivers/char/random.c (get_random_u32 and its batched_entropy).
 * Kept: a local lock taken with irqs off, so an NMI must not come here (K-18, K-26).  Changed: the numbers
 * are the seeded ones of random_next, so that a run can be repeated.
 * Context: task, softirq and irq.
 */
#include "memcontrol.h"

__slowpath u64 get_random_u64(void)
{
	struct batched_entropy *batch = &this_cpu()->entropy;
	struct spinlock *lock = &batch->lock;
	u32 flags = local_irq_save();
	u64 number;

	if (unlikely(lock->word))
		local_lock_reentered(lock);
	WRITE_ONCE(lock->word, lock_word_mine());
	barrier();
	lock_rules_acquired(&lock->word, lock->class);
	lock_rules_might_wait(&lock->word, lock->class);
	probe(random_locked);
	if (!batch->position) {
		for (u32 i = 0; i < ARRAY_SIZE(batch->words); i++)
			batch->words[i] = random_next(&this_cpu()->random);
		batch->position = ARRAY_SIZE(batch->words);
		batch->made++;
	}
	number = batch->words[--batch->position];
	lock_rules_released(&lock->word);
	barrier();
	WRITE_ONCE(lock->word, 0);
	local_irq_restore(flags);
	return number;
}
