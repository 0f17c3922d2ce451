/* SPDX-License-Identifier: MIT */
/*
 * Writing down what an operation, or a handler, executes.
 *
 * The trap flag is set from its first instruction to its return; a step costs some 20 us.
 */
#include "run.h"

#define SYSCALL_BYTES 2
#define REX_W 0x48
#define DIRECTION_FLAG 0x400

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

/* What is stepped over at once by a breakpoint behind it. */
struct stride {
	uint32_t bytes;          /* of the instruction */
	uint32_t unit;           /* string instruction with a repeat prefix: bytes that a round moves; 0 = none */
	bool reads;              /* it moves from (rsi) */
};

/* A system call, or rep stos and rep movs: their rounds follow from the registers.  Else bytes is 0. */
static struct stride stride_at(uint64_t rip)
{
	const uint8_t *code = (const uint8_t *)rip;
	struct stride none = { 0 }, found = { .bytes = SYSCALL_BYTES };
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
void record_step(ucontext_t *context)
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

void begin_recording(ucontext_t *context)
{
	run.recording = true;
	note_step(context);
	context->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
	stride_over(context, (uint64_t)context->uc_mcontext.gregs[REG_RIP]);
}
