/* SPDX-License-Identifier: MIT */
/*
 * The second side: a thread, or a process that was forked before anybody joined.  Each side is pinned to its
 * core.  A task is given to both through a shared block; side 1 sleeps on a pipe in between, so that it takes
 * nothing from whoever is measured meanwhile, and in a task both meet at a barrier before each sample.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runner.h"

#define LINE_ROUNDS 200
#define LINE_TRIES 8
#define SPINS 10000

struct taken {
	uint64_t start_ns, end_ns;
	uint64_t switches;
	struct result result;
};

struct shared {
	_Alignas(LINE_BYTES) _Atomic uint64_t arrived; /* at barriers, ever */
	_Alignas(LINE_BYTES) _Atomic uint64_t line;    /* what is thrown to and fro */
	_Alignas(LINE_BYTES) enum task task;
	uint64_t pairs;
	unsigned int nr_samples;
	int joined;                                    /* 0 or a negative errno, of side 1 */
	const char *why;
	struct taken taken[SIDES][MOST_SAMPLES];
	const char *fault[SIDES];
	double line_ns;
	struct ring ring;
};

static const struct subject *subject;
static const struct row *row;
static struct shared *shared;
static unsigned int nr_sides;
static int core_of[SIDES];
static int wake[2], done[2]; /* pipes: to side 1, and back */
static pthread_t thread;
static pid_t child;
static uint64_t barriers[SIDES];
static struct calls calls[SIDES];
static struct cursor cursors[SIDES];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t switches_so_far(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (uint64_t)usage.ru_nivcsw;
}

static void *pages(size_t bytes, int flags)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int pin(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

/* until all sides are here */
static void barrier(unsigned int side)
{
	uint64_t all = nr_sides * ++barriers[side];
	unsigned int spins = 0;

	atomic_fetch_add(&shared->arrived, 1);
	while (atomic_load(&shared->arrived) < all) {
		relax();
		if (++spins % SPINS == 0)
			sched_yield();
	}
}

static int join(unsigned int side, const char **why)
{
	uint64_t words = row->nr_slots > row->count ? row->nr_slots : row->count;
	int error = pin(core_of[side]);

	if (!error && subject->join)
		error = subject->join(side, why);
	if (error)
		return error;
	/* its own pages, not the subject's: an array that malloc gives is one more object on its heap */
	cursors[side].slots = pages((words + 1) * sizeof(uint64_t), MAP_PRIVATE);
	calls[side] = (struct calls){
		.alloc = subject->alloc,
		.free = subject->free,
		.alloc_args = { subject->alloc_args[0], subject->alloc_args[1] },
		.free_args = { subject->free_args[0], subject->free_args[1] },
		.base = (char *)(uintptr_t)(subject->base ? subject->base() : 0),
	};
	return cursors[side].slots ? 0 : -ENOMEM;
}

static struct result run_row(unsigned int side, uint64_t pairs)
{
	const struct calls *c = &calls[side];
	uint64_t nr_ops;

	switch (row->kind) {
	case ROW_PAIR:
		return loop_pair(c, row->bytes, pairs);
	case ROW_BATCH:
		return loop_batch(c, row->bytes, row->count, cursors[side].slots, pairs);
	case ROW_HANDOVER:
		if (side)
			return loop_consume(c, &shared->ring, pairs);
		return loop_produce(c, row, &shared->ring, pairs);
	default:
		nr_ops = 2 * pairs;
		if (row->whole)
			nr_ops = (nr_ops + row->nr_ops - 1) / row->nr_ops * row->nr_ops;
		return loop_ops(c, row, &cursors[side], nr_ops);
	}
}

static void run_samples(unsigned int side)
{
	for (unsigned int i = 0; i < shared->nr_samples; i++) {
		struct taken *taken = &shared->taken[side][i];
		uint64_t switches = switches_so_far();

		barrier(side);
		taken->start_ns = now_ns();
		taken->result = run_row(side, shared->pairs);
		taken->end_ns = now_ns();
		taken->switches = switches_so_far() - switches;
	}
}

static void throw_line(unsigned int side)
{
	double least = 1e9;

	for (unsigned int try = 0; try < LINE_TRIES; try++) {
		uint64_t start, ns;

		barrier(side);
		if (!side)
			atomic_store(&shared->line, 0);
		barrier(side);
		start = now_ns();
		for (uint64_t i = side; i < 2 * LINE_ROUNDS; i += 2) {
			unsigned int spins = 0;

			while (atomic_load_explicit(&shared->line, memory_order_acquire) != i)
				if (++spins % SPINS == 0)
					sched_yield();
			atomic_store_explicit(&shared->line, i + 1, memory_order_release);
		}
		ns = now_ns() - start;
		if ((double)ns / (2 * LINE_ROUNDS) < least)
			least = (double)ns / (2 * LINE_ROUNDS);
	}
	if (!side)
		shared->line_ns = least;
}

static void do_task(unsigned int side)
{
	switch (shared->task) {
	case TASK_RUN:
		run_samples(side);
		break;
	case TASK_LINE:
		throw_line(side);
		break;
	case TASK_VERIFY:
		barrier(side);
		shared->taken[side][0].result = verify_side(&calls[side], row, side, &shared->ring, shared->pairs,
			&shared->fault[side]);
		break;
	case TASK_LEAVE:
		if (cursors[side].slots && row->nr_slots)
			drain(&calls[side], row, &cursors[side]);
		if (subject->leave)
			subject->leave(side);
	}
}

static void say(int fd)
{
	if (write(fd, "x", 1) != 1)
		_exit(70); /* nobody is there any more */
}

static bool heard(int fd)
{
	char c;

	return read(fd, &c, 1) == 1;
}

static void *second(void *unused)
{
	(void)unused;
	shared->joined = heard(wake[0]) ? join(1, &shared->why) : -EPIPE;
	say(done[1]);
	while (!shared->joined && heard(wake[0])) {
		enum task task = shared->task;

		do_task(1);
		say(done[1]);
		if (task == TASK_LEAVE)
			break;
	}
	return NULL;
}

static void all_sides(enum task task)
{
	shared->task = task;
	if (nr_sides > 1)
		say(wake[1]);
	if (task == TASK_LEAVE && nr_sides > 1)
		(void)heard(done[0]); /* side 1 leaves first */
	do_task(0);
	if (task != TASK_LEAVE && nr_sides > 1 && !heard(done[0]))
		cannot("side 1", "it has ended");
}

/* A side that crashes would leave the other one waiting. */
static void child_died(int signal)
{
	static const char text[] = "{\"died\": \"the process of side 1 has died\"}\n";

	(void)signal;
	(void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
	_exit(70);
}

static int start_second(void)
{
	if (pipe(wake) || pipe(done))
		return -errno;
	if (!(subject->flags & SUBJECT_SHARED))
		return -pthread_create(&thread, NULL, second, NULL);
	fflush(NULL);
	signal(SIGCHLD, child_died);
	child = fork();
	if (child < 0)
		return -errno;
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(wake[1]);
		close(done[0]);
		second(NULL);
		_exit(0);
	}
	close(wake[0]);
	close(done[1]);
	return 0;
}

int sides_start(const struct subject *measured, const struct row *of_row, const struct subject_options *options,
	const int cores[SIDES], const char **why)
{
	int error;

	subject = measured;
	row = of_row;
	nr_sides = options->sides;
	memcpy(core_of, cores, sizeof(core_of));
	shared = pages(sizeof(*shared), MAP_SHARED);
	if (!shared)
		return -ENOMEM;
	error = subject->setup ? subject->setup(options, why) : 0;
	if (!error && nr_sides > 1)
		error = start_second();
	if (!error)
		error = join(0, why);
	if (error || nr_sides < 2)
		return error;
	say(wake[1]);
	if (!heard(done[0]))
		return -EPIPE;
	*why = shared->why;
	return shared->joined;
}

void sides_run(uint64_t pairs, unsigned int nr_samples, struct sample *samples)
{
	shared->pairs = pairs;
	shared->nr_samples = nr_samples;
	all_sides(TASK_RUN);
	for (unsigned int i = 0; i < nr_samples; i++) {
		struct taken *first = &shared->taken[0][i], *other = &shared->taken[1][i];
		struct sample *s = &samples[i];
		double ns = (double)(first->end_ns - first->start_ns);

		*s = (struct sample){ .pairs = first->result.pairs, .refused = first->result.refused,
			.switches = first->switches };
		if (row->kind == ROW_HANDOVER) { /* until the last object is freed */
			ns = (double)((other->end_ns > first->end_ns ? other->end_ns : first->end_ns) -
				      (other->start_ns < first->start_ns ? other->start_ns : first->start_ns));
		} else if (nr_sides > 1) {
			ns = (ns + (double)(other->end_ns - other->start_ns)) / 2;
			s->pairs = (first->result.pairs + other->result.pairs) / 2;
		}
		if (nr_sides > 1) {
			s->refused += other->result.refused;
			s->switches += other->switches;
		}
		s->ns = s->pairs ? ns / (double)s->pairs : 0;
	}
}

struct result sides_verify(uint64_t pairs, const char **fault)
{
	struct result result;

	shared->pairs = pairs;
	all_sides(TASK_VERIFY);
	result = shared->taken[0][0].result;
	*fault = shared->fault[0];
	if (nr_sides > 1) {
		result.pairs += shared->taken[1][0].result.pairs;
		result.refused += shared->taken[1][0].result.refused;
		*fault = *fault ? *fault : shared->fault[1];
	}
	return result;
}

double sides_line_ns(void)
{
	if (nr_sides < 2)
		return 0;
	all_sides(TASK_LINE);
	return shared->line_ns;
}

void sides_end(void)
{
	signal(SIGCHLD, SIG_DFL);
	all_sides(TASK_LEAVE);
	if (child)
		waitpid(child, NULL, 0);
	else if (nr_sides > 1)
		pthread_join(thread, NULL);
	if (subject->teardown)
		subject->teardown();
}
