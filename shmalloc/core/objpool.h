/* SPDX-License-Identifier: MIT */
#ifndef SHM_OBJPOOL_H
#define SHM_OBJPOOL_H

#include "design.h"

int objpool_init(u32 nr_objs, u32 obj_size);
void objpool_fini(void);
void objpool_drop(void);
u64 objpool_pop(void);
void objpool_push(u64 object);
bool objpool_has(u64 off);

#endif
