/* SPDX-License-Identifier: MIT */
/*
 * Per-CPU freelists of a preallocated pool.
 *
 * Answers to: kernel/bpf/percpu_freelist.c (6.18; before 6.15 as the broken variant k35, before 6.1 as k36).
 * Kept: a push goes to the own head, and only if its lock fails to another CPU's; a pop begins at the own
 * head, wraps, passes empty heads without their lock and heads whose lock fails; locks are rqspinlocks.
 * Changed: a push that finds every head locked by outer contexts of its own CPU would go round for ever
 * (with one possible CPU, one NMI is enough); that is proved and is a deadlock.  The spare elements of a
 * map are dealt one to each CPU; the kernel pops them all on the CPU that creates the map.
 * Context: any; init and destroy task.
 */
#include "pool.h"

__helper u64 *link_of(const struct shm_pool *pool, u64 elem)
{
	return ptr_of(elem + pool->link);
}

/* before 6.15: a raw spinlock, which in NMI is only tried */
__slowtext static bool raw_lock(struct spinlock *lock)
{
	if (in_nmi())
		return spin_trylock(lock);
	spin_lock(lock);
	return true;
}

__helper bool head_lock(struct spinlock *lock)
{
	return broken(k35) ? raw_lock(lock) : !res_spin_lock(lock);
}

__helper bool push_to(const struct shm_pool *pool, struct pcpu_freelist_head *head, u64 elem)
{
	if (!head_lock(&head->lock))
		return false;
	probe(freelist_push_locked);
	*link_of(pool, elem) = head->first;
	WRITE_ONCE(head->first, elem + pool->link);
	spin_unlock(&head->lock);
	return true;
}

/* Every head is held by this CPU, whose outer contexts cannot go on: no round will ever succeed. */
__slowtext static bool all_heads_mine(const struct shm_pool *pool)
{
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
		if (!lock_is_mine(&pool_head(pool, cpu)->lock))
			return false;
	return true;
}

__slowpath static void push_elsewhere(struct shm_pool *pool, u64 elem)
{
	u32 self = this_cpu()->id;

	for (;;) {
		for (u32 i = 1; i < shm.nr_cpus; i++) {
			struct pcpu_freelist_head *head = pool_head(pool, (self + i) % shm.nr_cpus);

			if (push_to(pool, head, elem)) {
				this_cpu_inc64(&shm.tele->freelist_strays);
				return;
			}
		}
		if (broken(k35) && push_to(pool, &pool->extralist, elem))
			return;
		if (all_heads_mine(pool))
			fatal(VERDICT_DEADLOCK, CHECKER_DEADLOCK, &pool_head(pool, self)->lock.word, LOCK_FREELIST,
			      pool_head(pool, self)->lock.word, elem,
			      "a push finds every freelist locked by outer contexts of its own CPU, for ever");
		if (stopped_by_verdict())
			unwind();
	}
}

/* Irqs off. */
__fastpath void __pcpu_freelist_push(struct shm_pool *pool, u64 elem)
{
	if (unlikely(!push_to(pool, pool_head(pool, this_cpu()->id), elem)))
		push_elsewhere(pool, elem);
}

/* The first element of one head; 0 if it has none, or its lock fails. */
__helper u64 pop_from(const struct shm_pool *pool, struct pcpu_freelist_head *head)
{
	u64 first;

	if (!READ_ONCE(head->first))
		return 0;
	if (!head_lock(&head->lock)) {
		reason_contention(REASON_LIST_LOCK_BUSY);
		return 0;
	}
	probe(freelist_pop_locked);
	first = head->first;
	if (first)
		WRITE_ONCE(head->first, *(u64 *)ptr_of(first));
	spin_unlock(&head->lock);
	return first ? first - pool->link : 0;
}

__slowpath static u64 pop_elsewhere(struct shm_pool *pool)
{
	for (u32 i = 1; i < shm.nr_cpus; i++) {
		u64 elem = pop_from(pool, pool_head(pool, (this_cpu()->id + i) % shm.nr_cpus));

		if (elem) {
			this_cpu_inc64(&shm.tele->freelist_steals);
			return elem;
		}
	}
	return broken(k35) ? pop_from(pool, &pool->extralist) : 0;
}

/* Irqs off.  0: none, with the reason. */
__fastpath u64 __pcpu_freelist_pop(struct shm_pool *pool)
{
	u64 elem = pop_from(pool, pool_head(pool, this_cpu()->id));

	if (unlikely(!elem))
		elem = pop_elsewhere(pool);
	if (unlikely(!elem))
		reason_shortage(REASON_FREELIST_EMPTY);
	return elem;
}

/* As many for each CPU, and one more for the first few. */
__slowtext static u32 share_of(u32 nr_elems, u32 cpu, u32 dealt)
{
	u32 share = nr_elems / shm.nr_cpus;

	if (broken(k36))
		return min_of(share + 1, nr_elems - dealt);
	return share + (cpu < nr_elems % shm.nr_cpus);
}

__slowpath static void populate(struct shm_pool *pool, u32 nr_elems)
{
	u32 dealt = 0;

	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
		struct pcpu_freelist_head *head = pool_head(pool, cpu);
		u32 share = share_of(nr_elems, cpu, dealt);

		for (u32 i = 0; i < share; i++) {
			u64 elem = area_elem(&pool->area, dealt++);

			*link_of(pool, elem) = head->first;
			head->first = elem + pool->link;
		}
		head->nr_populated = share;
	}
}

/*
 * nr_elems elements on the freelists, and one more aside for each CPU if they are to have a spare one.
 * link: offset of the link word in a free element.
 */
__slowpath int pcpu_freelist_init(struct shm_pool *pool, u32 nr_elems, u32 spare, u32 elem_size, u32 link)
{
	int error;

	pool->index = (u32)(pool - shm.pools);
	pool->link = link;
	pool->extralist = (struct pcpu_freelist_head){ .lock.class = LOCK_FREELIST };
	error = area_alloc(&pool->area, nr_elems + spare * shm.nr_cpus, elem_size);
	if (error)
		return error;
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
		*pool_head(pool, cpu) = (struct pcpu_freelist_head){
			.lock.class = LOCK_FREELIST,
			.extra = spare ? area_elem(&pool->area, nr_elems + cpu) : 0,
		};
	populate(pool, nr_elems);
	return 0;
}

__slowpath void pcpu_freelist_destroy(struct shm_pool *pool)
{
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
		*pool_head(pool, cpu) = (struct pcpu_freelist_head){ .lock.class = LOCK_FREELIST };
	pool->extralist.first = 0;
	area_free(&pool->area);
}
