/* SPDX-License-Identifier: MIT */
/*
 * The signals that stand for interrupts, and the timers that raise them.
 *
 * IRQ = SIGUSR1, NMI = SIGUSR2, thread-directed: a process-directed signal might run on another
 * thread, which is no interrupt at all; the handlers check.  The NMI's mask blocks both, the IRQ's
 * blocks IRQs only: an NMI may interrupt an IRQ, and neither nests in itself before it returns, as on
 * x86.  SHM_BIND_NEST lets NMIs nest, up to the number of levels: stronger than hardware.
 * The handlers touch no errno: the core's system calls are bare instructions.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include "lock.h"
#include "signals.h"
#include "sys.h"

#define SIG_IRQ SIGUSR1
#define SIG_NMI SIGUSR2
#define TERM_GRACE_S 5

static struct sigaction old_irq, old_nmi, old_term;
static stack_t old_stack;
static void *stack_memory;
static u64 stack_bytes;
static bool term_installed;

__export int shm_signal_of(enum shm_irq_kind kind)
{
	return kind == KIND_NMI ? SIG_NMI : SIG_IRQ;
}

/* One shot, set again when the handler is done: an interval shorter than the handler cannot livelock. */
static void rearm(enum shm_irq_kind kind)
{
	u64 ns = shm.timer_ns[kind], jitter = shm.timer_jitter[kind];

	if (!ns)
		return;
	if (jitter) {
		u64 span = ns * jitter / 1000;
		u64 r = random_next(&this_cpu()->random) >> 32;

		ns = ns - span + (u64)(((unsigned __int128)r * (2 * span)) >> 32);
	}
	sys_timer_settime(shm.timer_id[kind], max_of(ns, 1000ull));
}

static bool timer_tick(enum shm_irq_kind kind, const siginfo_t *info)
{
	if (info->si_code != SI_TIMER)
		return false;
	this_cpu_inc64(&this_cpu()->timer_ticks[kind]);
	atomic_add(&shm.tele->interrupts[kind].sent, 1);
	return true;
}

static void on_irq(int sig, siginfo_t *info, void *context)
{
	const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	bool tick, told;

	(void)sig;
	if (!thread_is_cpu())
		return;
	told = shm.trace_seen != READ_ONCE(shm.hdr->trace.generation); /* shm_trace_switch() sends the signal for it */
	if (told)
		first_attempts_load();
	tick = timer_tick(KIND_IRQ, info);
	if (tick)
		atomic_or(&this_cpu()->irq_pending, IRQ_PENDING_PROGRAM);
	if (!irqs_disabled())
		irq_take((u64)regs[REG_RIP], (u64)regs[REG_RBP], false);
	else if (!told || this_cpu()->irq_pending)
		this_cpu_inc64(&shm.tele->interrupts[KIND_IRQ].masked);
	if (tick)
		rearm(KIND_IRQ);
}

static void on_nmi(int sig, siginfo_t *info, void *context)
{
	const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig;
	if (!thread_is_cpu())
		return;
	nmi_take((u64)regs[REG_RIP], (u64)regs[REG_RBP], false);
	/* work raised in the NMI: with irqs enabled it is due as soon as the NMI has returned */
	if (!irqs_disabled() && this_cpu()->irq_pending)
		sys_tgkill(shm.pid, shm.tid, SIG_IRQ);
	if (timer_tick(KIND_NMI, info))
		rearm(KIND_NMI);
}

/* The parent is gone or wants us gone: end at the next op, or by SIGALRM if there is none. */
static void on_term(int sig)
{
	(void)sig;
	shm.terminated = 1;
	shm_stop(1);
	sys_alarm(TERM_GRACE_S);
}

/* A signal frame for each level, and room for what the handlers call. */
static int install_stack(void)
{
	u64 frame = getauxval(AT_MINSIGSTKSZ);
	stack_t stack = { 0 };

	stack_bytes = round_up(SHM_MAX_LEVELS * (max_of(frame, 4096ull) + 32768), SHM_PAGE_SIZE);
	stack_memory = mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack_memory == MAP_FAILED)
		return -ENOMEM;
	stack.ss_sp = stack_memory;
	stack.ss_size = stack_bytes;
	return sigaltstack(&stack, &old_stack) ? -EINVAL : 0;
}

int signals_install(bool term, bool nest)
{
	struct sigaction action = { 0 };
	int error = install_stack();

	if (error)
		return error;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, SIG_IRQ);
	action.sa_sigaction = on_irq;
	sigaction(SIG_IRQ, &action, &old_irq);
	if (nest)
		action.sa_flags |= SA_NODEFER;
	else
		sigaddset(&action.sa_mask, SIG_NMI);
	action.sa_sigaction = on_nmi;
	sigaction(SIG_NMI, &action, &old_nmi);
	if (term) {
		struct sigaction end = { 0 };

		end.sa_flags = SA_ONSTACK;
		end.sa_handler = on_term;
		sigaction(SIGTERM, &end, &old_term);
	}
	term_installed = term;
	shm.nmi_nesting = nest;
	shm.handlers = 1;
	shm.timer_id[KIND_NMI] = shm.timer_id[KIND_IRQ] = -1;
	return 0;
}

static void delete_timer(enum shm_irq_kind kind)
{
	shm.timer_ns[kind] = 0;
	if (shm.timer_id[kind] >= 0)
		sys_call4(SYS_timer_delete, shm.timer_id[kind], 0, 0, 0);
	shm.timer_id[kind] = -1;
}

/* A signal still pending must not find the default action, which is to die: leave it ignored. */
static void put_back(int sig, const struct sigaction *old)
{
	struct sigaction ignore = { 0 };

	ignore.sa_handler = SIG_IGN;
	sigaction(sig, &ignore, NULL);
	if (old->sa_handler != SIG_DFL)
		sigaction(sig, old, NULL);
}

void signals_remove(void)
{
	delete_timer(KIND_NMI);
	delete_timer(KIND_IRQ);
	put_back(SIG_IRQ, &old_irq);
	put_back(SIG_NMI, &old_nmi);
	if (term_installed)
		sigaction(SIGTERM, &old_term, NULL);
	sigaltstack(&old_stack, NULL);
	munmap(stack_memory, stack_bytes);
	shm.handlers = 0;
}

static int create_timer(enum shm_irq_kind kind)
{
	struct sigevent event = { 0 };
	int id = -1;

	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_signo = shm_signal_of(kind);
	event._sigev_un._tid = (int)shm.tid;
	if (sys_call4(SYS_timer_create, 1 /* CLOCK_MONOTONIC */, (long)&event, (long)&id, 0))
		return -EAGAIN;
	shm.timer_id[kind] = id;
	return 0;
}

__export int shm_set_timer(enum shm_irq_kind kind, double rate_hz, double jitter)
{
	int error = 0;

	if (!thread_is_cpu())
		return -EPERM;
	if (kind >= NR_KINDS || !(rate_hz == 0 || (rate_hz >= 1e-3 && rate_hz <= 1e6)) || !(jitter >= 0 && jitter <= 1))
		return -EINVAL;
	if (!shm.handlers)
		return -ENOTCONN;
	if (rate_hz == 0) {
		delete_timer(kind);
		return 0;
	}
	if (shm.timer_id[kind] < 0)
		error = create_timer(kind);
	if (error)
		return error;
	shm.timer_jitter[kind] = (u32)(jitter * 1000);
	shm.timer_ns[kind] = (u64)(1e9 / rate_hz);
	rearm(kind);
	return 0;
}

/* Thread-directed, from any process.  For an IRQ the pending bit is set first: it may be masked. */
__export int shm_send_interrupt(unsigned int cpu, enum shm_irq_kind kind)
{
	struct shm_telemetry *tele;
	struct shm_cpu *target;

	if (!shm.base || cpu >= shm.nr_cpus || kind >= NR_KINDS)
		return -EINVAL;
	target = &shm.cpus[cpu];
	if (load_acquire(&target->state) != CPU_ONLINE || !target->handlers)
		return -ENOTCONN;
	tele = ptr_of(shm.hdr->regions[REGION_TELEMETRY].offset +
		      (u64)cpu * round_up(sizeof(struct shm_telemetry), 64));
	atomic_add(&tele->interrupts[kind].sent, 1);
	if (kind == KIND_IRQ)
		atomic_or(&target->irq_pending, IRQ_PENDING_PROGRAM);
	return (int)sys_tgkill(target->pid, target->tid, shm_signal_of(kind));
}

int self_interrupt(enum shm_irq_kind kind)
{
	return shm_send_interrupt(this_cpu()->id, kind);
}

__export uint64_t shm_inject(unsigned int first, unsigned int last, enum shm_irq_kind kind, double rate_hz,
			     uint64_t seed, double seconds)
{
	u64 state = seed | 1, sent = 0, end, period, next;

	if (!shm.base || last >= shm.nr_cpus || first > last || !(rate_hz >= 1e-3 && rate_hz <= 1e9) || !(seconds > 0))
		return 0;
	end = read_tsc() + (u64)(min_of(seconds, MAX_SECONDS) * (double)shm.hdr->tsc_hz);
	period = (u64)((double)shm.hdr->tsc_hz / rate_hz);
	next = read_tsc();
	while (!READ_ONCE(shm.hdr->stop) && !shm.terminated && next < end) {
		u32 cpu = first + (u32)((random_next(&state) >> 32) * (last - first + 1) >> 32);
		u64 now = read_tsc();

		if (now < next) {
			sleep_ns((u64)((double)(next - now) * 1e9 / (double)shm.hdr->tsc_hz));
			continue;
		}
		if (!shm_send_interrupt(cpu, kind))
			sent++;
		/* uniform in [0, 2) periods; what was missed while asleep is not made up for in a burst */
		next = max_of(next, now) + (u64)(((unsigned __int128)(random_next(&state) >> 40) * (2 * period)) >> 24);
	}
	return sent;
}
