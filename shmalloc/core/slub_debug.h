/* SPDX-License-Identifier: MIT */
/*
 * Between the files of the debug caches: layout of a slot, checks, tracks, reports.
 *
 * A slot: [red_left_pad] object [right red zone up to inuse] [free pointer, if it lies outside]
 * [track of the allocation] [track of the free] [requested size, kmalloc caches] [padding].
 * An object's offset is that of its first usable byte.
 */
#ifndef SHM_SLUB_DEBUG_H
#define SHM_SLUB_DEBUG_H

#include "slab.h"

enum track_item { TRACK_ALLOC, TRACK_FREE, NR_TRACKS };

__helper bool freeptr_outside_object(const struct kmem_cache *s)
{
	return s->offset >= s->inuse;
}

/* from the object to what follows the free pointer */
__helper u32 info_end(const struct kmem_cache *s)
{
	return freeptr_outside_object(s) ? s->inuse + 8 : s->inuse;
}

/* the requested size of a kmalloc is recorded: then what was not asked for is a red zone, too */
__helper bool has_orig_size(const struct kmem_cache *s)
{
	return (s->flags & (SLAB_STORE_USER | SLAB_KMALLOC)) == (SLAB_STORE_USER | SLAB_KMALLOC);
}

__helper struct track *track_of(const struct kmem_cache *s, u64 object, enum track_item item)
{
	return (struct track *)ptr_of(object + info_end(s)) + item;
}

__helper u64 slot_start(const struct kmem_cache *s, u64 object)
{
	return object - s->red_left_pad;
}

__helper u64 first_object(const struct kmem_cache *s, const struct page *slab)
{
	return page_to_off(slab) + s->red_left_pad;
}

#define for_each_object(p, s, slab, objects) \
	for (u64 p = first_object(s, slab), end_##p = p + (u64)(objects) * (s)->size; p < end_##p; p += (s)->size)

/* slub_report.c: at is the first wrong byte, or 0 */
void slab_bug(const struct kmem_cache *s, enum shm_slab_bug kind, u64 object, u64 at, u64 found, u64 expected,
	      u64 bytes);
__helper void slab_fix(const struct kmem_cache *s, enum shm_slab_bug kind, u64 object)
{
	slab_bug(s, kind, object, 0, 0, 0, 0);
}

/* slub_check.c; list_lock held, or the slab is nobody else's */
bool check_valid_pointer(const struct kmem_cache *s, const struct page *slab, u64 object);
bool check_slab(const struct kmem_cache *s, struct page *slab);
bool check_object(const struct kmem_cache *s, const struct page *slab, u64 object, u8 value);
bool on_freelist(const struct kmem_cache *s, struct page *slab, u64 search);
void slab_pad_check(const struct kmem_cache *s, const struct page *slab);
void init_object(const struct kmem_cache *s, u64 object, u8 value);

/* slub_track.c */
void set_track(const struct kmem_cache *s, u64 object, enum track_item item);
void init_tracking(const struct kmem_cache *s, u64 object);
void trace(const struct kmem_cache *s, const struct page *slab, u64 object, bool alloc);

#endif
