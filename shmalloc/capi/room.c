/* SPDX-License-Identifier: MIT */
/*
 * How much memory this machine has left for an arena: room.py, for programs without Python.
 *
 * Three limits count: the file system of shared memory, the machine's available memory, and the memory control
 * group (version 1 or 2) of this process with those above it.  Going over the first is an error or a SIGBUS, over
 * the others the OOM killer.
 * Context: set-up.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include "capi.h"

#define UNLIMITED (1ull << 60) /* version 1 writes "no limit" as a huge number */

static void consider(struct limit *tightest, u64 free_bytes, const char *source)
{
	if (free_bytes >= tightest->free_bytes)
		return;
	tightest->free_bytes = free_bytes;
	snprintf(tightest->source, sizeof(tightest->source), "%s", source);
}

/* The number behind a key at the start of a line; false: it cannot be read. */
static bool read_key(const char *path, const char *key, u64 *value)
{
	FILE *file = fopen(path, "re");
	size_t length = strlen(key);
	char line[256];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, length)) {
			char *end;

			*value = strtoull(line + length, &end, 10);
			found = end != line + length;
		}
	if (file)
		fclose(file);
	return found;
}

/* The same of a file of a group's directory. */
static bool read_group(const char *directory, const char *file, const char *key, u64 *value)
{
	char path[PATH_MAX];
	int length = snprintf(path, sizeof(path), "%s/%s", directory, file);

	return length < (int)sizeof(path) && read_key(path, key, value);
}

static void consider_group(struct limit *tightest, const char *directory, bool version2)
{
	u64 limit, usage, reclaimable = 0;
	char source[300];

	if (!read_group(directory, version2 ? "memory.max" : "memory.limit_in_bytes", "", &limit) || limit >= UNLIMITED ||
	    !read_group(directory, version2 ? "memory.current" : "memory.usage_in_bytes", "", &usage))
		return;
	(void)read_group(directory, "memory.stat", version2 ? "inactive_file " : "total_inactive_file ", &reclaimable);
	snprintf(source, sizeof(source), "cgroup limit %.250s", directory);
	usage -= min_of(usage, reclaimable);
	consider(tightest, limit - min_of(limit, usage), source);
}

/* Where the hierarchy is mounted, and which of its groups lies at the mount point. */
static bool find_mount(bool version2, char *mount, char *root)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	bool found = false;
	char *line = NULL;
	size_t room = 0;

	while (file && !found && getline(&line, &room, file) > 0) {
		char *right = strstr(line, " - "), kind[64], options[1024];

		if (!right || sscanf(right + 3, "%63s %*s %1023s", kind, options) != 2 ||
		    sscanf(line, "%*s %*s %*s %4095s %4095s", root, mount) != 2)
			continue;
		if (version2)
			found = !strcmp(kind, "cgroup2");
		else
			for (char *at = strtok(options, ","); at && !strcmp(kind, "cgroup") && !found; at = strtok(NULL, ","))
				found = !strcmp(at, "memory");
	}
	free(line);
	if (file)
		fclose(file);
	return found;
}

/* The group and those above it, as far as the mount shows them: in a container that is a part only. */
static void consider_groups(struct limit *tightest, const char *group, bool version2)
{
	char mount[PATH_MAX], root[PATH_MAX], path[2 * PATH_MAX];
	size_t least;

	if (!find_mount(version2, mount, root))
		return;
	if (strcmp(root, "/"))
		group = strncmp(group, root, strlen(root)) ? "" : group + strlen(root);
	least = strlen(mount);
	snprintf(path, sizeof(path), "%s%s%s", mount, *group && *group != '/' ? "/" : "", group);
	for (;;) {
		char *slash = strrchr(path, '/');

		consider_group(tightest, path, version2);
		if (!slash || (size_t)(slash - path) < least)
			return;
		*slash = 0;
	}
}

static bool lists_memory(char *controllers)
{
	for (char *at = strtok(controllers, ","); at; at = strtok(NULL, ","))
		if (!strcmp(at, "memory"))
			return true;
	return false;
}

static void consider_own_groups(struct limit *tightest)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char *line = NULL;
	size_t room = 0;

	while (file && getline(&line, &room, file) > 0) {
		char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!group)
			continue;
		*group++ = 0;
		group[strcspn(group, "\n")] = 0;
		if (!controllers[1] || lists_memory(controllers + 1))
			consider_groups(tightest, group, !controllers[1]);
	}
	free(line);
	if (file)
		fclose(file);
}

struct limit tightest_limit(void)
{
	struct limit tightest = { "nothing", ~0ull };
	struct statvfs status;
	u64 available_kb;

	if (statvfs(SHM_DIRECTORY, &status))
		consider(&tightest, 0, SHM_DIRECTORY); /* without it there is no shared memory at all */
	else
		consider(&tightest, (u64)status.f_bavail * status.f_frsize, SHM_DIRECTORY);
	if (read_key("/proc/meminfo", "MemAvailable:", &available_kb))
		consider(&tightest, available_kb * 1024, "MemAvailable");
	consider_own_groups(&tightest);
	return tightest;
}
