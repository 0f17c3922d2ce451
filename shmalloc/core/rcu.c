/* SPDX-License-Identifier: MIT */
/*
 * Grace periods, and what is to be done after them.
 *
 * Answers to: kernel/rcu/tree.c (call_rcu, rcu_core, rcu_gp_fqs, rcu_barrier, the stall detector),
 * kernel/rcu/tasks.h (tasks-trace, as a second domain), mm/slab_common.c (kfree_rcu).
 * Kept: callbacks are queued with irqs off on the calling CPU, invoked in order on the same CPU after
 * a grace period that began later, as a softirq; one grace period at a time; a reader that delays one
 * for too long is named.
 * Changed: no grace-period thread: whoever ticks moves the state on, under a lock that is only tried.
 * A callback is a row of rcu.def.  CPUs that nobody is, or whose owner is dead, are quiescent.
 * Waiting (synchronize_rcu, rcu_barrier) makes grace periods urgent, that is, as short as readers allow.
 * Left out: kfree_rcu's batches, expedited grace periods, callback offloading, SRCU.
 * Context: call_rcu and kfree_rcu task, softirq, irq; waiting task.  Never NMI: it may have interrupted
 * the very list it would queue to.
 */
#include "lock.h"
#include "rcu.h"
#include "slab.h"
#include "smp.h"
#include "sys.h"

#define OWNER_CHECK_MS 20  /* a reader that delays a grace period for so long may be dead */
#define BARRIER_ROUNDS 64
#define ROUNDS_BEFORE_OWNER_CHECK 256

typedef void (*rcu_fn)(u64 head);

#define RCU_FUNC(name) #name,
static const char *const rcu_func_names[NR_RCU_FUNCS] = {
#include "rcu.def"
};
#undef RCU_FUNC

__export const char *shm_rcu_func_name(unsigned int func)
{
	return func < NR_RCU_FUNCS ? rcu_func_names[func] : NULL;
}

#define RCU_FUNC(name) rcu_func_##name,
static const rcu_fn rcu_table[NR_RCU_FUNCS] = {
#include "rcu.def"
};
#undef RCU_FUNC

__slowtext static struct rcu_head *head_ptr(u64 head)
{
	return ptr_of(head);
}

__slowtext static void rcu_list_add(struct rcu_list *list, u64 head)
{
	head_ptr(head)->next = 0;
	if (list->count)
		head_ptr(list->last)->next = head;
	else
		list->first = head;
	list->last = head;
	list->count++;
}

__slowtext static void rcu_list_splice(struct rcu_list *to, struct rcu_list *from)
{
	if (!from->count)
		return;
	if (to->count)
		head_ptr(to->last)->next = from->first;
	else
		to->first = from->first;
	to->last = from->last;
	to->count += from->count;
	*from = (struct rcu_list){ 0, 0, 0 };
}

__slowpath void call_rcu_domain(enum shm_rcu_domain domain, u64 head, enum rcu_func func, u32 arg)
{
	struct rcu_cpu *rcu = &this_cpu()->rcu[domain];
	u32 flags;

	if (in_nmi()) /* goes on, as the kernel would: the lists may now be corrupt */
		violation(VERDICT_BROKEN_RULE, CHECKER_RCU, NULL, LOCK_NONE, 0, head,
			  "call_rcu from NMI: it may have interrupted call_rcu itself");
	flags = local_irq_save();
	head_ptr(head)->func = func;
	head_ptr(head)->arg = arg;
	rcu_list_add(&rcu->next, head);
	rcu->queued++;
	local_irq_restore(flags);
}

__slowpath void kfree_rcu(u64 object, u32 head_offset)
{
	if (sheaf_arena() && kfree_rcu_sheaf(slab_cache(virt_to_head_page(object)), object, true))
		return;
	call_rcu(object + head_offset, RCU_FUNC_kfree, head_offset);
}

__slowpath void rcu_func_kfree(u64 head)
{
	kfree(head - head_ptr(head)->arg);
}

__slowtext static u64 ticks_of_us(u64 us)
{
	return us * (shm.hdr->tsc_hz / 1000000);
}

/* Is this CPU in a section that began before the grace period under way? */
__slowtext static bool delays(const struct shm_cpu *cpu, enum shm_rcu_domain domain)
{
	u64 reader = READ_ONCE(cpu->rcu[domain].reader);

	return reader && load_acquire(&cpu->state) == CPU_ONLINE &&
	       reader >> 1 < READ_ONCE(shm.hdr->rcu[domain].gp_started);
}

__slowtext static void put_number(char *text, u32 value)
{
	char digits[10];
	u32 n = 0;

	while (*text != '#')
		text++;
	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n)
		*text++ = digits[--n];
	while (*text) /* the place that the number did not need */
		*text++ = ' ';
}

__slowpath static void name_stalled(struct rcu_domain *d, const struct shm_cpu *cpu)
{
	char text[] = "a reader has delayed a grace period for too long: CPU ####";

	if (d->stalled_cpu == cpu->id + 1)
		return;
	d->stalled_cpu = cpu->id + 1;
	d->stalls++;
	put_number(text, cpu->id);
	violation(VERDICT_STALL, CHECKER_RCU, NULL, LOCK_NONE, cpu->id + 1, 0, text);
}

/* False: some reader is still in the way.  d->lock held. */
__slowtext static bool readers_passed(struct rcu_domain *d, enum shm_rcu_domain domain)
{
	u64 age = read_tsc() - d->gp_since;

	smp_mb();
	for (u32 i = 0; i < shm.nr_cpus; i++) {
		const struct shm_cpu *cpu = &shm.cpus[i];

		if (!delays(cpu, domain))
			continue;
		if (age > ticks_of_us(1000 * OWNER_CHECK_MS) && !shm_owner_alive(cpu->pid, cpu->start_time))
			continue;
		if (age > ticks_of_us(1000ull * shm.hdr->geometry.rcu_stall_ms))
			name_stalled(d, cpu);
		return false;
	}
	return true;
}

/* Start the grace period that is wanted; end the one that is over. */
__slowpath static void advance(enum shm_rcu_domain domain)
{
	struct rcu_domain *d = &shm.hdr->rcu[domain];
	u64 shortest = ticks_of_us(shm.hdr->geometry.rcu_gp_us);
	u32 flags;

	if (READ_ONCE(d->gp_wanted) == READ_ONCE(d->gp_completed) || !spin_trylock_irqsave(&d->lock, &flags))
		return;
	if (d->gp_started == d->gp_completed && d->gp_wanted > d->gp_started) {
		d->gp_since = read_tsc();
		xchg(&d->gp_started, d->gp_started + 1);
	}
	if (d->gp_started > d->gp_completed && (d->urgent || read_tsc() - d->gp_since >= shortest) &&
	    readers_passed(d, domain)) {
		d->stalled_cpu = 0;
		if (d->gp_wanted == d->gp_started)
			d->urgent = 0;
		store_release(&d->gp_completed, d->gp_started);
	}
	spin_unlock_irqrestore(&d->lock, flags);
}

__slowtext static void want(struct rcu_domain *d, u64 gp)
{
	u64 now = READ_ONCE(d->gp_wanted);

	while (now < gp && !try_cmpxchg(&d->gp_wanted, &now, gp))
		;
}

/* Sort a CPU's callbacks: due, waiting for a grace period, not yet assigned to one.  Irqs off. */
__slowtext static void sort_callbacks(struct rcu_cpu *rcu, struct rcu_domain *d)
{
	if (rcu->wait.count && load_acquire(&d->gp_completed) >= rcu->wait_gp)
		rcu_list_splice(&rcu->done, &rcu->wait);
	if (rcu->wait.count || !rcu->next.count)
		return;
	rcu_list_splice(&rcu->wait, &rcu->next);
	smp_mb(); /* what was unlinked before is seen by whoever begins after the count is read */
	rcu->wait_gp = READ_ONCE(d->gp_started) + 1;
	want(d, rcu->wait_gp);
}

__slowtext static u64 take_done(struct rcu_cpu *rcu)
{
	u32 flags = local_irq_save();
	u64 head = rcu->done.first;

	if (head) {
		rcu->done.first = head_ptr(head)->next;
		if (!--rcu->done.count)
			rcu->done.last = 0;
		rcu->invoked++;
	}
	local_irq_restore(flags);
	return head;
}

__slowpath static void rcu_core(struct shm_cpu *cpu, enum shm_rcu_domain domain)
{
	struct rcu_cpu *rcu = &cpu->rcu[domain];
	struct rcu_domain *d = &shm.hdr->rcu[domain];
	u32 flags;
	u64 head;

	advance(domain);
	flags = local_irq_save();
	sort_callbacks(rcu, d);
	local_irq_restore(flags);
	advance(domain);
	if (rcu->invoking && cpu == this_cpu()) /* a callback's own interrupt: the loop below goes on */
		return;
	rcu->invoking = 1;
	while (!stopped_by_verdict() && (head = take_done(rcu))) { /* what was taken is invoked, whatever happens */
		u32 func = head_ptr(head)->func;

		if (func >= NR_RCU_FUNCS)
			fatal(VERDICT_CORRUPTION, CHECKER_RCU, NULL, LOCK_NONE, 0, head,
			      "a callback was written to while it waited for its grace period");
		rcu_table[func](head);
	}
	rcu->invoking = 0;
}

__slowpath int rcu_serve(u32 cpu, u64 arg)
{
	(void)arg;
	for (u32 domain = 0; domain < NR_RCU_DOMAINS; domain++)
		rcu_core(&shm.cpus[cpu], domain);
	return 0;
}

__slowpath void rcu_tick(void)
{
	struct shm_cpu *cpu = this_cpu();

	if (irqs_disabled() || cpu->bh_count || this_ctx() != CTX_TASK || rcu_idle())
		return;
	shm_bh_disable();
	rcu_serve(cpu->id, 0);
	shm_bh_enable();
}

__slowtext void rcu_urgent(enum shm_rcu_domain domain)
{
	WRITE_ONCE(shm.hdr->rcu[domain].urgent, 1);
}

/* Waiting within a section, one's own or that of another CPU of this thread, would never end. */
__slowtext static void check_not_reader(enum shm_rcu_domain domain)
{
	for (u32 i = 0; i < shm.nr_cpus; i++) {
		const struct shm_cpu *cpu = &shm.cpus[i];

		if (cpu->rcu[domain].nesting && cpu->state == CPU_ONLINE && cpu->tid == this_cpu()->tid &&
		    cpu->pid == this_cpu()->pid)
			fatal(VERDICT_DEADLOCK, CHECKER_RCU, NULL, LOCK_NONE, i + 1, 0,
			      "waits for a grace period within a read-side section of its own");
	}
}

/* Who died while it moved grace periods on has ended them for ever. */
__slowpath static void check_lock_owner(struct rcu_domain *d)
{
	u32 word = READ_ONCE(d->lock.word), owner = lock_owner_cpu(word);

	if (word &&
	    (owner >= shm.nr_cpus || !shm_owner_alive(shm.cpus[owner].pid, shm.cpus[owner].start_time)) &&
	    READ_ONCE(d->lock.word) == word)
		fatal(VERDICT_DEAD_OWNER, CHECKER_RCU, &d->lock.word, d->lock.class, word, 0,
		      "no grace period will end any more: a CPU died while it moved them on");
}

__slowtext static void wait_for(enum shm_rcu_domain domain, u64 gp)
{
	struct rcu_domain *d = &shm.hdr->rcu[domain];
	u32 rounds = 0;

	want(d, gp);
	while (load_acquire(&d->gp_completed) < gp) {
		rcu_urgent(domain);
		advance(domain);
		if (stopped_by_verdict())
			unwind();
		if (++rounds % ROUNDS_BEFORE_OWNER_CHECK == 0)
			check_lock_owner(d);
		if (load_acquire(&d->gp_completed) < gp)
			yield_core();
	}
}

__slowtext void synchronize_rcu_domain(enum shm_rcu_domain domain)
{
	check_not_reader(domain);
	smp_mb();
	wait_for(domain, READ_ONCE(shm.hdr->rcu[domain].gp_started) + 1);
}

__slowtext u64 rcu_callbacks(void)
{
	u64 count = 0;

	for (u32 i = 0; i < shm.nr_cpus; i++)
		for (u32 domain = 0; domain < NR_RCU_DOMAINS; domain++) {
			const struct rcu_cpu *rcu = &shm.cpus[i].rcu[domain];

			count += READ_ONCE(rcu->next.count) + READ_ONCE(rcu->wait.count) + READ_ONCE(rcu->done.count);
		}
	return count;
}

/* Each round assigns what is queued to a grace period, waits for it, and invokes; twice is enough for
 * what was there before, more rounds are for callbacks that queue others. */
__slowtext int rcu_barrier(void)
{
	int error = 0;

	for (u32 domain = 0; domain < NR_RCU_DOMAINS; domain++)
		check_not_reader(domain);
	for (u32 round = 0; rcu_callbacks() && !error; round++) {
		if (round >= BARRIER_ROUNDS)
			return -EAGAIN;
		error = rcu_serve_all();
		for (u32 domain = 0; domain < NR_RCU_DOMAINS; domain++)
			if (READ_ONCE(shm.hdr->rcu[domain].gp_wanted) != READ_ONCE(shm.hdr->rcu[domain].gp_completed))
				wait_for(domain, READ_ONCE(shm.hdr->rcu[domain].gp_wanted));
		error = error ? error : rcu_serve_all();
	}
	return error;
}

#define REFUSED (thread_is_cpu() ? -EDEADLK : -EPERM)

static int read_lock(enum shm_rcu_domain domain)
{
	rcu_read_lock_domain(domain);
	return 0;
}

static int read_unlock(enum shm_rcu_domain domain)
{
	if (!this_cpu()->rcu[domain].nesting)
		return -EINVAL;
	rcu_read_unlock_domain(domain);
	return 0;
}

__export int shm_rcu_read_lock(enum shm_rcu_domain domain)
{
	return domain < NR_RCU_DOMAINS ? GUARDED(int, REFUSED, read_lock(domain)) : -EINVAL;
}

__export int shm_rcu_read_unlock(enum shm_rcu_domain domain)
{
	return domain < NR_RCU_DOMAINS ? GUARDED(int, REFUSED, read_unlock(domain)) : -EINVAL;
}

static int synchronize(enum shm_rcu_domain domain)
{
	synchronize_rcu_domain(domain);
	return 0;
}

__export int shm_synchronize_rcu(enum shm_rcu_domain domain)
{
	return domain < NR_RCU_DOMAINS ? GUARDED(int, REFUSED, synchronize(domain)) : -EINVAL;
}

static bool irq_work_waiting(void)
{
	for (u32 i = 0; i < shm.nr_cpus; i++)
		if (READ_ONCE(shm.cpus[i].raised_list.first))
			return true;
	return false;
}

/* Either may leave something to the other. */
static int quiesce(void)
{
	for (u32 round = 0; round < BARRIER_ROUNDS; round++) {
		int error = irq_work_run_all();

		error = error ? error : rcu_barrier();
		if (error || !irq_work_waiting())
			return error;
	}
	return -EAGAIN;
}

__export int shm_quiesce(void)
{
	return GUARDED(int, REFUSED, quiesce());
}

__export int shm_rcu_barrier(void)
{
	return GUARDED(int, REFUSED, rcu_barrier());
}

static int tick(void)
{
	irq_work_tick(false);
	rcu_tick();
	return 0;
}

__export int shm_rcu_tick(void)
{
	return GUARDED(int, REFUSED, tick());
}

__export int64_t shm_rcu_pending(void)
{
	return shm.base ? (s64)rcu_callbacks() : -ENOTCONN;
}
