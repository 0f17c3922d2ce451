/* SPDX-License-Identifier: MIT */
/*
 * Memory cgroups: what the allocators call, and what the parts of the charging code share.
 * Answers to: include/linux/memcontrol.h, mm/slab.h (obj_exts).
 */
#ifndef SHM_MEMCONTROL_H
#define SHM_MEMCONTROL_H

#include "lock.h"

__helper struct mem_cgroup *memcg_by_id(u32 id)
{
	return id - 1 < shm.nr_memcgs ? &shm.memcgs[id - 1] : NULL;
}

__helper struct mem_cgroup *parent_mem_cgroup(const struct mem_cgroup *memcg)
{
	return memcg_by_id(memcg->parent);
}

__helper bool memcg_kmem_online(void)
{
	return shm.hdr->memcg_kmem_online;
}

/* BHs switched off are still the task's own doing; a softirq that interrupted it is not. */
__helper bool in_task(void)
{
	return this_ctx() == CTX_TASK || (this_ctx() == CTX_SOFTIRQ && this_cpu()->bh_count);
}

#define count_memcg(field) this_cpu_inc64(&shm.memcg_cpu->field)

/*
 * The stocks' local_trylock_t: irqs stay on, so whoever interrupts the holder fails and goes by the
 * counters.  Nobody ever waits for it.
 */
__helper bool stock_trylock(struct spinlock *lock)
{
	if (READ_ONCE(lock->word))
		return false;
	WRITE_ONCE(lock->word, lock_word_mine());
	barrier();
	lock_rules_acquired(&lock->word, lock->class);
	return true;
}

__helper void stock_unlock(struct spinlock *lock)
{
	lock_rules_released(&lock->word);
	barrier();
	WRITE_ONCE(lock->word, 0);
}

/* memcontrol.c: pages */
int try_charge_memcg(struct mem_cgroup *memcg, gfp_t gfp, u32 nr_pages);
void memcg_uncharge(struct mem_cgroup *memcg, u64 nr_pages);
void refill_stock(struct mem_cgroup *memcg, u32 nr_pages);
void drain_stock_pages(struct memcg_cpu *mc, bool only, u32 id);
void memcg_memory_event(struct mem_cgroup *memcg, enum shm_memcg_event event, bool allow_spinning);
struct page *memcg_kmem_charge_page(struct page *page, gfp_t gfp, u32 order, u32 fpi);
void memcg_kmem_uncharge_page(struct page *page, u32 order, bool allow_spin);
void memcg_high_work(struct mem_cgroup *memcg);

/* memcg_obj.c: objects */
struct kmem_cache;
u32 current_obj_cgroup(void);
struct mem_cgroup *obj_cgroup_memcg(u32 objcg);
int obj_cgroup_charge_pages(u32 objcg, gfp_t gfp, u32 nr_pages);
void obj_cgroup_uncharge_pages(u32 objcg, u32 nr_pages);
void drain_obj_stock(struct obj_stock_pcp *stock, bool allow_spin);
u64 memcg_slab_post_alloc_hook(struct kmem_cache *s, u64 object, gfp_t gfp);
void memcg_slab_free_hook(struct kmem_cache *s, struct page *slab, u64 object, bool allow_spin);
void memcg_account_new_slab(struct kmem_cache *s, struct page *slab, gfp_t gfp);
void free_slab_obj_exts(struct page *slab);

/* memcg_life.c: from creation to the last reference */
void mem_cgroup_init(void);
void memcg_cpu_reset(u32 cpu);
bool memcg_holds_lock(u32 cpu);
void set_active_memcg(u32 id);
void css_put(struct mem_cgroup *memcg);
void obj_cgroup_get(u32 objcg);
void obj_cgroup_put(u32 objcg, bool allow_spin);
int drain_local_stock(u32 cpu, u64 id);
void drain_all_stock(struct mem_cgroup *memcg);

/* smp.c */
int memcg_drain_each_cpu(u64 id);

/* workqueue.c */
bool queue_work(struct work_struct *work);
void run_pool(void);

/* random.c */
u64 get_random_u64(void);

#endif
