/* SPDX-License-Identifier: MIT */
/*
 * What the checks of debug caches report: counted, kept to be read, and a verdict if so wanted.
 *
 * Answers to: mm/slub.c (slab_bug, object_err, slab_err, slab_fix, slab_add_kunit_errors).
 * Changed: nothing is printed.  A report is an entry in the header's log, which keeps the first
 * ones; each counts one, what was repaired included, as the kernel's unit tests count.  Unless the
 * arena only counts, a bug (not a repair) is a violation, too.
 * Context: any.
 */
#include "slub_debug.h"

static const struct {
	const char *name;
	enum shm_checker checker;
} kinds[NR_SLAB_BUGS] = {
	[SLAB_BUG_NONE] = { "none", CHECKER_NONE },
	[SLAB_BUG_NOT_A_SLAB] = { "not a slab page", CHECKER_SLAB },
	[SLAB_BUG_OBJECTS] = { "more objects than fit", CHECKER_SLAB },
	[SLAB_BUG_INUSE] = { "more in use than objects", CHECKER_SLAB },
	[SLAB_BUG_DISABLED] = { "slab disabled since a check failed", CHECKER_SLAB },
	[SLAB_BUG_FREELIST_POINTER] = { "freelist leads to no object", CHECKER_SLAB },
	[SLAB_BUG_FREECHAIN] = { "freechain corrupt", CHECKER_SLAB },
	[SLAB_BUG_FREEPOINTER] = { "freepointer corrupt", CHECKER_SLAB },
	[SLAB_BUG_CYCLE] = { "freelist cycle", CHECKER_SLAB },
	[SLAB_BUG_NR_OBJECTS] = { "wrong number of objects", CHECKER_SLAB },
	[SLAB_BUG_OBJECT_COUNT] = { "wrong object count", CHECKER_SLAB },
	[SLAB_BUG_FREES] = { "more frees than objects in use", CHECKER_SLAB },
	[SLAB_BUG_POINTER] = { "invalid object pointer", CHECKER_SLAB },
	[SLAB_BUG_ALREADY_FREE] = { "object already free", CHECKER_SLAB },
	[SLAB_BUG_WRONG_CACHE] = { "page slab pointer corrupt", CHECKER_SLAB },
	[SLAB_BUG_LEFT_REDZONE] = { "left red zone overwritten", CHECKER_RED_ZONE },
	[SLAB_BUG_RIGHT_REDZONE] = { "right red zone overwritten", CHECKER_RED_ZONE },
	[SLAB_BUG_KMALLOC_REDZONE] = { "kmalloc red zone overwritten", CHECKER_RED_ZONE },
	[SLAB_BUG_ALIGN_PADDING] = { "alignment padding overwritten", CHECKER_POISON },
	[SLAB_BUG_POISON] = { "poison overwritten", CHECKER_POISON },
	[SLAB_BUG_END_POISON] = { "end poison overwritten", CHECKER_POISON },
	[SLAB_BUG_OBJECT_PADDING] = { "object padding overwritten", CHECKER_POISON },
	[SLAB_BUG_SLAB_PADDING] = { "slab padding overwritten", CHECKER_POISON },
	[SLAB_BUG_NR_PARTIAL] = { "nr_partial disagrees with the list", CHECKER_SLAB },
	[SLAB_BUG_NR_SLABS] = { "nr_slabs disagrees with the lists", CHECKER_SLAB },
	[SLAB_BUG_REMAINING_SLAB] = { "objects remaining at shutdown", CHECKER_NONE },
	[SLAB_BUG_REMAINING_OBJECT] = { "object remaining at shutdown", CHECKER_NONE },
	[SLAB_FIX_RESTORED] = { "fix: bytes restored", CHECKER_NONE },
	[SLAB_FIX_FREELIST_CLEARED] = { "fix: freelist cleared", CHECKER_NONE },
	[SLAB_FIX_NR_OBJECTS] = { "fix: number of objects adjusted", CHECKER_NONE },
	[SLAB_FIX_OBJECT_COUNT] = { "fix: object count adjusted", CHECKER_NONE },
	[SLAB_FIX_ALL_USED] = { "fix: all objects marked used", CHECKER_NONE },
	[SLAB_FIX_NOT_FREED] = { "fix: object not freed", CHECKER_NONE },
};

__export const char *shm_slab_bug_name(unsigned int kind)
{
	return kind < NR_SLAB_BUGS ? kinds[kind].name : NULL;
}

struct text {
	char *at, *end;
};

__slowtext static void put(struct text *t, const char *s)
{
	while (*s && t->at + 1 < t->end)
		*t->at++ = *s++;
	*t->at = 0;
}

__slowtext static void put_number(struct text *t, u64 value, u32 base)
{
	char digits[24];
	u32 n = sizeof(digits);

	digits[--n] = 0;
	do {
		digits[--n] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value && n);
	put(t, digits + n);
}

/* "kmalloc-64: right red zone overwritten: byte 66 is 0xab, not 0xcc" */
__slowpath static void describe(char *text, u32 bytes, const struct kmem_cache *s, const struct shm_slab_error *e)
{
	struct text t = { text, text + bytes };

	put(&t, s->name);
	put(&t, ": ");
	put(&t, kinds[e->kind].name);
	if (e->at) {
		put(&t, ": byte ");
		if (e->at < e->object)
			put(&t, "-");
		put_number(&t, e->at < e->object ? e->object - e->at : e->at - e->object, 10);
		put(&t, " is 0x");
		put_number(&t, e->found, 16);
		put(&t, ", not 0x");
		put_number(&t, e->expected, 16);
	} else if (e->found != e->expected) {
		put(&t, ": ");
		put_number(&t, e->found, 10);
		put(&t, ", not ");
		put_number(&t, e->expected, 10);
	}
}

__slowpath static void keep(const struct shm_slab_error *e)
{
	u32 number = atomic_fetch_add(&shm.hdr->slab_errors, 1);
	struct shm_slab_error *entry;

	if (number >= SHM_SLAB_ERROR_LOG)
		return;
	entry = &shm.hdr->slab_error_log[number];
	*entry = *e;
	store_release(&entry->ready, 1);
}

__slowpath void slab_bug(const struct kmem_cache *s, enum shm_slab_bug kind, u64 object, u64 at, u64 found,
			 u64 expected, u64 bytes)
{
	struct shm_slab_error e = { 0, kind, s->index, this_cpu()->id, object, at, found, expected, bytes };
	char text[sizeof(((struct shm_violation *)0)->text)];

	keep(&e);
	this_cpu_inc64(&shm.tele->slab_errors);
	if (kinds[kind].checker == CHECKER_NONE || READ_ONCE(shm.hdr->slab_errors_count))
		return;
	describe(text, sizeof(text), s, &e);
	violation(VERDICT_CORRUPTION, kinds[kind].checker, NULL, LOCK_NONE, 0, object, text);
}
