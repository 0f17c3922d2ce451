/* SPDX-License-Identifier: MIT */
/*
 * A list for each core, popped and pushed by restartable sequences: no atomic instruction at all, and the
 * kernel sends whoever was interrupted between begin and commit back to the begin.
 *
 * glibc registers each thread's area from 2.35 on; without it, or without the system call, setup says so.
 */
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "subject.h"

#define LINE_BYTES 128
#define EXTRA 64u
#define MOST_CORES 1024u

struct list {
	_Alignas(LINE_BYTES) uint64_t first; /* address */
};

static struct list *lists; /* one for each core */
static char *memory;
static uint64_t object_bytes, objects_of_a_side;
static uint32_t nr_sides;

/* of glibc; weak, so that the plugin loads where they are not */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

/* the kernel's struct rseq, its beginning */
struct area {
	uint32_t cpu_id_start;
	uint32_t cpu_id;
	uint64_t rseq_cs;
};

static ptrdiff_t area_offset; /* from the thread pointer */

static inline struct area *area(void)
{
	return (struct area *)((char *)__builtin_thread_pointer() + area_offset);
}

#define TEXT(x) TEXT_(x)
#define TEXT_(x) #x
#define SIGNATURE 0x53053053 /* in front of where an interrupted sequence goes on: what glibc has registered */

/*
 * 3: what the kernel is told: from 1 to 2, else go on at 4, which lies apart, behind its signature.
 * The sequence commits by its last instruction.  rcx = the core's list.
 */
#define SEQUENCE(body) \
	".pushsection __rseq_cs, \"aw\"\n\t" \
	".balign 32\n" \
	"3:\n\t" \
	".long 0, 0\n\t" \
	".quad 1f, 2f - 1f, 4f\n\t" \
	".popsection\n\t" \
	"leaq 3b(%%rip), %%rax\n\t" \
	"movq %%rax, %c[cs](%[area])\n" \
	"1:\n\t" \
	"movl %c[cpu](%[area]), %%ecx\n\t" \
	"shlq $7, %%rcx\n\t" \
	"addq %[lists], %%rcx\n\t" \
	body \
	"\n2:\n\t" \
	".pushsection __rseq_failure, \"ax\"\n\t" \
	".byte 0x0f, 0xb9, 0x3d\n\t" \
	".long " TEXT(SIGNATURE) "\n" \
	"4:\n\t" \
	"jmp %l[again]\n\t" \
	".popsection\n"

static uint64_t rseq_alloc(uint64_t bytes, uint64_t arg1, uint64_t arg2)
{
	struct area *a = area();
	uint64_t first;

	(void)bytes, (void)arg1, (void)arg2;
again:
	__asm__ goto(SEQUENCE("movq (%%rcx), %[first]\n\t"
			      "testq %[first], %[first]\n\t"
			      "jz %l[empty]\n\t"
			      "movq (%[first]), %%rax\n\t"
			      "movq %%rax, (%%rcx)")
		: [first] "=&r"(first)
		: [area] "r"(a), [lists] "r"(lists), [cs] "i"(offsetof(struct area, rseq_cs)),
		  [cpu] "i"(offsetof(struct area, cpu_id))
		: "rax", "rcx", "memory", "cc"
		: again, empty);
	return first;
empty:
	return 0;
}

static void rseq_free(uint64_t object, uint64_t arg1, uint64_t arg2)
{
	struct area *a = area();

	(void)arg1, (void)arg2;
again:
	__asm__ goto(SEQUENCE("movq (%%rcx), %%rax\n\t"
			      "movq %%rax, (%[object])\n\t"
			      "movq %[object], (%%rcx)")
		:
		: [object] "r"(object), [area] "r"(a), [lists] "r"(lists),
		  [cs] "i"(offsetof(struct area, rseq_cs)), [cpu] "i"(offsetof(struct area, cpu_id))
		: "rax", "rcx", "memory", "cc"
		: again);
}

static int setup(const struct subject_options *options, const char **why)
{
	uint64_t heads = MOST_CORES * sizeof(struct list);

	if (!&__rseq_size || !__rseq_size) {
		*why = "no rseq: the kernel lacks it, or glibc (2.35 or newer) has not registered it";
		return -ENOSYS;
	}
	area_offset = __rseq_offset;
	object_bytes = (options->object_bytes + 15) & ~15ull;
	objects_of_a_side = options->objects + EXTRA;
	nr_sides = options->sides;
	memory = mmap(NULL, heads + nr_sides * objects_of_a_side * object_bytes, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED) {
		*why = "no memory for its objects";
		return -ENOMEM;
	}
	lists = (struct list *)memory;
	return 0;
}

/* The runner has pinned the side: the core that it is on is its own. */
static int join(unsigned int side, const char **why)
{
	char *start = memory + MOST_CORES * sizeof(struct list) + side * objects_of_a_side * object_bytes;

	if (area()->cpu_id >= MOST_CORES) {
		*why = "rseq is not registered for this thread";
		return -ENOSYS;
	}
	for (uint64_t i = objects_of_a_side; i-- > 0;)
		rseq_free((uint64_t)(uintptr_t)(start + i * object_bytes), 0, 0);
	return 0;
}

static const struct subject subjects[] = {
	{
		.abi = SUBJECT_ABI,
		.flags = SUBJECT_SHARED | SUBJECT_FIXED | SUBJECT_NO_HANDOVER,
		.name = "floor_rseq",
		.summary = "a list for each core, by restartable sequences",
		.setup = setup,
		.join = join,
		.alloc = rseq_alloc,
		.free = rseq_free,
	},
};

SUBJECTS(subjects);
