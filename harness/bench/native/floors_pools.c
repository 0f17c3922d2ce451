/* SPDX-License-Identifier: MIT */
/*
 * What the algorithms of prealloc, bpf_mem_alloc and objpool cost when there is nothing around them.
 *
 * Each is the least loop that still is the algorithm: interrupts masked by a word and the pending ones
 * looked for, then the list, the ring or the counted section; pointers instead of offsets, sides of one process
 * instead of CPUs, no count, no check of what is freed, no second design.  Not safe for anything but a measurement.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "subject.h"

typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64;

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))
#define MAX_SIDES 2
#define EXTRA 64u /* objects more than can be live: the other side may have some on their way back */

struct side {
	u32 irqs_disabled;
	u32 irq_pending;
	u32 id;
} __attribute__((aligned(64)));

static struct side sides[MAX_SIDES];
static u32 nr_sides;
static __thread struct side *self __attribute__((tls_model("initial-exec")));

static inline u32 irq_save(struct side *me)
{
	u32 flags = me->irqs_disabled;

	WRITE_ONCE(me->irqs_disabled, 1);
	__asm__ volatile("" ::: "memory");
	return flags;
}

static __attribute__((noinline)) void replay(struct side *me)
{
	WRITE_ONCE(me->irq_pending, 0);
}

static inline void irq_restore(struct side *me, u32 flags)
{
	if (flags)
		return;
	__asm__ volatile("" ::: "memory");
	WRITE_ONCE(me->irqs_disabled, 0);
	__asm__ volatile("" ::: "memory");
	if (unlikely(READ_ONCE(me->irq_pending)))
		replay(me);
}

static int join(u32 side, const char **why)
{
	(void)why;
	sides[side].id = side;
	self = &sides[side];
	return 0;
}

static char *memory_of(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* --- pcpu_freelist: a list and a lock for each side ------------------------------------------------- */

struct head {
	void *first;
	u32 lock;
} __attribute__((aligned(64)));

static struct head heads[MAX_SIDES];

static int freelist_setup(u32 n, size_t size, u32 entries)
{
	char *memory = memory_of(size * entries);

	if (!memory)
		return -1;
	nr_sides = n;
	for (u32 i = entries; i-- > 0;) {
		struct head *head = &heads[i % n];

		*(void **)(memory + i * size) = head->first;
		head->first = memory + i * size;
	}
	return 0;
}

static inline bool lock(u32 *word, u32 owner)
{
	u32 none = 0;

	return __atomic_compare_exchange_n(word, &none, owner, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void *pop_from(struct head *head, u32 owner)
{
	void *first;

	if (!READ_ONCE(head->first))
		return NULL;
	while (unlikely(!lock(&head->lock, owner)))
		;
	first = head->first;
	if (likely(first))
		head->first = *(void **)first;
	__atomic_store_n(&head->lock, 0, __ATOMIC_RELEASE);
	return first;
}

static u64 freelist_alloc(u64 size, u64 arg1, u64 arg2)
{
	struct side *me = self;
	u32 flags = irq_save(me);
	void *object = pop_from(&heads[me->id], me->id + 1);

	(void)size, (void)arg1, (void)arg2;
	for (u32 i = 0; unlikely(!object) && i < nr_sides; i++)
		object = pop_from(&heads[i], me->id + 1);
	irq_restore(me, flags);
	return (u64)(uintptr_t)object;
}

static void freelist_free(u64 handle, u64 arg1, u64 arg2)
{
	void *object = (void *)(uintptr_t)handle;
	struct side *me = self;
	struct head *head = &heads[me->id];
	u32 flags = irq_save(me);

	(void)arg1, (void)arg2;
	while (unlikely(!lock(&head->lock, me->id + 1)))
		;
	*(void **)object = head->first;
	head->first = object;
	__atomic_store_n(&head->lock, 0, __ATOMIC_RELEASE);
	irq_restore(me, flags);
}

/* --- bpf_mem_alloc: counted sections, watermarks, two lock-free lists behind ------------------------- */

#define NR_BUCKETS 11
#define HEADER 8
#define LOW_BYTES 8192

struct cache {
	void **first;
	u32 active;
	s32 count;
	s32 low, high, batch;
	u32 unit_size;
	void **given_back;            /* trimmed, pushed by any side */
	void **waiting;               /* as after the grace period */
	char *fresh, *end;
} __attribute__((aligned(64)));

static const u32 bucket_bytes[NR_BUCKETS] = { 96, 192, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096 };
static const unsigned char small_bucket[24] = {
	2, 2, 3, 3, 4, 4, 4, 4, 0, 0, 0, 0, 5, 5, 5, 5, 1, 1, 1, 1, 1, 1, 1, 1,
};
static struct cache caches[MAX_SIDES][NR_BUCKETS];

static inline u32 bucket_index(size_t bytes)
{
	if (bytes <= 192)
		return small_bucket[(bytes - 1) / 8];
	return 64 - (u32)__builtin_clzll(bytes - 1) - 2;
}

/* Whoever finds it set is a handler: the owner needs no instruction that counts. */
static inline bool enter(struct cache *c)
{
	if (unlikely(READ_ONCE(c->active)))
		return false;
	WRITE_ONCE(c->active, 1);
	__asm__ volatile("" ::: "memory");
	return true;
}

static inline void leave(struct cache *c)
{
	__asm__ volatile("" ::: "memory");
	WRITE_ONCE(c->active, 0);
}

static inline void give(void ***list, void **unit)
{
	void **old = READ_ONCE(*list);

	do
		*unit = old;
	while (!__atomic_compare_exchange_n(list, &old, unit, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

static inline void **take(void ***list)
{
	void **first = READ_ONCE(*list);

	while (first && !__atomic_compare_exchange_n(list, &first, (void **)*first, false, __ATOMIC_SEQ_CST,
						      __ATOMIC_SEQ_CST))
		;
	return first;
}

static __attribute__((noinline)) void refill(struct cache *c)
{
	for (s32 i = 0; i < c->batch; i++) {
		void **unit = take(&c->given_back);

		if (!unit)
			unit = take(&c->waiting);
		if (!unit && c->fresh + c->unit_size <= c->end) {
			unit = (void **)c->fresh;
			c->fresh += c->unit_size;
		}
		if (!unit)
			return;
		enter(c);
		*unit = c->first;
		c->first = unit;
		c->count++;
		leave(c);
	}
}

static __attribute__((noinline)) void trim(struct cache *c)
{
	void **unit;

	while (c->count > (c->low + c->high) / 2) {
		enter(c);
		unit = c->first;
		c->first = *unit;
		c->count--;
		leave(c);
		give(&c->given_back, unit);
	}
	unit = __atomic_exchange_n(&c->given_back, NULL, __ATOMIC_SEQ_CST);
	while (unit) {
		void **next = *unit;

		give(&c->waiting, unit);
		unit = next;
	}
}

static int bpf_setup(u32 n, size_t size, u32 entries)
{
	(void)size; /* all of them: memory that is not asked for is never touched */
	nr_sides = n;
	for (u32 side = 0; side < n; side++)
		for (u32 i = 0; i < NR_BUCKETS; i++) {
			struct cache *c = &caches[side][i];
			size_t bytes = (size_t)bucket_bytes[i] * (entries + 256);
			s32 batch;

			c->unit_size = bucket_bytes[i];
			c->low = c->unit_size <= 256 ? 32 : LOW_BYTES / c->unit_size;
			c->high = c->unit_size <= 256 ? 96 : 3 * LOW_BYTES / c->unit_size;
			c->low = c->low < 1 ? 1 : c->low;
			c->high = c->high < 3 ? 3 : c->high;
			batch = (c->high - c->low) / 4 * 3;
			batch = batch < 1 ? 1 : batch;
			c->batch = batch;
			c->fresh = memory_of(bytes);
			if (!c->fresh)
				return -1;
			c->end = c->fresh + bytes;
			c->batch = c->unit_size <= 256 ? 4 : 1; /* the prefill, from which the rest follows */
			refill(c);
			c->batch = batch;
		}
	return 0;
}

static u64 bpf_alloc(u64 size, u64 arg1, u64 arg2)
{
	struct side *me = self;
	struct cache *c = &caches[me->id][bucket_index(size + HEADER)];
	u32 flags = irq_save(me);
	void **unit = NULL;
	s32 count = 0;

	(void)arg1, (void)arg2;
	if (likely(enter(c))) {
		unit = c->first;
		if (likely(unit)) {
			c->first = *unit;
			*unit = c;
			count = --c->count;
		}
		leave(c);
	}
	if (unlikely(count < c->low))
		refill(c);
	irq_restore(me, flags);
	return unit ? (u64)(uintptr_t)unit + HEADER : 0;
}

static void bpf_free(u64 handle, u64 arg1, u64 arg2)
{
	struct side *me = self;
	void **unit = (void **)(uintptr_t)(handle - HEADER);
	struct cache *c = &caches[me->id][bucket_index(((struct cache *)*unit)->unit_size)];
	u32 flags = irq_save(me);
	s32 count = 0;

	(void)arg1, (void)arg2;
	if (likely(enter(c))) {
		*unit = c->first;
		c->first = unit;
		count = ++c->count;
		leave(c);
	} else {
		give(&c->given_back, unit);
	}
	if (unlikely(count > c->high))
		trim(c);
	irq_restore(me, flags);
}

/* --- objpool: a ring for each side ------------------------------------------------------------------ */

struct ring {
	u32 head, tail, last, mask;
	void **entries;
} __attribute__((aligned(64)));

static struct ring rings[MAX_SIDES];

static int objpool_setup(u32 n, size_t size, u32 entries)
{
	u32 capacity = entries > 1 ? 1u << (32 - __builtin_clz(entries - 1)) : 1;
	char *memory = memory_of(size * entries);

	if (!memory)
		return -1;
	nr_sides = n;
	for (u32 side = 0; side < n; side++) {
		struct ring *ring = &rings[side];

		ring->mask = capacity - 1;
		ring->entries = (void **)memory_of(capacity * sizeof(void *));
		if (!ring->entries)
			return -1;
		for (u32 i = side; i < entries; i += n)
			ring->entries[ring->last++] = memory + i * size;
		ring->tail = ring->last;
	}
	return 0;
}

static inline void *get(struct ring *ring)
{
	u32 head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);

	while (head != READ_ONCE(ring->last)) {
		void *object = READ_ONCE(ring->entries[head & ring->mask]);

		if (__atomic_compare_exchange_n(&ring->head, &head, head + 1, false, __ATOMIC_RELEASE, __ATOMIC_ACQUIRE))
			return object;
	}
	return NULL;
}

static u64 objpool_alloc(u64 size, u64 arg1, u64 arg2)
{
	struct side *me = self;
	u32 flags = irq_save(me);
	void *object = get(&rings[me->id]);

	(void)size, (void)arg1, (void)arg2;
	for (u32 i = 0; unlikely(!object) && i < nr_sides; i++)
		object = get(&rings[i]);
	irq_restore(me, flags);
	return (u64)(uintptr_t)object;
}

static void objpool_free(u64 handle, u64 arg1, u64 arg2)
{
	void *object = (void *)(uintptr_t)handle;
	struct side *me = self;
	struct ring *ring = &rings[me->id];
	u32 flags = irq_save(me), tail = 1;

	(void)arg1, (void)arg2;
	/* a place: only this side writes `tail`, and a handler's instructions do not come inside one of ours */
	__asm__ volatile("xaddl %0, %1" : "+r"(tail), "+m"(ring->tail)::"memory");
	WRITE_ONCE(ring->entries[tail & ring->mask], object);
	__atomic_store_n(&ring->last, tail + 1, __ATOMIC_RELEASE);
	irq_restore(me, flags);
}

/* --- as subjects -------------------------------------------------------------------------------------- */

#define SETUP(name) \
	static int name##_start(const struct subject_options *options, const char **why) \
	{ \
		size_t bytes = (options->object_bytes + 15) & ~15ull; \
		u32 entries = (u32)(2 * options->sides * (options->objects + EXTRA)); \
\
		if (!name##_setup(options->sides, bytes, entries)) \
			return 0; \
		*why = "no memory for its objects"; \
		return -ENOMEM; \
	}
SETUP(freelist)
SETUP(bpf)
SETUP(objpool)

static const struct subject subjects[] = {
	{
		.abi = SUBJECT_ABI,
		.flags = SUBJECT_FIXED,
		.name = "floor_pcpu_freelist",
		.summary = "prealloc's algorithm: a list for each CPU, its lock, interrupts masked",
		.setup = freelist_start,
		.join = join,
		.alloc = freelist_alloc,
		.free = freelist_free,
	},
	{
		.abi = SUBJECT_ABI,
		.flags = SUBJECT_NO_HANDOVER, /* what was freed elsewhere comes back through slabs, which it has none of */
		.name = "floor_bpf",
		.summary = "bpf_mem_alloc's algorithm: counted sections and watermarks, interrupts masked",
		.max_bytes = 4096 - HEADER,
		.setup = bpf_start,
		.join = join,
		.alloc = bpf_alloc,
		.free = bpf_free,
	},
	{
		.abi = SUBJECT_ABI,
		.flags = SUBJECT_FIXED,
		.name = "floor_objpool",
		.summary = "objpool's algorithm: a ring for each CPU, a compare-and-exchange at either end",
		.setup = objpool_start,
		.join = join,
		.alloc = objpool_alloc,
		.free = objpool_free,
	},
};

SUBJECTS(subjects);
