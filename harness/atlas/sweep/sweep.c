/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing a sweep, and the question whether this machine can do it at all.
 */
#include <sys/mman.h>
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

/* --- self test ---------------------------------------------------------------------------------------- */

static volatile sig_atomic_t traps_seen, steps_left;
static volatile uint64_t planted_at;
static volatile uint8_t byte_there;

static void on_test_trap(int sig, siginfo_t *info, void *argument)
{
	ucontext_t *context = argument;

	(void)sig;
	(void)info;
	traps_seen++;
	if (planted_at) {
		*(volatile uint8_t *)planted_at = byte_there;
		planted_at = 0;
		context->uc_mcontext.gregs[REG_RIP]--;
		context->uc_mcontext.gregs[REG_EFL] |= 0x100;
	} else if (--steps_left <= 0) {
		context->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)0x100;
	}
}

/* four instructions of one byte each, and a return */
__asm__(".text\n.balign 16\nsweep_test_code:\n	nop\n	nop\n	nop\n	nop\n	ret\n");
extern char sweep_test_code[];
void sweep_test_call(void) __asm__("sweep_test_code");

int sweep_self_test(void)
{
	struct sigaction action = { 0 }, old;
	void *page = (void *)((uint64_t)sweep_test_code & ~(PAGE - 1));
	int failed = 0;

	if (mprotect(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC))
		return 1;
	action.sa_flags = SA_SIGINFO;
	action.sa_sigaction = on_test_trap;
	sigaction(SIGTRAP, &action, &old);
	traps_seen = 0;
	steps_left = 2;
	planted_at = (uint64_t)sweep_test_code;
	byte_there = *(uint8_t *)sweep_test_code;
	*(volatile uint8_t *)sweep_test_code = 0xcc;
	sweep_test_call();
	if (planted_at) {
		*(volatile uint8_t *)planted_at = byte_there;
		failed = 2;
	} else if (traps_seen != 3) {
		failed = 3;
	}
	sigaction(SIGTRAP, &old, NULL);
	mprotect(page, PAGE, PROT_READ | PROT_EXEC);
	return failed;
}
