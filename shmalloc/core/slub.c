/* SPDX-License-Identifier: MIT */
/*
 * The slab allocator with cpu slabs: the slow paths of allocation and free.
 *
 * Answers to: mm/slub.c (__slab_alloc, ___slab_alloc, __slab_free, slab_free) of 6.18, !RT, SMP.
 * Kept: every case and its order.  Changed: one long function with labels is a loop over steps, each
 * a function that says how to go on.  Left out: KASAN, KFENCE, kmemleak, init_on_alloc/free hooks.
 * Context: any for requests without reclaim flags (which come from slub_nolock.c); otherwise task,
 * softirq and irq.
 *
 * A request that may not spin never waits: where the cpu slab's lock is held by what it interrupted
 * it has returned SLAB_EBUSY before it gets here, list_lock is tried, pages come from trylocks.
 */
#include "list.h"
#include "slab_fast.h"
#include "trace.h"

/* how a step of ___slab_alloc ends, if not with an object */
enum step { STEP_OBJECT, STEP_REREAD, STEP_NEXT, STEP_FAIL };

/* Far more rounds than interrupts can cause; a request that may not spin is bounded much closer. */
#define MAX_ROUNDS 1000000
#define MAX_ROUNDS_NOLOCK 64

struct slow_alloc {
	struct kmem_cache *s;
	struct kmem_cache_cpu *c;
	gfp_t gfp;
	int node;
	bool allow_spin;
	bool try_thisnode;
	bool passed_over; /* free objects of the reserves, to which this request is not entitled */
	u64 orig_size;    /* bytes asked for; debug caches record it */
	u64 object;       /* the result */
};

/* cpu slab lock held: hand out the first object of a freelist that is ours alone */
__slowtext static enum step load_freelist(struct slow_alloc *a, u64 freelist)
{
	WRITE_ONCE(a->c->freelist, get_freepointer(a->s, freelist));
	tid_bump(a->c);
	a->object = freelist;
	return STEP_OBJECT;
}

/* Give up the present cpu slab: node or pfmemalloc do not suit the request. */
__slowtext static enum step deactivate_cpu_slab(struct slow_alloc *a, u64 slab)
{
	u32 flags = local_lock_irqsave(&a->c->lock);
	u64 freelist;

	probe(cpu_slab_locked);
	if (a->c->slab != slab) {
		local_unlock_irqrestore(&a->c->lock, flags);
		return STEP_REREAD;
	}
	freelist = a->c->freelist;
	probe(cpu_slab_editing);
	WRITE_ONCE(a->c->slab, 0);
	WRITE_ONCE(a->c->freelist, 0);
	tid_bump(a->c);
	local_unlock_irqrestore(&a->c->lock, flags);
	deactivate_slab(a->s, ptr_of(slab), freelist);
	return STEP_NEXT;
}

/* Use the cpu slab: what an interrupt left on its freelist, else what was freed to it remotely. */
__slowpath static enum step from_cpu_slab(struct slow_alloc *a)
{
	u64 slab = READ_ONCE(a->c->slab), freelist;
	enum step step = STEP_NEXT;
	u32 flags;

	if (!slab) {
		if (a->node != NO_NODE && !node_has_memory(a->node))
			a->node = NO_NODE;
		return STEP_NEXT;
	}
	if (!node_match(slab, a->node)) {
		if (a->allow_spin && node_has_memory(a->node)) {
			stat(a->s, alloc_node_mismatch);
			return deactivate_cpu_slab(a, slab);
		}
		a->node = NO_NODE; /* taking the slab from the CPU would be too heavy a hammer */
	}
	if (a->allow_spin && !pfmemalloc_match(ptr_of(slab), a->gfp))
		return deactivate_cpu_slab(a, slab);

	flags = local_lock_irqsave(&a->c->lock);
	probe(cpu_slab_locked);
	if (a->c->slab != slab) {
		local_unlock_irqrestore(&a->c->lock, flags);
		return STEP_REREAD;
	}
	freelist = a->c->freelist;
	if (!freelist) {
		freelist = get_freelist(a->s, ptr_of(slab));
		if (freelist)
			stat(a->s, alloc_refill);
	}
	probe(cpu_slab_editing);
	if (freelist) {
		step = load_freelist(a, freelist);
	} else {
		WRITE_ONCE(a->c->slab, 0);
		tid_bump(a->c);
		stat(a->s, deactivate_bypass);
	}
	local_unlock_irqrestore(&a->c->lock, flags);
	return step;
}

/* Make the first slab of this CPU's partial list the cpu slab. */
__slowpath static enum step from_cpu_partial(struct slow_alloc *a)
{
	struct kmem_cache_cpu *c = a->c;

	while (READ_ONCE(c->partial)) {
		u32 flags = local_lock_irqsave(&c->lock);
		struct page *slab;
		enum step step;

		probe(cpu_slab_locked);
		if (c->slab || !c->partial) {
			step = c->slab ? STEP_REREAD : STEP_NEXT;
			local_unlock_irqrestore(&c->lock, flags);
			return step;
		}
		slab = ptr_of(c->partial);
		WRITE_ONCE(c->partial, slab->lru.next);
		if (!a->allow_spin || (node_match(off_of(slab), a->node) && pfmemalloc_match(slab, a->gfp))) {
			u64 freelist = get_freelist(a->s, slab);

			probe(cpu_slab_editing);
			/* get_freelist freezes: the slab had free objects, or it would not be here */
			WRITE_ONCE(c->slab, off_of(slab));
			stat(a->s, cpu_partial_alloc);
			step = load_freelist(a, freelist);
			local_unlock_irqrestore(&c->lock, flags);
			return step;
		}
		local_unlock_irqrestore(&c->lock, flags);
		slab->lru.next = 0;
		put_partials(a->s, off_of(slab));
	}
	return STEP_NEXT;
}

/*
 * Install a frozen slab.  If an interrupt has installed one meanwhile, that one goes: by
 * deactivation, or by irq_work if this request may not take list_lock.
 */
__slowpath static enum step install_slab(struct slow_alloc *a, struct page *slab, u64 freelist)
{
	struct kmem_cache_cpu *c = a->c;

	probe(before_install);
	for (;;) {
		u32 flags = local_lock_irqsave(&c->lock);
		u64 old_slab = c->slab, old_freelist;
		enum step step;

		probe(cpu_slab_locked);
		if (!old_slab) {
			WRITE_ONCE(c->slab, off_of(slab));
			step = load_freelist(a, freelist);
			local_unlock_irqrestore(&c->lock, flags);
			return step;
		}
		old_freelist = c->freelist;
		WRITE_ONCE(c->slab, 0);
		WRITE_ONCE(c->freelist, 0);
		tid_bump(c);
		local_unlock_irqrestore(&c->lock, flags);
		stat(a->s, cpuslab_flush);
		if (a->allow_spin)
			deactivate_slab(a->s, ptr_of(old_slab), old_freelist);
		else if (!broken(k08))
			defer_deactivate_slab(ptr_of(old_slab), old_freelist);
	}
}

static enum step from_node_partial(struct slow_alloc *a, gfp_t gfp)
{
	struct partial_context pc = { .gfp = gfp, .orig_size = a->orig_size };
	struct page *slab = get_partial(a->s, a->node, &pc);

	a->passed_over |= pc.passed_over;
	if (!slab)
		return STEP_NEXT;
	if (cache_debug(a->s)) {
		a->object = pc.object;
		return STEP_OBJECT;
	}
	return install_slab(a, slab, freeze_slab(a->s, slab));
}

static enum step use_new_slab(struct slow_alloc *a, struct page *slab)
{
	u32 objects = counters_objects(slab->counters);
	u64 freelist = slab->freelist;

	if (cache_debug(a->s)) {
		a->object = alloc_single_from_new_slab(a->s, slab, a->gfp, a->orig_size);
		if (a->object)
			return STEP_OBJECT;
		/* trying again would allocate and defer slabs for ever (K-13) */
		return a->allow_spin || broken(k13) ? STEP_NEXT : STEP_FAIL;
	}
	slab->freelist = 0;
	slab->counters = counters_make(objects, objects, true);
	inc_slabs_node(a->s, slab);
	if (a->allow_spin && !pfmemalloc_match(slab, a->gfp)) {
		deactivate_slab(a->s, slab, get_freepointer(a->s, freelist));
		a->object = freelist;
		return STEP_OBJECT;
	}
	return install_slab(a, slab, freelist);
}

/* Neither cpu slab nor cpu partial list: the node's lists, then the page allocator. */
__slowpath static enum step from_new_objects(struct slow_alloc *a)
{
	bool thisnode = a->node != NO_NODE && !(a->gfp & __GFP_THISNODE) && a->try_thisnode;
	gfp_t gfp = thisnode ? (a->allow_spin ? GFP_NOWAIT : a->gfp) | __GFP_THISNODE : a->gfp;
	struct page *slab;
	enum step step;

	probe(before_get_partial);
	step = from_node_partial(a, gfp);
	if (step == STEP_OBJECT)
		return step;
	probe(before_new_slab);
	slab = new_slab(a->s, gfp, a->node);
	if (!slab) {
		if (!thisnode) {
			if (a->passed_over && this_reason() == REASON_BELOW_WATERMARK)
				reason_shortage(REASON_PFMEMALLOC); /* there were objects, for others */
			return STEP_FAIL;
		}
		a->try_thisnode = false;
		return STEP_NEXT;
	}
	stat(a->s, alloc_slab);
	return use_new_slab(a, slab);
}

static void check_rounds(const struct slow_alloc *a, u32 rounds)
{
	if (rounds > shm.tele->retries_max)
		shm.tele->retries_max = rounds;
	if (rounds > (a->allow_spin ? MAX_ROUNDS : MAX_ROUNDS_NOLOCK))
		fatal(VERDICT_STALL, CHECKER_RETRY_BOUND, NULL, LOCK_NONE, 0, 0,
		      "an allocation goes round and round without getting anywhere");
}

__slowpath static u64 ___slab_alloc(struct slow_alloc *a)
{
	u32 rounds = 0;

	stat(a->s, alloc_slowpath);
	for (;;) {
		enum step step;

		check_rounds(a, ++rounds);
		step = from_cpu_slab(a);
		if (step == STEP_NEXT)
			step = from_cpu_partial(a);
		while (step == STEP_NEXT) {
			step = from_new_objects(a);
			if (step == STEP_NEXT)
				check_rounds(a, ++rounds);
		}
		if (step == STEP_OBJECT)
			return a->object;
		if (step == STEP_FAIL)
			return 0;
	}
}

__slowpath u64 __slab_alloc(struct kmem_cache *s, gfp_t gfp, int node, u64 orig_size)
{
	struct slow_alloc a = {
		.s = s,
		.c = cpu_slab(s),
		.gfp = gfp,
		.node = node,
		.allow_spin = gfpflags_allow_spinning(gfp),
		.try_thisnode = true,
		.orig_size = orig_size,
	};

	if (sheaf_arena())
		return slab_alloc_sheaves(s, gfp, node, orig_size);
	if (!a.allow_spin && local_lock_is_locked(&a.c->lock)) {
		stat(s, cpu_slab_busy);
		return SLAB_EBUSY;
	}
	if (a.allow_spin)
		lock_rules_might_wait(&a.c->lock.word, LOCK_CPU_SLAB);
	return ___slab_alloc(&a);
}

/*
 * A constructed object keeps its content.  What lies behind a kmalloc's requested size in a debug cache
 * is no longer content, but red zone.
 */
__slowtext void zero_object(const struct kmem_cache *s, u64 object, u64 orig_size)
{
	bool exact = s->flags & SLAB_KMALLOC && s->flags & (SLAB_STORE_USER | SLAB_RED_ZONE);

	if (!s->ctor)
		zero_bytes(ptr_of(object), (exact ? orig_size : s->object_size) + (broken(zero_overrun) ? 8 : 0));
}

__slowpath static u64 kmem_cache_alloc_traced(struct kmem_cache *s, gfp_t gfp, int node, u64 from)
{
	u64 site = trace_caller(from), object;

	traced_next();
	object = kmem_cache_alloc_node(s, gfp, node);
	traced_done();
	trace_kmem_cache_alloc(site, object, s, gfp, node);
	return object;
}

__fastpath u64 kmem_cache_alloc_node(struct kmem_cache *s, gfp_t gfp, int node)
{
	if (traced_first(TRACE_BIT(kmem_cache_alloc)))
		return kmem_cache_alloc_traced(s, gfp, node, TRACED_FROM);
	if (slab_should_fail(s, gfp))
		return 0;
	return post_alloc(s, slab_alloc_node_fast(s, gfp, node, s->object_size), gfp, s->object_size);
}

/* What a remote free makes of the slab's state; list_lock is held if it might matter. */
__slowpath static void free_with_list_lock(struct kmem_cache *s, struct kmem_cache_node *n, struct page *slab,
					   u64 prior, u64 new, u32 flags)
{
	bool on_partial = slab->flags & PG_partial;

	if (prior && !on_partial) { /* on somebody's cpu partial list */
		spin_unlock_irqrestore(&n->list_lock, flags);
		return;
	}
	if (!counters_inuse(new) && n->nr_partial >= s->min_partial) {
		if (prior) {
			remove_partial(n, slab);
			stat(s, free_remove_partial);
		}
		spin_unlock_irqrestore(&n->list_lock, flags);
		stat(s, free_slab);
		discard_slab(s, slab);
		return;
	}
	if (!has_cpu_partial(s) && !prior) {
		add_partial(n, slab, true);
		stat(s, free_add_partial);
	}
	spin_unlock_irqrestore(&n->list_lock, flags);
}

/* Free a chain of objects of one slab from any CPU; lock-free as long as no list changes. */
__slowpath void __slab_free(struct kmem_cache *s, struct page *slab, u64 head, u64 tail, u32 count)
{
	struct kmem_cache_node *n = NULL;
	u64 prior, counters, new;
	bool was_frozen;
	u32 flags = 0;

	stat(s, free_slowpath);
	if (sheaf_arena())
		lock_rules_might_wait(&slab_node(s, slab)->list_lock.word, LOCK_LIST);
	else
		lock_rules_might_wait(&cpu_slab(s)->lock.word, LOCK_CPU_SLAB);
	if (cache_debug(s)) {
		free_to_partial_list(s, slab, head, tail, count);
		return;
	}
	do {
		if (n) {
			spin_unlock_irqrestore(&n->list_lock, flags);
			n = NULL;
		}
		prior = READ_ONCE(slab->freelist);
		counters = READ_ONCE(slab->counters);
		set_freepointer(s, tail, prior);
		was_frozen = counters_frozen(counters);
		new = counters - count;
		if ((!counters_inuse(new) || !prior) && !was_frozen && (!has_cpu_partial(s) || prior)) {
			n = slab_node(s, slab);
			flags = spin_lock_irqsave(&n->list_lock);
		}
		probe(slab_free_cmpxchg);
	} while (!slab_update_freelist(s, slab, prior, counters, head, new));

	if (n) {
		free_with_list_lock(s, n, slab, prior, new, flags);
	} else if (was_frozen) {
		stat(s, free_frozen);
	} else if (has_cpu_partial(s) && !prior) {
		put_cpu_partial(s, slab, true);
		stat(s, cpu_partial_free);
	}
}

/* What the fast path could not free: to a sheaf in a 7.x arena, else to its slab. */
__slowpath void slab_free_slow(struct kmem_cache *s, struct page *slab, u64 object)
{
	if (sheaf_arena())
		slab_free_sheaves(s, slab, object);
	else
		__slab_free(s, slab, object, object, 1);
}
