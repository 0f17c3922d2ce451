/* SPDX-License-Identifier: MIT */
/*
 * An event is written, and at each of its instructions an NMI arrives that writes events, too, or a reader looks.
 *
 * Whatever is interrupted, every event that has happened is there, was overwritten or is counted as lost: the
 * numbers follow each other without a gap, the times grow, and each record is what was written.  Of the broken
 * variants of the ring each must fail here.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include "check.h"
#include "design.h"
#include "signals.h"
#include "trace.h"

#define PLACES (SHM_TRACE_MIN_BYTES / sizeof(struct shm_trace_event))
#define MAX_PAIRS 128

/* A trap takes 20 us on a virtual machine, and the sanitizers make five instructions of one. */
#ifdef __SANITIZE_ADDRESS__
#define STRIDE 29
#else
#define STRIDE 1
#endif

enum inner { FEW = 3, MANY = 60 }; /* pairs of an allocation and a free that the handler makes */

static u64 steps, stop_at, faults, next_mark;
static void (*at_the_step)(u64 rip, u64 rbp);

/* --- what is written, and what must then be there ------------------------------------------------------ */

/* A record that shows whether it is whole. */
static void mark(void)
{
	u64 n = ++next_mark;

	trace_write_from(0, &(struct shm_trace_event){ .id = TRACE_torn, .ptr = n, .dur = ~n, .bytes_req = (u32)n * 7,
						       .cache = (u16)n, .order = (u8)n });
}

static bool whole(const struct shm_trace_event *e)
{
	if (e->id == TRACE_torn)
		return e->ptr && e->dur == ~e->ptr && e->bytes_req == (u32)e->ptr * 7 && e->cache == (u16)e->ptr &&
		       e->order == (u8)e->ptr;
	return (e->id == TRACE_handler_entry || e->id == TRACE_handler_exit || e->id == TRACE_alloc || e->id == TRACE_free) &&
	       e->where == (1 << 4 | CTX_NMI);
}

static void fault_if(bool wrong)
{
	faults += wrong;
}

static struct shm_trace_ring *ring(void)
{
	return ptr_of(shm.trace_off);
}

struct found {
	u64 nr;
	u64 missed;
	u64 marks;
	u64 inner;
	bool last_mark;
};

static struct found look(u64 cursor)
{
	static struct shm_trace_event out[4096];
	struct found found = { 0 };
	u64 seq = 0, ts = 0;
	s64 nr = shm_trace_read(0, &cursor, out, ARRAY_SIZE(out), &found.missed);

	for (s64 i = 0; i < nr; i++) {
		fault_if((seq && out[i].seq != seq + 1) || out[i].ts <= ts || !whole(&out[i]));
		seq = out[i].seq;
		ts = out[i].ts;
		found.marks += out[i].id == TRACE_torn;
		found.inner += out[i].id != TRACE_torn;
		found.last_mark |= out[i].id == TRACE_torn && out[i].ptr == next_mark;
	}
	found.nr = (u64)max_of(nr, (s64)0);
	return found;
}

/* --- interrupting --------------------------------------------------------------------------------------- */

static void on_step(int sig, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig;
	(void)info;
	if (++steps != stop_at)
		return;
	regs[REG_EFL] &= ~0x100l;
	at_the_step((u64)regs[REG_RIP], (u64)regs[REG_RBP]);
}

static void single_step(bool on)
{
	if (on)
		__asm__ volatile("sub $128, %%rsp; pushfq; orl $0x100, (%%rsp); popfq; add $128, %%rsp" ::: "memory", "cc");
	else
		__asm__ volatile("sub $128, %%rsp; pushfq; andl $~0x100, (%%rsp); popfq; add $128, %%rsp" ::: "memory", "cc");
}

/* False: the operation has fewer instructions. */
static bool interrupted(void (*operation)(void), u64 at)
{
	steps = 0;
	stop_at = at;
	single_step(true);
	operation();
	single_step(false);
	return steps >= at;
}

static void an_nmi(u64 rip, u64 rbp)
{
	nmi_take(rip, rbp, false);
}

static void a_reader(u64 rip, u64 rbp)
{
	(void)rip;
	(void)rbp;
	look(0);
}

/* --- arenas ---------------------------------------------------------------------------------------------- */

static struct shm_geometry geometry(u32 trace_bytes)
{
	struct shm_geometry g = small_geometry((8 << 20) + 4ull * trace_bytes, 1);

	g.trace_bytes = trace_bytes;
	return g;
}

static const struct shm_op pair[] = { { .code = OP_ALLOC, .size = 64, .node = -1 }, { .code = OP_FREE } };
static struct shm_op pairs[2 * MAX_PAIRS];
static u64 program_slots[1];

static void set_handler(u32 nr_pairs)
{
	struct shm_program program = { pairs, 2ull * nr_pairs, 0, program_slots, 1, DESIGN_kmalloc_nolock, 0 };

	for (u32 i = 0; i < 2 * nr_pairs; i++)
		pairs[i] = pair[i % 2];
	CHECK(shm_set_program(KIND_NMI, &program) == 0);
}

#define OWN_EVENTS \
	(TRACE_BIT(torn) | TRACE_BIT(handler_entry) | TRACE_BIT(handler_exit) | TRACE_BIT(alloc) | TRACE_BIT(free))

static void empty_ring(void)
{
	memset(ring(), 0, sizeof(struct shm_trace_ring) + SHM_TRACE_MIN_BYTES);
}

/*
 * A ring in which `before` events lie is written to, interrupted before each instruction by so many more.
 * Returns the instructions.
 */
static u64 sweep(u32 before, bool overwrite, u32 nr_pairs)
{
	struct shm_geometry g = geometry(SHM_TRACE_MIN_BYTES);
	u64 inner = 2 + 2ull * nr_pairs, at = 0;
	u32 variant = shm.broken;
	void *base = make_arena(&g);
	bool was_there;

	set_handler(nr_pairs);
	nmi_take(0, 0, true); /* its slab is there */
	CHECK(shm_trace_switch(OWN_EVENTS, overwrite) == 0);
	shm.broken = variant;
	do {
		struct found found;
		u64 there;

		empty_ring();
		for (u32 i = 0; i < before; i++)
			mark();
		at += STRIDE;
		was_there = interrupted(mark, at);
		found = look(0);
		there = min_of(ring()->head, (u64)PLACES);
		fault_if(ring()->head + ring()->lost != before + 1 + (was_there ? inner : 0));
		fault_if(found.nr != there || found.missed != ring()->head - there);
		if (before + 1 + inner <= PLACES)
			fault_if(ring()->lost != 0 || found.marks != before + 1 || !found.last_mark);
		if (!overwrite)
			fault_if(ring()->head > PLACES);
		/* only if the outer record was in flight: it is there, and all places behind it are full */
		if (overwrite && was_there && ring()->lost)
			fault_if(!found.last_mark || found.inner != PLACES - 1 || ring()->lost != inner - (PLACES - 1));
	} while (was_there);
	shm.broken = 0;
	drop_arena(base, &g);
	shm.broken = variant;
	return at - STRIDE;
}

/* A reader looks between any two instructions, in a ring that goes round: what it gets is whole. */
static void sweep_reader(void)
{
	struct shm_geometry g = geometry(SHM_TRACE_MIN_BYTES);
	u32 variant = shm.broken;
	void *base = make_arena(&g);

	shm.broken = variant;
	CHECK(shm_trace_switch(OWN_EVENTS, 1) == 0);
	for (u32 i = 0; i < PLACES + 23; i++)
		mark();
	at_the_step = a_reader;
	for (u64 at = 1; interrupted(mark, at); at += STRIDE)
		;
	at_the_step = an_nmi;
	shm.broken = 0;
	drop_arena(base, &g);
	shm.broken = variant;
}

/* What is taken between any two instructions, and what is taken then, is everything, once. */
static u64 taken_marks, taken;

static void a_consumer(u64 rip, u64 rbp)
{
	struct shm_trace_event out[PLACES];
	s64 nr = shm_trace_consume(0, out, PLACES);

	(void)rip;
	(void)rbp;
	for (s64 i = 0; i < nr; i++, taken++) {
		fault_if(out[i].seq != taken + 1 || !whole(&out[i]));
		taken_marks += out[i].id == TRACE_torn;
	}
}

static void sweep_consumer(bool overwrite)
{
	struct shm_geometry g = geometry(SHM_TRACE_MIN_BYTES);
	void *base = make_arena(&g);
	u64 marks = next_mark;

	CHECK(shm_trace_switch(OWN_EVENTS, overwrite) == 0);
	taken = taken_marks = 0;
	at_the_step = a_consumer;
	for (u64 at = 1; interrupted(mark, at); at += STRIDE)
		;
	a_consumer(0, 0);
	at_the_step = an_nmi;
	CHECK(taken_marks == next_mark - marks && taken == taken_marks);
	CHECK(ring()->lost == 0 && ring()->overwritten == 0 && ring()->tail == ring()->head);
	drop_arena(base, &g);
}

/* --- real calls: events against the arena's own counts ---------------------------------------------------- */

static u64 outer_object;

static void allocate(void)
{
	outer_object = shm_kmalloc(64, GFP_KERNEL);
}

static void release(void)
{
	CHECK(shm_kfree(outer_object) == 0);
}

static u64 sum_of_counts(bool frees)
{
	u64 sum = 0;

	for (u32 design = 0; design < SHM_MAX_DESIGNS; design++)
		for (u32 ctx = 0; ctx < NR_CTX; ctx++)
			sum += frees ? shm.tele->counts[design][ctx].frees : shm.tele->counts[design][ctx].allocs;
	return sum;
}

static u64 count_events(enum shm_trace_id id)
{
	static struct shm_trace_event out[1 << 16];
	u64 cursor = 0, missed = 0, found = 0;
	s64 nr = shm_trace_read(0, &cursor, out, ARRAY_SIZE(out), &missed);

	CHECK(!missed && nr < (s64)ARRAY_SIZE(out));
	for (s64 i = 0; i < nr; i++)
		found += out[i].id == id && (id != TRACE_alloc || out[i].ptr);
	return found;
}

static void sweep_calls(void)
{
	struct shm_geometry g = geometry(4 << 20);
	void *base = make_arena(&g);
	u64 allocs, frees, nmis = 0;

	set_handler(1);
	allocate();
	release();
	CHECK(shm_trace_switch(~0ull >> (64 - NR_TRACE_EVENTS), 0) == 0);
	allocs = sum_of_counts(false);
	frees = sum_of_counts(true);
	for (u64 at = 1, more = 1; more; at += STRIDE * (SHM_CHECKED ? 7 : 3)) {
		more = interrupted(allocate, at);
		nmis += more;
		if (interrupted(release, at))
			more = ++nmis;
	}
	CHECK(nmis > 10 && ring()->lost == 0);
	CHECK(count_events(TRACE_alloc) == sum_of_counts(false) - allocs);
	CHECK(count_events(TRACE_free) == sum_of_counts(true) - frees);
	CHECK(count_events(TRACE_handler_entry) == nmis && count_events(TRACE_handler_exit) == nmis);
	CHECK(count_events(TRACE_kfree) + count_events(TRACE_kmalloc) > 10);
	printf("calls: %lu NMIs, %lu events\n", nmis, ring()->head);
	drop_arena(base, &g);
}

/* --- a writer that was killed -------------------------------------------------------------------------------- */

/* Who becomes the CPU after it finds what it left, and goes on; nothing is written over, or read, by mistake. */
static void mends(void)
{
	struct shm_geometry g = geometry(SHM_TRACE_MIN_BYTES);
	void *base = make_arena(&g);
	struct shm_trace_event *places = (struct shm_trace_event *)(ring() + 1);

	CHECK(shm_trace_switch(OWN_EVENTS, 1) == 0);
	for (u32 i = 0; i < PLACES + 7; i++)
		mark();
	places[5].seq = 0; /* as if it had died there: record PLACES + 5 */
	CHECK(look(0).nr == PLACES - 2);
	CHECK(shm_cpu_unbind(0) == 0);
	CHECK(look(0).nr == PLACES - 1 && look(0).missed == 8);
	CHECK(shm_cpu_bind(0, SHM_BIND_HANDLERS) == 0);
	CHECK(places[5].seq == PLACES + 6 && places[5].ts && places[5].id == TRACE_torn && !places[5].ptr);
	for (u32 i = 0; i < 2 * PLACES; i++)
		mark();
	CHECK(look(0).nr == PLACES && ring()->lost == 0);
	drop_arena(base, &g);
}

/* What is torn stands in time between its neighbours, wherever it lies; and a kswapd's ring is mended, too. */
static void mends_in_order(void)
{
	struct shm_geometry g = geometry(SHM_TRACE_MIN_BYTES);
	void *base = make_arena(&g);
	struct shm_trace_event *places = (struct shm_trace_event *)(ring() + 1), out[PLACES];
	u32 kswapd = g.nr_cpus;
	u64 cursor = 0, missed = 0, began;
	struct shm_trace_ring *of_kswapd = ptr_of(shm.trace_off + kswapd * shm.trace_stride);

	CHECK(shm_trace_switch(OWN_EVENTS, 1) == 0);
	for (u32 i = 0; i < PLACES + 7; i++)
		mark();
	places[7].seq = places[8].seq = places[23].seq = 0; /* two are the oldest */
	CHECK(shm_cpu_unbind(0) == 0 && shm_cpu_bind(0, SHM_BIND_HANDLERS) == 0);
	CHECK(shm_trace_read(0, &cursor, out, PLACES, &missed) == PLACES);
	for (u32 i = 1; i < PLACES; i++)
		CHECK(out[i].ts >= out[i - 1].ts);
	CHECK(out[0].id == TRACE_torn && out[0].ts == out[2].ts && out[16].ts == out[15].ts);
	began = read_tsc();
	of_kswapd->head = 3; /* killed with three places taken, none of them written */
	CHECK(shm_kswapd_start(0) == 0);
	cursor = missed = 0;
	CHECK(shm_trace_read(kswapd, &cursor, out, PLACES, &missed) == 3 && !missed);
	CHECK(out[0].id == TRACE_torn && out[2].seq == 3 && out[0].ts > began);
	CHECK(shm_kswapd_end(0) == 0);
	drop_arena(base, &g);
}

static u64 all_sweeps(void)
{
	u64 instructions;

	faults = 0;
	at_the_step = an_nmi;
	instructions = sweep(0, true, FEW);
	sweep(5, false, FEW);
	sweep(PLACES, false, FEW);        /* full: all are lost */
	sweep(PLACES - 1, false, FEW);    /* room for one of them */
	sweep(PLACES + 17, true, FEW);    /* it goes round */
	sweep(PLACES + 17, true, MANY);   /* the handler's events alone are more than there is room for */
	sweep(0, true, MANY);
	sweep_reader();
	return instructions;
}

int main(void)
{
	struct sigaction action = { 0 };
	u64 instructions;

	action.sa_flags = SA_SIGINFO;
	action.sa_sigaction = on_step;
	sigaction(SIGTRAP, &action, NULL);
	instructions = all_sweeps();
	printf("an event: %lu instructions\n", instructions);
	CHECK(instructions > 40 && faults == 0);
	sweep_consumer(false);
	sweep_consumer(true);
	sweep_calls();
	mends();
	mends_in_order();
#if SHM_CHECKED && STRIDE == 1
	static const u32 variants[] = { BROKEN_trace_plain_add, BROKEN_trace_early_commit, BROKEN_trace_in_flight,
					BROKEN_trace_torn_read };

	for (u32 i = 0; i < ARRAY_SIZE(variants); i++) {
		shm.broken = variants[i];
		all_sweeps();
		printf("%s: %lu faults\n", shm_broken_name(variants[i]), faults);
		CHECK(faults);
	}
#endif
	return 0;
}
