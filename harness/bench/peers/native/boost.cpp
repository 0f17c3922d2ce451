/* SPDX-License-Identifier: MIT */
/*
 * Boost.Interprocess: managed_shared_memory with its default algorithm, rbtree_best_fit behind one process-shared mutex.
 *
 * The segment has its name no longer than it takes to map it: the second side, a fork, inherits the mapping.  A handle
 * is an offset from the segment's start.
 */
#include <boost/interprocess/managed_shared_memory.hpp>
#include <cstdio>
#include <cstring>
#include <new>
#include <unistd.h>

#include "subject.h"

namespace {

using boost::interprocess::managed_shared_memory;

managed_shared_memory *segment;
alignas(managed_shared_memory) char place[sizeof(managed_shared_memory)];
char error[256];

std::size_t bytes_for(const subject_options &options)
{
	const std::size_t least = std::size_t(64) << 20;
	const std::size_t all = options.objects * (options.object_bytes + 64) * 2;

	return all < least ? least : all;
}

int setup(const subject_options *options, const char **why)
{
	char name[64];

	std::snprintf(name, sizeof(name), "shmalloc-%d-boost", int(getpid()));
	try {
		boost::interprocess::shared_memory_object::remove(name);
		segment = new (place) managed_shared_memory(boost::interprocess::create_only, name, bytes_for(*options));
	} catch (const std::exception &thrown) {
		boost::interprocess::shared_memory_object::remove(name);
		std::snprintf(error, sizeof(error), "%s", thrown.what());
		*why = error;
		return -1;
	}
	boost::interprocess::shared_memory_object::remove(name);
	return 0;
}

void teardown()
{
	segment->~managed_shared_memory();
}

uint64_t base()
{
	return uint64_t(segment->get_address());
}

uint64_t allocate(uint64_t bytes, uint64_t, uint64_t)
{
	void *object = segment->allocate(bytes, std::nothrow);

	return object ? uint64_t(object) - base() : 0;
}

void release(uint64_t handle, uint64_t, uint64_t)
{
	segment->deallocate(reinterpret_cast<void *>(base() + handle));
}

const char *verdict()
{
	return segment->check_sanity() ? nullptr : "check_sanity() of the segment is false";
}

subject boost_interprocess()
{
	subject made = {};

	made.abi = SUBJECT_ABI;
	made.flags = SUBJECT_SHARED;
	made.name = "boost";
	made.summary = "Boost.Interprocess managed_shared_memory, rbtree_best_fit";
	made.setup = setup;
	made.teardown = teardown;
	made.base = base;
	made.alloc = allocate;
	made.free = release;
	made.verdict = verdict;
	return made;
}

const subject subjects[] = { boost_interprocess() };

} // namespace

SUBJECTS(subjects);
