/* SPDX-License-Identifier: MIT */
/*
 * Fault injection: slab and page requests that are made to fail.
 *
 * Answers to: lib/fault-inject.c (should_fail_ex), mm/failslab.c, mm/fail_page_alloc.c.
 * Kept: all attributes but those below, the order in which they decide, fail-nth before all of them.
 * Nolock requests are never asked: they do not come here.
 * Left out: stack filters, dumps (they are counted), verbosity.
 * Context: task, softirq and irq.
 */
#include "fault_inject.h"
#include "page_alloc.h"
#include "slab.h"

/* Set by whoever configures it, before the CPUs run. */
static struct fault_attr *attr_of(u32 kind)
{
	return kind == FAULT_SLAB ? &shm.hdr->failslab : &shm.hdr->fail_page_alloc;
}

__slowtext static bool marked_to_fail(void)
{
	return this_ctx() == CTX_TASK && this_cpu()->task_flags & PF_MAKE_IT_FAIL;
}

/* Let the first `space` bytes or pages pass; true while they do. */
__slowtext static bool consume_space(struct fault_attr *attr, u32 size)
{
	if (READ_ONCE(attr->space) <= (s32)size)
		return false;
	atomic_sub(&attr->space, (s32)size);
	return true;
}

__slowtext static void count_down(s32 *times)
{
	s32 left = READ_ONCE(*times);

	while (left > 0 && !try_cmpxchg(times, &left, left - 1))
		;
}

__slowtext static bool fail_now(struct fault_attr *attr, gfp_t gfp)
{
	if (!(gfp & __GFP_NOWARN))
		this_cpu_inc64(&shm.tele->fault_dumps);
	count_down(&attr->times);
	return true;
}

/* size: bytes or pages */
__slowpath static bool should_fail(struct fault_attr *attr, u32 size, gfp_t gfp)
{
	struct shm_cpu *cpu = this_cpu();

	if (this_ctx() == CTX_TASK && cpu->fail_nth)
		return --cpu->fail_nth == 0 && fail_now(attr, gfp);
	if (!attr->probability || (attr->task_filter && !marked_to_fail()) || !READ_ONCE(attr->times))
		return false;
	if (consume_space(attr, size))
		return false;
	if (attr->interval > 1 && (atomic_fetch_add(&attr->count, 1) + 1) % attr->interval)
		return false;
	if (attr->probability <= (random_next(&cpu->random) >> 33) % 100)
		return false;
	return fail_now(attr, gfp);
}

__slowpath bool should_failslab(const struct kmem_cache *s, gfp_t gfp)
{
	struct fault_attr *attr = &shm.hdr->failslab;

	if (gfp & __GFP_NOFAIL || (attr->ignore_gfp_wait && gfp & __GFP_DIRECT_RECLAIM) ||
	    (attr->cache_filter && !(s->flags & SLAB_FAILSLAB)) || !should_fail(attr, s->object_size, gfp))
		return false;
	this_cpu_inc64(&shm.tele->failslab);
	reason_shortage(REASON_INJECTED);
	return true;
}

__slowpath bool should_fail_alloc_page(gfp_t gfp, u32 order)
{
	struct fault_attr *attr = &shm.hdr->fail_page_alloc;

	if (order < attr->min_order || gfp & __GFP_NOFAIL || (attr->ignore_gfp_highmem && gfp & __GFP_HIGHMEM) ||
	    (attr->ignore_gfp_wait && gfp & __GFP_DIRECT_RECLAIM) || !should_fail(attr, 1u << order, gfp))
		return false;
	this_cpu_inc64(&shm.tele->fail_page_alloc);
	reason_shortage(REASON_INJECTED);
	return true;
}

/* The allocators look at one flag of the cache, or of the attribute, that says whether to ask at all. */
static void arm_faults(u32 nth)
{
	bool slab = nth || shm.hdr->failslab.probability;

	shm.hdr->failslab.armed = slab;
	shm.hdr->fail_page_alloc.armed = nth || shm.hdr->fail_page_alloc.probability;
	for (u32 i = 0; i < shm.hdr->nr_caches; i++) {
		if (slab)
			atomic_or(&shm.caches[i].flags, SLAB_MAY_FAIL);
		else
			atomic_and(&shm.caches[i].flags, ~SLAB_MAY_FAIL);
	}
}

static u32 any_fail_nth(void)
{
	u32 any = 0;

	for (u32 i = 0; i < shm.nr_cpus; i++)
		any |= shm.cpus[i].fail_nth;
	return any;
}

void fault_inject_init(void)
{
	for (u32 kind = 0; kind < NR_FAULTS; kind++)
		*attr_of(kind) = (struct fault_attr){ .interval = 1, .times = 1, .ignore_gfp_wait = 1,
						      .ignore_gfp_highmem = 1, .min_order = 1 };
}

__export int shm_fault_set(enum shm_fault kind, const struct fault_attr *attr)
{
	if (!shm.base)
		return -ENOTCONN;
	if (kind >= NR_FAULTS || attr->probability > 100 || attr->times < -1 || attr->space < 0 ||
	    attr->min_order > SHM_MAX_PAGE_ORDER)
		return -EINVAL;
	*attr_of(kind) = *attr;
	arm_faults(any_fail_nth());
	return 0;
}

__export int shm_fault_mark_cache(unsigned int cache, int on)
{
	if (!shm.base || cache >= shm.hdr->nr_caches)
		return -EINVAL;
	if (on)
		atomic_or(&shm.caches[cache].flags, SLAB_FAILSLAB);
	else
		atomic_and(&shm.caches[cache].flags, ~SLAB_FAILSLAB);
	return 0;
}

__export int shm_fail_nth(unsigned int nth)
{
	if (!thread_is_cpu())
		return -EPERM;
	this_cpu()->fail_nth = nth;
	arm_faults(any_fail_nth());
	return 0;
}

__export int shm_make_it_fail(int on)
{
	if (!thread_is_cpu())
		return -EPERM;
	this_cpu()->task_flags = (this_cpu()->task_flags & ~PF_MAKE_IT_FAIL) | (on ? PF_MAKE_IT_FAIL : 0);
	return 0;
}
