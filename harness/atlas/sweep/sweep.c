/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing a sweep.
 */
#include <sys/syscall.h>
#include <unistd.h>
#include "internal.h"

static int take_ranges(struct sweep_range *to, const struct sweep_range *from, uint32_t nr)
{
	if (nr > SWEEP_MAX_RANGES)
		return -E2BIG;
	if (nr)
		memcpy(to, from, nr * sizeof(*to));
	return 0;
}

static bool setup_ok(const struct sweep_setup *s)
{
	return s->arena && !(s->arena % PAGE) && s->arena_bytes && !(s->arena_bytes % PAGE) && s->classes && s->nr_text &&
	       s->irq_pending && s->watchdog_ms && s->arena_bytes / WORD < SWEEP_NONE;
}

int sweep_open(const struct sweep_setup *setup)
{
	int error;

	if (sweep.open)
		return -EBUSY;
	if (!setup_ok(setup))
		return -EINVAL;
	sweep.setup = *setup;
	error = take_ranges(sweep.text, setup->text, setup->nr_text);
	if (!error)
		error = take_ranges(sweep.locals, setup->locals, setup->nr_locals);
	if (!error)
		error = take_ranges(sweep.watched, setup->watched, setup->nr_watched);
	if (error)
		return error;
	error = memory_open();
	if (!error)
		error = traps_open();
	sweep.open = true;
	if (error)
		sweep_close();
	return error;
}

void sweep_close(void)
{
	if (!sweep.open)
		return;
	traps_close();
	memory_close();
	memset(&sweep, 0, sizeof(sweep));
}

int sweep_snapshot(void)
{
	return sweep.open ? memory_snapshot() : -ENOTCONN;
}

void sweep_restore(void)
{
	if (sweep.open)
		memory_restore();
}

uint64_t sweep_fs_base(void)
{
	uint64_t base = 0;

	syscall(SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, &base);
	return base;
}
