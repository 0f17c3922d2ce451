/* SPDX-License-Identifier: MIT */
/* The table of the broken variants, and which one of them this object is.  Any context. */
#include "core.h"

#ifndef SHM_BROKEN_VARIANT
#define SHM_BROKEN_VARIANT BROKEN_none
#endif

#define BROKEN(name, summary, set_off_by) { #name, summary, set_off_by },
static const struct {
	const char *name, *summary, *set_off_by;
} variants[NR_BROKEN] = {
	{ "none", "the correct allocator", NULL },
#include "broken.def"
};
#undef BROKEN

__export unsigned int shm_broken_variant(void)
{
	return SHM_BROKEN_VARIANT;
}

__export const char *shm_broken_name(unsigned int variant)
{
	return variant < NR_BROKEN ? variants[variant].name : NULL;
}

__export const char *shm_broken_summary(unsigned int variant)
{
	return variant < NR_BROKEN ? variants[variant].summary : NULL;
}

__export const char *shm_broken_set_off_by(unsigned int variant)
{
	return variant < NR_BROKEN ? variants[variant].set_off_by : NULL;
}
