/* SPDX-License-Identifier: MIT */
/*
 * The least that hands out and takes back objects of one size: what this machine charges for the way in
 * which a list is guarded, and nothing else.
 *
 *   flag           an array, the last freed first, behind an owner flag that only the owner's own handlers
 *                  can find set: two plain stores
 *   cas16          {first, tag}, exchanged by cmpxchg16b without a lock prefix: atomic for the CPU that runs
 *                  it, which is all that an interrupt of this CPU asks for
 *   cas16_locked   the same with the prefix: for any CPU
 *   tag8, tag8_locked   the same in eight bytes: an offset in units of eight bytes, and a tag
 *
 * An object goes back to the list of the side that has it in its memory; those without a lock prefix are
 * their owner's alone.
 */
#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "subject.h"

#define LINE_BYTES 128
#define UNIT 8u /* of the offsets in lists: 0 is no object, since the lists lie at the start */
#define EXTRA 64u /* objects more than can be live: those of the other side may be on their way back */

struct list {
	_Alignas(LINE_BYTES) uint64_t first; /* offset; with 16 bytes, else both in one word: */
	uint64_t tag;
	_Alignas(LINE_BYTES) uint64_t packed; /* first / UNIT, tag above */
	_Alignas(LINE_BYTES) uint32_t busy;
	uint32_t nr_free;
	uint64_t *array;
};

static struct list *lists; /* one for each side, at the start of the shared memory */
static char *memory;
static struct list *mine;
static uint64_t side_start[2]; /* offsets of the sides' objects */

static inline void *at(uint64_t offset)
{
	return memory + offset;
}

static inline struct list *home_of(uint64_t offset)
{
	return &lists[offset >= side_start[1]];
}

static uint64_t rounded(uint64_t bytes)
{
	return (bytes + 15) & ~15ull;
}

static void fill(struct list *list, uint64_t start, uint64_t bytes, uint64_t objects)
{
	for (uint64_t i = objects; i-- > 0;) {
		uint64_t offset = start + i * bytes;

		*(uint64_t *)at(offset) = list->first;
		list->first = offset;
		list->array[list->nr_free++] = offset;
	}
	list->packed = list->first / UNIT;
}

static int setup(const struct subject_options *options, const char **why)
{
	uint64_t bytes = rounded(options->object_bytes), objects = options->objects + EXTRA;
	uint64_t arrays = (2 * sizeof(struct list) + 4095) & ~4095ull;
	uint64_t start = (arrays + 2 * objects * sizeof(uint64_t) + 4095) & ~4095ull;
	uint64_t side_bytes = (objects * bytes + 4095) & ~4095ull;

	memory = mmap(NULL, start + options->sides * side_bytes, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED) {
		*why = "no memory for its objects";
		return -ENOMEM;
	}
	lists = (struct list *)memory;
	side_start[1] = UINT64_MAX;
	for (uint32_t side = 0; side < options->sides; side++) {
		side_start[side] = start + side * side_bytes;
		lists[side].array = at(arrays + side * objects * sizeof(uint64_t));
		fill(&lists[side], side_start[side], bytes, objects);
	}
	return 0;
}

static int join(unsigned int side, const char **why)
{
	(void)why;
	mine = &lists[side];
	return 0;
}

static uint64_t base(void)
{
	return (uint64_t)(uintptr_t)memory;
}

/* --- flag ----------------------------------------------------------------------------------------- */

static inline bool enter(struct list *list)
{
	if (__builtin_expect(*(volatile uint32_t *)&list->busy, 0))
		return false;
	*(volatile uint32_t *)&list->busy = 1;
	__asm__ volatile("" ::: "memory");
	return true;
}

static inline void leave(struct list *list)
{
	__asm__ volatile("" ::: "memory");
	*(volatile uint32_t *)&list->busy = 0;
}

static uint64_t flag_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	struct list *list = mine;
	uint64_t offset = 0;
	uint32_t nr_free;

	(void)bytes, (void)arg1, (void)arg2;
	if (!enter(list))
		return 0;
	nr_free = list->nr_free;
	if (__builtin_expect(nr_free != 0, 1)) {
		offset = list->array[nr_free - 1];
		list->nr_free = nr_free - 1;
	}
	leave(list);
	return offset;
}

/* In a handler that finds the flag set the object is lost: where to defer it to is not a floor's business. */
static void flag_free(uint64_t offset, uint64_t arg1, uint64_t arg2)
{
	struct list *list = mine;

	(void)arg1, (void)arg2;
	if (!enter(list))
		return;
	list->array[list->nr_free++] = offset;
	leave(list);
}

/* --- cas16 ---------------------------------------------------------------------------------------- */

#define CAS16(prefix, list, old_first, old_tag, new_first, new_tag) \
	({ \
		bool done__; \
		__asm__ volatile(prefix "cmpxchg16b %[word]" \
			: "=@cce"(done__), [word] "+m"(*(unsigned __int128 *)&(list)->first), "+a"(old_first), \
			  "+d"(old_tag) \
			: "b"(new_first), "c"(new_tag) \
			: "memory"); \
		done__; \
	})

#define CAS16_LIST(name, prefix, home) \
	static uint64_t name##_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2) \
	{ \
		struct list *list = mine; \
		uint64_t first = *(volatile uint64_t *)&list->first, tag = *(volatile uint64_t *)&list->tag; \
		uint64_t next; \
\
		(void)bytes, (void)arg1, (void)arg2; \
		do { \
			if (__builtin_expect(!first, 0)) \
				return 0; \
			next = *(volatile uint64_t *)at(first); \
		} while (__builtin_expect(!CAS16(prefix, list, first, tag, next, tag + 1), 0)); \
		return first; \
	} \
\
	static void name##_free(uint64_t offset, uint64_t arg1, uint64_t arg2) \
	{ \
		struct list *list = home; \
		uint64_t first = *(volatile uint64_t *)&list->first, tag = *(volatile uint64_t *)&list->tag; \
\
		(void)arg1, (void)arg2; \
		do \
			*(volatile uint64_t *)at(offset) = first; \
		while (__builtin_expect(!CAS16(prefix, list, first, tag, offset, tag + 1), 0)); \
	}

CAS16_LIST(cas16, "", mine)
CAS16_LIST(cas16_locked, "lock ", home_of(offset))

/* --- tag8 ----------------------------------------------------------------------------------------- */

#define TAG (1ull << 32)

#define CAS8(prefix, list, old, new) \
	({ \
		bool done__; \
		__asm__ volatile(prefix "cmpxchgq %[new_], %[word]" \
			: "=@cce"(done__), [word] "+m"((list)->packed), "+a"(old) \
			: [new_] "r"(new) \
			: "memory"); \
		done__; \
	})

/* In an object lies the offset of the next one in units. */
#define TAG8_LIST(name, prefix, home) \
	static uint64_t name##_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2) \
	{ \
		struct list *list = mine; \
		uint64_t old = *(volatile uint64_t *)&list->packed, offset, next; \
\
		(void)bytes, (void)arg1, (void)arg2; \
		do { \
			offset = (uint64_t)(uint32_t)old * UNIT; \
			if (__builtin_expect(!offset, 0)) \
				return 0; \
			next = ((old & ~(TAG - 1)) + TAG) | *(volatile uint32_t *)at(offset); \
		} while (__builtin_expect(!CAS8(prefix, list, old, next), 0)); \
		return offset; \
	} \
\
	static void name##_free(uint64_t offset, uint64_t arg1, uint64_t arg2) \
	{ \
		struct list *list = home; \
		uint64_t old = *(volatile uint64_t *)&list->packed, next; \
\
		(void)arg1, (void)arg2; \
		do { \
			*(volatile uint32_t *)at(offset) = (uint32_t)old; \
			next = ((old & ~(TAG - 1)) + TAG) | offset / UNIT; \
		} while (__builtin_expect(!CAS8(prefix, list, old, next), 0)); \
	}

TAG8_LIST(tag8, "", mine)
TAG8_LIST(tag8_locked, "lock ", home_of(offset))

static int setup_packed(const struct subject_options *options, const char **why)
{
	int error = setup(options, why);

	for (uint32_t side = 0; !error && side < options->sides; side++)
		for (uint64_t offset = lists[side].first; offset;) {
			uint64_t next = *(uint64_t *)at(offset);

			*(uint64_t *)at(offset) = next / UNIT;
			offset = next;
		}
	return error;
}

/* --- the empty call -------------------------------------------------------------------------------- */

#define EMPTY_OBJECTS 512u

static uint64_t empty_bytes, empty_start, empty_next, empty_mask;

static int empty_setup(const struct subject_options *options, const char **why)
{
	struct subject_options few = *options;
	int error;

	for (few.objects = 1; few.objects < options->objects && few.objects < EMPTY_OBJECTS;)
		few.objects *= 2;
	empty_mask = few.objects - 1;
	error = setup(&few, why);
	empty_bytes = rounded(options->object_bytes);
	return error;
}

/* Each side has objects of its own: what is written twice is no allocator's cost. */
static int empty_join(unsigned int side, const char **why)
{
	empty_start = side_start[side];
	return join(side, why);
}

static uint64_t empty_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	(void)bytes, (void)arg1, (void)arg2;
	return empty_start + (empty_next++ & empty_mask) * empty_bytes;
}

static void empty_free(uint64_t offset, uint64_t arg1, uint64_t arg2)
{
	(void)offset, (void)arg1, (void)arg2;
}

#define LIST(called, flags_, what, setup_, join_) \
	{ \
		.abi = SUBJECT_ABI, \
		.flags = flags_, \
		.name = "floor_" #called, \
		.summary = what, \
		.setup = setup_, \
		.join = join_, \
		.base = base, \
		.alloc = called##_alloc, \
		.free = called##_free, \
	}

#define OWN (SUBJECT_SHARED | SUBJECT_FIXED | SUBJECT_NO_HANDOVER)

static const struct subject subjects[] = {
	LIST(empty, SUBJECT_SHARED | SUBJECT_EMPTY, "nothing: the loop, the call and the touched object alone",
		empty_setup, empty_join),
	LIST(flag, OWN, "an array behind its owner's flag", setup, join),
	LIST(cas16, OWN, "{first, tag} by unlocked 16-byte compare-and-exchange", setup, join),
	LIST(cas16_locked, SUBJECT_SHARED | SUBJECT_FIXED, "{first, tag} by locked 16-byte compare-and-exchange",
		setup, join),
	LIST(tag8, OWN, "{offset, tag} in 8 bytes by unlocked compare-and-exchange", setup_packed, join),
	LIST(tag8_locked, SUBJECT_SHARED | SUBJECT_FIXED, "{offset, tag} in 8 bytes by locked compare-and-exchange",
		setup_packed, join),
};

SUBJECTS(subjects);
