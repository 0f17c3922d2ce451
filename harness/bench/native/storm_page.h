/* SPDX-License-Identifier: MIT */
/* What a storm says while it can: a page that its parent made, and goes on reading when the storm hangs or is dead. */
#ifndef SHMALLOC_BENCH_STORM_PAGE_H
#define SHMALLOC_BENCH_STORM_PAGE_H

#include <stdatomic.h>
#include <stdint.h>

enum storm_state { STORM_STARTING, STORM_RUNNING, STORM_AFTER };  /* AFTER: signals are over, calls go on */
enum storm_end { STORM_NO_END, STORM_OK, STORM_CORRUPTION, STORM_CANNOT, STORM_DEADLOCK };
enum storm_where { STORM_OUTSIDE, STORM_IN_ALLOC, STORM_IN_FREE, STORM_ON_OBJECT };

/* harness/bench/storm.py reads it by this order */
struct storm_page {
	_Atomic uint64_t state;           /* enum storm_state */
	_Atomic uint64_t end;             /* enum storm_end, behind text */
	_Atomic uint64_t in_handler;
	_Atomic uint64_t thread_where;    /* enum storm_where */
	_Atomic uint64_t handler_where;
	_Atomic uint64_t calls;           /* of the thread */
	_Atomic uint64_t entered;         /* handlers that have begun */
	_Atomic uint64_t handled;         /* ... and ended */
	_Atomic uint64_t inside;          /* ... that have interrupted the subject */
	_Atomic uint64_t thread_refused;  /* allocations */
	_Atomic uint64_t handler_refused;
	uint64_t pad;
	char text[416];
};

#endif
