/* SPDX-License-Identifier: MIT */
/*
 * Constructors, by index: a function pointer in shared memory would be another process's address.
 *
 * A constructed object keeps its content while it is free.  The one constructor there is fills the
 * object with a pattern of its own offset, so that any write into a free object is seen at the next
 * allocation.
 */
#include "slab.h"

static u64 ctor_word(u64 at)
{
	return at * 0x9e3779b97f4a7c15ull ^ 0x5ab0c7095ab0c709ull;
}

static void fill(u64 object, u32 bytes)
{
	for (u64 at = object; at + 8 <= object + bytes; at += 8)
		*(u64 *)ptr_of(at) = ctor_word(at);
}

static bool intact(u64 object, u32 bytes)
{
	for (u64 at = object; at + 8 <= object + bytes; at += 8)
		if (*(const u64 *)ptr_of(at) != ctor_word(at))
			return false;
	return true;
}

u32 nr_ctors(void)
{
	return 2; /* 0 is none */
}

__slowtext void ctor_run(u32 ctor, u64 object, u32 bytes)
{
	if (ctor == 1)
		fill(object, bytes);
}

__slowtext bool ctor_intact(u32 ctor, u64 object, u32 bytes)
{
	return ctor != 1 || intact(object, bytes);
}
