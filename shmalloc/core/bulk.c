/* SPDX-License-Identifier: MIT */
/*
 * Bulk calls from outside and as ops: counted and owned object by object, like any other.
 * Context: any that the design may be called from; the API task.
 */
#include "bulk.h"
#include "design.h"
#include "oracle.h"
#include "slots.h"
#include "trace.h"

static bool constructed_intact(const struct kmem_cache *s, u64 object)
{
	if (!s->ctor || ctor_intact(s->ctor, object, s->object_size))
		return true;
	violation(VERDICT_CORRUPTION, CHECKER_CTOR, NULL, LOCK_NONE, 0, object,
		  "a constructed object was written to while it was free");
	return false;
}

u32 design_alloc_bulk(u32 design, struct kmem_cache *s, gfp_t gfp, u32 size, u64 *p)
{
	struct shm_counts *counts = &shm.tele->counts[design][this_ctx()];
	u32 got = 0;

	if (traced_first(TRACE_CALLS))
		return traced_alloc_bulk(design, s, gfp, size, p, TRACED_FROM);
	reason_reset();
	if (designs[design]->alloc_bulk)
		got = designs[design]->alloc_bulk(s, gfp, size, p);
	else
		reason_shortage(REASON_CONTEXT_REFUSED);
	if (!got) {
		this_cpu_inc64(&counts->failures[this_reason()]);
		return 0;
	}
	this_cpu_add64(&counts->allocs, got);
	for (u32 i = 0; i < got; i++) {
		oracle_own(p[i], s->object_size);
		constructed_intact(s, p[i]);
	}
	return got;
}

static bool all_of_cache(const struct kmem_cache *s, u32 size, const u64 *p)
{
	for (u32 i = 0; i < size; i++)
		if (!plausible_object(p[i]) || virt_to_head_page(p[i])->slab_cache != s->index + 1)
			return false;
	return true;
}

/* An object that occurs twice is found here: by then the first one of the two is nobody's any more. */
static bool release_all(u32 size, const u64 *p)
{
	u64 bytes[SHM_MAX_BULK];

	for (u32 i = 0; i < size; i++) {
		bytes[i] = oracle_extent(p[i]);
		if (oracle_release(p[i]))
			continue;
		while (i--)
			oracle_own(p[i], bytes[i]);
		return false;
	}
	return true;
}

int design_free_bulk(u32 design, struct kmem_cache *s, u32 size, u64 *p)
{
	if (!designs[design]->free_bulk)
		return -EOPNOTSUPP;
	if (!all_of_cache(s, size, p) || !release_all(size, p))
		return -EINVAL;
	this_cpu_add64(&shm.tele->counts[design][this_ctx()].frees, size);
	if (tracing(TRACE_BIT(free)))
		for (u32 i = 0; i < size; i++)
			traced_given(design, p[i], TRACE_BULK, TRACED_FROM);
	designs[design]->free_bulk(s, size, p);
	return 0;
}

static bool bulk_ok(unsigned int cache, unsigned int size)
{
	return shm.base && size && size <= SHM_MAX_BULK && cache < shm.hdr->nr_caches &&
	       shm.caches[cache].state == CACHE_LIVE;
}

__export uint32_t shm_kmem_cache_alloc_bulk(unsigned int cache, uint32_t gfp, unsigned int size, uint64_t *objects)
{
	if (!bulk_ok(cache, size))
		return 0;
	return GUARDED(u32, 0, design_alloc_bulk(DESIGN_kmalloc, &shm.caches[cache], gfp, size, objects));
}

__export int shm_kmem_cache_free_bulk(unsigned int cache, unsigned int size, uint64_t *objects)
{
	if (!bulk_ok(cache, size))
		return -EINVAL;
	return GUARDED(int, thread_is_cpu() ? -EDEADLK : -EPERM,
		       design_free_bulk(DESIGN_kmalloc, &shm.caches[cache], size, objects));
}

/* The objects of the slots; those of another cache are freed one by one. */
void op_bulk_free(const struct runner *r, const struct shm_op *op)
{
	struct kmem_cache *s = &shm.caches[op->cache];
	u64 objects[SHM_MAX_BULK];
	struct shm_op at = *op;
	u32 count = 0;

	for (u32 i = 0; i < op->size; i++, at.slot++) {
		u64 value = slot_take(r, &at), off = value & SLOT_OFFSET;

		if (!value)
			continue;
		if (designs[r->design]->free_bulk && !(value & (SLOT_PAGES | SLOT_PATTERN)) &&
		    plausible_object(off) && virt_to_head_page(off)->slab_cache == op->cache + 1u)
			objects[count++] = off;
		else if (!free_value(r->design, value))
			slot_store(r, &at, value);
	}
	if (count && design_free_bulk(r->design, s, count, objects))
		violation(VERDICT_CORRUPTION, CHECKER_ORACLE, NULL, LOCK_NONE, 0, objects[0],
			  "an object that its holder frees is not owned by anybody");
}

/* op->size objects into the slots from op->slot on, which are emptied first. */
void op_bulk_alloc(const struct runner *r, const struct shm_op *op)
{
	struct kmem_cache *s = &shm.caches[op->cache];
	u64 objects[SHM_MAX_BULK];
	struct shm_op at = *op;
	u32 got;

	if (s->state != CACHE_LIVE)
		return;
	op_bulk_free(r, op);
	got = design_alloc_bulk(r->design, s, op->gfp, op->size, objects);
	for (u32 i = 0; i < got; i++, at.slot++) {
		u64 value = objects[i] | (u64)r->design << SLOT_DESIGN_SHIFT;

		if (slot_filled(r, &at)) /* by what this design cannot free */
			free_value(r->design, value);
		else
			slot_store(r, &at, value);
	}
}
