/* SPDX-License-Identifier: MIT */
/*
 * The BPF allocator: per-CPU lists of one size each, refilled and trimmed by irq_work.
 * Answers to: include/linux/bpf_mem_alloc.h.
 */
#ifndef SHM_BPF_MEMALLOC_H
#define SHM_BPF_MEMALLOC_H

#include "irq.h"
#include "slab.h"

/* in front of every object: its link while it is free, then the list that it came from */
#define BPF_HEADER_BYTES 8
#define BPF_MAX_SIZE (4096 - BPF_HEADER_BYTES)

/* offsets of objects are those behind the header, as the callers see them */
void unit_free_rcu(struct bpf_mem_cache *c, u64 object);

/* this CPU's list of the global allocator for what another list's mark is on; NULL: it is no mark */
struct bpf_mem_cache *bpf_mem_bucket_of(u64 mark);

/* task context; -ENOMEM if not even the prefill was to be had: then nothing is left behind */
int bpf_mem_alloc_init(void);
int bpf_mem_alloc_init_fixed(const struct shm_map *map);
/* task context, nobody else working on it: everything goes back, after the grace periods that it waits for */
void bpf_mem_alloc_destroy(void);
void bpf_mem_alloc_destroy_fixed(const struct shm_map *map);

_Static_assert(sizeof(struct bpf_mem_cache) % 64 == 0, "lists lie on cache lines of their own");

extern const u8 bpf_small_bucket[24];

__helper u32 bpf_bucket_index(u64 bytes)
{
	if (bytes <= 192)
		return bpf_small_bucket[(bytes - 1) / 8];
	return fls64(bytes - 1) - 2;
}

/* This CPU's list for a size of 1 .. BPF_MAX_SIZE, without the header. */
__helper struct bpf_mem_cache *bpf_mem_bucket(u64 size)
{
	return &shm.cpu_bpf_lists[bpf_bucket_index(size + BPF_HEADER_BYTES)];
}

/* What an object's header says: the list that it was taken from. */
__helper u64 bpf_mark_of(u64 object)
{
	return READ_ONCE(*(const u64 *)ptr_of(object - BPF_HEADER_BYTES));
}

/* what is left, irqs off: `flags` are those of before */
u64 unit_alloc_slow(struct bpf_mem_cache *c, u32 flags);
void unit_free_slow(struct bpf_mem_cache *c, u64 object, u32 flags);

/*
 * The list of this CPU, if nobody is in the middle of an update of it and this one passes no watermark.
 * The rest is out of line and goes on with irqs off: a refill that is queued runs when the call has had its
 * answer, even if that is NULL.  Nothing in either waits.  Any context.
 *
 * `active` is written by plain stores here, which no load waits for: counted, its four accesses by an
 * allocation and the free, each after the other, would be the longest chain of both.  What comes between
 * the look and the store comes to its end, and leaves it 0.
 *
 * Irqs off.  0, false: nothing was changed.
 */
__helper u64 unit_pop(struct bpf_mem_cache *c)
{
	u64 unit = 0;

	if (unlikely(READ_ONCE(c->active)))
		return 0;
	WRITE_ONCE(c->active, 1);
	barrier();
	probe(bpf_active);
	if (likely(c->free_cnt > c->low_watermark) && likely(c->free_llist)) {
		unit = c->free_llist;
		c->free_llist = *(const u64 *)ptr_of(unit);
		c->free_cnt--;
		*(u64 *)ptr_of(unit) = off_of(c);
		unit += BPF_HEADER_BYTES;
	}
	barrier();
	WRITE_ONCE(c->active, 0);
	return unit;
}

__helper bool unit_push(struct bpf_mem_cache *c, u64 object, u64 mark)
{
	u64 unit = object - BPF_HEADER_BYTES;
	bool done;

	c->tgt = mark; /* a hint: where trimmed objects will probably be wanted */
	if (unlikely(READ_ONCE(c->active)))
		return false;
	WRITE_ONCE(c->active, 1);
	barrier();
	probe(bpf_active);
	done = c->free_cnt < c->high_watermark;
	if (likely(done)) {
		*(u64 *)ptr_of(unit) = c->free_llist;
		c->free_llist = unit;
		c->free_cnt++;
	}
	barrier();
	WRITE_ONCE(c->active, 0);
	return done;
}

/* 0: none, with the reason. */
__helper u64 unit_alloc(struct bpf_mem_cache *c)
{
	u32 flags = local_irq_save();
	u64 object = unit_pop(c);

	if (unlikely(!object))
		return unit_alloc_slow(c, flags);
	local_irq_restore(flags);
	return object;
}

__helper void unit_free(struct bpf_mem_cache *c, u64 object, u64 mark)
{
	u32 flags = local_irq_save();

	if (unlikely(!unit_push(c, object, mark)))
		unit_free_slow(c, object, flags);
	else
		local_irq_restore(flags);
}

/* An object of a slab begins 8 bytes before: where there is a mark, if it is one of ours. */
__helper bool bpf_plausible(u64 object)
{
	u64 unit = object - BPF_HEADER_BYTES;

	return !(object & 7) && off_in_memory(unit) && virt_to_head_page(unit)->flags & PG_slab;
}

/* The list of a mark if it is one of this CPU's and of the global allocator; else NULL. */
__helper struct bpf_mem_cache *bpf_own_list(u64 mark)
{
	struct bpf_mem_cache *c = ptr_of(mark);
	u64 within = (u64)((char *)c - (char *)shm.cpu_bpf_lists);

	if (unlikely(within >= BPF_NR_BUCKETS * sizeof(*c) || within % sizeof(*c)) || broken(k38))
		return NULL;
	return c;
}

/* This CPU's list for an object with this mark; NULL: it is no mark. */
__helper struct bpf_mem_cache *bpf_list_for(u64 mark)
{
	struct bpf_mem_cache *c = bpf_own_list(mark);

	return likely(c) ? c : bpf_mem_bucket_of(mark);
}

#endif
