/* SPDX-License-Identifier: MIT */
/*
 * A design is one way to allocate: one file, one operations table, one row in designs.def.
 */
#ifndef SHM_DESIGN_H
#define SHM_DESIGN_H

#include "slab.h"

/* What the first attempt at a free has come to. */
enum first_free {
	FREE_DONE,
	FREE_REFUSED,   /* the oracle: this is not the start of a live object */
	FREE_NOT_TRIED, /* nothing was changed */
	FREE_RELEASED,  /* counted and given up by its owner; the design has still to take it */
};

/* how a call goes on that the first attempt has not finished */
typedef u64 rest_of_alloc(u32 design, u64 size, gfp_t gfp, int node);
typedef int rest_of_free(u32 design, u64 object, enum first_free first);

struct design_ops {
	const char *name;
	const char *summary;
	const char *contexts;     /* that it may be called from, comma separated */
	u64 (*alloc)(u64 size, gfp_t gfp, int node);
	u64 (*cache_alloc)(struct kmem_cache *s, gfp_t gfp, int node); /* left out: alloc, constructed ones refused */
	struct page *(*pages_alloc)(gfp_t gfp, int node, u32 order);
	void (*free)(u64 object);
	void (*free_rcu)(u64 object, u32 head_offset); /* NULL: kfree_rcu */
	void (*pages_free)(struct page *page, u32 order);
	/* optional: so many objects of a cache or none, into p; the array is reordered by the free */
	u32 (*alloc_bulk)(struct kmem_cache *s, gfp_t gfp, u32 size, u64 *p);
	void (*free_bulk)(struct kmem_cache *s, u32 size, u64 *p);
	bool frees_large;         /* free takes a large kmalloc */

	/*
	 * The first attempts, counted and owned (first.h): they wait for nothing and run without a guard.  What
	 * they do not finish they leave to `rest`, as their last call, so that whoever calls them needs no frame
	 * either; nothing was changed then, but for FREE_RELEASED.  If they return NULL themselves, that is the
	 * answer, counted, with its reason.
	 */
	u64 (*alloc_first)(u32 design, u64 size, gfp_t gfp, int node, rest_of_alloc *rest);
	int (*free_first)(u32 design, u64 off, rest_of_free *rest); /* looks whether an object begins there */

	/* what follows may be left out */

	bool own_objects;         /* frees only what it has allocated itself, and nobody else frees that */
	bool late_frees;          /* objects may come back after the teardown, which frees what they belong to at the last */
	bool (*owns)(u64 object); /* one of its objects begins here; left out: objects of slabs, and large ones */
	int (*setup)(void);       /* task, once per arena, before the CPUs run: 0 or a negative errno */
	void (*teardown)(void);   /* task, quiescent: all memory back */

	/* hash maps; left out: an element is an object of alloc and free */
	bool preallocated;        /* all elements exist from the start, and each CPU has a spare one (pool of the map) */
	bool elem_reuse;          /* a freed element may be another key's at once, while readers stand on it */
	int (*map_init)(struct shm_map *map);  /* task: 0 or a negative errno */
	void (*map_exit)(struct shm_map *map); /* task, quiescent, the buckets are empty */
	u64 (*elem_alloc)(struct shm_map *map); /* under a bucket's lock, irqs off */
	void (*elem_free)(struct shm_map *map, u64 elem); /* the delete path, any context of the design */
};

#define DESIGN(name) DESIGN_##name,
enum shm_design {
#include "designs.def"
	NR_DESIGNS
};
#undef DESIGN

#define DESIGN(name) extern const struct design_ops design_##name;
#include "designs.def"
#undef DESIGN

extern const struct design_ops *const designs[NR_DESIGNS];

/* the table's operations, with the oracle and the counts of this CPU and context */
u64 design_alloc(u32 design, u64 size, gfp_t gfp, int node);
u64 design_alloc_whole(u32 design, u64 size, gfp_t gfp, int node);
u64 design_cache_alloc(u32 design, struct kmem_cache *s, gfp_t gfp, int node);
u64 design_pages_alloc(u32 design, gfp_t gfp, int node, u32 order);
int design_free(u32 design, u64 object);
int design_free_rest(u32 design, u64 object, enum first_free first);
int design_pages_free(u32 design, u64 off, u32 order);
/* after a grace period; -EINVAL: not a live object, or none that can carry a head */
int design_free_rcu(u32 design, u64 object, u32 head_offset);

/* size objects of a cache into p, or 0 */
u32 design_alloc_bulk(u32 design, struct kmem_cache *s, gfp_t gfp, u32 size, u64 *p);
/* objects of one cache; -EINVAL: one is none, and nothing was changed */
int design_free_bulk(u32 design, struct kmem_cache *s, u32 size, u64 *p);

/* api.c: the start of a live object, as far as can be told */
bool plausible_object(u64 off);
bool plausible_block(u64 off, u32 order); /* of pages, as they were handed out */

/* alloc and free of a map's element: from its design, from or to the map's own spare ones */
u64 design_elem_alloc(struct shm_map *map);
void design_elem_free(struct shm_map *map, u64 elem);
u64 design_elem_taken(struct shm_map *map, u64 elem);
void design_elem_given(struct shm_map *map, u64 elem);

/* A freed element may be used again while readers stand on it. */
__helper bool elem_reused_at_once(const struct shm_map *map)
{
	return designs[map->design]->elem_reuse || !designs[map->design]->elem_alloc;
}

/* design_traced.c: each of these calls once more, from where it was called, for while it leaves an event */
u64 traced_alloc(u32 design, u64 size, gfp_t gfp, int node, u64 from);
u64 traced_cache_alloc(u32 design, struct kmem_cache *s, gfp_t gfp, int node, u64 from);
u64 traced_pages_alloc(u32 design, gfp_t gfp, int node, u32 order, u64 from);
u64 traced_elem_alloc(struct shm_map *map, u64 from);
u64 traced_elem_taken(struct shm_map *map, u64 elem, u64 from);
u32 traced_alloc_bulk(u32 design, struct kmem_cache *s, gfp_t gfp, u32 size, u64 *p, u64 from);
int traced_free(u32 design, u64 object, enum first_free first, u64 from);
int traced_pages_free(u32 design, u64 off, u32 order, u64 from);
/* an object is given up, whatever then becomes of it; flags: TRACE_* */
void traced_given(u32 design, u64 object, u32 flags, u64 from);

/* for designs that try nothing first */
u64 nothing_first(u32 design, u64 size, gfp_t gfp, int node, rest_of_alloc *rest);
int nothing_freed_first(u32 design, u64 off, rest_of_free *rest);

/* for designs that have no pages to give */
struct page *refuse_pages(gfp_t gfp, int node, u32 order);

/* what a request that may wait becomes where waiting is not allowed */
__helper gfp_t gfp_for_context(gfp_t gfp)
{
	if (!gfpflags_allow_blocking(gfp) || (this_ctx() == CTX_TASK && !irqs_disabled()))
		return gfp;
	return (gfp & ~(__GFP_DIRECT_RECLAIM | __GFP_IO | __GFP_FS)) | GFP_ATOMIC;
}

#endif
