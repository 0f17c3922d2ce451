/* SPDX-License-Identifier: MIT */
#ifndef SHM_SIGNALS_H
#define SHM_SIGNALS_H

#include "core.h"

/* rip, rbp: where it interrupts.  sync: nothing was interrupted, the caller's frame is rbp. */
void irq_take(u64 rip, u64 rbp, bool sync);
void nmi_take(u64 rip, u64 rbp, bool sync);
bool rip_in_allocator(u64 rip);
bool rip_in_slow_path(u64 rip);
int signals_install(bool term, bool nest);
void signals_remove(void);
int self_interrupt(enum shm_irq_kind kind);

#endif
