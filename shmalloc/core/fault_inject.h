/* SPDX-License-Identifier: MIT */
#ifndef SHM_FAULT_INJECT_H
#define SHM_FAULT_INJECT_H

#include "core.h"

/* Both only while their attribute is armed: the callers look first. */
bool should_failslab(const struct kmem_cache *s, gfp_t gfp);
bool should_fail_alloc_page(gfp_t gfp, u32 order);

#endif
