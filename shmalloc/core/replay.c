/* SPDX-License-Identifier: MIT */
/*
 * Replaying op arrays at machine speed: the workload in task context, programs in handlers.
 * Context: any; shm_replay itself task.
 */
#include "bulk.h"
#include "memcontrol.h"
#include "page_alloc.h"
#include "pool.h"
#include "rcu.h"
#include "replay.h"
#include "signals.h"
#include "slots.h"
#include "trace.h"

#define CHECK_EVERY 256

static void op_free(const struct runner *r, const struct shm_op *op)
{
	u64 value = slot_take(r, op);

	if (value && free_value(r->design, value))
		return;
	this_cpu_inc64(&shm.tele->skipped_frees);
	slot_store(r, op, value);
}

static const struct shm_op *source_op(const struct shm_op *op)
{
	const struct shm_op *below = shm.interrupted_op;

	if (!(op->flags & OPF_SAME) || !below ||
	    (below->code != OP_ALLOC && below->code != OP_CACHE_ALLOC && below->code != OP_FREE))
		return op;
	return below->size || below->code == OP_CACHE_ALLOC ? below : op;
}

static u64 allocate(const struct runner *r, const struct shm_op *op, u64 *bytes)
{
	const struct shm_op *source = source_op(op);

	if (op->code == OP_PAGES_ALLOC) {
		*bytes = (u64)SHM_PAGE_SIZE << op->order;
		return design_pages_alloc(r->design, op->gfp, op->node, op->order);
	}
	if (source->code == OP_CACHE_ALLOC) {
		struct kmem_cache *s = &shm.caches[source->cache];

		*bytes = 0;
		if (s->state != CACHE_LIVE)
			return 0;
		*bytes = s->ctor ? 0 : s->object_size;
		return design_cache_alloc(r->design, s, op->gfp, op->node);
	}
	*bytes = source->size;
	return design_alloc(r->design, source->size, op->gfp, op->node);
}

static void op_alloc(const struct runner *r, const struct shm_op *op)
{
	u64 value, bytes, off;

	if (slot_filled(r, op)) {
		if (op->flags & OPF_NOFREE)
			return;
		op_free(r, op);
		if (slot_filled(r, op)) /* a large object that this design cannot free */
			return;
	}
	off = allocate(r, op, &bytes);
	if (!off)
		return;
	value = off | (u64)r->design << SLOT_DESIGN_SHIFT;
	if (op->code == OP_PAGES_ALLOC)
		value |= SLOT_PAGES | (u64)op->order << SLOT_ORDER_SHIFT;
	value |= pattern_write(r->flags, off, bytes);
	slot_store(r, op, value);
}

/* Only where the design may wait: there is no nolock krealloc. */
static void op_realloc(const struct runner *r, const struct shm_op *op)
{
	u64 value = slot_take(r, op), off = value & SLOT_OFFSET, new;

	if (!value || value & SLOT_PAGES || r->design != DESIGN_kmalloc || !op->size ||
	    (off > SHM_ZERO_SIZE && constructed(off))) {
		slot_store(r, op, value);
		return;
	}
	if (value & SLOT_PATTERN)
		pattern_check(off);
	new = shm_krealloc(off, op->size, gfp_for_context(op->gfp));
	if (new)
		value = new | (u64)r->design << SLOT_DESIGN_SHIFT | pattern_write(r->flags, new, op->size);
	slot_store(r, op, value);
}

/* Free after a grace period; what cannot carry a head, or where call_rcu may not be called, stays. */
static void op_free_rcu(const struct runner *r, const struct shm_op *op)
{
	u64 value = slot_take(r, op), off = value & SLOT_OFFSET;
	bool nolock = sheaf_arena() && designs[r->design]->free_rcu; /* kfree_rcu_nolock */

	if (!value || value & SLOT_PAGES || (in_nmi() && !nolock) || off <= SHM_ZERO_SIZE) {
		slot_store(r, op, value);
		return;
	}
	if (value & SLOT_PATTERN)
		pattern_check(off);
	if (design_free_rcu(r->design, off, 0))
		slot_store(r, op, value);
}

static void op_interrupt(enum shm_irq_kind kind)
{
	self_interrupt(kind);
}

static void op_delay(u32 loops)
{
	while (loops--)
		cpu_relax();
}

static void op_map(const struct shm_op *op)
{
	struct shm_map *map = map_of(op->cache);

	if (!map)
		return;
	if (op->code == OP_MAP_UPDATE)
		htab_map_update_number(map, op->slot, op->size);
	else if (op->code == OP_MAP_LOOKUP)
		htab_map_check_number(map, op->slot);
	else
		htab_map_delete_number(map, op->slot);
}

static void run_op(const struct runner *r, const struct shm_op *op)
{
	switch (op->code) {
	case OP_ALLOC:
	case OP_CACHE_ALLOC:
	case OP_PAGES_ALLOC:
		op_alloc(r, op);
		break;
	case OP_FREE:
		op_free(r, op);
		break;
	case OP_IRQ_OFF:
		local_irq_save();
		break;
	case OP_IRQ_ON:
		if (this_ctx() <= CTX_SOFTIRQ)
			local_irq_restore(0);
		break;
	case OP_BH_OFF:
		shm_bh_disable();
		break;
	case OP_BH_ON:
		shm_bh_enable();
		break;
	case OP_NMI:
		op_interrupt(KIND_NMI);
		break;
	case OP_IRQ:
		op_interrupt(KIND_IRQ);
		break;
	case OP_DELAY:
		op_delay(op->size);
		break;
	case OP_REALLOC:
		op_realloc(r, op);
		break;
	case OP_SHRINK:
		if (this_ctx() == CTX_TASK && !irqs_disabled() && shm.caches[op->cache].state == CACHE_LIVE)
			kmem_cache_shrink(&shm.caches[op->cache]);
		break;
	case OP_BULK_ALLOC:
		op_bulk_alloc(r, op);
		break;
	case OP_BULK_FREE:
		op_bulk_free(r, op);
		break;
	case OP_DEFER_BARRIER:
		if (this_ctx() == CTX_TASK && !irqs_disabled())
			(void)defer_free_barrier();
		break;
	case OP_FREE_RCU:
		op_free_rcu(r, op);
		break;
	case OP_RCU_LOCK:
		rcu_read_lock();
		break;
	case OP_RCU_UNLOCK:
		if (this_cpu()->rcu[RCU_PLAIN].nesting)
			rcu_read_unlock();
		break;
	case OP_MAP_UPDATE:
	case OP_MAP_LOOKUP:
	case OP_MAP_DELETE:
		op_map(op);
		break;
	case OP_MEMCG:
		set_active_memcg(op->size);
		break;
	case OP_PAGE_CACHE:
		if (this_ctx() == CTX_TASK && !irqs_disabled())
			(void)page_cache_add(op->size, gfp_for_context(op->gfp), op->node);
		break;
	default:
		break;
	}
}

#define HIST_TICK_BITS (HIST_BUCKETS / HIST_SUB + HIST_SUB_BITS - 1) /* longer times count as the longest */

/*
 * log-linear: 32 buckets per octave.  Without a branch: whoever follows this code instruction by instruction
 * must find the same ones however long an op took.
 */
static u32 bucket_of(u64 ticks)
{
	u64 longest = (1ull << HIST_TICK_BITS) - 1;
	u32 shift;

	ticks = (ticks | -(u64)(ticks > longest)) & longest;
	shift = ilog2(ticks | HIST_SUB) - HIST_SUB_BITS;
	return shift * HIST_SUB + (u32)(ticks >> shift);
}

static bool is_alloc(const struct shm_op *op)
{
	return (op->code >= OP_ALLOC && op->code <= OP_PAGES_ALLOC) || op->code == OP_MAP_UPDATE;
}

static void run_op_timed(const struct runner *r, const struct shm_op *op)
{
	u64 from = read_tsc();

	run_op(r, op);
	if (is_alloc(op))
		this_cpu_inc32(&shm.tele->latency[this_ctx()][bucket_of(read_tsc() - from)]);
}

/* ops [from, from + count) of a program, cyclically */
void program_run_ops(const struct shm_program *program, u64 from, u64 count)
{
	const struct runner r = { program->slots, program->nr_slots, program->design, program->flags,
				  shm.nmi_nesting };
	const struct shm_op *below = shm.interrupted_op, *interrupted = shm.current_op;

	shm.interrupted_op = interrupted;
	for (u64 i = 0; i < count && !stopped_by_verdict(); i++) {
		shm.current_op = &program->ops[(from + i) % program->nr_ops];
		run_op_timed(&r, shm.current_op);
	}
	shm.current_op = interrupted;
	shm.interrupted_op = below;
}

void program_run(enum shm_irq_kind kind)
{
	const struct shm_program *program = &shm.program[kind];
	u64 from = shm.program_at[kind], count;

	if (!shm.program_on[kind])
		return;
	count = program->per_interrupt ? program->per_interrupt : program->nr_ops;
	shm.program_at[kind] = (from + count) % program->nr_ops;
	program_run_ops(program, from, count);
}

static bool op_ok(const struct shm_op *op)
{
	bool bulk = op->code == OP_BULK_ALLOC || op->code == OP_BULK_FREE;
	bool needs_cache = bulk || op->code == OP_CACHE_ALLOC || op->code == OP_SHRINK;
	bool needs_map = op->code >= OP_MAP_UPDATE && op->code <= OP_MAP_DELETE;

	if (bulk && (!op->size || op->size > SHM_MAX_BULK))
		return false;
	if (op->code == OP_PAGE_CACHE && op->size > shm.nr_pages)
		return false;
	if (needs_map && op->cache >= shm.hdr->geometry.max_maps)
		return false;
	return op->code < NR_OP_CODES && op->order <= SHM_MAX_PAGE_ORDER &&
	       (!needs_cache || op->cache < shm.hdr->nr_caches) &&
	       (op->code != OP_MEMCG || op->size <= shm.nr_memcgs);
}

bool ops_ok(const struct shm_op *ops, u64 nr_ops)
{
	if (!ops || !nr_ops)
		return false;
	for (u64 i = 0; i < nr_ops; i++)
		if (!op_ok(&ops[i]))
			return false;
	return true;
}

bool program_ok(const struct shm_program *p)
{
	return p->design < NR_DESIGNS && (!p->nr_slots || p->slots) && ops_ok(p->ops, p->nr_ops);
}

__export int shm_set_program(enum shm_irq_kind kind, const struct shm_program *program)
{
	if (!shm.base || kind >= NR_KINDS)
		return -EINVAL;
	if (program && !program_ok(program))
		return -EINVAL;
	shm.program_on[kind] = 0;
	barrier();
	if (!program)
		return 0;
	shm.program[kind] = *program;
	shm.program_at[kind] = 0;
	barrier();
	shm.program_on[kind] = 1;
	return 0;
}

static bool time_is_up(u64 deadline)
{
	return deadline && read_tsc() >= deadline;
}

/* --- the loop: what it adds to the design's own call is to be two nanoseconds ------------------------------- */

/* What its ops need, in registers or one line: loaded once. */
struct replaying {
	struct runner runner;
	const struct design_ops *design;
	u64 tag;                   /* of the design's own plain objects: what their slots hold above the offset */
	const struct shm_op *ops;
	u64 nr_ops;
	u64 at;                    /* index of the next op */
	u32 sample;
	u32 until_sample;
};

/* Code and flags in one comparison: neither shared, nor another's size, nor kept. */
__helper bool is_plain(const struct shm_op *op, enum shm_op_code code)
{
	return (u32)(op->code | op->flags << 8) == code;
}

/*
 * The two ops that workloads consist of, as run_op does them where the slot is the array's own and nothing is
 * written into the object: the design's calls and the slot's load and store.  False: not such an op.
 */
__helper bool run_usual_op(const struct replaying *w, const struct shm_op *op)
{
	const struct runner *r = &w->runner;
	u64 *slot = &r->slots[op->slot], value;

	if (op->slot >= r->nr_slots)
		return false;
	value = *slot;
	if (is_plain(op, OP_ALLOC)) {
		if (value || r->flags)
			return false;
		value = w->design->alloc_first(r->design, op->size, op->gfp, op->node, design_alloc_whole);
		if (likely(value))
			*slot = value | w->tag;
		return true;
	}
	if (!is_plain(op, OP_FREE) || (value & ~SLOT_OFFSET) != w->tag || !value)
		return false;
	*slot = 0;
	if (unlikely(w->design->free_first(r->design, value & SLOT_OFFSET, design_free_rest)))
		bad_free(value & SLOT_OFFSET);
	return true;
}

__helper void replay_op(struct replaying *w, const struct shm_op *op, bool sampled)
{
	if (sampled && --w->until_sample == 0) {
		w->until_sample = w->sample;
		run_op_timed(&w->runner, op);
	} else if (!run_usual_op(w, op)) {
		run_op(&w->runner, op);
	}
}

/* Run so many ops; how many were, which is fewer only if the run was stopped. */
__helper u64 replay_some(struct replaying *w, u64 *done, u64 count, bool sampled)
{
	struct shm_cpu *cpu = this_cpu();
	const u32 *stop = &shm.hdr->stop;
	const struct shm_op *op = &w->ops[w->at];
	u64 at = w->at, from = *done, i;

	for (i = 0; i < count && likely(!READ_ONCE(*stop)); i++) {
		WRITE_ONCE(cpu->op_index, at);
		shm.current_op = op;
		replay_op(w, op, sampled);
		WRITE_ONCE(*done, from + i + 1); /* a verdict may end the replay in any op */
		op++;
		if (++at == w->nr_ops) {
			at = 0;
			op = w->ops;
		}
	}
	w->at = at;
	WRITE_ONCE(cpu->ops_done, cpu->ops_done + i);
	return i;
}

/* Not inlined: in a function with a place to unwind to, no variable lives in a register. */
static __attribute__((noinline)) u64 replay_sampled(struct replaying *w, u64 *done, u64 count)
{
	return replay_some(w, done, count, true);
}

static __attribute__((noinline)) u64 replay_plain(struct replaying *w, u64 *done, u64 count)
{
	return replay_some(w, done, count, false);
}

static int replay_ops(struct shm_replay *p, u64 deadline)
{
	struct replaying w = {
		.runner = { p->slots, p->nr_slots, p->design, p->flags, false },
		.design = designs[p->design],
		.tag = (u64)p->design << SLOT_DESIGN_SHIFT,
		.ops = p->ops, .nr_ops = p->nr_ops, .sample = p->sample, .until_sample = p->sample,
	};
	u64 limit = p->max_ops ? p->max_ops : deadline ? ~0ull : p->nr_ops; /* no limit given: once through */

	while (p->done < limit) {
		u64 count = min_of(limit - p->done, (u64)CHECK_EVERY), ran;

		if (time_is_up(deadline))
			return 0;
		irq_work_tick(false);
		rcu_tick();
		if (unlikely(shm.trace_seen != READ_ONCE(shm.hdr->trace.generation)))
			first_attempts_load();
		ran = p->sample ? replay_sampled(&w, &p->done, count) : replay_plain(&w, &p->done, count);
		if (ran < count)
			return stopped_by_verdict() ? -EDEADLK : -ECANCELED;
	}
	return 0;
}

/* Windows that an array left open must not outlive it. */
static void close_windows(void)
{
	while (this_cpu()->rcu[RCU_PLAIN].nesting)
		rcu_read_unlock();
	while (this_cpu()->bh_count)
		shm_bh_enable();
	local_irq_restore(0);
}

static int replay(struct shm_replay *p)
{
	u64 from = read_tsc();
	u64 deadline = p->seconds > 0 ? from + (u64)(min_of(p->seconds, MAX_SECONDS) * (double)shm.hdr->tsc_hz) : 0;
	int result;

	shm.guard->runs_ops = true;
	result = replay_ops(p, deadline);

	close_windows();
	shm.current_op = NULL;
	p->elapsed = (double)(read_tsc() - from) / (double)shm.hdr->tsc_hz;
	return result;
}

static bool replay_ok(const struct shm_replay *p)
{
	return p->design < NR_DESIGNS && (!p->nr_slots || p->slots) && ops_ok(p->ops, p->nr_ops);
}

__export int shm_replay(struct shm_replay *p)
{
	if (!thread_is_cpu())
		return -EPERM;
	p->done = 0;
	if (!(p->seconds >= 0) || !replay_ok(p))
		return -EINVAL;
	return GUARDED(int, -EDEADLK, replay(p));
}

