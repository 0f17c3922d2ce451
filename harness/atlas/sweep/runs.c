/* SPDX-License-Identifier: MIT */
/*
 * Runs of the operation: one, many, or one that is recorded.
 *
 * The operation has a stack of its own, so that each run begins with the same registers.
 */
#include "run.h"

struct run run;
struct sweep sweep;
uint8_t *operation_stack;
sigset_t our_signals;

static uint64_t serials;

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
	".size sweep_call_on_stack, . - sweep_call_on_stack\n");

uint64_t sweep_call_on_stack(uint64_t function, const uint64_t *args, void *top);

bool in_text(uint64_t rip)
{
	for (uint32_t i = 0; i < sweep.setup.nr_text; i++)
		if (rip - sweep.text[i].start < sweep.text[i].bytes)
			return true;
	return false;
}

void give_up(enum sweep_end end, uint64_t rip)
{
	run.end = end;
	run.rip = rip;
	siglongjmp(run.out, 1);
}

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
	return sweep_call_on_stack(what->function, what->args, operation_stack + STACK_BYTES - 64);
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
