/* SPDX-License-Identifier: MIT */
/* Integer names, compiler attributes and the sections that tell an interrupt where it landed. */
#ifndef SHM_TYPES_H
#define SHM_TYPES_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef u32 gfp_t;

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define barrier() __asm__ volatile("" ::: "memory")
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))

/*
 * An allocator's code lies in one of two linker sections, so that an interrupt's RIP tells what it
 * hit, in the release flavour too.  A slow path is never inlined into a fast one.
 */
#define __fastpath __attribute__((section("shm_fast")))
#define __slowpath __attribute__((noinline, section("shm_slow")))
#define __slowtext __attribute__((section("shm_slow"))) /* part of one, inlined where that is better */
/* A call of it costs the caller no register: for what a fast path seldom calls. */
#define __cold_call __attribute__((noinline, cold, no_caller_saved_registers, target("general-regs-only")))
#define __helper static inline __attribute__((always_inline))
#define __export __attribute__((visibility("default")))

__helper u32 fls64(u64 x)
{
	return x ? 64 - (u32)__builtin_clzll(x) : 0;
}

__helper u32 ilog2(u64 x)
{
	return fls64(x) - 1;
}

__helper u64 round_up(u64 x, u64 to)
{
	return (x + to - 1) / to * to;
}

#define min_of(a, b) ((a) < (b) ? (a) : (b))
#define max_of(a, b) ((a) > (b) ? (a) : (b))
#define clamp_of(x, lo, hi) min_of(max_of(x, lo), hi)

#endif
