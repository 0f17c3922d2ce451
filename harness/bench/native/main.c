/* SPDX-License-Identifier: MIT */
/*
 * shmalloc-bench-runner: measures one subject in one row, on command.
 *
 *   shmalloc-bench-runner list PLUGIN         its subjects, one JSON line each
 *   shmalloc-bench-runner KEY=VALUE...        plugin=FILE subject=NAME row=KIND cores=N[,N]
 *                                             [bytes=N] [count=N] [ops=FILE] [whole=1] [options=TEXT]
 *
 * Then one line on stdout, {"ready": ...}, or {"cannot": WHY} and the end.  Commands on stdin, a line each:
 *
 *   run SAMPLES MICROSECONDS   {"samples": [[NS, PAIRS, SWITCHES, REFUSED], ...], "line_ns": N, "line_after_ns": N,
 *                              "steal": TICKS}
 *   check PAIRS                {"checked": N, "refused": N, "fault": null or TEXT}
 *
 * The end of stdin is the end.  An ops file is an array of struct op.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner.h"

#define FIRST_PAIRS 64
#define CALIBRATIONS 3

static const char *const row_names[NR_ROW_KINDS] = { "pair", "batch", "ops", "handover", "both" };

static void say_text(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		if ((unsigned char)*text >= ' ')
			putchar(*text);
	}
	putchar('"');
}

_Noreturn void cannot(const char *what, const char *why)
{
	char text[512];

	snprintf(text, sizeof(text), "%s: %s", what, why);
	printf("{\"cannot\": ");
	say_text(text);
	printf("}\n");
	fflush(stdout);
	_exit(0);
}

static const struct subject_table *load(const char *path)
{
	void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	const struct subject_table *table;

	if (!plugin)
		cannot("plugin", dlerror());
	table = dlsym(plugin, SUBJECT_TABLE_SYMBOL);
	if (!table)
		cannot(path, "no table of subjects in it");
	if (table->abi != SUBJECT_ABI || table->subject_bytes != sizeof(struct subject))
		cannot(path, "made for another version of subject.h");
	return table;
}

static int list(const char *path)
{
	const struct subject_table *table = load(path);

	for (uint64_t i = 0; i < table->nr_subjects; i++) {
		const struct subject *s = &table->subjects[i];

		printf("{\"name\": ");
		say_text(s->name);
		printf(", \"summary\": ");
		say_text(s->summary ? s->summary : "");
		printf(", \"flags\": %u, \"max_bytes\": %llu}\n", s->flags, (unsigned long long)s->max_bytes);
	}
	return 0;
}

struct arguments {
	const char *plugin, *subject, *row, *cores, *bytes, *count, *ops, *whole, *options;
};

static void parse(int argc, char **argv, struct arguments *a)
{
	const struct {
		const char *key;
		const char **value;
	} keys[] = {
		{ "plugin", &a->plugin }, { "subject", &a->subject }, { "row", &a->row },
		{ "cores", &a->cores }, { "bytes", &a->bytes }, { "count", &a->count },
		{ "ops", &a->ops }, { "whole", &a->whole }, { "options", &a->options },
	};

	for (int i = 1; i < argc; i++) {
		const char *equals = strchr(argv[i], '=');
		size_t length = equals ? (size_t)(equals - argv[i]) : 0, k;

		for (k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
			if (equals && strlen(keys[k].key) == length && !strncmp(argv[i], keys[k].key, length))
				break;
		if (k == sizeof(keys) / sizeof(keys[0]))
			cannot(argv[i], "no such argument; allowed are plugin, subject, row, cores, bytes, count, "
				"ops, whole and options, each with =");
		*keys[k].value = equals + 1;
	}
	if (!a->plugin || !a->subject || !a->row || !a->cores)
		cannot("arguments", "plugin=, subject=, row= and cores= are needed");
}

static uint64_t number(const char *key, const char *text, uint64_t default_value)
{
	char *end;
	uint64_t value;

	if (!text)
		return default_value;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end)
		cannot(key, "allowed is a number");
	return value;
}

static const struct subject *find(const struct subject_table *table, const char *name)
{
	for (uint64_t i = 0; i < table->nr_subjects; i++)
		if (!strcmp(table->subjects[i].name, name))
			return &table->subjects[i];
	cannot(name, "no such subject in the plugin");
}

static void read_ops(const char *path, struct row *row)
{
	struct stat about;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &about))
		cannot(path, strerror(errno));
	if (!about.st_size || about.st_size % (off_t)sizeof(struct op))
		cannot(path, "not an array of ops");
	row->nr_ops = (uint64_t)about.st_size / sizeof(struct op);
	row->ops = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (row->ops == MAP_FAILED)
		cannot(path, strerror(errno));
	close(fd);
	for (uint64_t i = 0; i < row->nr_ops; i++) {
		if (row->ops[i].slot >= row->nr_slots)
			row->nr_slots = row->ops[i].slot + 1ull;
		if (row->ops[i].bytes > row->bytes)
			row->bytes = row->ops[i].bytes;
	}
}

static struct row read_row(const struct arguments *a)
{
	struct row row = {
		.bytes = number("bytes", a->bytes, 0),
		.count = number("count", a->count, 1),
		.whole = number("whole", a->whole, 0),
	};

	while (row.kind < NR_ROW_KINDS && strcmp(a->row, row_names[row.kind]))
		row.kind++;
	if (row.kind == NR_ROW_KINDS)
		cannot(a->row, "no such row; allowed are pair, batch, ops, handover and both");
	if (row.kind > ROW_BATCH) {
		if (!a->ops)
			cannot("ops", "this row needs an array of them");
		read_ops(a->ops, &row);
	} else if (!row.bytes || !row.count) {
		cannot("bytes and count", "at least 1");
	}
	return row;
}

/* objects that may be live at once; what has been freed may still be on its way back */
static uint64_t most_objects(const struct row *row)
{
	switch (row->kind) {
	case ROW_HANDOVER:
		return 4 * RING_ENTRIES;
	case ROW_BOTH:
		return SIDES * row->nr_slots;
	case ROW_OPS:
		return row->nr_slots;
	default:
		return row->count;
	}
}

static void refuse_what_it_cannot(const struct subject *s, const struct row *row, unsigned int sides)
{
	if (s->abi != SUBJECT_ABI)
		cannot(s->name, "made for another version of subject.h");
	if (s->max_bytes && row->bytes > s->max_bytes) {
		char why[96];

		snprintf(why, sizeof(why), "its objects are of %llu bytes at most, the row asks for %llu",
			(unsigned long long)s->max_bytes, (unsigned long long)row->bytes);
		cannot(s->name, why);
	}
	for (uint64_t i = 0; s->flags & SUBJECT_FIXED && i < row->nr_ops; i++)
		if (row->ops[i].bytes != row->bytes)
			cannot(s->name, "its objects are of one size, the row has several");
	if (sides > 1 && s->flags & SUBJECT_ONE_SIDE)
		cannot(s->name, "one thread owns it, the row has two sides");
	if (row->kind == ROW_HANDOVER && s->flags & SUBJECT_NO_HANDOVER)
		cannot(s->name, "an object is freed by the side that allocated it only");
}

static unsigned int read_cores(const char *text, int cores[SIDES])
{
	int n = sscanf(text, "%d,%d", &cores[0], &cores[1]);

	if (n < 1)
		cannot(text, "cores= takes one or two numbers of cores");
	return (unsigned int)n;
}

/* ticks that the hypervisor gave to others, of the cores in use; a machine that is none says 0 */
static unsigned long long steal_ticks(const int cores[SIDES], unsigned int sides)
{
	FILE *file = fopen("/proc/stat", "re");
	unsigned long long sum = 0, steal;
	char line[256];
	int core;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "cpu%d %*u %*u %*u %*u %*u %*u %*u %llu", &core, &steal) == 2)
			for (unsigned int side = 0; side < sides; side++)
				if (core == cores[side])
					sum += steal;
	if (file)
		fclose(file);
	return sum;
}

/* how many allocations take so long; from the fastest of a few tries, which nobody disturbed */
static uint64_t calibrated(double us)
{
	struct sample samples[CALIBRATIONS];
	uint64_t pairs = FIRST_PAIRS;

	for (;;) {
		double least = 1e12, total;

		sides_run(pairs, CALIBRATIONS, samples);
		for (unsigned int i = 0; i < CALIBRATIONS; i++)
			if (samples[i].ns < least)
				least = samples[i].ns;
		total = least * (double)pairs / 1000;
		if (total >= us / 4 || pairs >= 1u << 30) {
			pairs = (uint64_t)(us * 1000 / (least > 0.01 ? least : 0.01));
			return pairs ? pairs : 1;
		}
		pairs *= 2;
	}
}

static void run(const char *arguments, const struct row *row, const int cores[SIDES], unsigned int sides)
{
	static uint64_t pairs;
	struct sample samples[MOST_SAMPLES];
	unsigned long long steal;
	unsigned int count;
	double us, line_ns;

	if (sscanf(arguments, "%u %lf", &count, &us) != 2 || !count || count > MOST_SAMPLES || !(us > 0))
		cannot("run", "allowed is run SAMPLES MICROSECONDS, at most 64 samples");
	if (!pairs) {
		if (row->nr_ops) /* the slots fill until as many are freed as allocated */
			sides_run(row->nr_ops, 1, samples);
		pairs = calibrated(us);
	}
	steal = steal_ticks(cores, sides);
	line_ns = sides_line_ns();
	sides_run(pairs, 1, samples); /* what others have left in the caches is theirs */
	sides_run(pairs, count, samples);
	printf("{\"samples\": [");
	for (unsigned int i = 0; i < count; i++)
		printf("%s[%.4f, %llu, %llu, %llu]", i ? ", " : "", samples[i].ns,
			(unsigned long long)samples[i].pairs, (unsigned long long)samples[i].switches,
			(unsigned long long)samples[i].refused);
	printf("], \"line_ns\": %.2f, \"line_after_ns\": %.2f, \"steal\": %llu}\n", line_ns, sides_line_ns(),
		steal_ticks(cores, sides) - steal);
}

static void check(const char *arguments)
{
	const char *fault = NULL;
	struct result result = sides_verify(number("check", arguments, 0), &fault);

	printf("{\"checked\": %llu, \"refused\": %llu, \"fault\": ", (unsigned long long)result.pairs,
		(unsigned long long)result.refused);
	if (fault)
		say_text(fault);
	else
		printf("null");
	printf("}\n");
}

int main(int argc, char **argv)
{
	struct arguments arguments = { .options = "" };
	struct subject_options options;
	const struct subject *subject;
	const char *why = NULL;
	int cores[SIDES], error;
	char line[256];
	struct row row;

	if (argc == 3 && !strcmp(argv[1], "list"))
		return list(argv[2]);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* a subject that hangs would outlive whoever waits for it */
	parse(argc, argv, &arguments);
	subject = find(load(arguments.plugin), arguments.subject);
	row = read_row(&arguments);
	options = (struct subject_options){
		.text = arguments.options,
		.object_bytes = row.bytes,
		.objects = most_objects(&row),
		.sides = row.kind >= ROW_HANDOVER ? SIDES : 1,
	};
	if (read_cores(arguments.cores, cores) < options.sides)
		cannot("cores", "the row has two sides");
	refuse_what_it_cannot(subject, &row, options.sides);
	error = sides_start(subject, &row, &options, cores, &why);
	if (error)
		cannot(subject->name, why ? why : strerror(-error));
	printf("{\"ready\": {\"subject\": ");
	say_text(subject->name);
	printf(", \"flags\": %u}}\n", subject->flags);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "run ", 4))
			run(line + 4, &row, cores, options.sides);
		else if (!strncmp(line, "check ", 6))
			check(line + 6);
		else
			cannot(line, "no such command; allowed are run and check");
		fflush(stdout);
	}
	sides_end();
	return 0;
}
