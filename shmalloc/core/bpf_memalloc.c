/* SPDX-License-Identifier: MIT */
/*
 * The BPF allocator: lists of free objects per CPU and size, which any context may take from.
 *
 * Answers to: kernel/bpf/memalloc.c (6.18).
 * Kept: eleven global sizes or one per map; watermarks, batch and prefill; `active`, the count that
 * tells an NMI that it has interrupted a list's update; the extra list for what is freed there; refill
 * and trim by irq_work; objects pass an RCU and a tasks-trace grace period before they go back to
 * kmalloc, and a refill takes them from there first; one callback in flight per list and domain.
 * Changed: what passes no watermark writes `active` instead of counting it (bpf_memalloc.h); a trim
 * hands its objects on as one chain, in the order that 6.18's come to, one by one; lists are table entries,
 * the irq_work's argument is the entry it lies in; where an empty list has no refill queued although it
 * needs one, the checked flavour says so (K-37).
 * Left out: per-CPU objects, bpf_mem_cache_alloc_flags, the worker that destroys in the background.
 * Context: allocation and free any; refill irq_work; set-up and destruction task.
 */
#include "bpf_memalloc.h"
#include "irq.h"
#include "list.h"
#include "rcu.h"

#define LOW_OBJECTS 32        /* of a small size: watermarks and batch */
#define HIGH_OBJECTS 96
#define BATCH_OBJECTS 48
#define SMALL_BYTES 256u
#define PREFILL_SMALL 4
#define DRAIN_ROUNDS 64

static const u16 bucket_bytes[BPF_NR_BUCKETS] = { 96, 192, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096 };

/* bucket of (size - 1) / 8, header included, up to 192 bytes */
const u8 bpf_small_bucket[24] = {
	2, 2, 3, 3, 4, 4, 4, 4, 0, 0, 0, 0, 5, 5, 5, 5, 1, 1, 1, 1, 1, 1, 1, 1,
};

__helper struct bpf_mem_cache *list_of(u32 cpu, u32 index)
{
	return shm.bpf_lists + (u64)cpu * shm.hdr->bpf_caches_per_cpu + index;
}

__slowpath struct bpf_mem_cache *bpf_mem_bucket_of(u64 mark)
{
	const struct bpf_mem_cache *origin = ptr_of(mark);
	u64 within = mark - off_of(shm.bpf_lists);
	u32 index;

	if (within >= shm.bpf_lists_bytes || within % sizeof(*origin) || !origin->unit_size)
		return NULL;
	index = bpf_bucket_index(origin->unit_size);
	if (broken(k38) && origin->unit_size == 256)
		index++;
	return &shm.cpu_bpf_lists[index];
}

/* --- lists that only their CPU touches ---------------------------------------------------------- */

__helper u64 *link_of(u64 unit)
{
	return ptr_of(unit);
}

/* True: nobody on this CPU is in the middle of an update of this list. */
__helper bool enter(struct bpf_mem_cache *c)
{
	u32 before = 1;

	__asm__ volatile("xaddl %0, %1" : "+r"(before), "+m"(c->active)::"memory");
	return !before;
}

__helper void leave(struct bpf_mem_cache *c)
{
	__asm__ volatile("decl %0" : "+m"(c->active)::"memory");
}

__helper void push(u64 *first, u64 unit)
{
	*link_of(unit) = *first;
	WRITE_ONCE(*first, unit);
}

__helper u64 pop(u64 *first)
{
	u64 unit = *first;

	if (unit)
		WRITE_ONCE(*first, *link_of(unit));
	return unit;
}

/* One consumer; others may add or take all. */
__slowtext static u64 llist_pop(struct llist_head *head)
{
	u64 first = READ_ONCE(head->first);

	while (first && !try_cmpxchg(&head->first, &first, READ_ONCE(*link_of(first))))
		;
	return first;
}

/* --- allocation and free ------------------------------------------------------------------------ */

/* Why there is nothing: somebody is at it, a refill is on its way, or there is no memory. */
__slowpath static void note_failure(const struct bpf_mem_cache *c, bool busy)
{
	reason_reset(); /* nobody may have done so yet (first.h) */
	if (busy)
		reason_contention(REASON_CPU_SLAB_BUSY);
	else if (c->refill_failed)
		reason_shortage(REASON_BELOW_WATERMARK);
	else
		reason_shortage(c->refill_work.flags ? REASON_REFILL_LAG : REASON_FREELIST_EMPTY);
}

/*
 * Whoever takes a list below its low watermark queues the refill before irqs are on again; so nobody
 * but an NMI can find it empty with none queued, unless memory was short.
 */
__helper void check_refill_queued(const struct bpf_mem_cache *c)
{
#if SHM_CHECKED
	if (unlikely(!c->free_llist && !c->refill_work.flags && !c->refill_failed && !in_nmi()))
		violation(VERDICT_BROKEN_RULE, CHECKER_POOL, NULL, LOCK_NONE, 0, off_of(c),
			  "a list of bpf_mem_alloc is empty, and no refill is queued");
#else
	(void)c;
#endif
}

__slowpath u64 unit_alloc_slow(struct bpf_mem_cache *c, u32 flags)
{
	s32 count = 0;
	u64 unit = 0;
	bool mine;

	check_refill_queued(c);
	mine = enter(c);
	probe(bpf_active);
	if (likely(mine)) {
		unit = pop(&c->free_llist);
		if (likely(unit)) {
			count = --c->free_cnt;
			*link_of(unit) = off_of(c);
		}
	}
	leave(c);
	if (broken(k37)) {
		local_irq_restore(flags);
		probe(bpf_before_queue);
		if (count < c->low_watermark)
			irq_work_queue(&c->refill_work);
		if (unlikely(!unit))
			note_failure(c, !mine);
	} else {
		if (count < c->low_watermark)
			irq_work_queue(&c->refill_work);
		probe(bpf_before_queue);
		if (unlikely(!unit)) /* with irqs on the refill has run, and nothing tells of it */
			note_failure(c, !mine);
		local_irq_restore(flags);
	}
	return likely(unit) ? unit + BPF_HEADER_BYTES : 0;
}

__slowpath void unit_free_slow(struct bpf_mem_cache *c, u64 object, u32 flags)
{
	u64 unit = object - BPF_HEADER_BYTES;
	s32 count = 0;

	if (likely(enter(c))) {
		probe(bpf_active);
		push(&c->free_llist, unit);
		count = ++c->free_cnt;
	} else {
		llist_add(link_of(unit), &c->free_llist_extra);
		c->nr_extra++;
	}
	leave(c);
	if (count > c->high_watermark)
		irq_work_queue(&c->refill_work);
	local_irq_restore(flags);
}

__helper void add_by_rcu(struct bpf_mem_cache *c, u64 unit)
{
	if (!c->free_by_rcu)
		c->free_by_rcu_tail = unit;
	push(&c->free_by_rcu, unit);
}

/* Free after a grace period, which the next refill starts. */
__slowpath void unit_free_rcu(struct bpf_mem_cache *c, u64 object)
{
	u64 unit = object - BPF_HEADER_BYTES;
	u32 flags;

	c->tgt = *link_of(unit);
	flags = local_irq_save();
	if (enter(c)) {
		probe(bpf_active);
		add_by_rcu(c, unit);
	} else {
		llist_add(link_of(unit), &c->free_llist_extra_rcu);
		c->nr_extra++;
	}
	leave(c);
	if (!READ_ONCE(c->call_rcu_in_progress))
		irq_work_queue(&c->refill_work);
	local_irq_restore(flags);
}

/* --- back to kmalloc ----------------------------------------------------------------------------- */

__slowtext static void free_chain(u64 unit)
{
	while (unit) {
		u64 next = *link_of(unit);

		kfree(unit);
		unit = next;
	}
}

__slowpath static void free_waiting_ttrace(struct bpf_mem_cache *c)
{
	free_chain(llist_del_all(&c->waiting_for_gp_ttrace));
	WRITE_ONCE(c->call_rcu_ttrace_in_progress, 0);
}

/* Hand what was given back to this list to a tasks-trace grace period, one batch at a time. */
__slowpath static void call_rcu_ttrace(struct bpf_mem_cache *c)
{
	struct llist_chain chain = { 0 };
	u64 unit;

	if (xchg(&c->call_rcu_ttrace_in_progress, 1)) {
		if (READ_ONCE(c->draining))
			free_chain(llist_del_all(&c->free_by_rcu_ttrace));
		return;
	}
	unit = llist_del_all(&c->free_by_rcu_ttrace);
	while (unit) {
		u64 next = *link_of(unit);

		llist_chain_add(link_of(unit), &chain);
		unit = next;
	}
	llist_add_chain(&chain, &c->waiting_for_gp_ttrace);
	if (READ_ONCE(c->draining))
		free_waiting_ttrace(c);
	else
		call_rcu_domain(RCU_TASKS_TRACE, off_of(&c->rcu_ttrace), RCU_FUNC_bpf_ttrace, 0);
}

/* A tasks-trace grace period is a plain one as well: the objects may go. */
__slowpath void rcu_func_bpf_ttrace(u64 head)
{
	free_waiting_ttrace(container_of((struct rcu_head *)ptr_of(head), struct bpf_mem_cache, rcu_ttrace));
}

/* The plain grace period is over; tasks-trace is next, on the list they will probably be wanted on. */
__slowpath void rcu_func_bpf_rcu(u64 head)
{
	struct bpf_mem_cache *c = container_of((struct rcu_head *)ptr_of(head), struct bpf_mem_cache, rcu);
	struct bpf_mem_cache *tgt = ptr_of(c->tgt);
	u64 first = llist_del_all(&c->waiting_for_gp);

	if (first) {
		llist_add_batch(link_of(first), link_of(c->waiting_for_gp_tail), &tgt->free_by_rcu_ttrace);
		call_rcu_ttrace(tgt);
	}
	WRITE_ONCE(c->call_rcu_in_progress, 0);
}

/* --- irq_work ------------------------------------------------------------------------------------ */

__slowtext static void add_to_free_list(struct bpf_mem_cache *c, u64 unit)
{
	u32 flags = local_irq_save();

	enter(c);
	probe(bpf_active);
	push(&c->free_llist, unit);
	c->free_cnt++;
	leave(c);
	local_irq_restore(flags);
}

/* Objects that wait for a grace period are of the right type, so they may be used again at once. */
__slowpath static void alloc_bulk(struct bpf_mem_cache *c, s32 count, int node, gfp_t gfp)
{
	while (count > 0) {
		u64 unit = llist_pop(&c->free_by_rcu_ttrace);

		if (!unit)
			unit = llist_pop(&c->waiting_for_gp_ttrace);
		if (unit)
			c->nr_reused++;
		else
			unit = kmalloc_node(c->unit_size, gfp | __GFP_NOWARN | __GFP_ACCOUNT | __GFP_ZERO, node);
		c->refill_failed = !unit;
		if (!unit)
			return;
		add_to_free_list(c, unit);
		count--;
	}
}

__slowtext static u64 take_one(struct bpf_mem_cache *c, s32 *left)
{
	u32 flags = local_irq_save();
	u64 unit;

	enter(c);
	unit = pop(&c->free_llist);
	*left = unit ? --c->free_cnt : 0;
	leave(c);
	local_irq_restore(flags);
	return unit;
}

/* Down to the middle between the watermarks; what NMIs have freed goes along. */
__slowpath static void free_bulk(struct bpf_mem_cache *c)
{
	struct bpf_mem_cache *tgt = ptr_of(c->tgt);
	struct llist_chain chain = { 0 };
	u64 unit;
	s32 left;

	do {
		unit = take_one(c, &left);
		if (unit)
			llist_chain_add(link_of(unit), &chain);
	} while (left > (c->high_watermark + c->low_watermark) / 2);
	unit = llist_del_all(&c->free_llist_extra);
	while (unit) {
		u64 next = *link_of(unit);

		llist_chain_add(link_of(unit), &chain);
		unit = next;
	}
	llist_add_chain(&chain, &tgt->free_by_rcu_ttrace);
	call_rcu_ttrace(tgt);
}

__slowtext static void collect_extra_rcu(struct bpf_mem_cache *c)
{
	u64 unit = llist_del_all(&c->free_llist_extra_rcu);
	u32 flags;

	if (!unit)
		return;
	flags = local_irq_save();
	enter(c);
	while (unit) {
		u64 next = *link_of(unit);

		add_by_rcu(c, unit);
		unit = next;
	}
	leave(c);
	local_irq_restore(flags);
}

/* Start the plain grace period of what unit_free_rcu was given, unless one is under way. */
__slowpath static void check_free_by_rcu(struct bpf_mem_cache *c)
{
	u32 flags;

	collect_extra_rcu(c);
	if (!READ_ONCE(c->free_by_rcu))
		return;
	if (xchg(&c->call_rcu_in_progress, 1)) {
		rcu_urgent(RCU_PLAIN);
		return;
	}
	flags = local_irq_save();
	enter(c);
	c->waiting_for_gp_tail = c->free_by_rcu_tail;
	WRITE_ONCE(c->waiting_for_gp.first, c->free_by_rcu);
	WRITE_ONCE(c->free_by_rcu, 0);
	leave(c);
	local_irq_restore(flags);
	if (READ_ONCE(c->draining)) {
		free_chain(llist_del_all(&c->waiting_for_gp));
		WRITE_ONCE(c->call_rcu_in_progress, 0);
		return;
	}
	call_rcu(off_of(&c->rcu), RCU_FUNC_bpf_rcu, 0);
	rcu_urgent(RCU_PLAIN);
}

__slowpath void irq_work_func_bpf_refill(struct irq_work *work)
{
	struct bpf_mem_cache *c = container_of(work, struct bpf_mem_cache, refill_work);
	s32 count = READ_ONCE(c->free_cnt);

	if (unlikely(!c->unit_size))
		fatal(VERDICT_CORRUPTION, CHECKER_POOL, NULL, LOCK_NONE, 0, off_of(c),
		      "a refill runs on a list that was destroyed");
	if (count < c->low_watermark) {
		c->nr_refills++;
		alloc_bulk(c, c->batch, NO_NODE, GFP_NOWAIT);
	} else if (count > c->high_watermark) {
		c->nr_trims++;
		free_bulk(c);
	}
	check_free_by_rcu(c);
}

/* --- set-up and destruction ---------------------------------------------------------------------- */

__slowtext static void set_watermarks(struct bpf_mem_cache *c)
{
	u32 bytes = min_of(shm.hdr->geometry.bpf_low_bytes, 1u << 20);

	if (c->unit_size <= SMALL_BYTES) {
		c->low_watermark = LOW_OBJECTS;
		c->high_watermark = HIGH_OBJECTS;
		c->batch = BATCH_OBJECTS;
		return;
	}
	c->low_watermark = (s16)max_of(bytes / c->unit_size, 1u);
	c->high_watermark = (s16)max_of(3 * bytes / c->unit_size, 3u);
	c->batch = (s16)max_of((c->high_watermark - c->low_watermark) / 4 * 3, 1);
}

static void destroy_index(u32 index);

__slowtext static int init_list(u32 cpu, u32 index, u32 unit_size)
{
	struct bpf_mem_cache *c = list_of(cpu, index);

	if (c->unit_size)
		return -EBUSY;
	zero_bytes(c, sizeof(*c));
	c->unit_size = unit_size;
	c->tgt = off_of(c);
	c->refill_work.func = IRQ_WORK_FUNC_bpf_refill;
	set_watermarks(c);
	alloc_bulk(c, unit_size <= SMALL_BYTES ? PREFILL_SMALL : 1, (int)shm.cpus[cpu].node, GFP_KERNEL);
	return c->free_llist ? 0 : -ENOMEM;
}

__slowtext static int init_index(u32 index, u32 unit_size)
{
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
		int error = init_list(cpu, index, unit_size);

		if (error == -EBUSY)
			return error;
		if (error) {
			destroy_index(index);
			return error;
		}
	}
	return 0;
}

__slowtext int bpf_mem_alloc_init(void)
{
	for (u32 i = 0; i < BPF_NR_BUCKETS; i++) {
		int error = init_index(i, bucket_bytes[i]);

		if (error) {
			while (i--)
				destroy_index(i);
			return error;
		}
	}
	return 0;
}

__slowtext int bpf_mem_alloc_init_fixed(const struct shm_map *map)
{
	return init_index(BPF_NR_BUCKETS + map->index, map->elem_size + BPF_HEADER_BYTES);
}

/* Nobody allocates or frees any more, and no callback is under way. */
__slowtext static void drain_list(struct bpf_mem_cache *c)
{
	free_chain(c->free_llist);
	free_chain(c->free_by_rcu);
	free_chain(llist_del_all(&c->free_llist_extra));
	free_chain(llist_del_all(&c->free_llist_extra_rcu));
	free_chain(llist_del_all(&c->waiting_for_gp));
	free_chain(llist_del_all(&c->free_by_rcu_ttrace));
	free_chain(llist_del_all(&c->waiting_for_gp_ttrace));
	zero_bytes(c, sizeof(*c));
}

__slowtext static bool under_way(u32 index)
{
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++) {
		const struct bpf_mem_cache *c = list_of(cpu, index);

		if (READ_ONCE(c->call_rcu_in_progress) || READ_ONCE(c->call_rcu_ttrace_in_progress))
			return true;
	}
	return false;
}

/*
 * A refill that is still queued must have run before the lists go (K-39), and so must the callbacks.
 * What a CPU queued that nobody is any more is run here, in its place.
 */
__slowtext static void destroy_index(u32 index)
{
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
		WRITE_ONCE(list_of(cpu, index)->draining, 1);
	if (!broken(k39))
		for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
			irq_work_sync(&list_of(cpu, index)->refill_work);
	for (u32 round = 0; under_way(index) && round < DRAIN_ROUNDS; round++)
		rcu_barrier();
	if (under_way(index)) { /* a CPU does not answer: its callbacks still lead here */
		warn_once();
		return;
	}
	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
		drain_list(list_of(cpu, index));
}

__slowtext void bpf_mem_alloc_destroy(void)
{
	for (u32 i = 0; i < BPF_NR_BUCKETS; i++)
		destroy_index(i);
}

__slowtext void bpf_mem_alloc_destroy_fixed(const struct shm_map *map)
{
	destroy_index(BPF_NR_BUCKETS + map->index);
}
