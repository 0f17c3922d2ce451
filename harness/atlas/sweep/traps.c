/* SPDX-License-Identifier: MIT */
/*
 * The signals of a sweep: traps on the way to a boundary, faults, and the watchdog.
 *
 * At a boundary the byte has been put back, and the core's own signal handler is called with the
 * interrupted context, as the kernel would.  All handlers run on one alternate stack, the core's.
 */
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "run.h"

typedef void (*handler_fn)(int, siginfo_t *, void *);

static handler_fn on_interrupt[2];
static struct sigaction old_trap, old_fault, old_bus, old_illegal, old_fpe, old_alarm;
static bool handlers_installed;
static timer_t watchdog;
static bool watchdog_set;
static uint64_t watched_serial;
static uint32_t watched_ticks;

/*
 * Call a handler where we are, with the trap flag set.  rdi: it, rsi, rdx, rcx: its arguments.  What it
 * returns to has a name, too.
 */
__asm__(".text\n"
	".type sweep_call_stepping, @function\n"
	"sweep_call_stepping:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n	mov %rdx, %rsi\n	mov %rcx, %rdx\n"
	"	pushfq\n	orq $0x100, (%rsp)\n	popfq\n"
	"	call *%rax\n"
	".globl sweep_handled\n	.hidden sweep_handled\n"
	"sweep_handled:\n"
	"	pushfq\n	andq $~0x100, (%rsp)\n	popfq\n"
	"	pop %rbp\n"
	"	ret\n"
	".size sweep_call_stepping, . - sweep_call_stepping\n");

void sweep_call_stepping(handler_fn function, uint64_t sig, siginfo_t *info, void *context);

/* As the kernel would: our own mask blocks both signals, as the NMI's does. */
static void deliver(ucontext_t *context, uint32_t kind, bool record)
{
	int sig = kind == SWEEP_NMI ? sweep.setup.nmi_signal : sweep.setup.irq_signal;
	siginfo_t info = { 0 };

	info.si_signo = sig;
	info.si_code = SI_TKILL;
	if (kind == SWEEP_IRQ)
		__atomic_or_fetch((uint32_t *)sweep.setup.irq_pending, sweep.setup.irq_bit, __ATOMIC_SEQ_CST);
	if (record) {
		run.recording = true;
		sweep_call_stepping(on_interrupt[kind], (uint64_t)sig, &info, context);
		run.recording = false;
	} else {
		on_interrupt[kind](sig, &info, context);
	}
}

/*
 * What an interrupt leaves to be done (irq_work) comes as a signal, before the operation goes on, and may
 * run what is planted for the operation: it is on the stack of signals, as handlers are.
 */
static bool is_astray(const ucontext_t *context)
{
	bool on_own = (uint64_t)context->uc_mcontext.gregs[REG_RSP] - (uint64_t)operation_stack < STACK_BYTES;

	return run.at_stage < run.nr_stages && on_own == (bool)run.stages[run.at_stage].inside;
}

/* The boundary of a stage is reached. */
static void arrived(ucontext_t *context)
{
	const struct sweep_stage *stage = &run.stages[run.at_stage], *next = NULL;

	if (run.position < (int32_t)stage->index) {
		go_on(context);
		return;
	}
	run.position = FROM_START;
	if (++run.at_stage < run.nr_stages) {
		next = stage + 1;
		if (next->inside)
			go_on(context);
	}
	deliver(context, stage->kind, !next && run.record_pending && run.record_handler);
	if (next && !next->inside)
		go_on(context);
	if (!next && run.record_pending && !run.record_handler)
		begin_recording(context);
}

static void on_trap(int sig, siginfo_t *info, void *argument)
{
	ucontext_t *context = argument;
	uint64_t rip = (uint64_t)context->uc_mcontext.gregs[REG_RIP];

	(void)sig;
	(void)info;
	if (!run.serial)
		return;
	if (run.recording) {
		if (run.planted && rip - 1 == run.planted) { /* what was stepped over at once */
			unplant();
			context->uc_mcontext.gregs[REG_RIP]--;
			context->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
		}
		record_step(context);
		return;
	}
	if (run.astray) {
		plant(run.astray);
		run.astray = 0;
		context->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
		return;
	}
	if (run.planted && rip - 1 == run.planted) {
		uint64_t planted = run.planted;

		unplant();
		context->uc_mcontext.gregs[REG_RIP]--;
		if (is_astray(context)) {
			run.astray = planted;
			context->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
			return;
		}
		if (run.repeat_rip)
			end_repeating(context);
	} else if (run.stepping) {
		set_stepping(context, false);
	} else {
		give_up(SWEEP_CRASHED, rip);
	}
	run.hits++;
	run.position = run.target;
	if (run.at_stage == run.nr_stages) { /* no stage: the first instruction, to be recorded from */
		begin_recording(context);
		return;
	}
	if (run.stages[run.at_stage].rips[run.position] != (uint64_t)context->uc_mcontext.gregs[REG_RIP])
		return; /* another way than recorded: nothing is planted any more, and the run counts as missed */
	arrived(context);
}

static void chain(const struct sigaction *old, int sig, siginfo_t *info, void *context)
{
	if (old->sa_flags & SA_SIGINFO && old->sa_sigaction)
		old->sa_sigaction(sig, info, context);
	else
		signal(sig, SIG_DFL); /* and again: nobody's */
}

static void on_fault(int sig, siginfo_t *info, void *argument)
{
	const ucontext_t *context = argument;

	if (sig == SIGSEGV && memory_write_fault((uint64_t)info->si_addr))
		return;
	if (run.serial)
		give_up(SWEEP_CRASHED, (uint64_t)context->uc_mcontext.gregs[REG_RIP]);
	chain(sig == SIGSEGV ? &old_fault : sig == SIGBUS ? &old_bus : sig == SIGILL ? &old_illegal : &old_fpe, sig, info,
	      argument);
}

static void on_alarm(int sig, siginfo_t *info, void *argument)
{
	const ucontext_t *context = argument;

	(void)sig;
	(void)info;
	if (!run.serial || run.serial != watched_serial || run.recording) {
		watched_serial = run.serial;
		watched_ticks = 0;
	} else if (++watched_ticks >= 2) {
		watched_ticks = 0;
		give_up(SWEEP_STUCK, (uint64_t)context->uc_mcontext.gregs[REG_RIP]);
	}
}

/* --- setting up -------------------------------------------------------------------------------------- */

static int protect_text(int protection)
{
	for (uint32_t i = 0; i < sweep.setup.nr_text; i++) {
		uint64_t from = sweep.text[i].start & ~(PAGE - 1);
		uint64_t to = (sweep.text[i].start + sweep.text[i].bytes + PAGE - 1) & ~(PAGE - 1);

		if (mprotect((void *)from, to - from, protection))
			return -errno;
	}
	return 0;
}

static int set_watchdog(void)
{
	struct sigevent event = { 0 };
	uint64_t ns = sweep.setup.watchdog_ms * 500000ull;
	struct itimerspec period = { { (time_t)(ns / 1000000000), (long)(ns % 1000000000) },
				     { (time_t)(ns / 1000000000), (long)(ns % 1000000000) } };

	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_signo = SIGALRM;
	event._sigev_un._tid = (int)syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, &watchdog))
		return -errno;
	watchdog_set = true;
	return timer_settime(watchdog, 0, &period, NULL) ? -errno : 0;
}

/* The watchdog must not leap out of the handling of a fault, which edits the list of pages to be put back. */
static void install(int sig, handler_fn handler, int flags, struct sigaction *old)
{
	struct sigaction action = { 0 };

	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | flags;
	action.sa_sigaction = handler;
	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, sweep.setup.nmi_signal);
	sigaddset(&action.sa_mask, sweep.setup.irq_signal);
	if (handler == on_fault)
		sigaddset(&action.sa_mask, SIGALRM);
	sigaction(sig, &action, old);
}

static void install_handlers(void)
{
	sigemptyset(&our_signals);
	sigaddset(&our_signals, SIGTRAP);
	sigaddset(&our_signals, SIGSEGV);
	sigaddset(&our_signals, SIGBUS);
	sigaddset(&our_signals, SIGILL);
	sigaddset(&our_signals, SIGFPE);
	sigaddset(&our_signals, SIGALRM);
	sigaddset(&our_signals, sweep.setup.nmi_signal);
	sigaddset(&our_signals, sweep.setup.irq_signal);
	install(SIGTRAP, on_trap, SA_NODEFER, &old_trap);
	install(SIGSEGV, on_fault, SA_NODEFER, &old_fault);
	install(SIGBUS, on_fault, SA_NODEFER, &old_bus);
	install(SIGILL, on_fault, SA_NODEFER, &old_illegal);
	install(SIGFPE, on_fault, SA_NODEFER, &old_fpe);
	install(SIGALRM, on_alarm, 0, &old_alarm);
	handlers_installed = true;
}

static void remove_handlers(void)
{
	sigaction(SIGTRAP, &old_trap, NULL);
	sigaction(SIGSEGV, &old_fault, NULL);
	sigaction(SIGBUS, &old_bus, NULL);
	sigaction(SIGILL, &old_illegal, NULL);
	sigaction(SIGFPE, &old_fpe, NULL);
	sigaction(SIGALRM, &old_alarm, NULL);
	handlers_installed = false;
}

static int find_handlers(void)
{
	const int signals[2] = { sweep.setup.nmi_signal, sweep.setup.irq_signal };

	for (uint32_t i = 0; i < 2; i++) {
		struct sigaction action;

		if (sigaction(signals[i], NULL, &action) || !(action.sa_flags & SA_SIGINFO))
			return -ENOTCONN;
		on_interrupt[i] = action.sa_sigaction;
		if (!in_text((uint64_t)on_interrupt[i]))
			return -ENOTCONN;
	}
	return 0;
}

int traps_open(void)
{
	int error = find_handlers();

	if (error)
		return error;
	operation_stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (operation_stack == MAP_FAILED) {
		operation_stack = NULL;
		return -ENOMEM;
	}
	error = protect_text(PROT_READ | PROT_WRITE | PROT_EXEC);
	if (error)
		return error;
	install_handlers();
	return set_watchdog();
}

void traps_close(void)
{
	if (watchdog_set)
		timer_delete(watchdog);
	watchdog_set = false;
	if (handlers_installed)
		remove_handlers();
	if (!operation_stack)
		return;
	protect_text(PROT_READ | PROT_EXEC);
	munmap(operation_stack, STACK_BYTES);
	operation_stack = NULL;
}
