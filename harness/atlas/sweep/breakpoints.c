/* SPDX-License-Identifier: MIT */
/*
 * The way to a boundary: breakpoints, each as far ahead as it can be.
 *
 * A breakpoint costs 5 us.  From where a run is, the next one goes to the last instruction on the way
 * that does not occur before (`hop`), so that straight code takes one and a loop one for each round.
 */
#include "run.h"

#define BREAKPOINT 0xcc

void plant(uint64_t address)
{
	run.byte = *(uint8_t *)address;
	run.planted = address;
	__atomic_signal_fence(__ATOMIC_SEQ_CST); /* the watchdog may leap away here: it must know what to put back */
	*(volatile uint8_t *)address = BREAKPOINT;
}

void unplant(void)
{
	if (run.planted)
		*(volatile uint8_t *)run.planted = run.byte;
	run.planted = 0;
}

void set_stepping(ucontext_t *context, bool on)
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

void end_repeating(ucontext_t *context)
{
	context->uc_mcontext.gregs[REG_RCX] = (greg_t)run.repeat_rest;
	context->uc_mcontext.gregs[REG_RIP] = (greg_t)run.repeat_rip;
	run.repeat_rip = 0;
}

/*
 * Go on towards the stage's boundary.  context: where we are, NULL before the call.  A breakpoint on
 * the very instruction that is to be executed next would be hit at once: it is stepped over first.
 */
void go_on(ucontext_t *context)
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
