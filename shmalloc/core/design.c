/* SPDX-License-Identifier: MIT */
/*
 * The registry, and what surrounds every call of a design: reason, counts, oracle, constructors.
 */
#include "first.h"
#include "rcu.h"
#include "trace.h"

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

/* Where it came from, which zone_statistics() knows of whole pages only. */
static void count_node(u64 off, int wanted)
{
	u32 node;

	if (!off_in_memory(off)) /* ZERO_SIZE_PTR */
		return;
	node = page_node(off_to_page(off));
	this_cpu_inc64(&shm.tele->node_allocs[node]);
	if (wanted == NO_NODE)
		return;
	this_cpu_inc64(&shm.tele->node_requests);
	if ((u32)wanted != node)
		this_cpu_inc64(&shm.tele->node_elsewhere);
}

__helper u64 account(u32 design, u64 off, u64 bytes, int node)
{
	if (unlikely(!off)) {
		this_cpu_inc64(&this_counts(design)->failures[this_reason()]);
		return 0;
	}
	if (unlikely(shm.nr_nodes > 1))
		count_node(off, node);
	return account_object(design, off, bytes);
}

u64 design_alloc(u32 design, u64 size, gfp_t gfp, int node)
{
	return designs[design]->alloc_first(design, size, gfp, node, design_alloc_whole);
}

u64 design_alloc_whole(u32 design, u64 size, gfp_t gfp, int node)
{
	if (traced_first(TRACE_CALLS))
		return traced_alloc(design, size, gfp, node, TRACED_FROM);
	reason_reset();
	return account(design, designs[design]->alloc(size, gfp, node), size, node);
}

/* A design without objects of caches gives one of its own of that size, unless it would have to be constructed. */
static u64 alloc_of_cache(const struct design_ops *ops, struct kmem_cache *s, gfp_t gfp, int node)
{
	if (ops->cache_alloc)
		return ops->cache_alloc(s, gfp, node);
	if (!s->ctor)
		return ops->alloc(s->object_size, gfp, node);
	reason_shortage(REASON_CONTEXT_REFUSED);
	return 0;
}

u64 design_cache_alloc(u32 design, struct kmem_cache *s, gfp_t gfp, int node)
{
	u64 off;

	if (traced_first(TRACE_CALLS))
		return traced_cache_alloc(design, s, gfp, node, TRACED_FROM);
	reason_reset();
	off = account(design, alloc_of_cache(designs[design], s, gfp, node), s->object_size, node);
	if (off && s->ctor && !ctor_intact(s->ctor, off, s->object_size))
		violation(VERDICT_CORRUPTION, CHECKER_CTOR, NULL, LOCK_NONE, 0, off,
			  "a constructed object was written to while it was free");
	return off;
}

u64 design_pages_alloc(u32 design, gfp_t gfp, int node, u32 order)
{
	struct page *page;

	if (traced_first(TRACE_CALLS))
		return traced_pages_alloc(design, gfp, node, order, TRACED_FROM);
	reason_reset();
	page = designs[design]->pages_alloc(gfp, node, order);
	return account(design, page ? page_to_off(page) : 0, (u64)SHM_PAGE_SIZE << order, node);
}

int design_free(u32 design, u64 object)
{
	return designs[design]->free_first(design, object, design_free_rest);
}

/* What is left to do after a first attempt. */
int design_free_rest(u32 design, u64 object, enum first_free first)
{
	if (traced_first(TRACE_CALLS))
		return traced_free(design, object, first, TRACED_FROM);
	if (first == FREE_REFUSED || (first == FREE_NOT_TRIED && !release_object(design, object)))
		return -EINVAL;
	designs[design]->free(object);
	return 0;
}

int design_free_rcu(u32 design, u64 object, u32 head_offset)
{
	const struct page *page = virt_to_head_page(object);
	const struct kmem_cache *s = slab_cache(page);

	if (!(page->flags & PG_slab) || s->ctor || head_offset & 7 ||
	    head_offset + sizeof(struct rcu_head) > get_orig_size(s, object) || !release_object(design, object))
		return -EINVAL;
	if (tracing(TRACE_BIT(free)))
		traced_given(design, object, TRACE_RCU, TRACED_FROM);
	if (designs[design]->free_rcu)
		designs[design]->free_rcu(object, head_offset);
	else
		kfree_rcu(object, head_offset);
	return 0;
}

int design_pages_free(u32 design, u64 off, u32 order)
{
	if (traced_first(TRACE_CALLS))
		return traced_pages_free(design, off, order, TRACED_FROM);
	if (!designs[design]->pages_free || !release_object(design, off))
		return -EINVAL;
	designs[design]->pages_free(off_to_page(off), order);
	return 0;
}

u64 design_elem_alloc(struct shm_map *map)
{
	const struct design_ops *ops = designs[map->design];

	if (traced_first(TRACE_CALLS))
		return traced_elem_alloc(map, TRACED_FROM);
	reason_reset();
	return account(map->design, ops->elem_alloc ? ops->elem_alloc(map) : ops->alloc(map->elem_size, GFP_ATOMIC, NO_NODE),
		       map->elem_size, NO_NODE);
}

u64 design_elem_taken(struct shm_map *map, u64 elem)
{
	if (traced_first(TRACE_CALLS))
		return traced_elem_taken(map, elem, TRACED_FROM);
	return account(map->design, elem, map->elem_size, NO_NODE);
}

void design_elem_free(struct shm_map *map, u64 elem)
{
	const struct design_ops *ops = designs[map->design];

	design_elem_given(map, elem);
	if (ops->elem_free)
		ops->elem_free(map, elem);
	else
		ops->free(elem);
}

void design_elem_given(struct shm_map *map, u64 elem)
{
	if (!oracle_release(elem))
		violation(VERDICT_CORRUPTION, CHECKER_ORACLE, NULL, LOCK_NONE, 0, elem,
			  "a map's element that leaves its bucket is not owned by anybody");
	this_cpu_inc64(&this_counts(map->design)->frees);
	if (tracing(TRACE_BIT(free)))
		traced_given(map->design, elem, 0, TRACED_FROM);
}

u64 nothing_first(u32 design, u64 size, gfp_t gfp, int node, rest_of_alloc *rest)
{
	return rest(design, size, gfp, node);
}

int nothing_freed_first(u32 design, u64 off, rest_of_free *rest)
{
	return rest(design, off, FREE_NOT_TRIED);
}

/* --- how the first attempts of pools end when they do not end as usual: irqs are on again (first.h) --- */

__fastpath __attribute__((noinline)) u64 pool_allocated(u64 off, u64 bytes)
{
	take_pending_irqs();
	return oracle_on() ? oracle_owned(off, bytes) : off;
}

__fastpath __attribute__((noinline)) u64 pool_declined(u32 design, u64 size, rest_of_alloc *rest)
{
	take_pending_irqs();
	return rest(design, size, 0, NO_NODE);
}

__fastpath __attribute__((noinline)) int pool_freed(void)
{
	take_pending_irqs();
	return 0;
}

__fastpath __attribute__((noinline)) int pool_not_freed(u32 design, u64 off, rest_of_free *rest)
{
	take_pending_irqs();
	return rest(design, off, FREE_RELEASED);
}

__slowtext struct page *refuse_pages(gfp_t gfp, int node, u32 order)
{
	(void)gfp, (void)node, (void)order;
	reason_shortage(REASON_ORDER_LIMIT);
	return NULL;
}

static int setup(u32 design)
{
	int error;

	if (!designs[design]->setup || shm.hdr->designs_ready >> design & 1)
		return 0;
	if (this_ctx() != CTX_TASK || irqs_disabled())
		return -EINVAL;
	error = designs[design]->setup();
	if (!error)
		shm.hdr->designs_ready |= 1u << design;
	return error;
}

/* Objects of the design, its maps' elements among them, that are not back. */
static u64 in_use(u32 design)
{
	u64 balance = 0;

	for (u32 cpu = 0; cpu < shm.nr_cpus; cpu++)
		for (u32 ctx = 0; ctx < NR_CTX; ctx++) {
			const struct shm_counts *c = &cpu_telemetry(cpu)->counts[design][ctx];

			balance += c->allocs - c->frees;
		}
	return balance;
}

static int teardown(u32 design)
{
	if (!(shm.hdr->designs_ready >> design & 1))
		return 0;
	if (this_ctx() != CTX_TASK || irqs_disabled())
		return -EINVAL;
	for (u32 i = 0; i < shm.hdr->geometry.max_maps; i++)
		if (shm.maps[i].state == MAP_LIVE && shm.maps[i].design == design)
			return -EBUSY;
	if (designs[design]->own_objects && !designs[design]->late_frees && in_use(design))
		return -EBUSY;
	if (designs[design]->teardown)
		designs[design]->teardown();
	shm.hdr->designs_ready &= ~(1u << design);
	return 0;
}

__export int shm_design_setup(unsigned int design)
{
	if (!shm.base || design >= NR_DESIGNS)
		return -EINVAL;
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM, setup(design));
}

__export int shm_design_teardown(unsigned int design)
{
	if (!shm.base || design >= NR_DESIGNS)
		return -EINVAL;
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM, teardown(design));
}
