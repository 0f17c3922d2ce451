/* SPDX-License-Identifier: MIT */
/*
 * The system calls that a bound CPU may make, as bare instructions: no PLT, no errno, no libc.
 * This is the complete list; what else the core calls of libc (process.c, signals.c) is set-up that
 * runs before a CPU is bound or after it is unbound.
 */
#ifndef SHM_SYS_H
#define SHM_SYS_H

#include <sys/syscall.h>
#include "types.h"

__helper long sys_call4(long nr, long a, long b, long c, long d)
{
	long ret;
	register long r10 __asm__("r10") = d;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}

__helper void yield_core(void)
{
	sys_call4(SYS_sched_yield, 0, 0, 0, 0);
}

__helper long sys_tgkill(u32 pid, u32 tid, int sig)
{
	return sys_call4(SYS_tgkill, pid, tid, sig, 0);
}

__helper void sleep_ns(u64 ns)
{
	struct { s64 sec, nsec; } time = { (s64)(ns / 1000000000), (s64)(ns % 1000000000) };

	sys_call4(SYS_nanosleep, (long)&time, 0, 0, 0);
}

/* Sleep while the word has this value; not longer than so long.  Shared between processes. */
__helper void sys_futex_wait(u32 *word, u32 value, u64 ns)
{
	struct { s64 sec, nsec; } time = { (s64)(ns / 1000000000), (s64)(ns % 1000000000) };

	sys_call4(SYS_futex, (long)word, 0 /* FUTEX_WAIT */, value, (long)&time);
}

__helper void sys_futex_wake(u32 *word)
{
	sys_call4(SYS_futex, (long)word, 1 /* FUTEX_WAKE */, 1, 0);
}

__helper void sys_futex_wake_all(u32 *word)
{
	sys_call4(SYS_futex, (long)word, 1 /* FUTEX_WAKE */, 0x7fffffff, 0);
}

__helper long sys_open_read(const char *path)
{
	return sys_call4(SYS_openat, -100, (long)path, 0, 0);
}

__helper long sys_read(long fd, void *buffer, u64 bytes)
{
	return sys_call4(SYS_read, fd, (long)buffer, (long)bytes, 0);
}

__helper void sys_close(long fd)
{
	sys_call4(SYS_close, fd, 0, 0, 0);
}

__helper u32 sys_gettid(void)
{
	return (u32)sys_call4(SYS_gettid, 0, 0, 0, 0);
}

__helper u32 sys_getpid(void)
{
	return (u32)sys_call4(SYS_getpid, 0, 0, 0, 0);
}

__helper void sys_exit_group(int status)
{
	sys_call4(SYS_exit_group, status, 0, 0, 0);
}

__helper void sys_alarm(u32 seconds)
{
	sys_call4(SYS_alarm, seconds, 0, 0, 0);
}

struct timer_spec {
	s64 interval_sec, interval_nsec, value_sec, value_nsec;
};

__helper long sys_timer_settime(int id, u64 ns)
{
	struct timer_spec spec = { 0, 0, (s64)(ns / 1000000000), (s64)(ns % 1000000000) };

	return sys_call4(SYS_timer_settime, id, 0, (long)&spec, 0);
}

/* Block these signals beside those that are; returns what was blocked. */
__helper u64 sys_block_signals(u64 mask)
{
	u64 old = 0;
	register long r10 __asm__("r10") = 8;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(SYS_rt_sigprocmask), "D"(0 /* SIG_BLOCK */), "S"(&mask), "d"(&old), "r"(r10)
			 : "rcx", "r11", "memory");
	return old;
}

/* empty signal mask: what a handler that does not return to its frame leaves blocked */
__helper void sys_set_mask(u64 mask)
{
	sys_call4(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&mask, 0, 8);
}

#endif
