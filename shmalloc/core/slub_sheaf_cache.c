/* SPDX-License-Identifier: MIT */
/*
 * 7.x: giving a cache its sheaves and barns, taking them away, emptying them.
 *
 * Answers to: mm/slub.c (calculate_sheaf_capacity, init_percpu_sheaves, bootstrap_kmalloc_sheaves,
 * pcs_flush_all, pcs_destroy, flush_all).
 * Changed: the kernel flushes a CPU by a work item, which runs when no section is open there; here an
 * interrupt does it, which may land in one: it then says so, and the caller comes again.
 * Left out: a capacity asked for at creation.
 * Context: task; flush_cpu_sheaves also irq.
 */
#include "list.h"
#include "slab_fast.h"

#define PCS_BATCH_MAX 32

/* By the size of an object, then as many as fill the kmalloc object that the sheaf will be. */
u32 calculate_sheaf_capacity(const struct kmem_cache *s)
{
	u32 capacity = 60, bytes;

	if (cache_debug(s))
		return 0;
	if (s->size >= SHM_PAGE_SIZE)
		capacity = 4;
	else if (s->size >= 1024)
		capacity = 12;
	else if (s->size >= 256)
		capacity = 26;
	capacity *= max_of(shm.hdr->geometry.sheaf_factor, 1u);
	bytes = 1u << fls64(sizeof(struct slab_sheaf) + 8 * capacity - 1);
	return (bytes - (u32)sizeof(struct slab_sheaf)) / 8;
}

static bool node_has_slab_memory(u32 node)
{
	for (u32 i = 0; i < shm.nr_zones; i++)
		if (shm.zones[i].node == node && shm.zones[i].type <= ZONE_NORMAL && shm.zones[i].managed_pages)
			return true;
	return false;
}

static void init_barns(const struct kmem_cache *s)
{
	for (u32 node = 0; node < shm.nr_nodes; node++) {
		struct node_barn *barn = cache_barn(s, node);

		*barn = (struct node_barn){ .lock = { 0, LOCK_BARN }, .present = node_has_slab_memory(node) };
		list_init(&barn->sheaves_full);
		list_init(&barn->sheaves_empty);
	}
}

static int alloc_main_sheaves(struct kmem_cache *s)
{
	s->sheaf_capacity = calculate_sheaf_capacity(s);
	if (!s->sheaf_capacity)
		return 0;
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
		u64 sheaf = alloc_empty_sheaf(s, GFP_KERNEL);

		if (!sheaf) {
			free_cache_sheaves(s);
			return -ENOMEM;
		}
		cache_sheaves(s, cpu)->main = sheaf;
	}
	return 0;
}

/* A kmalloc cache gets its own only when all of them exist, as sheaves are objects of theirs. */
int init_cache_sheaves(struct kmem_cache *s)
{
	if (!sheaf_arena())
		return 0;
	init_barns(s);
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
		*cache_sheaves(s, cpu) = (struct slub_percpu_sheaves){
			.lock = { 0, LOCK_SHEAVES },
			.main = off_of(&shm.hdr->bootstrap_sheaf),
		};
	return shm.hdr->sheaves_ready ? alloc_main_sheaves(s) : 0;
}

/* Empty ones: the cache is flushed. */
__slowtext void free_cache_sheaves(struct kmem_cache *s)
{
	u64 bootstrap = off_of(&shm.hdr->bootstrap_sheaf);

	for (u32 cpu = 0; sheaf_arena() && cpu < shm.nr_cpus; cpu++) {
		u64 sheaf = cache_sheaves(s, cpu)->main;

		cache_sheaves(s, cpu)->main = bootstrap;
		if (sheaf && sheaf != bootstrap)
			free_empty_sheaf(s, sheaf);
	}
	s->sheaf_capacity = 0;
}

/* While the arena is formatted, as CPU 0. */
int bootstrap_kmalloc_sheaves(void)
{
	if (!sheaf_arena())
		return 0;
	cpu_load(0);
	for (u32 i = 0; i < shm.hdr->nr_caches; i++)
		if (alloc_main_sheaves(&shm.caches[i]))
			return -ENOSPC;
	for (u32 i = 0; i < shm.hdr->nr_caches; i++) { /* what is counted begins with the first CPU */
		struct slub_percpu_sheaves *pcs = this_sheaves(&shm.caches[i]);

		zero_bytes(&shm.cache_stats[i], sizeof(shm.cache_stats[i]));
		zero_bytes(&pcs->sheaf_flush, sizeof(*pcs) - offsetof(struct slub_percpu_sheaves, sheaf_flush));
	}
	shm.hdr->sheaves_ready = 1;
	return 0;
}

/* Whose section is it that keeps the sheaves locked? */
__slowtext static int flush_refused(const struct slub_percpu_sheaves *pcs, u32 cpu)
{
	const struct shm_cpu *owner = &shm.cpus[cpu];

	(void)pcs;
	if (broken(k31))
		return 0;
	if (cpu == this_cpu()->id)
		return -EAGAIN; /* what this interrupt has interrupted: come again */
	return owner->pid == this_cpu()->pid && owner->tid == this_cpu()->tid ? -EBUSY : -EOWNERDEAD;
}

__slowtext static void flush_main_sheaf(struct kmem_cache *s, struct slub_percpu_sheaves *pcs)
{
	u64 objects[PCS_BATCH_MAX];
	u32 batch;

	do {
		struct slab_sheaf *main;

		if (!local_trylock(&pcs->lock)) /* cannot be: it was free, and nobody is below this */
			return;
		main = sheaf_at(pcs->main);
		batch = min_of(main->size, (u32)PCS_BATCH_MAX);
		main->size -= batch;
		for (u32 i = 0; i < batch; i++)
			objects[i] = sheaf_objects(main)[main->size + i];
		local_unlock(&pcs->lock);
		sheaf_free_bulk(s, objects, batch);
		sheaf_stat_add(s, sheaf_flush, batch);
	} while (batch);
}

/*
 * On the owner CPU, or for a CPU that nobody is.  -EAGAIN: it is in a section with the lock held, so
 * that not everything was flushed; -EBUSY: the same, and it is this thread's; -EOWNERDEAD: its owner died there.
 */
__slowtext int flush_cpu_sheaves(struct kmem_cache *s, u32 cpu)
{
	struct slub_percpu_sheaves *pcs = cache_sheaves(s, cpu);
	u64 spare, rcu_free;

	if (!local_trylock(&pcs->lock))
		return flush_refused(pcs, cpu);
	spare = pcs->spare;
	rcu_free = pcs->rcu_free;
	pcs->spare = pcs->rcu_free = 0;
	local_unlock(&pcs->lock);
	if (spare) {
		sheaf_flush_unused(s, spare);
		free_empty_sheaf(s, spare);
	}
	if (rcu_free)
		flush_rcu_sheaf(rcu_free);
	flush_main_sheaf(s, pcs);
	return 0;
}

/* In user's hands, as far as slabs know; objects in sheaves among them. */
__slowtext static u64 objects_in_use(const struct kmem_cache *s)
{
	u64 total = 0;

	for (u64 pfn = 0; pfn < shm.nr_pages; pfn++)
		if (shm.pages[pfn].flags & PG_slab && shm.pages[pfn].slab_cache == s->index + 1)
			total += counters_inuse(shm.pages[pfn].counters);
	return total;
}

__slowtext static u64 objects_in_sheaves(const struct kmem_cache *s)
{
	u64 total = 0;

	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
		const struct slub_percpu_sheaves *pcs = cache_sheaves(s, cpu);

		total += sheaf_at(pcs->main)->size;
		total += pcs->spare ? sheaf_at(pcs->spare)->size : 0;
		total += pcs->rcu_free ? sheaf_at(pcs->rcu_free)->size : 0;
	}
	return total;
}

/* A cache is destroyed, every CPU has been flushed, and still there are objects: whose are they? */
__slowtext bool sheaves_unflushed(struct kmem_cache *s)
{
	u64 in_sheaves = sheaf_arena() ? objects_in_sheaves(s) : 0;

	if (!in_sheaves || in_sheaves != objects_in_use(s))
		return false;
	violation(VERDICT_LOST_MEMORY, CHECKER_SLAB, NULL, LOCK_SHEAVES, 0, 0,
		  "a cache cannot be destroyed: a CPU was not flushed, and nobody but its sheaves has objects");
	return true;
}
