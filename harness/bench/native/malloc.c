/* SPDX-License-Identifier: MIT */
/* Whatever malloc the process has: glibc's, or the one that was preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "subject.h"

/* options: library=FILE, whose malloc it must be: the dynamic linker goes on without one that it cannot preload */
static int setup(const struct subject_options *options, const char **why)
{
	static char text[2 * PATH_MAX];
	const char *wanted = options->text;
	char there[PATH_MAX], expected[PATH_MAX];
	Dl_info info = { 0 };

	if (!*wanted)
		return 0;
	if (strncmp(wanted, "library=", 8)) {
		*why = "allowed is library=FILE";
		return -EINVAL;
	}
	if (dladdr((void *)malloc, &info) && realpath(info.dli_fname, there) && realpath(wanted + 8, expected) &&
	    !strcmp(there, expected))
		return 0;
	snprintf(text, sizeof(text), "the malloc of this process is that of %s, not of %s",
		info.dli_fname ? info.dli_fname : "nobody known", wanted + 8);
	*why = text;
	return -ENOENT;
}

static const struct subject subjects[] = {
	{
		.abi = SUBJECT_ABI,
		.name = "malloc",
		.summary = "malloc and free as the process has them",
		.setup = setup,
		.alloc = (subject_alloc *)(void *)malloc,
		.free = (subject_free *)(void *)free,
	},
};

SUBJECTS(subjects);
