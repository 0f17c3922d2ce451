/* SPDX-License-Identifier: MIT */
#ifndef SHM_BULK_H
#define SHM_BULK_H

#include "core.h"

struct runner;
void op_bulk_alloc(const struct runner *r, const struct shm_op *op);
void op_bulk_free(const struct runner *r, const struct shm_op *op);

#endif
