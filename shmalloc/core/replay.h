/* SPDX-License-Identifier: MIT */
#ifndef SHM_REPLAY_H
#define SHM_REPLAY_H

#include "core.h"

/* run the program of an interrupt kind on the current level */
void program_run(enum shm_irq_kind kind);
void program_run_ops(const struct shm_program *program, u64 from, u64 count);

#endif
