/* SPDX-License-Identifier: MIT */
/*
 * Interrupting machine code at exact places, again and again, each time from the same state.
 *
 * One sweep at a time in a process, on one thread, which is the CPU.  cffi reads this file: plain
 * declarations only.  Addresses are this process's.  int results are 0 or a negative errno.
 */
#ifndef SWEEP_H
#define SWEEP_H

#define SWEEP_NONE 0xffffffffu
#define SWEEP_MAX_RANGES 256
#define SWEEP_MAX_STAGES 4
#define SWEEP_NR_REGS 16

enum sweep_class { SWEEP_STATE, SWEEP_OUTCOME, SWEEP_IGNORE };
enum sweep_kind { SWEEP_NMI, SWEEP_IRQ };
enum sweep_what { SWEEP_OPERATION, SWEEP_HANDLER };

/* how a run ended */
enum sweep_end {
	SWEEP_RETURNED,          /* the operation returned, with every stage delivered */
	SWEEP_MISSED,            /* it returned, and never came to a boundary that was planted */
	SWEEP_STUCK,             /* it did not return: the watchdog ended it */
	SWEEP_CRASHED,           /* it touched memory that is not there, or ran what is no instruction */
	SWEEP_LEFT,              /* recorder: execution left the core */
	SWEEP_FULL               /* recorder: there is no room for so many steps */
};

struct sweep_range {
	uint64_t start;
	uint64_t bytes;
};

struct sweep_setup {
	uint64_t arena;
	uint64_t arena_bytes;    /* whole pages */
	const uint8_t *classes;  /* enum sweep_class of each 4 bytes of the arena; copied */
	const struct sweep_range *text;    /* the core's code: what may be interrupted */
	const struct sweep_range *locals;  /* variables of the core: put back, not compared */
	const struct sweep_range *watched; /* put back, and compared as OUTCOME; their words follow the arena's */
	uint32_t nr_text;
	uint32_t nr_locals;
	uint32_t nr_watched;
	uint32_t irq_bit;        /* what is set in *irq_pending before an IRQ is delivered */
	uint64_t irq_pending;    /* address of the word of the CPU that is interrupted */
	int32_t nmi_signal;
	int32_t irq_signal;
	uint32_t watchdog_ms;    /* a run that takes longer, twice, is stuck */
	uint32_t pad;
};

/* An exported function of the core, and what it is called with. */
struct sweep_call {
	uint64_t function;
	uint64_t args[6];
};

/*
 * Deliver an interrupt before the instruction with this index in a recorded sequence.  The first
 * stage counts from the call, a later one from where the one before has been delivered: from the
 * handler's first instruction on (inside), or from the interrupted instruction on.
 */
struct sweep_stage {
	const uint64_t *rips;
	const int32_t *prev;     /* index of the last earlier step with the same rip, or -1 */
	uint32_t nr;
	uint32_t index;
	uint32_t kind;           /* enum sweep_kind */
	uint32_t inside;
};

struct sweep_step {
	uint64_t rip;
	uint64_t regs[SWEEP_NR_REGS]; /* rax rcx rdx rbx rsp rbp rsi rdi r8 .. r15, before the instruction */
};

struct sweep_result {
	uint32_t index;          /* of the last stage */
	uint32_t end;            /* enum sweep_end */
	uint64_t value;          /* what the operation returned */
	uint32_t state;          /* number of the distinct post-state; SWEEP_NONE unless it returned */
	uint32_t outcome;        /* number of the distinct outcome; likewise */
	uint64_t rip;            /* stuck, crashed, left: where */
	uint32_t hits;           /* traps taken on the way to the last stage */
	uint32_t steps;          /* recorder: how many */
};

/* 4 bytes that differ from the snapshot */
struct sweep_word {
	uint64_t offset;
	uint32_t old;
	uint32_t now;
};

int sweep_open(const struct sweep_setup *setup);
void sweep_close(void);
int sweep_snapshot(void);    /* what is now is the start of every run; states and outcomes are forgotten */
void sweep_restore(void);    /* back to it */
/* by_trap_flag: step through every round of string instructions, too, instead of working them out */
int sweep_record(const struct sweep_call *call, const struct sweep_stage *stages, uint32_t nr_stages, enum sweep_what what,
		 int by_trap_flag, struct sweep_step *steps, uint32_t max_steps, struct sweep_result *result);
/* keep: do not go back to the snapshot; by_trap_flag: step all the way instead of planting breakpoints */
int sweep_run(const struct sweep_call *call, const struct sweep_stage *stages, uint32_t nr_stages, int keep,
	      int by_trap_flag, struct sweep_result *result);
/* One run for each index of the last stage; returns how many, or a negative errno. */
int64_t sweep_points(const struct sweep_call *call, const struct sweep_stage *stages, uint32_t nr_stages,
		     const uint32_t *indices, uint32_t nr, struct sweep_result *results);
uint32_t sweep_nr_states(void);
uint32_t sweep_nr_outcomes(void);
/* Words of a distinct state or outcome; how many there are, of which at most max are written. */
uint32_t sweep_state_words(uint32_t state, struct sweep_word *words, uint32_t max);
uint32_t sweep_outcome_words(uint32_t outcome, struct sweep_word *words, uint32_t max);
int sweep_load_state(uint32_t state); /* the snapshot with this state's words */
uint32_t sweep_hot_pages(void);       /* pages that were ever written since the snapshot */
uint64_t sweep_fs_base(void);         /* what fs: is relative to */

#endif
