/* SPDX-License-Identifier: MIT */
#ifndef SHM_CAPI_H
#define SHM_CAPI_H

#include "shmalloc.h"
#include "core.h"

/* Keep a text for shmalloc_error(), and return the error. */
int failed(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* room.c: the tightest limit of this machine */
struct limit {
	char source[320];
	u64 free_bytes;
};
struct limit tightest_limit(void);

#define SHM_DIRECTORY "/dev/shm"

#endif
