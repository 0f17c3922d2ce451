/* SPDX-License-Identifier: MIT */
/*
 * The storm: one subject, one thread, and signals whose handler allocates and frees through the same subject.
 *
 *   shmalloc-bench-storm plugin=FILE subject=NAME page_fd=N parent=PID source=timer|step [key=value ...]
 *
 * Everything that decides is outside of the subject's reach.  Each object is written with a pattern of its
 * own and looked at before it is freed; who owns which bytes is kept in a table by address, so that an
 * object with two owners is seen at the second allocation.  What a handler frees was allocated by the
 * thread as often as not, and the other way round.
 *
 * The counts are in a page that the parent shares and goes on reading when this process can no longer say
 * anything: it alone decides whether there is still progress, and what an end by a signal means.
 *
 * source=timer: a one-shot timer of this thread, set again at the handler's end, so that the thread always
 * gets on.  It meets an instruction by luck.
 * source=step: the trap flag is set over a call, and the signal comes exactly before its k-th instruction; k
 * grows by stride from call to call and starts again past the end.  Nothing in it depends on the clock.
 *
 * Handlers run on the thread's own stack.  Nothing here calls malloc once the subject is set up.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "storm_page.h"
#include "subject.h"

#define NR_SLOTS 1024u
#define SIGNAL (SIGRTMAX - 5)     /* nobody's: not libc's, not the core's */
#define TRAP_FLAG 0x100
#define CALLS_AFTER 200000u       /* without signals, to find what they have left behind */
#define PHASE_CALLS 1024u         /* mostly allocating, then mostly freeing: caches fill and drain */
#define CLOCK_CALLS 64u

static struct storm_page *page;
static const struct subject *subject;
static uint64_t base;

/* --- what was asked for ---------------------------------------------------------------------------- */

static struct {
	const char *plugin, *subject, *options, *source;
	uint64_t page_fd, parent, core, bytes, seed, calls, period_us, stride;
	double seconds;
} asked = { .options = "", .source = "timer", .core = ~0ull, .bytes = 64, .seed = 1, .period_us = 30, .stride = 1 };

static _Noreturn void end(enum storm_end how, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(page->text, sizeof(page->text), format, arguments);
	va_end(arguments);
	atomic_store(&page->end, how);
	_exit(0);
}

/* --- who owns which bytes: a bit for every 8 bytes of the address space ------------------------------ */

#define LEAF_SHIFT 30             /* a leaf is of 1 GiB, 16 MiB of bits, and comes with its first object */
#define LEAF_WORDS ((1ull << LEAF_SHIFT) / 8 / 64)
#define NR_LEAVES (1ull << (47 - LEAF_SHIFT))

static _Atomic(_Atomic uint64_t *) leaves[NR_LEAVES];

static _Atomic uint64_t *leaf_of(uint64_t address)
{
	_Atomic(_Atomic uint64_t *) *leaf = &leaves[address >> LEAF_SHIFT];
	_Atomic uint64_t *words = atomic_load(leaf), *expected = NULL;

	if (words)
		return words;
	words = mmap(NULL, LEAF_WORDS * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (words == MAP_FAILED)
		end(STORM_CANNOT, "no memory for the table of owners");
	if (atomic_compare_exchange_strong(leaf, &expected, words))
		return words;
	munmap(words, LEAF_WORDS * 8); /* the handler was here */
	return expected;
}

/* Set or clear the bits of [address, address + bytes); false: one of them was so already. */
static bool change_owner(uint64_t address, uint64_t bytes, bool owned)
{
	uint64_t bit = (address + 7) / 8, last = (address + bytes) / 8;
	bool changed = true;

	while (bit < last) {
		uint64_t shift = bit % 64, count = 64 - shift, mask, before;
		_Atomic uint64_t *word = &leaf_of(bit * 8)[bit / 64 % LEAF_WORDS];

		if (count > last - bit)
			count = last - bit;
		mask = (count == 64 ? ~0ull : (1ull << count) - 1) << shift;
		before = owned ? atomic_fetch_or(word, mask) : atomic_fetch_and(word, ~mask);
		if ((before & mask) != (owned ? 0 : mask))
			changed = false;
		bit += count;
	}
	return changed;
}

/* --- objects ------------------------------------------------------------------------------------------ */

struct object {
	uint64_t handle, bytes, key;
};

struct slot {
	_Atomic uint32_t state;
	struct object object;
};

enum { EMPTY, BUSY, FULL };        /* BUSY: whoever is on it was interrupted; leave it alone */

static struct slot slots[NR_SLOTS];

struct level {                     /* the thread, or the handler */
	const char *name;
	_Atomic uint64_t *where;
	uint64_t random;
	subject_alloc *alloc;
	subject_free *free;
	_Atomic uint64_t *refused;
};

static struct level thread, handler;
static _Atomic uint64_t keys;

static uint64_t next_random(struct level *level)
{
	level->random ^= level->random << 13;
	level->random ^= level->random >> 7;
	level->random ^= level->random << 17;
	return level->random * 0x9e3779b97f4a7c15ull >> 16;
}

static uint64_t next_bytes(struct level *level)
{
	/* as a kernel asks: mostly small, now and then a page */
	static const uint16_t sizes[16] = { 16, 32, 32, 64, 64, 64, 96, 96, 128, 192, 192, 256, 512, 1024, 2048, 4096 };
	uint64_t bytes = sizes[next_random(level) % 16];

	if (subject->flags & SUBJECT_FIXED)
		return asked.bytes;
	return subject->max_bytes && bytes > subject->max_bytes ? subject->max_bytes : bytes;
}

/* The words that carry the pattern: the first and last two cache lines, one of each line in between. */
static inline uint64_t next_word(uint64_t word, uint64_t words)
{
	return word < 16 || word + 16 >= words ? word + 1 : word + 8 > words - 16 ? words - 16 : word + 8;
}

static void fill(const struct object *object)
{
	volatile uint64_t *words = (volatile uint64_t *)(base + object->handle);
	uint64_t nr = object->bytes / 8;

	for (uint64_t word = 0; word < nr; word = next_word(word, nr))
		words[word] = object->key + word;
}

static void verify(const struct object *object, const struct level *level)
{
	volatile uint64_t *words = (volatile uint64_t *)(base + object->handle);
	uint64_t nr = object->bytes / 8;

	for (uint64_t word = 0; word < nr; word = next_word(word, nr)) {
		if (words[word] != object->key + word)
			end(STORM_CORRUPTION, "an object of %llu bytes was written to while it was allocated, at byte "
				"%llu; found by the %s", (unsigned long long)object->bytes,
				(unsigned long long)word * 8, level->name);
	}
}

/* --- the signal before the k-th instruction of a call ----------------------------------------------- */

static bool steps;                       /* source=step */
static volatile sig_atomic_t stepping;
static volatile uint64_t steps_left;
static volatile bool stepped_to_it;
static pid_t self_pid, self_tid;

static inline void trap_flag_set(void)
{
	__asm__ volatile("pushfq\n\torq %0, (%%rsp)\n\tpopfq" : : "i"(TRAP_FLAG) : "memory", "cc");
}

static inline void trap_flag_clear(void)
{
	__asm__ volatile("pushfq\n\tandq %0, (%%rsp)\n\tpopfq" : : "i"(~TRAP_FLAG) : "memory", "cc");
}

static void on_step(int number, siginfo_t *info, void *context)
{
	ucontext_t *interrupted = context;

	(void)number;
	(void)info;
	if (stepping && --steps_left)
		return;
	if (stepping) {
		stepped_to_it = true;
		syscall(SYS_tgkill, self_pid, self_tid, SIGNAL); /* blocked here: delivered by our return, before the next */
	}
	stepping = 0;
	interrupted->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

/* k of the next call; its two kinds are swept apart. */
static uint64_t next_step[2] = { 1, 1 };

static void step_begin(int kind)
{
	steps_left = next_step[kind];
	stepped_to_it = false;
	stepping = 1;
	trap_flag_set();
}

static void step_end(int kind)
{
	trap_flag_clear();
	stepping = 0;
	next_step[kind] = stepped_to_it ? next_step[kind] + asked.stride : 1 + next_step[kind] % asked.stride;
}

/* --- calls of the subject --------------------------------------------------------------------------- */

static bool storming;

static bool allocate(struct level *level, struct object *object)
{
	bool step = steps && storming && level == &thread;

	object->bytes = next_bytes(level);
	atomic_store(level->where, STORM_IN_ALLOC);
	if (step)
		step_begin(0);
	object->handle = level->alloc(object->bytes, subject->alloc_args[0], subject->alloc_args[1]);
	if (step)
		step_end(0);
	if (!object->handle) {
		atomic_store(level->where, STORM_OUTSIDE);
		atomic_fetch_add(level->refused, 1);
		return false;
	}
	atomic_store(level->where, STORM_ON_OBJECT);
	if ((base + object->handle) >> 47 || (base + object->handle + object->bytes) >> 47 || (base + object->handle) % 8)
		end(STORM_CORRUPTION, "the %s was given %#llx, which is no address of an object", level->name,
			(unsigned long long)(base + object->handle));
	if (!change_owner(base + object->handle, object->bytes, true))
		end(STORM_CORRUPTION, "the %s was given %llu bytes of which some are allocated already", level->name,
			(unsigned long long)object->bytes);
	object->key = (atomic_fetch_add(&keys, 1) + 1) * 0x9e3779b97f4a7c15ull;
	fill(object);
	atomic_store(level->where, STORM_OUTSIDE);
	return true;
}

static void release(struct level *level, const struct object *object)
{
	bool step = steps && storming && level == &thread;

	atomic_store(level->where, STORM_ON_OBJECT);
	verify(object, level);
	if (!change_owner(base + object->handle, object->bytes, false))
		end(STORM_CORRUPTION, "the table of owners is damaged: the subject wrote where it must not");
	atomic_store(level->where, STORM_IN_FREE);
	if (step)
		step_begin(1);
	level->free(object->handle, subject->free_args[0], subject->free_args[1]);
	if (step)
		step_end(1);
	atomic_store(level->where, STORM_OUTSIDE);
}

static bool take(struct slot *slot, struct object *object)
{
	uint32_t expected = FULL;

	if (!atomic_compare_exchange_strong(&slot->state, &expected, BUSY))
		return false;
	*object = slot->object;
	atomic_store(&slot->state, EMPTY);
	return true;
}

static bool put(struct slot *slot, const struct object *object)
{
	uint32_t expected = EMPTY;

	if (!atomic_compare_exchange_strong(&slot->state, &expected, BUSY))
		return false;
	slot->object = *object;
	atomic_store(&slot->state, FULL);
	return true;
}

/* Allocate into a slot that is empty, or free what is in it; fuller: in eighths, how often to allocate. */
static void one_call(struct level *level, unsigned int fuller)
{
	bool allocating = next_random(level) % 8 < fuller;
	struct object object;

	for (unsigned int tries = 0; tries < 8; tries++) {
		struct slot *slot = &slots[next_random(level) % NR_SLOTS];

		if (!allocating && take(slot, &object)) {
			release(level, &object);
			return;
		}
		if (allocating && atomic_load(&slot->state) == EMPTY) {
			if (allocate(level, &object) && !put(slot, &object))
				release(level, &object);
			return;
		}
	}
}

/* --- the handler -------------------------------------------------------------------------------------- */

static timer_t timer;
static bool ticks;                       /* source=timer */

static void set_timer(void)
{
	uint64_t ns = asked.period_us * 1000 + next_random(&handler) % (asked.period_us * 500 + 1);
	struct itimerspec in = { .it_value = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 } };

	timer_settime(timer, 0, &in, NULL);
}

/* What an interrupt does, in turn: a pair, the sequence that fools lists without a tag, a mix, a burst. */
static void handler_calls(uint64_t turn)
{
	struct object held[6];
	unsigned int nr = 0;

	switch (turn % 4) {
	case 0:
		if (allocate(&handler, &held[0]))
			release(&handler, &held[0]);
		break;
	case 1:
		nr += allocate(&handler, &held[nr]);
		nr += allocate(&handler, &held[nr]);
		if (nr == 2 && !put(&slots[next_random(&handler) % NR_SLOTS], &held[1]))
			release(&handler, &held[1]); /* first in, first out is as good */
		if (nr)
			release(&handler, &held[0]);
		break;
	case 2:
		for (unsigned int call = 0; call < 4; call++)
			one_call(&handler, 4);
		break;
	default:
		while (nr < 6 && allocate(&handler, &held[nr]))
			nr++;
		while (nr)
			release(&handler, &held[--nr]);
	}
}

static void on_signal(int number)
{
	int saved = errno;
	uint64_t where = atomic_load(&page->thread_where), turn = atomic_fetch_add(&page->entered, 1);

	(void)number;
	if (where == STORM_IN_ALLOC || where == STORM_IN_FREE)
		atomic_fetch_add(&page->inside, 1);
	atomic_store(&page->in_handler, 1);
	if (subject->handler_enter)
		subject->handler_enter();
	handler_calls(turn);
	if (subject->handler_exit)
		subject->handler_exit();
	atomic_store(&page->in_handler, 0);
	atomic_fetch_add(&page->handled, 1);
	if (ticks)
		set_timer();
	errno = saved;
}

static void catch_signals(void)
{
	struct sigaction on = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sigaction step = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGNAL };

	self_pid = getpid();
	self_tid = gettid();
	sigemptyset(&on.sa_mask);
	sigemptyset(&step.sa_mask);
	sigaddset(&step.sa_mask, SIGNAL);
	if (sigaction(SIGNAL, &on, NULL) || (steps && sigaction(SIGTRAP, &step, NULL)))
		end(STORM_CANNOT, "sigaction: %s", strerror(errno));
	event._sigev_un._tid = self_tid;
	if (!steps && timer_create(CLOCK_MONOTONIC, &event, &timer))
		end(STORM_CANNOT, "timer_create: %s", strerror(errno));
}

/* --- the thread ------------------------------------------------------------------------------------------ */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Call until so many calls are done, or the time is over, whichever is asked for. */
static void calls_until(uint64_t calls, double deadline)
{
	for (uint64_t call = 0; !calls || call < calls; call++) {
		one_call(&thread, call / PHASE_CALLS % 2 ? 2 : 6);
		atomic_fetch_add(&page->calls, 1);
		if (deadline > 0 && call % CLOCK_CALLS == 0 && now() > deadline)
			return;
	}
}

static void storm(void)
{
	struct object object;

	calls_until(PHASE_CALLS, 0);        /* both ways once, undisturbed: whatever is lazy is there now */
	storming = true;
	ticks = !steps;
	atomic_store(&page->state, STORM_RUNNING);
	if (ticks)
		set_timer();
	calls_until(asked.calls, asked.seconds > 0 ? now() + asked.seconds : 0);
	storming = ticks = false;
	if (!steps)
		timer_delete(timer);
	atomic_store(&page->state, STORM_AFTER);
	calls_until(CALLS_AFTER, 0);
	for (unsigned int slot = 0; slot < NR_SLOTS; slot++) {
		if (take(&slots[slot], &object))
			release(&thread, &object);
		atomic_fetch_add(&page->calls, 1);
	}
}

/* --- beginning and end ------------------------------------------------------------------------------------ */

static void parse(int argc, char **argv)
{
	static const struct { const char *key; const char **text; uint64_t *number; } keys_of[] = {
		{ "plugin", &asked.plugin, NULL }, { "subject", &asked.subject, NULL },
		{ "options", &asked.options, NULL }, { "source", &asked.source, NULL },
		{ "page_fd", NULL, &asked.page_fd }, { "parent", NULL, &asked.parent }, { "core", NULL, &asked.core },
		{ "bytes", NULL, &asked.bytes }, { "seed", NULL, &asked.seed }, { "calls", NULL, &asked.calls },
		{ "period_us", NULL, &asked.period_us }, { "stride", NULL, &asked.stride },
	};

	for (int word = 1; word < argc; word++) {
		char *value = strchr(argv[word], '=');
		size_t length = value ? (size_t)(value - argv[word]) : 0, key = 0, nr = sizeof(keys_of) / sizeof(keys_of[0]);

		if (length == 7 && !strncmp(argv[word], "seconds", 7)) {
			asked.seconds = strtod(value + 1, NULL);
			continue;
		}
		while (key < nr && (strlen(keys_of[key].key) != length || strncmp(keys_of[key].key, argv[word], length)))
			key++;
		if (!value || key == nr) {
			fprintf(stderr, "shmalloc-bench-storm: unknown word: %s\n", argv[word]);
			exit(2);
		}
		if (keys_of[key].text)
			*keys_of[key].text = value + 1;
		else
			*keys_of[key].number = strtoull(value + 1, NULL, 0);
	}
	if (!asked.plugin || !asked.subject || !asked.page_fd || !asked.stride || !asked.seed ||
	    (!asked.calls && asked.seconds <= 0)) {
		fprintf(stderr, "shmalloc-bench-storm: needs plugin=, subject=, page_fd=, and calls= or seconds=\n");
		exit(2);
	}
}

static const struct subject *find_subject(void)
{
	void *plugin = dlopen(asked.plugin, RTLD_NOW | RTLD_LOCAL);
	const struct subject_table *table = plugin ? dlsym(plugin, SUBJECT_TABLE_SYMBOL) : NULL;

	if (!table)
		end(STORM_CANNOT, "%s", dlerror());
	if (table->abi != SUBJECT_ABI || table->subject_bytes != sizeof(struct subject))
		end(STORM_CANNOT, "%s was built for another bench", asked.plugin);
	for (uint64_t index = 0; index < table->nr_subjects; index++) {
		if (!strcmp(table->subjects[index].name, asked.subject))
			return &table->subjects[index];
	}
	end(STORM_CANNOT, "%s has no subject %s", asked.plugin, asked.subject);
}

static void begin(const struct subject_options *options)
{
	const char *what = "setup", *why = NULL;
	int error = subject->setup ? subject->setup(options, &why) : 0;

	if (!error && subject->join) {
		what = "join";
		error = subject->join(0, &why);
	}
	if (subject->flags & SUBJECT_EMPTY)
		end(STORM_CANNOT, "it allocates nothing");
	if (error)
		end(STORM_CANNOT, "%s: %s", what, why ? why : strerror(-error));
	base = subject->base ? subject->base() : 0;
}

static void pin(void)
{
	cpu_set_t set;

	if (asked.core == ~0ull)
		return;
	CPU_ZERO(&set);
	CPU_SET(asked.core, &set);
	sched_setaffinity(0, sizeof(set), &set); /* a core that we may not use is none that the storm needs */
}

int main(int argc, char **argv)
{
	struct subject_options options = { .objects = 2 * NR_SLOTS, .sides = 1 };
	struct rlimit none = { 0, 0 };
	const char *why;

	parse(argc, argv);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (asked.parent && (uint64_t)getppid() != asked.parent)
		return 1;
	setrlimit(RLIMIT_CORE, &none);        /* to crash is a result */
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, (int)asked.page_fd, 0);
	if (page == MAP_FAILED) {
		perror("shmalloc-bench-storm: page_fd");
		return 2;
	}
	pin();
	steps = !strcmp(asked.source, "step");
	subject = find_subject();
	thread = (struct level){ "thread", &page->thread_where, asked.seed, subject->alloc, subject->free,
		&page->thread_refused };
	handler = (struct level){ "handler", &page->handler_where, ~asked.seed,
		subject->handler_alloc ? subject->handler_alloc : subject->alloc,
		subject->handler_free ? subject->handler_free : subject->free, &page->handler_refused };
	options.text = asked.options;
	options.object_bytes = subject->flags & SUBJECT_FIXED ? asked.bytes :
		subject->max_bytes && subject->max_bytes < 4096 ? subject->max_bytes : 4096;
	begin(&options);
	catch_signals();
	storm();
	why = subject->verdict ? subject->verdict() : NULL;
	if (why)
		end(strcmp(why, "deadlock") ? STORM_CORRUPTION : STORM_DEADLOCK, "%s, by its own verdict", why);
	if (subject->leave)
		subject->leave(0);
	if (subject->teardown)
		subject->teardown();
	end(STORM_OK, "%s", "");
}
