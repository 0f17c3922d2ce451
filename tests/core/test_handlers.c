/* SPDX-License-Identifier: MIT */
/*
 * A program's own signal handlers, which nobody announces: calls that take each path are single-stepped,
 * and at every few dozen instructions, at other ones each time, a handler allocates and frees itself.  The
 * oracle sees to it that no byte has two owners.  (At every instruction no loop of a compare-and-exchange
 * would ever end.)
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"
#include "lock.h"
#include "slab.h"

#define OBJECTS 33
#define KEPT 13
#define STRIDES 23

enum way { UNANNOUNCED, ANNOUNCED, NOLOCK, PLAIN_KMALLOC };

static enum way way;
static u64 kept[KEPT], steps, handled, refused;
static u32 stride, least, calls;

static u64 handler_alloc(u64 size)
{
	if (way == PLAIN_KMALLOC)
		return shm_kmalloc(size, GFP_KERNEL);
	return way == NOLOCK ? shm_malloc_nolock(size) : shm_malloc(size);
}

static int handler_free(u64 off)
{
	if (way == PLAIN_KMALLOC)
		return shm_kfree(off);
	return way == NOLOCK ? shm_free_nolock(off) : shm_free(off);
}

/* Replaces one of what it keeps, so that frees meet other slabs than allocations. */
static void work(void)
{
	u64 *slot = &kept[handled % KEPT];
	u64 off = handler_alloc(handled % 3 ? 2048 : 96);

	if (off) {
		CHECK(shm_ksize(off) >= (handled % 3 ? 2048 : 96));
		*(u64 *)ptr_of(off) = ~off;
	} else {
		CHECK((shm_last_failure() != REASON_NONE && shm_last_failure() <= REASON_ZONE_BUSY));
		refused++;
	}
	if (*slot) {
		CHECK(*(u64 *)ptr_of(*slot) == ~*slot);
		CHECK(handler_free(*slot) == 0);
	}
	*slot = off;
	handled++;
}

static void on_step(int sig)
{
	int previous;

	(void)sig;
	if (steps++ % stride)
		return;
	if (way != ANNOUNCED) {
		work();
		return;
	}
	previous = shm_handler_enter();
	CHECK(previous == 0 || previous == 1);
	work();
	CHECK(shm_handler_leave(previous) == 0);
}

static void single_step(bool on)
{
	if (on)
		__asm__ volatile("sub $128, %%rsp; pushfq; orl $0x100, (%%rsp); popfq; add $128, %%rsp" ::: "memory", "cc");
	else
		__asm__ volatile("sub $128, %%rsp; pushfq; andl $~0x100, (%%rsp); popfq; add $128, %%rsp" ::: "memory", "cc");
}

static void interrupted_calls(u64 size)
{
	static u64 objects[OBJECTS];
	u32 n = size > 8192 ? 3 : OBJECTS;

	for (u32 i = 0; i < n; i++) {
		stride = least + calls++ % STRIDES;
		single_step(true);
		objects[i] = shm_malloc(size);
		single_step(false);
		CHECK(objects[i]);
		if (objects[i])
			memset(ptr_of(objects[i]), (int)i, size);
	}
	for (u32 i = 0; i < n; i++) {
		const char *bytes = ptr_of(objects[i]);
		int error;

		CHECK((bytes[0] == (char)i && bytes[size - 1] == (char)i));
		stride = least + calls++ % STRIDES;
		single_step(true);
		error = shm_free(objects[i]);
		single_step(false);
		CHECK(!error);
	}
}

static void run(u32 flags, enum way of)
{
	struct shm_geometry g = small_geometry(32 << 20, 2);
	struct sigaction action = { 0 };
	u64 before;
	void *base;

	g.flags |= flags;
	base = make_arena(&g);
	before = free_pages_total();
	action.sa_handler = on_step;
	sigaction(SIGTRAP, &action, NULL);
	way = of;
	steps = handled = refused = 0;
	memset(kept, 0, sizeof(kept));
	least = SHM_CHECKED ? 499 : 31; /* longer than any loop that a handler makes begin again */
	interrupted_calls(2048);
	interrupted_calls(20000);
	for (u32 i = 0; i < KEPT; i++)
		CHECK(shm_free(kept[i]) == 0);
	printf("%s way %u: %lu steps, %lu handled, %lu refused\n", flags & SHM_GEO_SHEAVES ? "7.0" : "6.18", of, steps,
	       handled, refused);
	CHECK(handled > (SHM_CHECKED ? 10 : 100) && refused < handled / 4);
	CHECK(shm_run_irq_work() == 0);
	CHECK(shm_flush_all(~0u) == 0);
	for (u32 i = 0; i < shm.hdr->nr_caches; i++)
		CHECK(shm_kmem_cache_shrink(i) == 0);
	CHECK(free_pages_total() == before);
	drop_arena(base, &g);
}

/*
 * In the middle of a guarded call that holds a zone's lock: what the handler finds on the lists of this CPU it
 * gets, and the rest is refused.  kmalloc in its stead would wait for what it has interrupted, and that is
 * proved: so the test can fail.
 */
static u32 violations_behind_a_lock(u32 flags_of_arena, enum way of)
{
	struct shm_geometry g = small_geometry(32 << 20, 2);
	struct guard guard;
	struct zone *zone;
	u32 flags;

	g.flags |= flags_of_arena;
	make_arena(&g);
	way = of;
	refused = 0;
	zone = &shm.zones[shm.nr_zones - 1];
	CHECK(guard_enter(&guard));
	flags = spin_lock_irqsave(&zone->lock);
	for (u32 i = 0; i < 1000 && !shm.hdr->nr_violations; i++)
		if (!handler_alloc(2048))
			refused++;
	spin_unlock_irqrestore(&zone->lock, flags);
	guard_exit(&guard);
	CHECK(refused);
	return shm.hdr->nr_violations ? shm.hdr->violations[0].verdict : VERDICT_OK;
}

static u32 in_child(u32 flags, enum way of)
{
	int status = 0;
	pid_t child = fork();

	CHECK(child >= 0);
	if (!child)
		_exit((int)violations_behind_a_lock(flags, of));
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
	return (u32)WEXITSTATUS(status);
}

int main(void)
{
	static const u32 kernels[] = { 0, SHM_GEO_SHEAVES };

	for (u32 i = 0; i < 2; i++) {
		run(kernels[i], UNANNOUNCED);
		run(kernels[i], ANNOUNCED);
		run(kernels[i], NOLOCK);
		CHECK(in_child(kernels[i], UNANNOUNCED) == VERDICT_OK);
		CHECK(in_child(kernels[i], NOLOCK) == VERDICT_OK);
		CHECK(in_child(kernels[i], PLAIN_KMALLOC) != VERDICT_OK);
	}
	return 0;
}
