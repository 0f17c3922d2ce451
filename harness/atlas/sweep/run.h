/* SPDX-License-Identifier: MIT */
/* A run of the operation: what it is on its way to, what is armed, what has come of it. */
#ifndef SWEEP_RUN_H
#define SWEEP_RUN_H

#include "internal.h"

#define STACK_BYTES (256 * 1024ull)
#define TRAP_FLAG 0x100ull
#define FROM_START (-1)

/* The run in progress. */
struct run {
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
};

extern struct run run;

/* breakpoints.c */
void plant(uint64_t address);
void unplant(void);
void set_stepping(ucontext_t *context, bool on);
void end_repeating(ucontext_t *context);
void go_on(ucontext_t *context); /* towards the stage's boundary; context: where we are, NULL before the call */

/* recorder.c */
void begin_recording(ucontext_t *context);
void record_step(ucontext_t *context);
extern const char sweep_returned[], sweep_handled[]; /* where the operation, and a handler, return to */

/* runs.c */
extern uint8_t *operation_stack;
extern sigset_t our_signals;
bool in_text(uint64_t rip);
void give_up(enum sweep_end end, uint64_t rip) __attribute__((noreturn));

#endif
