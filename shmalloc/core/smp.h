/* SPDX-License-Identifier: MIT */
#ifndef SHM_SMP_H
#define SHM_SMP_H

#include "core.h"

/* flush every CPU's cpu slabs of one cache, or of all (~0u); -ETIMEDOUT if a CPU does not answer,
 * -EOPNOTSUPP if one takes no interrupts */
int flush_all(u32 cache);
/* run the irq_work that every CPU has queued; the same errors */
int irq_work_run_all(void);
/* move the RCU callbacks of every CPU on, and invoke what is due; the same errors */
int rcu_serve_all(void);

#endif
