/* SPDX-License-Identifier: MIT */
/*
 * The kernel parameter slab_debug=: which debug flags a cache gets when it is made.
 *
 * Answers to: mm/slub.c (setup_slub_debug, parse_slub_debug_flags, kmem_cache_flags).
 * Blocks are separated by ';', a block is letters and, behind a comma, names or beginnings of names
 * with a '*'.  No letters before the names are FZPU.  The first list that has a cache's name wins; a block
 * without names is for the caches in no list.  What is no letter is skipped here; Python explains it.
 * Context: set-up, creation of a cache.
 */
#include "slab.h"

#define DEBUG_DEFAULT_FLAGS (SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER)

static const char *debug_text(void)
{
	return shm.hdr->geometry.slab_debug_text;
}

static u32 letter_flag(char letter)
{
	switch (letter | 0x20) {
	case 'f':
		return SLAB_CONSISTENCY_CHECKS;
	case 'z':
		return SLAB_RED_ZONE;
	case 'p':
		return SLAB_POISON;
	case 'u':
		return SLAB_STORE_USER;
	case 't':
		return SLAB_TRACE;
	case 'a':
		return SLAB_FAILSLAB;
	}
	return 0;
}

/* Read one block; names: its list, or NULL.  The next block, or NULL. */
static const char *parse_block(const char *at, u32 *flags, const char **names)
{
	while (*at == ';')
		at++;
	*flags = *at == ',' ? DEBUG_DEFAULT_FLAGS : 0;
	for (; *at && *at != ',' && *at != ';'; at++)
		*flags = *at == '-' ? 0 : *flags | letter_flag(*at);
	*names = *at == ',' ? at + 1 : NULL;
	while (*at && *at != ';')
		at++;
	while (*at == ';')
		at++;
	return *at ? at : NULL;
}

static bool entry_matches(const char *entry, const char *name)
{
	for (; *entry && *entry != ',' && *entry != ';'; entry++, name++) {
		if (*entry == '*')
			return true;
		if (*entry != *name)
			return false;
	}
	return !*name;
}

static bool list_has(const char *names, const char *name)
{
	for (;;) {
		if (entry_matches(names, name))
			return true;
		while (*names && *names != ',' && *names != ';')
			names++;
		if (*names++ != ',')
			return false;
	}
}

/* The flags a cache is made with: those it was asked for, and those that slab_debug= adds. */
u32 kmem_cache_flags(u32 flags, const char *name)
{
	const char *at = *debug_text() ? debug_text() : NULL, *names;
	u32 block, global = 0;

	if (flags & SLAB_NO_USER_FLAGS)
		return flags;
	while (at) {
		at = parse_block(at, &block, &names);
		if (!names)
			global = block;
		else if (list_has(names, name))
			return flags | block;
	}
	return flags | global;
}

/* Letter O: no metadata for a cache whose slabs would have to be larger for it. */
bool slab_debug_no_larger_order(void)
{
	bool in_names = false;

	for (const char *at = debug_text(); *at; at++) {
		in_names = *at == ',' || (in_names && *at != ';');
		if (!in_names && (*at | 0x20) == 'o')
			return true;
	}
	return false;
}
