/* SPDX-License-Identifier: MIT */
/*
 * The core's own memory functions: the compiler may call them by these names, and a call into libc
 * from an interrupted allocator would go through the PLT.  Hidden; compiled without loop idioms.
 */
#include "core.h"

__slowtext void zero_bytes(void *p, u64 bytes)
{
	__asm__ volatile("rep stosb" : "+D"(p), "+c"(bytes) : "a"(0) : "memory");
}

__slowtext void fill_bytes(void *p, u8 value, u64 bytes)
{
	__asm__ volatile("rep stosb" : "+D"(p), "+c"(bytes) : "a"(value) : "memory");
}

__slowtext void copy_bytes(void *to, const void *from, u64 bytes)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes)::"memory");
}

#ifndef SHM_SANITIZE
void *memset(void *p, int value, size_t bytes);
void *memcpy(void *to, const void *from, size_t bytes);

__slowtext void *memset(void *p, int value, size_t bytes)
{
	void *at = p;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
	return p;
}

__slowtext void *memcpy(void *to, const void *from, size_t bytes)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(bytes)::"memory");
	return to;
}
#endif
