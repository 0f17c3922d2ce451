/* SPDX-License-Identifier: MIT */
/*
 * The one sink for violations, and the way out of a wait that can never end.
 *
 * A violation is written into the arena with both call stacks: the frames of this level, then those
 * of every level it interrupted, by frame pointers and the registers saved at each interrupt.  The
 * first verdict stops the whole run; what follows from it is no further verdict.  Any context.
 */
#include "lock.h"
#include "signals.h"
#include "sys.h"

static const char *const verdict_names[NR_VERDICTS] = {
	"ok", "vacuous", "broken_rule", "stall", "dead_owner", "lost_memory", "deadlock", "corruption",
};

static const char *const reason_names[NR_REASONS] = {
	"none", "cpu_slab_busy", "list_lock_busy", "pcp_busy", "zone_busy", "below_watermark", "order_limit",
	"size_limit", "memcg_limit", "pfmemalloc", "freelist_empty", "refill_lag", "context_refused", "injected",
};

static const char *const checker_names[NR_CHECKERS] = {
	"none", "oracle", "deadlock", "lock_rules", "retry_bound", "owner", "slab", "ctor", "pattern",
	"hardening", "api", "rcu", "pool", "red_zone", "poison", "memcg", "page",
};

static const char *const lock_class_names[NR_LOCK_CLASSES] = {
	"none", "slab_mutex", "list_lock", "cpu_slab", "slab_lock", "pcp", "zone", "lru", "obj_hash", "rcu",
	"sheaves", "barn",
	"freelist", "bucket",
	"memcg_stock", "obj_stock", "objcg_lock", "percpu_charge", "kernfs_notify_lock", "wq_pool", "batched_entropy",
	"user",
};

#define NAME_FUNCTION(function, names) \
	__export const char *function(unsigned int index) \
	{ \
		return index < ARRAY_SIZE(names) ? names[index] : NULL; \
	}

NAME_FUNCTION(shm_verdict_name, verdict_names)
NAME_FUNCTION(shm_reason_name, reason_names)
NAME_FUNCTION(shm_checker_name, checker_names)
NAME_FUNCTION(shm_lock_class_name, lock_class_names)

/* the core's text: its three sections lie in one module; the linker gives their bounds */
extern char __start_shm_fast[], __stop_shm_fast[], __start_shm_slow[], __stop_shm_slow[];
extern char __ehdr_start[];

__export uint64_t shm_text_base(void)
{
	return (u64)__ehdr_start;
}

bool rip_in_allocator(u64 rip)
{
	return (rip >= (u64)__start_shm_fast && rip < (u64)__stop_shm_fast) ||
	       (rip >= (u64)__start_shm_slow && rip < (u64)__stop_shm_slow);
}

bool rip_in_slow_path(u64 rip)
{
	return rip >= (u64)__start_shm_slow && rip < (u64)__stop_shm_slow;
}

/*
 * Frames outside this module have no frame pointers to follow; 1 MiB is far beyond its text.  A
 * frame is followed only upwards and within a stack's usual size.
 */
bool rip_in_core(u64 rip)
{
	return rip >= (u64)__ehdr_start && rip < (u64)__ehdr_start + (1u << 20);
}

static void push_frame(struct shm_violation *v, u64 rip, u32 level)
{
	if (v->nr_stack >= SHM_STACK_DEPTH)
		return;
	v->level_of[v->nr_stack] = level;
	v->stack[v->nr_stack++] = rip - (u64)__ehdr_start;
}

/*
 * Follow the frames of one stack.  A level that was called, not interrupted, shares the stack of the
 * level below: from the frame it was called from on, frames are that one's.  Returns the level at
 * which the stack ends.
 */
static u32 walk_stack(struct shm_violation *v, u64 rbp, u32 level)
{
	const struct shm_level *levels = this_cpu()->levels;

	for (;;) {
		const u64 *frame = (const u64 *)rbp;
		u64 next, ret;

		if (!rbp || rbp & 7)
			return level;
		while (level && !levels[level].rip && rbp >= levels[level].rbp)
			level--;
		next = frame[0];
		ret = frame[1];
		if (!rip_in_core(ret))
			return level;
		push_frame(v, ret, level);
		if (next <= rbp || next - rbp > 1u << 20)
			return level;
		rbp = next;
	}
}

static void walk_stacks(struct shm_violation *v)
{
	const struct shm_level *levels = this_cpu()->levels;
	u32 level = walk_stack(v, (u64)__builtin_frame_address(0), this_cpu()->level);

	while (level && levels[level].rip) {
		u64 rip = levels[level].rip, rbp = levels[level].rbp;

		level--;
		if (!rip_in_core(rip))
			return; /* outside the core there are no frame pointers to follow */
		push_frame(v, rip, level);
		level = walk_stack(v, rbp, level);
	}
}

static void copy_text(char *to, const char *from, u32 bytes)
{
	u32 i = 0;

	for (; i + 1 < bytes && from[i]; i++)
		to[i] = from[i];
	to[i] = 0;
}

bool stopped_by_verdict(void)
{
	return shm.hdr && READ_ONCE(shm.hdr->stop) > 1;
}

/* Broken rules may be many; the last entry is kept for the verdict that stops the run. */
static struct shm_violation *claim_violation(enum shm_verdict verdict)
{
	u32 at = READ_ONCE(shm.hdr->nr_violations);

	if (verdict != VERDICT_BROKEN_RULE) {
		if (xchg(&shm.hdr->stop, 2) == 2)
			return NULL;
		at = atomic_fetch_add(&shm.hdr->nr_violations, 1);
		return &shm.hdr->violations[min_of(at, (u32)SHM_MAX_VIOLATIONS - 1)];
	}
	do {
		if (at >= SHM_MAX_VIOLATIONS - 1)
			return NULL;
	} while (!try_cmpxchg(&shm.hdr->nr_violations, &at, at + 1));
	return &shm.hdr->violations[at];
}

void violation(enum shm_verdict verdict, enum shm_checker checker, const u32 *lock_word, u32 lock_class, u32 owner,
	       u64 object, const char *text)
{
	struct shm_violation *v = claim_violation(verdict);

	if (!v)
		return;
	v->verdict = verdict;
	v->checker = checker;
	v->cpu = this_cpu() ? this_cpu()->id : 0xffffffff;
	v->lock = lock_word ? off_of(lock_word) : 0;
	v->lock_class = lock_class;
	v->owner = owner;
	v->object = object;
	copy_text(v->text, text, sizeof(v->text));
	if (this_cpu()) {
		v->level = this_cpu()->level;
		v->ctx = this_ctx();
		v->op_index = this_cpu()->op_index;
		walk_stacks(v);
	}
	store_release(&v->ready, 1);
}

void fatal(enum shm_verdict verdict, enum shm_checker checker, const u32 *lock_word, u32 lock_class, u32 owner,
	   u64 object, const char *text)
{
	violation(verdict, checker, lock_word, lock_class, owner, object, text);
	unwind();
}

/* Give up what this level is doing.  Without a guard there is nobody to go back to. */
void unwind(void)
{
	if (shm.guard)
		__builtin_longjmp(shm.guard->buf, 1);
	sys_exit_group(70); /* EX_SOFTWARE */
	__builtin_unreachable();
}

void warn_once(void)
{
	this_cpu_inc64(&shm.tele->warnings);
}

__export int shm_report(unsigned int verdict, unsigned int checker, const char *text)
{
	if (!shm.hdr)
		return -ENOTCONN;
	if (verdict >= NR_VERDICTS || checker >= NR_CHECKERS)
		return -EINVAL;
	violation(verdict, checker, NULL, LOCK_NONE, 0, 0, text);
	return 0;
}

__export void shm_stop(uint32_t why)
{
	u32 now = 0;

	if (!shm.hdr)
		return;
	while (now < why && !try_cmpxchg(&shm.hdr->stop, &now, why))
		;
	sys_futex_wake_all(&shm.hdr->phase); /* those that wait for a phase look whether they are to stop */
}
