/* SPDX-License-Identifier: MIT */
/*
 * The checks of debug caches, and what they write: red zones, poison, padding.
 *
 * Answers to: mm/slub.c (check_bytes_and_report, check_object, check_pad_bytes, slab_pad_check,
 * check_slab, on_freelist, init_object, set_orig_size) of 6.18.
 * Kept: byte values, order of the checks, what each of them repairs, and what counts as one report.
 * Changed: a link is looked at before it is followed: a wild one would leave the arena.
 * Context: with list_lock, or for a slab that nobody else has; any.
 */
#include "slub_debug.h"

__slowtext static u64 first_wrong(u64 from, u8 value, u64 bytes)
{
	const u64 words = value * 0x0101010101010101ull;
	u64 at = from, end = from + bytes;

	while (at < end && at & 7 && *(const u8 *)ptr_of(at) == value)
		at++;
	if (!(at & 7))
		while (at + 8 <= end && *(const u64 *)ptr_of(at) == words)
			at += 8;
	while (at < end && *(const u8 *)ptr_of(at) == value)
		at++;
	return at < end ? at : 0;
}

/* Two reports if a byte differs: the bug, and that the bytes were restored. */
__slowpath static bool check_bytes(const struct kmem_cache *s, enum shm_slab_bug kind, u64 object, u64 from, u8 value,
				   u64 bytes)
{
	u64 fault = first_wrong(from, value, bytes), end = from + bytes;

	if (likely(!fault))
		return true;
	while (*(const u8 *)ptr_of(end - 1) == value)
		end--;
	slab_bug(s, kind, object, fault, *(const u8 *)ptr_of(fault), value, end - fault);
	fill_bytes(ptr_of(fault), value, end - fault);
	slab_fix(s, SLAB_FIX_RESTORED, object);
	return false;
}

static u32 *orig_size_at(const struct kmem_cache *s, u64 object)
{
	return ptr_of(object + info_end(s) + NR_TRACKS * sizeof(struct track));
}

/* What was asked for; a recorded size is memory like any other, and may be overwritten. */
__slowtext u32 get_orig_size(const struct kmem_cache *s, u64 object)
{
	u32 size = has_orig_size(s) ? *orig_size_at(s, object) : s->object_size;

	return min_of(size, s->object_size);
}

__slowtext void set_orig_size(const struct kmem_cache *s, u64 object, u64 size)
{
	if (has_orig_size(s))
		*orig_size_at(s, object) = (u32)size;
}

/* A kmalloc object changes its size in place. */
__slowtext void set_kmalloc_red_zone(const struct kmem_cache *s, u64 object, u64 size)
{
	if (!has_orig_size(s))
		return;
	set_orig_size(s, object, size);
	if (s->flags & SLAB_RED_ZONE && size < s->object_size)
		fill_bytes(ptr_of(object + size), SLUB_RED_ACTIVE, s->object_size - size);
}

/* Paint an object as allocated (SLUB_RED_ACTIVE) or free (SLUB_RED_INACTIVE). */
__slowpath void init_object(const struct kmem_cache *s, u64 object, u8 value)
{
	u32 poison = s->object_size;

	if (s->flags & SLAB_RED_ZONE) {
		fill_bytes(ptr_of(slot_start(s, object)), value, s->red_left_pad);
		if (value == SLUB_RED_ACTIVE)
			poison = get_orig_size(s, object);
	}
	if (s->flags & SLAB_OBJECT_POISON && poison) {
		fill_bytes(ptr_of(object), POISON_FREE, poison - 1);
		*(u8 *)ptr_of(object + poison - 1) = POISON_END;
	}
	if (s->flags & SLAB_RED_ZONE)
		fill_bytes(ptr_of(object + poison), value, s->inuse - poison);
}

__slowtext bool check_valid_pointer(const struct kmem_cache *s, const struct page *slab, u64 object)
{
	u64 within = object - first_object(s, slab);

	return !object || (within < (u64)counters_objects(slab->counters) * s->size && within % s->size == 0);
}

__slowtext static bool check_pad_bytes(const struct kmem_cache *s, u64 object)
{
	u32 used = info_end(s), room = s->size - s->red_left_pad;

	if (s->flags & SLAB_STORE_USER)
		used += NR_TRACKS * sizeof(struct track) + (s->flags & SLAB_KMALLOC ? 4 : 0);
	return used == room ||
	       check_bytes(s, SLAB_BUG_OBJECT_PADDING, object, object + used, POISON_INUSE, room - used);
}

__slowtext static bool check_red_zones(const struct kmem_cache *s, u64 object, u8 value)
{
	u32 orig = get_orig_size(s, object);
	bool ok = check_bytes(s, SLAB_BUG_LEFT_REDZONE, object, slot_start(s, object), value, s->red_left_pad);

	ok &= check_bytes(s, SLAB_BUG_RIGHT_REDZONE, object, object + s->object_size, value, s->inuse - s->object_size);
	if (value == SLUB_RED_ACTIVE && s->object_size > orig)
		ok &= check_bytes(s, SLAB_BUG_KMALLOC_REDZONE, object, object + orig, value, s->object_size - orig);
	return ok;
}

__slowtext static bool check_poison(const struct kmem_cache *s, u64 object, u8 value)
{
	bool ok = true;

	if (value != SLUB_RED_ACTIVE && s->flags & SLAB_OBJECT_POISON) {
		ok &= check_bytes(s, SLAB_BUG_POISON, object, object, POISON_FREE, s->object_size - 1);
		ok &= check_bytes(s, SLAB_BUG_END_POISON, object, object + s->object_size - 1, POISON_END, 1);
	}
	return check_pad_bytes(s, object) && ok;
}

/* An object is as it was left: allocated (SLUB_RED_ACTIVE) or free (SLUB_RED_INACTIVE). */
__slowpath bool check_object(const struct kmem_cache *s, const struct page *slab, u64 object, u8 value)
{
	bool ok = true;

	if (s->flags & SLAB_RED_ZONE)
		ok &= check_red_zones(s, object, value);
	else if (s->flags & SLAB_POISON && s->object_size < s->inuse)
		ok &= check_bytes(s, SLAB_BUG_ALIGN_PADDING, object, object + s->object_size, POISON_INUSE,
				  s->inuse - s->object_size);
	if (s->flags & SLAB_POISON)
		ok &= check_poison(s, object, value);
	/* of an allocated object the link cannot be told from its content, unless it lies outside */
	if ((freeptr_outside_object(s) || value != SLUB_RED_ACTIVE) &&
	    !check_valid_pointer(s, slab, get_freepointer(s, object))) {
		slab_bug(s, SLAB_BUG_FREEPOINTER, object, 0, get_freepointer(s, object), 0, 0);
		set_freepointer(s, object, 0); /* the rest of the freelist is lost */
		ok = false;
	}
	return ok;
}

/* What is left over at a slab's end. */
__slowpath void slab_pad_check(const struct kmem_cache *s, const struct page *slab)
{
	u64 bytes = (u64)SHM_PAGE_SIZE << slab->order, rest = bytes % s->size;

	if (s->flags & SLAB_POISON && rest)
		check_bytes(s, SLAB_BUG_SLAB_PADDING, page_to_off(slab), page_to_off(slab) + bytes - rest, POISON_INUSE,
			    rest);
}

static u32 max_objects(const struct kmem_cache *s, const struct page *slab)
{
	return min_of((SHM_PAGE_SIZE << slab->order) / s->size, 32767u);
}

__slowpath bool check_slab(const struct kmem_cache *s, struct page *slab)
{
	u32 inuse = counters_inuse(slab->counters), objects = counters_objects(slab->counters);
	u64 memory = page_to_off(slab);

	if (!(slab->flags & PG_slab)) {
		slab_bug(s, SLAB_BUG_NOT_A_SLAB, memory, 0, 0, 0, 0);
		return false;
	}
	if (objects > max_objects(s, slab)) {
		slab_bug(s, SLAB_BUG_OBJECTS, memory, 0, objects, max_objects(s, slab), 0);
		return false;
	}
	if (inuse > objects) {
		slab_bug(s, SLAB_BUG_INUSE, memory, 0, inuse, objects, 0);
		return false;
	}
	if (counters_frozen(slab->counters)) {
		slab_bug(s, SLAB_BUG_DISABLED, memory, 0, 0, 0, 0);
		return false;
	}
	slab_pad_check(s, slab); /* repairs by itself */
	return true;
}

__slowtext static void clear_freelist(const struct kmem_cache *s, struct page *slab)
{
	u32 objects = counters_objects(slab->counters);

	slab->freelist = 0;
	slab->counters = counters_make(objects, objects, counters_frozen(slab->counters));
	slab_fix(s, SLAB_FIX_FREELIST_CLEARED, page_to_off(slab));
}

__slowtext static void adjust_counts(const struct kmem_cache *s, struct page *slab, u32 nr_free)
{
	u32 objects = counters_objects(slab->counters), inuse = counters_inuse(slab->counters);
	u32 max = max_objects(s, slab);
	bool frozen = counters_frozen(slab->counters);

	if (objects != max) {
		slab_bug(s, SLAB_BUG_NR_OBJECTS, page_to_off(slab), 0, objects, max, 0);
		slab->counters = counters_make(inuse, max, frozen);
		slab_fix(s, SLAB_FIX_NR_OBJECTS, page_to_off(slab));
	}
	if (inuse != max - nr_free) {
		slab_bug(s, SLAB_BUG_OBJECT_COUNT, page_to_off(slab), 0, inuse, max - nr_free, 0);
		slab->counters = counters_make(max - nr_free, max, frozen);
		slab_fix(s, SLAB_FIX_OBJECT_COUNT, page_to_off(slab));
	}
}

/*
 * Whether an object is on the slab's freelist; search 0: whether that list is sound.  What is found
 * wrong is repaired: a bad first pointer or a circle costs the freelist, a bad link what follows it.
 */
__slowpath bool on_freelist(const struct kmem_cache *s, struct page *slab, u64 search)
{
	u32 nr = 0, objects = counters_objects(slab->counters);
	u64 at = slab->freelist, last = 0;

	while (at && nr <= objects) {
		if (at == search)
			return true;
		if (!check_valid_pointer(s, slab, at)) {
			if (!last) {
				slab_bug(s, SLAB_BUG_FREEPOINTER, page_to_off(slab), 0, at, 0, 0);
				clear_freelist(s, slab);
				return false;
			}
			slab_bug(s, SLAB_BUG_FREECHAIN, last, 0, at, 0, 0);
			set_freepointer(s, last, 0);
			break;
		}
		last = at;
		at = get_freepointer(s, last);
		nr++;
	}
	if (nr > objects) {
		slab_bug(s, SLAB_BUG_CYCLE, page_to_off(slab), 0, nr, objects, 0);
		clear_freelist(s, slab);
		return false;
	}
	adjust_counts(s, slab, nr);
	return at == search;
}
