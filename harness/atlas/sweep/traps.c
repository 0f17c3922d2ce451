/* SPDX-License-Identifier: MIT */
/*
 * Recording what an operation executes, and interrupting it before a given instruction.
 *
 * The recorder steps with the trap flag from the operation's first instruction to its return; a step
 * costs some 20 us.  A run comes to its boundary by planted breakpoints instead, 5 us each: from where
 * it is, the next one goes to the last instruction on the way that does not occur before (`hop`), so
 * that straight code takes one and a loop one for each round.  At the boundary the byte has been put
 * back, and the core's own signal handler is called with the interrupted context, as the kernel would.
 *
 * Everything runs on one alternate stack, the core's; the operation has a stack of its own, so that
 * each run begins with the same registers.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"

#define STACK_BYTES (256 * 1024ull)
#define TRAP_FLAG 0x100ull
#define BREAKPOINT 0xcc
#define SYSCALL_BYTES 2
#define FROM_START (-1)

struct sweep sweep;

typedef void (*handler_fn)(int, siginfo_t *, void *);

/* the run in progress */
static struct {
	const struct sweep_stage *stages;
	uint32_t nr_stages, at_stage;
	int32_t position;        /* in the present stage's sequence; FROM_START: before all of it */
	bool by_trap_flag;
	/* the recorder */
	bool recording, record_handler, record_pending;
	struct sweep_step *steps;
	uint32_t nr_steps, max_steps;
	/* what is armed */
	uint64_t planted;        /* address of the breakpoint, 0 = none */
	uint8_t byte;            /* that was there */
	int32_t target;          /* position that it stands for */
	bool stepping;
	uint64_t astray;         /* stepped over where it was not meant, to be planted again; 0 = none */
	uint64_t repeat_rip;     /* a string instruction that is run in parts: where it is, 0 = none */
	uint64_t repeat_rest;    /* rounds that are left for later */
	/* what came of it */
	enum sweep_end end;
	uint64_t rip;
	uint32_t hits;
	volatile uint64_t serial; /* of the run, for the watchdog; 0 = none runs */
	sigjmp_buf out;
} run;

static handler_fn on_interrupt[2];
static struct sigaction old_trap, old_fault, old_bus, old_illegal, old_fpe, old_alarm;
static sigset_t our_signals;
static uint8_t *stack;
static timer_t watchdog;
static bool watchdog_set;
static uint64_t serials, watched_serial;
static uint32_t watched_ticks;

/*
 * Call a function on another stack, with the same registers each time.  rdi: it, rsi: six arguments,
 * rdx: top of the stack.  What it returns to has a name, by which the recorder knows the end; no frame
 * is above it.
 */
__asm__(".text\n"
	".type sweep_call_on_stack, @function\n"
	"sweep_call_on_stack:\n"
	"	push %rbp\n	push %rbx\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp, %rax\n"
	"	mov %rdx, %rsp\n"
	"	push %rax\n	sub $8, %rsp\n"
	"	mov %rdi, %r11\n"
	"	mov %rsi, %rax\n"
	"	mov (%rax), %rdi\n	mov 8(%rax), %rsi\n	mov 16(%rax), %rdx\n"
	"	mov 24(%rax), %rcx\n	mov 32(%rax), %r8\n	mov 40(%rax), %r9\n"
	"	xor %eax, %eax\n	xor %ebx, %ebx\n	xor %ebp, %ebp\n	xor %r10d, %r10d\n"
	"	xor %r12d, %r12d\n	xor %r13d, %r13d\n	xor %r14d, %r14d\n	xor %r15d, %r15d\n"
	"	call *%r11\n"
	".globl sweep_returned\n	.hidden sweep_returned\n"
	"sweep_returned:\n"
	"	add $8, %rsp\n	pop %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbx\n	pop %rbp\n"
	"	ret\n"
	".size sweep_call_on_stack, . - sweep_call_on_stack\n"
	/* The same for a handler, which is called where we are, with the trap flag set: rdi it, rsi, rdx, rcx its arguments. */
	".type sweep_call_stepping, @function\n"
	"sweep_call_stepping:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n	mov %rdx, %rsi\n	mov %rcx, %rdx\n"
	"	pushfq\n	orq $0x100, (%rsp)\n	popfq\n"
	"	call *%rax\n"
	".globl sweep_handled\n	.hidden sweep_handled\n"
	"sweep_handled:\n"
	"	pushfq\n	andq $~0x100, (%rsp)\n	popfq\n"
	"	pop %rbp\n"
	"	ret\n"
	".size sweep_call_stepping, . - sweep_call_stepping\n");

uint64_t sweep_call_on_stack(uint64_t function, const uint64_t *args, void *top);
void sweep_call_stepping(handler_fn function, uint64_t sig, siginfo_t *info, void *context);
extern const char sweep_returned[], sweep_handled[];

static bool in_text(uint64_t rip)
{
	for (uint32_t i = 0; i < sweep.setup.nr_text; i++)
		if (rip - sweep.text[i].start < sweep.text[i].bytes)
			return true;
	return false;
}

/* --- breakpoints and steps ------------------------------------------------------------------------- */

static void plant(uint64_t address)
{
	run.byte = *(uint8_t *)address;
	run.planted = address;
	__atomic_signal_fence(__ATOMIC_SEQ_CST); /* the watchdog may leap away here: it must know what to put back */
	*(volatile uint8_t *)address = BREAKPOINT;
}

static void unplant(void)
{
	if (run.planted)
		*(volatile uint8_t *)run.planted = run.byte;
	run.planted = 0;
}

static void set_stepping(ucontext_t *context, bool on)
{
	if (on)
		context->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
	else
		context->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
	run.stepping = on;
}

/*
 * The farthest step on the way to the stage's that a breakpoint set now is hit at first; if there is
 * one, not of the instruction where we are, which would have to be stepped over before.
 */
static int32_t hop(const struct sweep_stage *stage, int32_t from)
{
	int32_t to = (int32_t)stage->index;

	while (stage->prev[to] > from || (from >= 0 && to > from + 1 && stage->prev[to] == from))
		to--;
	return to;
}

/*
 * The boundary lies within a string instruction with a repeat prefix, at which we are: each round is
 * a boundary.  It is run with as many rounds as are to be done before, up to the instruction behind
 * it, and then set back to itself with the rest: registers and memory are then as between two rounds.
 */
static bool go_on_repeating(ucontext_t *context)
{
	const struct sweep_stage *stage = &run.stages[run.at_stage];
	uint32_t at = (uint32_t)run.position, end = at;
	greg_t *regs = context->uc_mcontext.gregs;

	while (end < stage->nr && stage->rips[end] == stage->rips[at])
		end++;
	if (stage->index >= end || end == stage->nr)
		return false;
	run.target = (int32_t)stage->index;
	run.repeat_rip = stage->rips[at];
	run.repeat_rest = (uint64_t)regs[REG_RCX] - (stage->index - at);
	regs[REG_RCX] = (greg_t)(stage->index - at);
	plant(stage->rips[end]);
	return true;
}

static void end_repeating(ucontext_t *context)
{
	context->uc_mcontext.gregs[REG_RCX] = (greg_t)run.repeat_rest;
	context->uc_mcontext.gregs[REG_RIP] = (greg_t)run.repeat_rip;
	run.repeat_rip = 0;
}

/*
 * Go on towards the stage's boundary.  context: where we are, NULL before the call.  A breakpoint on
 * the very instruction that is to be executed next would be hit at once: it is stepped over first.
 */
static void go_on(ucontext_t *context)
{
	const struct sweep_stage *stage = &run.stages[run.at_stage];
	int32_t to;

	if (run.position >= 0 && !run.by_trap_flag && go_on_repeating(context))
		return;
	to = hop(stage, run.position);
	if (run.position >= 0 && (run.by_trap_flag || stage->rips[to] == stage->rips[run.position])) {
		run.target = run.position + 1;
		set_stepping(context, true);
		return;
	}
	if (run.by_trap_flag && run.position < 0)
		to = 0;
	run.target = to;
	plant(stage->rips[to]);
}

/* --- the recorder ------------------------------------------------------------------------------------ */

static void note_step(const ucontext_t *context)
{
	static const int order[SWEEP_NR_REGS] = {
		REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
		REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
	};
	struct sweep_step *step;

	if (run.nr_steps == run.max_steps) {
		run.end = SWEEP_FULL;
		run.recording = false;
		return;
	}
	step = &run.steps[run.nr_steps++];
	step->rip = (uint64_t)context->uc_mcontext.gregs[REG_RIP];
	for (uint32_t i = 0; i < SWEEP_NR_REGS; i++)
		step->regs[i] = (uint64_t)context->uc_mcontext.gregs[order[i]];
}

static void give_up(enum sweep_end end, uint64_t rip) __attribute__((noreturn));
static void give_up(enum sweep_end end, uint64_t rip)
{
	run.end = end;
	run.rip = rip;
	siglongjmp(run.out, 1);
}

/* What is stepped over at once by a breakpoint behind it. */
struct stride {
	uint32_t bytes;          /* of the instruction */
	uint32_t unit;           /* string instruction with a repeat prefix: bytes that a round moves; 0 = none */
	bool reads;              /* it moves from (rsi) */
};

#define REX_W 0x48

/* A system call, or rep stos and rep movs: their rounds follow from the registers.  Else bytes is 0. */
static struct stride stride_at(uint64_t rip)
{
	const uint8_t *code = (const uint8_t *)rip;
	struct stride none = { 0 }, found = { .bytes = 2 };
	uint32_t wide = 4;

	if (code[0] == 0x0f && code[1] == 0x05)
		return found;
	if (code[0] != 0xf3)
		return none;
	code++;
	if (*code == REX_W) {
		wide = 8;
		code++;
	}
	found.reads = *code == 0xa4 || *code == 0xa5;
	if (!found.reads && *code != 0xaa && *code != 0xab)
		return none;
	found.unit = *code & 1 ? wide : 1;
	found.bytes = (uint32_t)((uint64_t)code + 1 - rip);
	return found;
}

/* The rounds of a string instruction that follow the first, each a step as the hardware has it. */
static void note_rounds(const ucontext_t *context, const struct stride *stride)
{
	uint64_t rounds = (uint64_t)context->uc_mcontext.gregs[REG_RCX];
	ucontext_t round = *context;
	greg_t *regs = round.uc_mcontext.gregs;

	for (uint64_t done = 1; done < rounds && run.recording; done++) {
		regs[REG_RCX]--;
		regs[REG_RDI] += stride->unit;
		if (stride->reads)
			regs[REG_RSI] += stride->unit;
		note_step(&round);
	}
}

#define DIRECTION_FLAG 0x400

/*
 * The kernel returns from a system call with the trap flag set, which traps one instruction late; and
 * a trap for each round of a string instruction is a page's worth of them.  A breakpoint stands in.
 */
static void stride_over(ucontext_t *context, uint64_t rip)
{
	struct stride stride = stride_at(rip);
	greg_t *regs = context->uc_mcontext.gregs;

	if (!stride.bytes || (stride.unit && (run.by_trap_flag || !regs[REG_RCX] || regs[REG_EFL] & DIRECTION_FLAG)))
		return;
	if (stride.unit)
		note_rounds(context, &stride);
	regs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
	if (run.recording)
		plant(rip + stride.bytes);
}

/*
 * One step is done.  A handler is recorded from its entry; until then it is our own code that steps.
 * What leaves the core goes no further: what it would do there could not be undone.
 */
static void record_step(ucontext_t *context)
{
	uint64_t rip = (uint64_t)context->uc_mcontext.gregs[REG_RIP];

	if (rip == (uint64_t)(run.record_handler ? sweep_handled : sweep_returned))
		run.recording = false;
	else if (in_text(rip))
		note_step(context);
	else if (run.nr_steps)
		give_up(SWEEP_LEFT, rip);
	if (!run.recording)
		context->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
	else if (in_text(rip))
		stride_over(context, rip);
}

static void begin_recording(ucontext_t *context)
{
	run.recording = true;
	note_step(context);
	context->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
	stride_over(context, (uint64_t)context->uc_mcontext.gregs[REG_RIP]);
}

/* --- delivery ---------------------------------------------------------------------------------------- */

/* As the kernel would: our own mask blocks both signals, as the NMI's does. */
static void deliver(ucontext_t *context, uint32_t kind, bool record)
{
	int sig = kind == SWEEP_NMI ? sweep.setup.nmi_signal : sweep.setup.irq_signal;
	siginfo_t info = { 0 };

	info.si_signo = sig;
	info.si_code = SI_TKILL;
	if (kind == SWEEP_IRQ)
		__atomic_or_fetch((uint32_t *)sweep.setup.irq_pending, sweep.setup.irq_bit, __ATOMIC_SEQ_CST);
	if (record) {
		run.recording = true;
		sweep_call_stepping(on_interrupt[kind], (uint64_t)sig, &info, context);
		run.recording = false;
	} else {
		on_interrupt[kind](sig, &info, context);
	}
}

/*
 * What an interrupt leaves to be done (irq_work) comes as a signal, before the operation goes on, and may
 * run what is planted for the operation: it is on the stack of signals, as handlers are.
 */
static bool is_astray(const ucontext_t *context)
{
	bool on_own = (uint64_t)context->uc_mcontext.gregs[REG_RSP] - (uint64_t)stack < STACK_BYTES;

	return run.at_stage < run.nr_stages && on_own == (bool)run.stages[run.at_stage].inside;
}

/* The boundary of a stage is reached. */
static void arrived(ucontext_t *context)
{
	const struct sweep_stage *stage = &run.stages[run.at_stage], *next = NULL;

	if (run.position < (int32_t)stage->index) {
		go_on(context);
		return;
	}
	run.position = FROM_START;
	if (++run.at_stage < run.nr_stages) {
		next = stage + 1;
		if (next->inside)
			go_on(context);
	}
	deliver(context, stage->kind, !next && run.record_pending && run.record_handler);
	if (next && !next->inside)
		go_on(context);
	if (!next && run.record_pending && !run.record_handler)
		begin_recording(context);
}

static void on_trap(int sig, siginfo_t *info, void *argument)
{
	ucontext_t *context = argument;
	uint64_t rip = (uint64_t)context->uc_mcontext.gregs[REG_RIP];

	(void)sig;
	(void)info;
	if (!run.serial)
		return;
	if (run.recording) {
		if (run.planted && rip - 1 == run.planted) { /* what was stepped over at once */
			unplant();
			context->uc_mcontext.gregs[REG_RIP]--;
			context->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
		}
		record_step(context);
		return;
	}
	if (run.astray) {
		plant(run.astray);
		run.astray = 0;
		context->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
		return;
	}
	if (run.planted && rip - 1 == run.planted) {
		uint64_t planted = run.planted;

		unplant();
		context->uc_mcontext.gregs[REG_RIP]--;
		if (is_astray(context)) {
			run.astray = planted;
			context->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
			return;
		}
		if (run.repeat_rip)
			end_repeating(context);
	} else if (run.stepping) {
		set_stepping(context, false);
	} else {
		give_up(SWEEP_CRASHED, rip);
	}
	run.hits++;
	run.position = run.target;
	if (run.at_stage == run.nr_stages) { /* no stage: the first instruction, to be recorded from */
		begin_recording(context);
		return;
	}
	if (run.stages[run.at_stage].rips[run.position] != (uint64_t)context->uc_mcontext.gregs[REG_RIP])
		return; /* another way than recorded: nothing is planted any more, and the run counts as missed */
	arrived(context);
}

static void chain(const struct sigaction *old, int sig, siginfo_t *info, void *context)
{
	if (old->sa_flags & SA_SIGINFO && old->sa_sigaction)
		old->sa_sigaction(sig, info, context);
	else
		signal(sig, SIG_DFL); /* and again: nobody's */
}

static void on_fault(int sig, siginfo_t *info, void *argument)
{
	const ucontext_t *context = argument;

	if (sig == SIGSEGV && memory_write_fault((uint64_t)info->si_addr))
		return;
	if (run.serial)
		give_up(SWEEP_CRASHED, (uint64_t)context->uc_mcontext.gregs[REG_RIP]);
	chain(sig == SIGSEGV ? &old_fault : sig == SIGBUS ? &old_bus : sig == SIGILL ? &old_illegal : &old_fpe, sig, info,
	      argument);
}

static void on_alarm(int sig, siginfo_t *info, void *argument)
{
	const ucontext_t *context = argument;

	(void)sig;
	(void)info;
	if (!run.serial || run.serial != watched_serial || run.recording) {
		watched_serial = run.serial;
		watched_ticks = 0;
	} else if (++watched_ticks >= 2) {
		watched_ticks = 0;
		give_up(SWEEP_STUCK, (uint64_t)context->uc_mcontext.gregs[REG_RIP]);
	}
}

/* --- a run ------------------------------------------------------------------------------------------- */

static void tidy_after_leap(void)
{
	unplant();
	memory_restore();
	/* an interrupt that was pending comes now, and finds the start state: it is undone, too */
	sigprocmask(SIG_UNBLOCK, &our_signals, NULL);
	memory_restore();
}

static uint64_t call(const struct sweep_call *what)
{
	return sweep_call_on_stack(what->function, what->args, stack + STACK_BYTES - 64);
}

static void prepare(const struct sweep_stage *stages, uint32_t nr_stages)
{
	run.stages = stages;
	run.nr_stages = nr_stages;
	run.at_stage = 0;
	run.position = FROM_START;
	run.planted = run.repeat_rip = run.astray = 0;
	run.stepping = run.recording = run.record_pending = run.by_trap_flag = false;
	run.end = SWEEP_RETURNED;
	run.rip = 0;
	run.hits = 0;
	run.nr_steps = 0;
}

/* Returns false if it was given up; the memory is then as at the snapshot. */
static bool perform(const struct sweep_call *what, struct sweep_result *result)
{
	volatile bool returned = true; /* across the leap */

	result->value = 0;
	if (!sigsetjmp(run.out, 0)) {
		run.serial = ++serials;
		result->value = call(what);
		run.serial = 0;
	} else {
		run.serial = 0;
		returned = false;
		tidy_after_leap();
	}
	if (run.planted || run.at_stage < run.nr_stages) {
		unplant();
		if (returned)
			run.end = SWEEP_MISSED;
	}
	result->index = run.nr_stages ? run.stages[run.nr_stages - 1].index : 0;
	result->end = run.end;
	result->rip = run.rip;
	result->hits = run.hits;
	result->steps = run.nr_steps;
	result->state = result->outcome = SWEEP_NONE;
	return returned;
}

static bool stages_ok(const struct sweep_stage *stages, uint32_t nr)
{
	if (nr > SWEEP_MAX_STAGES)
		return false;
	for (uint32_t i = 0; i < nr; i++)
		if (!stages[i].rips || !stages[i].prev || stages[i].index >= stages[i].nr || stages[i].kind > SWEEP_IRQ ||
		    !in_text(stages[i].rips[stages[i].index]))
			return false;
	return true;
}

static void run_once(const struct sweep_call *what, const struct sweep_stage *stages, uint32_t nr_stages,
		     bool by_trap_flag, struct sweep_result *result)
{
	prepare(stages, nr_stages);
	run.by_trap_flag = by_trap_flag;
	if (nr_stages)
		go_on(NULL);
	perform(what, result);
}

int sweep_run(const struct sweep_call *what, const struct sweep_stage *stages, uint32_t nr_stages, int keep,
	      int by_trap_flag, struct sweep_result *result)
{
	uint32_t state, outcome;

	if (!sweep.open)
		return -ENOTCONN;
	if (!stages_ok(stages, nr_stages))
		return -EINVAL;
	run_once(what, stages, nr_stages, by_trap_flag, result);
	if (keep)
		return 0;
	memory_collect(&state, &outcome);
	if (result->end == SWEEP_RETURNED) {
		result->state = state;
		result->outcome = outcome;
	}
	return 0;
}

/* What is stuck may have been kept waiting by others on its core: it gets a second chance. */
static void run_point(const struct sweep_call *what, const struct sweep_stage *stages, uint32_t nr_stages,
		      struct sweep_result *result)
{
	run_once(what, stages, nr_stages, false, result);
	if (result->end == SWEEP_STUCK)
		run_once(what, stages, nr_stages, false, result);
	if (result->end == SWEEP_RETURNED)
		memory_collect(&result->state, &result->outcome);
	else
		memory_restore();
}

int64_t sweep_points(const struct sweep_call *what, const struct sweep_stage *stages, uint32_t nr_stages,
		     const uint32_t *indices, uint32_t nr, struct sweep_result *results)
{
	struct sweep_stage own[SWEEP_MAX_STAGES];

	if (!sweep.open)
		return -ENOTCONN;
	if (!nr_stages || !stages_ok(stages, nr_stages))
		return -EINVAL;
	memcpy(own, stages, nr_stages * sizeof(*own));
	for (uint32_t i = 0; i < nr; i++) {
		own[nr_stages - 1].index = indices[i];
		if (!stages_ok(own, nr_stages))
			return -EINVAL;
		run_point(what, own, nr_stages, &results[i]);
	}
	return nr;
}

int sweep_record(const struct sweep_call *what, const struct sweep_stage *stages, uint32_t nr_stages, enum sweep_what which,
		 int by_trap_flag, struct sweep_step *steps, uint32_t max_steps, struct sweep_result *result)
{
	uint32_t state, outcome;

	if (!sweep.open)
		return -ENOTCONN;
	if (!stages_ok(stages, nr_stages) || !max_steps || !in_text(what->function) ||
	    (which == SWEEP_HANDLER && !nr_stages))
		return -EINVAL;
	prepare(stages, nr_stages);
	run.record_pending = true;
	run.by_trap_flag = by_trap_flag;
	run.record_handler = which == SWEEP_HANDLER;
	run.steps = steps;
	run.max_steps = max_steps;
	if (nr_stages) {
		go_on(NULL);
	} else {
		run.target = 0;
		plant(what->function);
	}
	perform(what, result);
	memory_collect(&state, &outcome);
	if (result->end == SWEEP_RETURNED) {
		result->state = state;
		result->outcome = outcome;
	}
	return 0;
}

/* --- setting up -------------------------------------------------------------------------------------- */

static int protect_text(int protection)
{
	for (uint32_t i = 0; i < sweep.setup.nr_text; i++) {
		uint64_t from = sweep.text[i].start & ~(PAGE - 1);
		uint64_t to = (sweep.text[i].start + sweep.text[i].bytes + PAGE - 1) & ~(PAGE - 1);

		if (mprotect((void *)from, to - from, protection))
			return -errno;
	}
	return 0;
}

static int set_watchdog(void)
{
	struct sigevent event = { 0 };
	uint64_t ns = sweep.setup.watchdog_ms * 500000ull;
	struct itimerspec period = { { (time_t)(ns / 1000000000), (long)(ns % 1000000000) },
				     { (time_t)(ns / 1000000000), (long)(ns % 1000000000) } };

	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_signo = SIGALRM;
	event._sigev_un._tid = (int)syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, &watchdog))
		return -errno;
	watchdog_set = true;
	return timer_settime(watchdog, 0, &period, NULL) ? -errno : 0;
}

/* The watchdog must not leap out of the handling of a fault, which edits the list of pages to be put back. */
static void install(int sig, handler_fn handler, int flags, struct sigaction *old)
{
	struct sigaction action = { 0 };

	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | flags;
	action.sa_sigaction = handler;
	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, sweep.setup.nmi_signal);
	sigaddset(&action.sa_mask, sweep.setup.irq_signal);
	if (handler == on_fault)
		sigaddset(&action.sa_mask, SIGALRM);
	sigaction(sig, &action, old);
}

static int find_handlers(void)
{
	const int signals[2] = { sweep.setup.nmi_signal, sweep.setup.irq_signal };

	for (uint32_t i = 0; i < 2; i++) {
		struct sigaction action;

		if (sigaction(signals[i], NULL, &action) || !(action.sa_flags & SA_SIGINFO))
			return -ENOTCONN;
		on_interrupt[i] = action.sa_sigaction;
		if (!in_text((uint64_t)on_interrupt[i]))
			return -ENOTCONN;
	}
	return 0;
}

int traps_open(void)
{
	int error = find_handlers();

	if (error)
		return error;
	stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (stack == MAP_FAILED) {
		stack = NULL;
		return -ENOMEM;
	}
	error = protect_text(PROT_READ | PROT_WRITE | PROT_EXEC);
	if (error)
		return error;
	sigemptyset(&our_signals);
	sigaddset(&our_signals, SIGTRAP);
	sigaddset(&our_signals, SIGSEGV);
	sigaddset(&our_signals, SIGBUS);
	sigaddset(&our_signals, SIGILL);
	sigaddset(&our_signals, SIGFPE);
	sigaddset(&our_signals, SIGALRM);
	sigaddset(&our_signals, sweep.setup.nmi_signal);
	sigaddset(&our_signals, sweep.setup.irq_signal);
	install(SIGTRAP, on_trap, SA_NODEFER, &old_trap);
	install(SIGSEGV, on_fault, SA_NODEFER, &old_fault);
	install(SIGBUS, on_fault, SA_NODEFER, &old_bus);
	install(SIGILL, on_fault, SA_NODEFER, &old_illegal);
	install(SIGFPE, on_fault, SA_NODEFER, &old_fpe);
	install(SIGALRM, on_alarm, 0, &old_alarm);
	return set_watchdog();
}

void traps_close(void)
{
	if (watchdog_set)
		timer_delete(watchdog);
	watchdog_set = false;
	if (!stack)
		return;
	sigaction(SIGTRAP, &old_trap, NULL);
	sigaction(SIGSEGV, &old_fault, NULL);
	sigaction(SIGBUS, &old_bus, NULL);
	sigaction(SIGILL, &old_illegal, NULL);
	sigaction(SIGFPE, &old_fpe, NULL);
	sigaction(SIGALRM, &old_alarm, NULL);
	protect_text(PROT_READ | PROT_EXEC);
	munmap(stack, STACK_BYTES);
	stack = NULL;
}

uint64_t sweep_fs_base(void)
{
	uint64_t base = 0;

	syscall(SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, &base);
	return base;
}
