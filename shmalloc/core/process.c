/* SPDX-License-Identifier: MIT */
/*
 * Who is alive: what /proc says of a process, read with bare system calls from any context.
 *
 * kill(pid, 0) is no test: a zombie still answers it, and a pid may have been given to another
 * process; so state and start time are compared.
 */
#include "core.h"
#include "sys.h"

#define STAT_BYTES 1024

static char *put_number(char *to, u32 value)
{
	char digits[10];
	u32 n = 0;

	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n)
		*to++ = digits[--n];
	return to;
}

static char *put_string(char *to, const char *from)
{
	while (*from)
		*to++ = *from++;
	*to = 0;
	return to;
}

/*
 * The fields behind the command name, which may hold anything: after the last ')'.  NULL with *gone:
 * there is no such process; NULL without: it could not be read, which says nothing.
 */
static const char *read_stat(u32 pid, u32 tid, char *buffer, bool *gone)
{
	char path[64], *at = put_number(put_string(path, "/proc/"), pid);
	const char *fields = NULL;
	long fd, bytes;

	if (tid)
		at = put_number(put_string(at, "/task/"), tid);
	put_string(at, "/stat");
	fd = sys_open_read(path);
	*gone = fd == -ENOENT || fd == -ESRCH;
	if (fd < 0)
		return NULL;
	bytes = sys_read(fd, buffer, STAT_BYTES - 1);
	sys_close(fd);
	*gone = bytes == -ESRCH;
	if (bytes <= 0)
		return NULL;
	buffer[bytes] = 0;
	for (long i = 0; i < bytes; i++)
		if (buffer[i] == ')')
			fields = buffer + i + 1;
	return fields;
}

/* n-th field as in proc(5), where field 3 is the state */
static u64 field(const char *fields, u32 n)
{
	u64 value = 0;

	for (u32 at = 2; *fields && at < n; fields++)
		at += *fields == ' ';
	while (*fields >= '0' && *fields <= '9')
		value = value * 10 + (u64)(*fields++ - '0');
	return value;
}

__export uint64_t shm_start_time(uint32_t pid)
{
	char buffer[STAT_BYTES];
	bool gone;
	const char *fields = read_stat(pid, 0, buffer, &gone);

	return fields ? field(fields, 22) : 0;
}

__export int shm_owner_alive(uint32_t pid, uint64_t start_time)
{
	char buffer[STAT_BYTES];
	bool gone = true;
	const char *fields = pid ? read_stat(pid, 0, buffer, &gone) : NULL;

	if (!fields)
		return !gone;
	if (field(fields, 22) != start_time)
		return 0;
	return fields[1] != 'Z' && fields[1] != 'X';
}

/* CPU time that a thread has used, in clock ticks; 0 if that cannot be read */
u64 thread_cpu_ticks(u32 pid, u32 tid)
{
	char buffer[STAT_BYTES];
	bool gone;
	const char *fields = read_stat(pid, tid, buffer, &gone);

	return fields ? field(fields, 14) + field(fields, 15) : 0;
}

/* Compared by thread pointer, which costs one load instead of a system call. */
bool thread_is_cpu(void)
{
	return shm.cpu && shm.thread == __builtin_thread_pointer();
}

__export int shm_thread_ok(void)
{
	return thread_is_cpu();
}
