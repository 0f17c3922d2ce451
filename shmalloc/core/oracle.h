/* SPDX-License-Identifier: MIT */
#ifndef SHM_ORACLE_H
#define SHM_ORACLE_H

#include "core.h"

__helper bool oracle_on(void)
{
	return shm.geo_flags & SHM_GEO_ORACLE;
}

void oracle_own(u64 off, u64 bytes);
bool oracle_release(u64 off);
u64 oracle_owned(u64 off, u64 bytes); /* off */
bool oracle_release_kept(u64 off) __cold_call;
u64 oracle_extent(u64 off);
bool oracle_is_live(u64 off);

#endif
