/* SPDX-License-Identifier: MIT */
/*
 * A memory cgroup's life: created below another, destroyed, and released with its last reference.
 *
 * Answers to: mm/memcontrol.c (mem_cgroup_css_online and _offline, obj_cgroup_release, drain_all_stock).
 * Changed: memcg and obj_cgroup are one entry of a table; the entry of a destroyed one is used again once
 * no object, block or stock refers to it.  A last reference that is dropped where nothing may spin is
 * left to irq_work, since objcg_lock has to be taken for it; drains go by IPI instead of by a worker.
 * Context: as each function says.
 */
#include "memcontrol.h"
#include "page_alloc.h"

#define REFUSED (thread_is_cpu() ? -EDEADLK : -EPERM)
#define DRAIN_EVERYTHING 0ull

_Static_assert(sizeof(struct memcg_cpu) % 64 == 0, "a CPU's stocks begin on a cache line of their own");

/* --- references ---------------------------------------------------------------------------------- */

/* objcg_lock held; the entries above may go with it */
__slowtext static void free_if_unused(struct mem_cgroup *memcg)
{
	while (memcg && memcg->state == MEMCG_DYING && !READ_ONCE(memcg->css_refs) && !READ_ONCE(memcg->objcg_refs)) {
		struct mem_cgroup *parent = parent_mem_cgroup(memcg);

		for (u32 node = 0; node < shm.nr_nodes; node++)
			for (u32 kind = 0; parent && kind < NR_SLAB_STATS; kind++)
				atomic_add(&parent->slab_bytes[node][kind], memcg->slab_bytes[node][kind]);
		if (parent) {
			atomic_add(&parent->kmem_pages, memcg->kmem_pages);
			atomic_sub(&parent->css_refs, 1);
		}
		WRITE_ONCE(memcg->state, MEMCG_UNUSED);
		memcg = parent;
	}
}

/* objcg_lock held: what is left of the pages of a memcg goes back, and perhaps its entry. */
__slowpath static void release_locked(struct mem_cgroup *memcg)
{
	u64 bytes = xchg(&memcg->nr_charged_bytes, 0);
	struct mem_cgroup *heir = obj_cgroup_memcg(memcg->id);

	if (bytes & (SHM_PAGE_SIZE - 1))
		violation(VERDICT_LOST_MEMORY, CHECKER_MEMCG, NULL, LOCK_NONE, 0, off_of(memcg),
			  "a memcg is released, and what is left of its charges is no whole number of pages");
	if (bytes >> SHM_PAGE_SHIFT && heir) {
		atomic_sub(&heir->kmem_pages, bytes >> SHM_PAGE_SHIFT);
		memcg_uncharge(heir, bytes >> SHM_PAGE_SHIFT);
	}
	free_if_unused(memcg);
}

/*
 * The last object, block or stock of a destroyed memcg is gone.  Two CPUs may have seen that; by the time
 * the second has the lock, the entry may be another memcg's.
 */
__slowpath static void obj_cgroup_release(struct mem_cgroup *memcg)
{
	u32 flags = spin_lock_irqsave(&shm.hdr->objcg_lock);

	probe(objcg_locked);
	if (memcg->state == MEMCG_DYING && !READ_ONCE(memcg->objcg_refs))
		release_locked(memcg);
	spin_unlock_irqrestore(&shm.hdr->objcg_lock, flags);
}

__slowtext void obj_cgroup_get(u32 objcg)
{
	atomic_add(&memcg_by_id(objcg)->objcg_refs, 1);
}

/* Any context; the last one takes objcg_lock, now or by irq_work. */
__slowpath void obj_cgroup_put(u32 objcg, bool allow_spin)
{
	struct mem_cgroup *memcg = memcg_by_id(objcg);

	if (atomic_fetch_add(&memcg->objcg_refs, -1u) != 1)
		return;
	if (allow_spin || broken(k27)) {
		obj_cgroup_release(memcg);
	} else {
		count_memcg(memcg_release_deferred);
		irq_work_queue(&shm.memcg_cpu->release_work);
	}
}

/* irq_work: released where it was not possible. */
__slowpath void irq_work_func_memcg_release(struct irq_work *work)
{
	(void)work;
	for (u32 i = 0; i < shm.nr_memcgs; i++)
		if (shm.memcgs[i].state == MEMCG_DYING && !READ_ONCE(shm.memcgs[i].objcg_refs))
			obj_cgroup_release(&shm.memcgs[i]);
}

/* A slot of a stock has let go of it.  Any context: the entry is freed by whoever drops the objcg's last. */
__slowpath void css_put(struct mem_cgroup *memcg)
{
	if (atomic_fetch_add(&memcg->css_refs, -1u) == 1 && READ_ONCE(memcg->state) == MEMCG_DYING &&
	    !READ_ONCE(memcg->objcg_refs))
		irq_work_queue(&shm.memcg_cpu->release_work);
}

/* --- draining ------------------------------------------------------------------------------------ */

static bool is_descendant(const struct mem_cgroup *memcg, const struct mem_cgroup *root)
{
	for (; memcg; memcg = parent_mem_cgroup(memcg))
		if (memcg == root)
			return true;
	return false;
}

__slowtext static bool stock_needs_drain(const struct memcg_cpu *mc, const struct mem_cgroup *root)
{
	for (u32 i = 0; i < SHM_NR_MEMCG_STOCK; i++)
		if (mc->stock.nr_pages[i] && is_descendant(memcg_by_id(mc->stock.cached[i]), root))
			return true;
	return is_descendant(memcg_by_id(mc->obj.cached_objcg), root);
}

/*
 * One CPU's stocks, as that CPU or in its place; id: only if they hold something of that memcg or below.
 * A stock whose holder was interrupted is left alone.
 */
__slowtext int drain_local_stock(u32 cpu, u64 id)
{
	struct memcg_cpu *mc = &shm.memcg_cpus[cpu];
	const struct mem_cgroup *root = memcg_by_id((u32)id);

	if (!shm.nr_memcgs || (root && !stock_needs_drain(mc, root)))
		return 0;
	if (stock_trylock(&mc->obj.lock)) {
		drain_obj_stock(&mc->obj, true);
		stock_unlock(&mc->obj.lock);
	}
	if (stock_trylock(&mc->stock.lock)) {
		drain_stock_pages(mc, false, 0);
		stock_unlock(&mc->stock.lock);
	}
	return 0;
}

/* For a charge that is over the limit of `memcg`; task.  Not if somebody is at it already. */
__slowpath void drain_all_stock(struct mem_cgroup *memcg)
{
	if (!spin_trylock(&shm.hdr->percpu_charge_mutex))
		return;
	count_memcg(memcg_drain_all);
	memcg_drain_each_cpu(memcg->id);
	spin_unlock(&shm.hdr->percpu_charge_mutex);
}

/* --- set-up -------------------------------------------------------------------------------------- */

void mem_cgroup_init(void)
{
	shm.hdr->objcg_lock.class = LOCK_OBJCG;
	shm.hdr->kernfs_lock.class = LOCK_KERNFS;
	shm.hdr->percpu_charge_mutex.class = LOCK_CHARGE;
	for (u32 cpu = 0; shm.nr_memcgs && cpu < shm.nr_cpus; cpu++) {
		struct memcg_cpu *mc = &shm.memcg_cpus[cpu];

		mc->stock.lock.class = LOCK_MEMCG_STOCK;
		mc->obj.lock.class = LOCK_OBJ_STOCK;
		mc->pool_lock.class = LOCK_WQ_POOL;
		mc->release_work.func = IRQ_WORK_FUNC_memcg_release;
	}
}

void memcg_cpu_reset(u32 cpu)
{
	if (!shm.nr_memcgs)
		return;
	shm.memcg_cpus[cpu].task = shm.memcg_cpus[cpu].active = shm.memcg_cpus[cpu].int_active = 0;
	shm.memcg_cpus[cpu].over_high = 0;
}

bool memcg_holds_lock(u32 cpu)
{
	const struct memcg_cpu *mc = &shm.memcg_cpus[cpu];

	if (lock_owner_cpu(shm.hdr->objcg_lock.word) == cpu || lock_owner_cpu(shm.hdr->kernfs_lock.word) == cpu ||
	    lock_owner_cpu(shm.hdr->percpu_charge_mutex.word) == cpu)
		return true;
	return shm.nr_memcgs && (mc->stock.lock.word || mc->obj.lock.word || mc->pool_lock.word);
}

/* What is charged from here on, in this kind of context; 0: the task's own, or nothing. */
__slowtext void set_active_memcg(u32 id)
{
	if (id > shm.nr_memcgs || !shm.nr_memcgs)
		return;
	if (in_task())
		shm.memcg_cpu->active = id;
	else
		shm.memcg_cpu->int_active = id;
}

/* --- the outer face ------------------------------------------------------------------------------ */

static bool copy_name(char *to, const char *from)
{
	u32 length = 0;

	for (; from[length]; length++) {
		if (length >= SHM_MEMCG_NAME - 1 || (u8)from[length] <= ' ')
			return false;
		to[length] = from[length];
	}
	to[length] = 0;
	return length;
}

static bool same_memcg_name(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

static struct mem_cgroup *live_memcg(u32 id)
{
	struct mem_cgroup *memcg = memcg_by_id(id);

	return memcg && READ_ONCE(memcg->state) == MEMCG_LIVE ? memcg : NULL;
}

static int fill_entry(u32 index, const char *name, u32 parent)
{
	struct mem_cgroup *memcg = &shm.memcgs[index];
	struct work_struct work = memcg->high_work; /* an entry that is used again may still be queued */

	*memcg = (struct mem_cgroup){ .id = index + 1, .parent = parent, .objcg_refs = 1 };
	copy_name(memcg->name, name);
	memcg->memory.max = memcg->memory.high = SHM_PAGE_COUNTER_MAX;
	memcg->high_work = work;
	memcg->high_work.memcg = index + 1;
	if (parent) {
		shm.memcgs[parent - 1].nr_children++;
		atomic_add(&shm.memcgs[parent - 1].css_refs, 1);
	}
	store_release(&memcg->state, MEMCG_LIVE);
	shm.hdr->memcg_kmem_online = 1;
	return (int)(index + 1);
}

static int create_locked(const char *name, u32 parent)
{
	int index = -1;

	if (parent && !live_memcg(parent))
		return -EINVAL;
	for (u32 i = 0; i < shm.nr_memcgs; i++) {
		const struct mem_cgroup *memcg = &shm.memcgs[i];

		if (memcg->state == MEMCG_UNUSED && index < 0)
			index = (int)i;
		if (memcg->state == MEMCG_LIVE && same_memcg_name(memcg->name, name))
			return -EEXIST;
	}
	return index < 0 ? -ENOSPC : fill_entry((u32)index, name, parent);
}

static int create(const char *name, u32 parent)
{
	char copy[SHM_MEMCG_NAME];
	u32 flags;
	int id;

	if (!copy_name(copy, name))
		return -EINVAL;
	flags = spin_lock_irqsave(&shm.hdr->objcg_lock);
	probe(objcg_locked);
	id = create_locked(copy, parent);
	spin_unlock_irqrestore(&shm.hdr->objcg_lock, flags);
	return id;
}

__export int shm_memcg_create(const char *name, unsigned int parent)
{
	return GUARDED(int, REFUSED, create(name, parent));
}

static bool some_cpu_is_in(u32 id)
{
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
		const struct memcg_cpu *mc = &shm.memcg_cpus[cpu];

		if (mc->task == id || mc->active == id || mc->int_active == id)
			return true;
	}
	return false;
}

static int destroy(u32 id)
{
	struct mem_cgroup *memcg = live_memcg(id);
	u32 flags;
	int error = 0;

	if (!memcg)
		return -EINVAL;
	flags = spin_lock_irqsave(&shm.hdr->objcg_lock);
	if (memcg->nr_children || some_cpu_is_in(id))
		error = -EBUSY;
	else
		WRITE_ONCE(memcg->state, MEMCG_DYING);
	if (!error && memcg->parent)
		shm.memcgs[memcg->parent - 1].nr_children--;
	spin_unlock_irqrestore(&shm.hdr->objcg_lock, flags);
	if (error)
		return error;
	memcg_drain_each_cpu(id); /* what does not answer keeps its slot until it is evicted */
	obj_cgroup_put(id, true);
	return 0;
}

__export int shm_memcg_destroy(unsigned int memcg)
{
	return GUARDED(int, REFUSED, destroy(memcg));
}

static int set_max(u32 id, u64 bytes)
{
	struct mem_cgroup *memcg = live_memcg(id);

	if (!memcg)
		return -EINVAL;
	WRITE_ONCE(memcg->memory.max, min_of(bytes >> SHM_PAGE_SHIFT, SHM_PAGE_COUNTER_MAX));
	if (READ_ONCE(memcg->memory.usage) > memcg->memory.max)
		drain_all_stock(memcg);
	return 0;
}

__export int shm_memcg_set_max(unsigned int memcg, uint64_t bytes)
{
	return GUARDED(int, REFUSED, set_max(memcg, bytes));
}

__export int shm_memcg_set_high(unsigned int memcg, uint64_t bytes)
{
	if (!thread_is_cpu() || !live_memcg(memcg))
		return thread_is_cpu() ? -EINVAL : -EPERM;
	WRITE_ONCE(shm.memcgs[memcg - 1].memory.high, min_of(bytes >> SHM_PAGE_SHIFT, SHM_PAGE_COUNTER_MAX));
	return 0;
}

__export uint64_t shm_memcg_current(unsigned int memcg)
{
	return shm.base && live_memcg(memcg) ? shm.memcgs[memcg - 1].memory.usage << SHM_PAGE_SHIFT : 0;
}

static int set_for_cpu(u32 id, u64 field)
{
	if (!thread_is_cpu())
		return -EPERM;
	if (!shm.nr_memcgs || (id && !live_memcg(id)))
		return -EINVAL;
	WRITE_ONCE(*(u32 *)((char *)shm.memcg_cpu + field), id);
	return 0;
}

__export int shm_memcg_enter(unsigned int memcg)
{
	return set_for_cpu(memcg, offsetof(struct memcg_cpu, task));
}

__export int shm_memcg_set_active(unsigned int memcg)
{
	return set_for_cpu(memcg, offsetof(struct memcg_cpu, active));
}

__export int shm_memcg_set_int_active(unsigned int memcg)
{
	return set_for_cpu(memcg, offsetof(struct memcg_cpu, int_active));
}

__export int shm_memcg_drain(void)
{
	return GUARDED(int, REFUSED, memcg_drain_each_cpu(DRAIN_EVERYTHING));
}

static int run_work(void)
{
	struct memcg_cpu *mc = shm.memcg_cpu;
	struct mem_cgroup *memcg;

	if (!shm.nr_memcgs)
		return -EINVAL;
	memcg = obj_cgroup_memcg(mc->active ? mc->active : mc->task);
	if (mc->over_high && memcg) {
		mc->over_high = 0;
		count_memcg(memcg_high_throttle);
		memcg_high_work(memcg);
	}
	run_pool();
	return 0;
}

__export int shm_memcg_run_work(void)
{
	return GUARDED(int, REFUSED, run_work());
}
