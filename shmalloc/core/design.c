/* SPDX-License-Identifier: MIT */
/*
 * The registry, and what surrounds every call of a design: reason, counts, oracle, constructors.
 */
#include "design.h"
#include "oracle.h"
#include "rcu.h"

#define DESIGN(name) &design_##name,
const struct design_ops *const designs[NR_DESIGNS] = {
#include "designs.def"
};
#undef DESIGN

#define DESIGN_TEXT(function, field) \
	__export const char *function(unsigned int design) \
	{ \
		return design < NR_DESIGNS ? designs[design]->field : NULL; \
	}

DESIGN_TEXT(shm_design_name, name)
DESIGN_TEXT(shm_design_summary, summary)
DESIGN_TEXT(shm_design_contexts, contexts)

__helper struct shm_counts *this_counts(u32 design)
{
	return &shm.tele->counts[design][this_ctx()];
}

__helper u64 account(u32 design, u64 off, u64 bytes)
{
	if (unlikely(!off)) {
		this_cpu_inc64(&this_counts(design)->failures[this_reason()]);
		return 0;
	}
	this_cpu_inc64(&this_counts(design)->allocs);
	oracle_own(off, bytes);
	return off;
}

u64 design_alloc(u32 design, u64 size, gfp_t gfp, int node)
{
	reason_reset();
	return account(design, designs[design]->alloc(size, gfp, node), size);
}

u64 design_cache_alloc(u32 design, struct kmem_cache *s, gfp_t gfp, int node)
{
	u64 off;

	reason_reset();
	off = account(design, designs[design]->cache_alloc(s, gfp, node), s->object_size);
	if (off && s->ctor && !ctor_intact(s->ctor, off, s->object_size))
		violation(VERDICT_CORRUPTION, CHECKER_CTOR, NULL, LOCK_NONE, 0, off,
			  "a constructed object was written to while it was free");
	return off;
}

u64 design_pages_alloc(u32 design, gfp_t gfp, int node, u32 order)
{
	struct page *page;

	reason_reset();
	page = designs[design]->pages_alloc(gfp, node, order);
	return page ? account(design, page_to_off(page), (u64)SHM_PAGE_SIZE << order) : account(design, 0, 0);
}

int design_free(u32 design, u64 object)
{
	if (!oracle_release(object))
		return -EINVAL;
	this_cpu_inc64(&this_counts(design)->frees);
	designs[design]->free(object);
	return 0;
}

int design_free_rcu(u32 design, u64 object, u32 head_offset)
{
	const struct page *page = virt_to_head_page(object);
	const struct kmem_cache *s = slab_cache(page);

	if (!(page->flags & PG_slab) || s->ctor || head_offset & 7 ||
	    head_offset + sizeof(struct rcu_head) > s->object_size || !oracle_release(object))
		return -EINVAL;
	this_cpu_inc64(&this_counts(design)->frees);
	kfree_rcu(object, head_offset);
	return 0;
}

int design_pages_free(u32 design, u64 off, u32 order)
{
	if (!oracle_release(off))
		return -EINVAL;
	this_cpu_inc64(&this_counts(design)->frees);
	designs[design]->pages_free(off_to_page(off), order);
	return 0;
}
