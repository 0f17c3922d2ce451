/* SPDX-License-Identifier: MIT */
/*
 * Atomic operations on the arena.  Everything that depends on the architecture is in this file.
 *
 * Two families, as in the kernel: plain names are atomic against other CPUs (lock prefix); the
 * this_cpu_ names are one unlocked instruction, atomic only against interrupts of the same CPU,
 * and about a third cheaper.  All of them are full compiler barriers.
 */
#ifndef SHM_ATOMIC_H
#define SHM_ATOMIC_H

#include "types.h"

#ifndef __x86_64__
#error "shmalloc needs x86-64 (cmpxchg16b); add the operations of atomic.h for another architecture"
#endif

#define cmpxchg(p, old, new) ({ \
	__typeof__(*(p)) expected_ = (old); \
	__atomic_compare_exchange_n((p), &expected_, (new), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
	expected_; })
#define try_cmpxchg(p, oldp, new) \
	__atomic_compare_exchange_n((p), (oldp), (new), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#define xchg(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
#define atomic_add(p, v) ((void)__atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST))
#define atomic_sub(p, v) ((void)__atomic_fetch_sub((p), (v), __ATOMIC_SEQ_CST))
#define atomic_fetch_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST)
#define atomic_or(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
#define atomic_and(p, v) __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST)
#define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define smp_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)

__helper void cpu_relax(void)
{
	__asm__ volatile("pause" ::: "memory");
}

__helper u64 read_tsc(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}

/* Compare {lo, hi} at the 16-byte aligned p with the old pair, and replace it if equal. */
__helper bool cmpxchg_double(u64 *p, u64 old_lo, u64 old_hi, u64 new_lo, u64 new_hi)
{
	bool ok;

	__asm__ volatile("lock cmpxchg16b %1"
			 : "=@ccz"(ok), "+m"(*(unsigned __int128 *)p), "+a"(old_lo), "+d"(old_hi)
			 : "b"(new_lo), "c"(new_hi)
			 : "memory");
	return ok;
}

/* The same without the lock prefix: for the pair of this CPU that no other CPU writes. */
__helper bool this_cpu_cmpxchg_double(u64 *p, u64 old_lo, u64 old_hi, u64 new_lo, u64 new_hi)
{
	bool ok;

	__asm__ volatile("cmpxchg16b %1"
			 : "=@ccz"(ok), "+m"(*(unsigned __int128 *)p), "+a"(old_lo), "+d"(old_hi)
			 : "b"(new_lo), "c"(new_hi)
			 : "memory");
	return ok;
}

/* Counters of this CPU: one instruction, so that no interrupt is lost between load and store. */
__helper void this_cpu_inc32(u32 *p)
{
	__asm__ volatile("incl %0" : "+m"(*p)::"memory");
}

__helper void this_cpu_add64(u64 *p, u64 v)
{
	__asm__ volatile("addq %1, %0" : "+m"(*p) : "er"(v) : "memory");
}

/* true: it is 0 now */
__helper bool this_cpu_dec32(u32 *p)
{
	bool zero;

	__asm__ volatile("decl %1" : "=@ccz"(zero), "+m"(*p)::"memory");
	return zero;
}

/* true: bit 0 was set already */
__helper bool this_cpu_test_and_set_bit0(u32 *p)
{
	bool was;

	__asm__ volatile("btsl $0, %1" : "=@ccc"(was), "+m"(*p)::"memory");
	return was;
}

__helper void this_cpu_and32(u32 *p, u32 v)
{
	__asm__ volatile("andl %1, %0" : "+m"(*p) : "ir"(v) : "memory");
}

/* As try_cmpxchg. */
__helper bool this_cpu_try_cmpxchg64(u64 *p, u64 *old, u64 new)
{
	bool ok;

	__asm__ volatile("cmpxchgq %3, %1" : "=@ccz"(ok), "+m"(*p), "+a"(*old) : "r"(new) : "memory");
	return ok;
}

/* the value before */
__helper u32 this_cpu_fetch_inc32(u32 *p)
{
	u32 value = 1;

	__asm__ volatile("xaddl %0, %1" : "+r"(value), "+m"(*p)::"memory");
	return value;
}

__helper void this_cpu_inc64(u64 *p)
{
	__asm__ volatile("incq %0" : "+m"(*p)::"memory");
}

#endif
