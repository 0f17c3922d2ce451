/* SPDX-License-Identifier: MIT */
#ifndef SHM_REPLAY_H
#define SHM_REPLAY_H

#include "core.h"

/* every op can be run: codes, orders and caches exist */
bool ops_ok(const struct shm_op *ops, u64 nr_ops);
bool program_ok(const struct shm_program *program);
/* run the program of an interrupt kind on the current level */
void program_run(enum shm_irq_kind kind);
void program_run_ops(const struct shm_program *program, u64 from, u64 count);

#endif
