/* SPDX-License-Identifier: MIT */
/* Whatever malloc the process has: glibc's, or the one that was preloaded. */
#include <stdlib.h>

#include "subject.h"

static const struct subject subjects[] = {
	{
		.abi = SUBJECT_ABI,
		.name = "malloc",
		.summary = "malloc and free as the process has them",
		.alloc = (subject_alloc *)(void *)malloc,
		.free = (subject_free *)(void *)free,
	},
};

SUBJECTS(subjects);
