/* SPDX-License-Identifier: MIT */
/*
 * Slots: where the ops of an array keep what they have allocated.
 *
 * A slot word holds: bits 0-47 the offset, 48-52 the page order, 53 pages, 54 carries the keyed
 * pattern, 56-63 the design that allocated it.  A private slot is touched by one op array only, with
 * plain accesses; a shared one is exchanged atomically, so every object has one holder at any time.
 * Context: any; draining task.
 */
#include "design.h"
#include "oracle.h"
#include "slots.h"

#define SLOT_TRIES 16

static u64 pattern_of(u64 off)
{
	return off * 0xd6e8feb86659fd93ull ^ 0x5ca1ab1e5ca1ab1eull;
}

/*
 * Bytes of an object that may be written: all granules it owns, but in a debug cache, where what was not
 * asked for may be red zone, exactly what was.
 */
static u64 writable(u64 off, u64 granules)
{
	const struct page *page = virt_to_head_page(off);
	const struct kmem_cache *s;

	if (!(page->flags & PG_slab))
		return granules;
	s = slab_cache(page);
	if (!cache_debug(s) || (off - page_to_off(page) - s->red_left_pad) % s->size)
		return granules;
	return min_of(granules, (u64)get_orig_size(s, off));
}

static u64 *last_word(u64 off, u64 bytes)
{
	return ptr_of(off + bytes - 8);
}

/* A keyed word at the front and one at the end, which only the oracle will find again. */
u64 pattern_write(u32 flags, u64 off, u64 bytes)
{
	if (!(flags & SHM_REPLAY_PATTERN) || !oracle_on() || !bytes || off <= SHM_ZERO_SIZE)
		return 0;
	bytes = writable(off, round_up(bytes, 8));
	if (bytes < 8) /* there is no room for a word */
		return 0;
	*(u64 *)ptr_of(off) = pattern_of(off);
	if (bytes >= 16)
		*last_word(off, bytes) = pattern_of(off);
	return SLOT_PATTERN;
}

void pattern_check(u64 off)
{
	u64 bytes = oracle_extent(off);

	if (!bytes) /* garbage or already free: the oracle says so at the free */
		return;
	bytes = writable(off, bytes);
	if (*(const u64 *)ptr_of(off) == pattern_of(off) &&
	    (bytes < 16 || *last_word(off, bytes) == pattern_of(off)))
		return;
	violation(VERDICT_CORRUPTION, CHECKER_PATTERN, NULL, LOCK_NONE, 0, off,
		  "a live object was written to by somebody else");
}

bool constructed(u64 off)
{
	const struct page *page = virt_to_head_page(off);

	return page->flags & PG_slab && slab_cache(page)->ctor;
}

void bad_free(u64 off)
{
	violation(VERDICT_CORRUPTION, CHECKER_ORACLE, NULL, LOCK_NONE, 0, off,
		  "an object that its holder frees is not owned by anybody");
}

static bool is_large(u64 off)
{
	return off > SHM_ZERO_SIZE && virt_to_head_page(off)->flags & PG_large;
}

/* False: this design cannot free it here; the caller keeps it. */
bool free_value(u32 design, u64 value)
{
	u64 off = value & SLOT_OFFSET;
	u32 owner = (u32)(value >> SLOT_DESIGN_SHIFT) % NR_DESIGNS;
	int error;

	if (owner != design && (designs[owner]->own_objects || designs[design]->own_objects))
		return false;
	if (value & SLOT_PAGES) {
		if (!designs[design]->pages_free)
			return false;
		error = design_pages_free(design, off, value >> SLOT_ORDER_SHIFT & 31);
	} else {
		if (!designs[design]->frees_large && is_large(off))
			return false;
		if (value & SLOT_PATTERN)
			pattern_check(off);
		error = design_free(design, off);
	}
	if (error)
		bad_free(off);
	return true;
}

/* Two values met in one slot, and this design can free neither: one goes where nobody has any. */
static bool store_elsewhere(u64 value)
{
	for (u32 i = 0; i < shm.nr_slots; i++) {
		u64 none = 0;

		if (try_cmpxchg(&shm.slots[i], &none, value))
			return true;
	}
	return false;
}

/*
 * Put a value into its slot and free what came there in between.  What this design cannot free goes
 * back into the slot, and the value that it displaces there is freed instead.
 */
void slot_store(const struct runner *r, const struct shm_op *op, u64 value)
{
	for (u32 tries = 0; value && tries < SLOT_TRIES; tries++) {
		value = slot_put(r, op, value);
		if (value && free_value(r->design, value))
			return;
	}
	if (value && !(op->flags & OPF_SHARED && store_elsewhere(value)))
		warn_once(); /* lost, and the audit says so */
}

static s64 drain(u64 *slots, u64 from, u64 to)
{
	s64 freed = 0;

	for (u64 i = from; i < to && !stopped_by_verdict(); i++) {
		u64 value = xchg(&slots[i], 0);

		if (value && off_in_memory(value & SLOT_OFFSET)) {
			free_value((u32)(value >> SLOT_DESIGN_SHIFT) % NR_DESIGNS, value);
			freed++;
		}
	}
	return freed;
}

__export int64_t shm_drain_slots(uint64_t *slots, uint64_t nr_slots)
{
	return GUARDED(s64, thread_is_cpu() ? -EDEADLK : -EPERM, drain(slots, 0, nr_slots));
}

__export int64_t shm_drain_shared_slots(unsigned int first, unsigned int last)
{
	if (!shm.base || last > shm.nr_slots)
		return -EINVAL;
	return GUARDED(s64, thread_is_cpu() ? -EDEADLK : -EPERM, drain(shm.slots, first, last));
}
