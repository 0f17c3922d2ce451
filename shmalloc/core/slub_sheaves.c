/* SPDX-License-Identifier: MIT */
/*
 * 7.x: the sheaves of a CPU, where nearly all allocations and local frees are served.
 *
 * Answers to: mm/slub.c (alloc_from_pcs, __pcs_replace_empty_main, refill_sheaf, free_to_pcs,
 * __pcs_replace_full_main, __pcs_install_empty_sheaf, sheaf_try_flush_main, slab_free) of 7.0.
 * Kept: the lock turns preemption off and nothing else, so any interrupt may land in its section and
 * then does without sheaves; a full main is exchanged for the spare, then with the barn; refills and
 * flushes run with the lock dropped, and what comes of them is installed as then fits.
 * Left out: 6.18's opt-in sheaves beside cpu slabs, prefilled sheaves.
 * Context: any; with allow_spin task, softirq and irq.
 */
#include "list.h"
#include "slab_fast.h"

#define PCS_BATCH_MAX 32

/* NULL: the node that memory is local to has none for slabs (K-33) */
__slowtext static struct node_barn *get_barn(const struct kmem_cache *s)
{
	return node_barn_of(s, numa_mem_id());
}

__slowtext static bool barn_usable(const struct node_barn *barn)
{
	return barn || broken(k33);
}

__slowtext static bool lock_sheaves(const struct kmem_cache *s, struct slub_percpu_sheaves *pcs)
{
	if (!local_trylock(&pcs->lock)) {
		sheaf_stat(s, sheaves_busy);
		return false;
	}
	probe(sheaves_locked);
	probe(slab_attach_kprobe_locked);
	return true;
}

__slowtext static void swap_sheaves(struct slub_percpu_sheaves *pcs)
{
	u64 main = pcs->main;

	pcs->main = pcs->spare;
	pcs->spare = main;
}

/* Fill a sheaf that is this call's alone, or none: then give back what it got (K-49). */
__slowpath static u64 refill_sheaf(struct kmem_cache *s, u64 off, gfp_t gfp)
{
	struct slab_sheaf *sheaf = sheaf_at(off);
	u32 wanted = s->sheaf_capacity - sheaf->size;
	u32 filled = refill_objects(s, sheaf_objects(sheaf) + sheaf->size, gfp | __GFP_NOMEMALLOC | __GFP_NOWARN, wanted,
				    wanted);

	sheaf->size += filled;
	sheaf_stat_add(s, sheaf_refill, filled);
	if (filled == wanted)
		return off;
	if (!broken(k49))
		sheaf_flush_unused(s, off);
	free_empty_sheaf(s, off);
	return 0;
}

/* A full sheaf in hand.  Returns with the lock held, or NULL if it could not be taken again. */
__slowpath static struct slub_percpu_sheaves *install_full_sheaf(struct kmem_cache *s, struct node_barn *barn, u64 full)
{
	struct slub_percpu_sheaves *pcs = this_sheaves(s);

	if (!lock_sheaves(s, pcs)) {
		barn_put_full_sheaf(barn, full);
		sheaf_stat(s, barn_put);
		return NULL;
	}
	if (!sheaf_at(pcs->main)->size) {
		if (pcs->spare)
			barn_put_empty_sheaf(barn, pcs->main);
		else
			pcs->spare = pcs->main;
		pcs->main = full;
	} else if (!pcs->spare) { /* an interrupt has filled the main sheaf meanwhile */
		pcs->spare = full;
	} else if (!sheaf_at(pcs->spare)->size) {
		barn_put_empty_sheaf(barn, pcs->spare);
		pcs->spare = full;
	} else {
		barn_put_full_sheaf(barn, full);
		sheaf_stat(s, barn_put);
	}
	return pcs;
}

__slowtext static bool may_refill(gfp_t gfp)
{
	return broken(k32) ? gfpflags_allow_blocking(gfp) : gfpflags_allow_spinning(gfp);
}

/* Called with the lock.  Returns with it and objects in the main sheaf, or NULL and without it. */
__slowpath static struct slub_percpu_sheaves *__pcs_replace_empty_main(struct kmem_cache *s,
								       struct slub_percpu_sheaves *pcs, gfp_t gfp)
{
	struct node_barn *barn = get_barn(s);
	u64 full, empty;

	if (s->sheaf_capacity && pcs->spare && sheaf_at(pcs->spare)->size) {
		swap_sheaves(pcs);
		return pcs;
	}
	if (!s->sheaf_capacity || !barn_usable(barn)) {
		local_unlock(&pcs->lock);
		return NULL;
	}
	full = barn_replace_empty_sheaf(s, barn, pcs->main, gfpflags_allow_spinning(gfp));
	if (full) {
		sheaf_stat(s, barn_get);
		pcs->main = full;
		return pcs;
	}
	sheaf_stat(s, barn_get_fail);
	if (!may_refill(gfp)) {
		local_unlock(&pcs->lock);
		return NULL;
	}
	empty = pcs->spare;
	pcs->spare = 0;
	if (!empty)
		empty = barn_get_empty_sheaf(s, barn, true);
	local_unlock(&pcs->lock);
	probe(sheaf_in_hand);
	if (!empty)
		empty = alloc_empty_sheaf(s, gfp);
	full = empty ? refill_sheaf(s, empty, gfp) : 0;
	return full ? install_full_sheaf(s, barn, full) : NULL;
}

/* The last object put in.  0: do without sheaves. */
__slowpath static u64 alloc_from_pcs(struct kmem_cache *s, gfp_t gfp, int node)
{
	struct slub_percpu_sheaves *pcs = this_sheaves(s);
	struct slab_sheaf *main;
	u64 object;

	if (node != NO_NODE && (u32)node != numa_mem_id()) {
		stat(s, alloc_node_mismatch);
		return 0;
	}
	if (!lock_sheaves(s, pcs)) {
		reason_contention(REASON_CPU_SLAB_BUSY);
		return 0;
	}
	if (unlikely(!sheaf_at(pcs->main)->size)) {
		pcs = __pcs_replace_empty_main(s, pcs, gfp);
		if (!pcs)
			return 0;
	}
	main = sheaf_at(pcs->main);
	object = sheaf_objects(main)[main->size - 1];
	if (node != NO_NODE && page_node(virt_to_head_page(object)) != (u32)node) {
		local_unlock(&pcs->lock);
		return 0;
	}
	main->size--;
	local_unlock(&pcs->lock);
	stat(s, alloc_fastpath);
	return object;
}

__slowpath u64 slab_alloc_sheaves(struct kmem_cache *s, gfp_t gfp, int node, u64 orig_size)
{
	u64 object = alloc_from_pcs(s, gfp, node);

	if (likely(object))
		return object;
	if (gfpflags_allow_spinning(gfp))
		lock_rules_might_wait(&cache_node(s, numa_mem_id())->list_lock.word, LOCK_LIST);
	return ___slab_alloc_sheaves(s, gfp, node, orig_size);
}

/* Empty the main sheaf in batches, the lock dropped for each; false: not even the first. */
__slowpath static bool sheaf_try_flush_main(struct kmem_cache *s)
{
	u64 objects[PCS_BATCH_MAX];
	bool flushed = false;
	u32 left;

	do {
		struct slub_percpu_sheaves *pcs = this_sheaves(s);
		struct slab_sheaf *main;
		u32 batch;

		if (!lock_sheaves(s, pcs))
			return flushed;
		main = sheaf_at(pcs->main);
		batch = min_of(main->size, (u32)PCS_BATCH_MAX);
		left = main->size - batch;
		for (u32 i = 0; i < batch; i++)
			objects[i] = sheaf_objects(main)[left + i];
		main->size = left;
		local_unlock(&pcs->lock);
		probe(sheaf_in_hand);
		sheaf_free_bulk(s, objects, batch);
		sheaf_stat_add(s, sheaf_flush, batch);
		flushed = true;
	} while (left);
	return flushed;
}

/* An empty sheaf in hand, the lock dropped: take it again, and put the sheaf where it now fits. */
__slowpath static struct slub_percpu_sheaves *install_empty_sheaf(struct kmem_cache *s, struct node_barn *barn,
								  u64 empty)
{
	struct slub_percpu_sheaves *pcs = this_sheaves(s);

	probe(sheaf_in_hand);
	if (!lock_sheaves(s, pcs)) {
		barn_put_empty_sheaf(barn, empty);
		return NULL;
	}
	if (!pcs->spare) {
		pcs->spare = pcs->main;
		pcs->main = empty;
	} else if (sheaf_at(pcs->main)->size < s->sheaf_capacity) { /* an interrupt has made room */
		barn_put_empty_sheaf(barn, empty);
	} else if (sheaf_at(pcs->spare)->size < s->sheaf_capacity) {
		swap_sheaves(pcs);
		barn_put_empty_sheaf(barn, empty);
	} else {
		barn_put_full_sheaf(barn, pcs->main);
		sheaf_stat(s, barn_put);
		pcs->main = empty;
	}
	return pcs;
}

/* The barn has no empty sheaf, the lock is dropped: make one, or make room in the main sheaf. */
__slowpath static struct slub_percpu_sheaves *make_room(struct kmem_cache *s, struct node_barn *barn, bool exchange)
{
	u64 empty = alloc_empty_sheaf(s, GFP_NOWAIT);
	struct slub_percpu_sheaves *pcs;

	if (empty)
		return install_empty_sheaf(s, barn, empty);
	if (exchange)
		sheaf_stat(s, barn_put_fail);
	if (!sheaf_try_flush_main(s))
		return NULL;
	pcs = this_sheaves(s);
	return lock_sheaves(s, pcs) ? pcs : NULL;
}

/* Called with the lock.  Returns with it and room in the main sheaf, or NULL and without it. */
__slowpath static struct slub_percpu_sheaves *__pcs_replace_full_main(struct kmem_cache *s,
								      struct slub_percpu_sheaves *pcs, bool allow_spin)
{
	while (sheaf_at(pcs->main)->size == s->sheaf_capacity) {
		struct node_barn *barn = get_barn(s);
		bool exchange = pcs->spare;
		int error = 0;
		u64 empty;

		if (!s->sheaf_capacity || !barn_usable(barn))
			goto fail;
		if (exchange && sheaf_at(pcs->spare)->size < s->sheaf_capacity) {
			swap_sheaves(pcs);
			return pcs;
		}
		empty = exchange ? barn_replace_full_sheaf(s, barn, pcs->main, allow_spin, &error) :
				   barn_get_empty_sheaf(s, barn, allow_spin);
		if (empty) {
			if (exchange)
				sheaf_stat(s, barn_put);
			else
				pcs->spare = pcs->main;
			pcs->main = empty;
			return pcs;
		}
		if (!allow_spin)
			goto fail;
		if (error == -E2BIG) { /* enough of them everywhere: this one goes back to the slabs */
			empty = pcs->spare;
			pcs->spare = 0;
			sheaf_stat(s, barn_put_fail);
			local_unlock(&pcs->lock);
			sheaf_flush_unused(s, empty);
			return install_empty_sheaf(s, barn, empty);
		}
		local_unlock(&pcs->lock);
		pcs = make_room(s, barn, exchange);
		if (!pcs)
			return NULL;
	}
	return pcs;
fail:
	local_unlock(&pcs->lock);
	return NULL;
}

/* Objects of other nodes, and those of the reserves, are never kept here. */
__slowpath bool free_to_pcs(struct kmem_cache *s, struct page *slab, u64 object, bool allow_spin)
{
	struct slub_percpu_sheaves *pcs = this_sheaves(s);
	struct slab_sheaf *main;

	if (page_node(slab) != numa_mem_id() || slab->flags & PG_pfmemalloc || !lock_sheaves(s, pcs))
		return false;
	if (unlikely(sheaf_at(pcs->main)->size == s->sheaf_capacity)) {
		pcs = __pcs_replace_full_main(s, pcs, allow_spin);
		if (!pcs)
			return false;
	}
	main = sheaf_at(pcs->main);
	sheaf_objects(main)[main->size++] = object;
	local_unlock(&pcs->lock);
	stat(s, free_fastpath);
	return true;
}

__slowpath void slab_free_sheaves(struct kmem_cache *s, struct page *slab, u64 object)
{
	if (unlikely(!free_to_pcs(s, slab, object, true)))
		__slab_free(s, slab, object, object, 1);
}
