/* SPDX-License-Identifier: MIT */
/*
 * What went wrong, in words: a short text for each error, and a longer one of the last.
 * Context: shmalloc_reason any, all else task.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "capi.h"

static char message[512];

int failed(int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	return error;
}

static const struct {
	int error;
	const char *text;
} texts[] = {
	{ 0, "no error" },
	{ -EACCES, "this user may not open the segment" },
	{ -EAGAIN, "the arena is not ready: whoever makes it is at work, or has died" },
	{ -EALREADY, "this process is a CPU already" },
	{ -EBADMSG, "the arena's header contradicts itself" },
	{ -EBUSY, "taken, or in use" },
	{ -EDEADLK, "it could never have ended, or this is a signal handler, from which it cannot be called" },
	{ -EEXIST, "there is one of this name" },
	{ -EINVAL, "not a valid argument, or no live object" },
	{ -EMSGSIZE, "the segment is smaller than its header says" },
	{ -ENOENT, "there is none of this name" },
	{ -ENOEXEC, "not an arena" },
	{ -ENOMEM, "no memory" },
	{ -ENOSPC, "no room" },
	{ -ENOTCONN, "this process is not attached to an arena, or no CPU of it" },
	{ -EOPNOTSUPP, "others are CPUs of the arena, and cannot be interrupted" },
	{ -EOWNERDEAD, "the process that was this CPU has died in the middle of a call, with locks held" },
	{ -EPERM, "another thread than the CPU's" },
	{ -EPROTO, "an arena of another build: its layout differs" },
};

__export const char *shmalloc_strerror(int error)
{
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].error == error)
			return texts[i].text;
	return strerror(error < 0 ? -error : error);
}

__export const char *shmalloc_error(void)
{
	return message;
}

__export const char *shmalloc_reason(void)
{
	return thread_is_cpu() ? shm_reason_name(shm_last_failure()) : "this thread is no CPU";
}

__export const char *shmalloc_verdict(const struct shmalloc_arena *arena)
{
	static char text[sizeof(((struct shm_violation *)NULL)->text) + 64];
	const struct shm_header *header = arena ? (const struct shm_header *)arena->base : NULL;
	const struct shm_violation *v;

	if (!header || !load_acquire(&header->nr_violations) || !load_acquire(&header->violations[0].ready))
		return NULL;
	v = &header->violations[0];
	snprintf(text, sizeof(text), "%s: %.*s", shm_verdict_name(v->verdict), (int)sizeof(v->text) - 1, v->text);
	return text;
}

__export const char *shmalloc_version(void)
{
	return SHMALLOC_VERSION;
}
