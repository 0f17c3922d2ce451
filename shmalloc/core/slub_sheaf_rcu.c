/* SPDX-License-Identifier: MIT */
/*
 * 7.x: kfree_rcu by sheaves: objects are collected, and the sheaf waits for the grace period.
 *
 * Answers to: mm/slub.c (__kfree_rcu_sheaf, rcu_free_sheaf, rcu_free_sheaf_nobarn), mm/slab_common.c
 * (kfree_rcu_sheaf) of 7.0; kfree_rcu_nolock, defer_kfree_rcu and deferred_percpu_work of 7.3.
 * Kept: a full sheaf is handed to call_rcu before the lock is dropped, so that no flush misses it;
 * what comes back full goes to the barn whole; an NMI leaves call_rcu to irq_work.
 * Changed: what the sheaves do not take waits for a grace period one by one, as there are no batches.
 * Context: kfree_rcu_sheaf and kfree_rcu_nolock any, the former with allow_spin task, softirq and irq.
 */
#include "list.h"
#include "memcontrol.h"
#include "rcu.h"
#include "slab_fast.h"

/*
 * No kswapd flag, and so no spinning either: the caller may hold a raw lock, and waking kswapd takes
 * the scheduler's (K-29).
 */
__slowtext static gfp_t rcu_sheaf_gfp(void)
{
	return broken(k29) ? GFP_NOWAIT : __GFP_NOWARN;
}

/* Called with the lock.  Returns with it and a sheaf to fill, or NULL and without it. */
__slowpath static struct slub_percpu_sheaves *install_rcu_sheaf(struct kmem_cache *s, struct slub_percpu_sheaves *pcs,
								bool allow_spin)
{
	struct node_barn *barn = node_barn_of(s, numa_mem_id());
	u64 empty;

	if (!s->sheaf_capacity || (!barn && !broken(k33)))
		goto fail;
	if (pcs->spare && !sheaf_at(pcs->spare)->size) {
		pcs->rcu_free = pcs->spare;
		pcs->spare = 0;
		return pcs;
	}
	pcs->rcu_free = barn_get_empty_sheaf(s, barn, allow_spin);
	if (pcs->rcu_free)
		return pcs;
	local_unlock(&pcs->lock);
	probe(sheaf_in_hand);
	empty = alloc_empty_sheaf(s, rcu_sheaf_gfp());
	if (!empty)
		return NULL;
	pcs = this_sheaves(s);
	if (local_trylock(&pcs->lock)) {
		if (!pcs->rcu_free) {
			pcs->rcu_free = empty;
			return pcs;
		}
	} else {
		pcs = NULL;
	}
	if (allow_spin)
		barn_put_empty_sheaf(barn, empty);
	else
		free_empty_sheaf_nolock(s, empty);
	return pcs;
fail:
	local_unlock(&pcs->lock);
	return NULL;
}

/* A handler may have interrupted call_rcu itself, with its irqs off: then irq_work calls it. */
__slowpath static void submit_rcu_sheaf(u64 sheaf, bool allow_spin)
{
	struct shm_cpu *cpu = this_cpu();

	if (allow_spin || (!irqs_disabled() && !in_nmi()))
		call_rcu(sheaf, RCU_FUNC_rcu_free_sheaf, 0);
	else if (llist_add(&sheaf_at(sheaf)->barn_list.next, &cpu->defer_rcu_sheaves))
		irq_work_queue(&cpu->defer_work);
}

/* False: the object could not be taken; remote ones never are. */
__slowpath bool kfree_rcu_sheaf(struct kmem_cache *s, u64 object, bool allow_spin)
{
	struct slub_percpu_sheaves *pcs = this_sheaves(s);
	struct slab_sheaf *sheaf;

	if (page_node(virt_to_head_page(object)) != numa_mem_id())
		return false;
	if (!local_trylock(&pcs->lock)) {
		sheaf_stat(s, sheaves_busy);
		goto fail;
	}
	probe(sheaves_locked);
	probe(slab_attach_kprobe_locked);
	if (!pcs->rcu_free)
		pcs = install_rcu_sheaf(s, pcs, allow_spin);
	if (!pcs)
		goto fail;
	sheaf = sheaf_at(pcs->rcu_free);
	sheaf_objects(sheaf)[sheaf->size++] = object;
	if (sheaf->size == s->sheaf_capacity) {
		pcs->rcu_free = 0;
		sheaf->node = (s32)numa_mem_id();
		submit_rcu_sheaf(off_of(sheaf), allow_spin);
	}
	local_unlock(&pcs->lock);
	sheaf_stat(s, free_rcu_sheaf);
	return true;
fail:
	sheaf_stat(s, free_rcu_sheaf_fail);
	return false;
}

/* A sheaf that a flush has found half full. */
__slowpath void flush_rcu_sheaf(u64 sheaf)
{
	call_rcu(sheaf, RCU_FUNC_rcu_free_sheaf_nobarn, 0);
}

/* What a free does before the slab has the object back; true: some come from the reserves. */
__slowtext static bool prepare_rcu_sheaf(struct kmem_cache *s, struct slab_sheaf *sheaf)
{
	bool pfmemalloc = false;

	for (u32 i = 0; i < sheaf->size; i++) {
		u64 object = sheaf_objects(sheaf)[i];
		struct page *slab = virt_to_head_page(object);

		pfmemalloc |= (slab->flags & PG_pfmemalloc) != 0;
		if (slab->obj_exts)
			memcg_slab_free_hook(s, slab, object, true);
	}
	return pfmemalloc;
}

__slowtext static struct kmem_cache *sheaf_cache(u64 sheaf)
{
	u32 cache = sheaf_at(sheaf)->cache;

	if (!cache || cache > shm.hdr->nr_caches)
		fatal(VERDICT_CORRUPTION, CHECKER_RCU, NULL, LOCK_NONE, 0, sheaf,
		      "a sheaf was written to while it waited for its grace period");
	return &shm.caches[cache - 1];
}

/* After the grace period the objects are as good as any others: the sheaf goes to the barn as it is. */
__slowpath void rcu_func_rcu_free_sheaf(u64 head)
{
	struct slab_sheaf *sheaf = sheaf_at(head);
	struct kmem_cache *s = sheaf_cache(head);
	struct node_barn *barn = node_barn_of(s, (u32)sheaf->node);
	bool pfmemalloc = prepare_rcu_sheaf(s, sheaf);

	if (barn && READ_ONCE(barn->nr_full) < MAX_FULL_SHEAVES && !pfmemalloc) {
		sheaf_stat(s, barn_put);
		barn_put_full_sheaf(barn, head);
		return;
	}
	sheaf_stat(s, barn_put_fail);
	sheaf_flush_unused(s, head);
	if (barn && READ_ONCE(barn->nr_empty) < MAX_EMPTY_SHEAVES)
		barn_put_empty_sheaf(barn, head);
	else
		free_empty_sheaf(s, head);
}

__slowpath void rcu_func_rcu_free_sheaf_nobarn(u64 head)
{
	struct kmem_cache *s = sheaf_cache(head);

	prepare_rcu_sheaf(s, sheaf_at(head));
	sheaf_flush_unused(s, head);
	free_empty_sheaf(s, head);
}

/* Free after a grace period, from any context; bytes head_offset .. + 15 of the object are the head. */
__slowpath void kfree_rcu_nolock(u64 object, u32 head_offset)
{
	struct shm_cpu *cpu = this_cpu();
	struct rcu_head *head = ptr_of(object + head_offset);

	if (kfree_rcu_sheaf(slab_cache(virt_to_head_page(object)), object, false))
		return;
	head->arg = head_offset;
	if (llist_add(&head->next, &cpu->defer_by_rcu))
		irq_work_queue(&cpu->defer_work);
}

/* The two lists that irq_work serves beside the deferred frees. */
__slowpath void free_deferred_rcu(struct shm_cpu *cpu)
{
	u64 sheaf = llist_del_all(&cpu->defer_rcu_sheaves);
	u64 at = llist_del_all(&cpu->defer_by_rcu);

	while (sheaf) {
		u64 next = sheaf_at(sheaf)->barn_list.next;

		call_rcu(sheaf, RCU_FUNC_rcu_free_sheaf, 0);
		sheaf = next;
	}
	while (at) {
		const struct rcu_head *head = ptr_of(at);
		u64 object = at - head->arg;

		at = head->next;
		kfree_rcu(object, head->arg);
	}
}
