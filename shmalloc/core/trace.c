/* SPDX-License-Identifier: MIT */
/*
 * The rings of recorded events: writing, reading, switching.
 *
 * Answers to: kernel/trace/ring_buffer.c, by what it guarantees; the algorithm is another.
 * A ring has one CPU as its writer, any of whose contexts may interrupt any other at any instruction.  A place
 * is got by an unlocked exchange of the head, which an interrupt in between makes fail; the time is read before
 * it, so times grow along the ring.  The record's number is written last, and is 0 while it is being written.
 * A place whose record is not the one that lies a ring's length behind is still being written by what this
 * has interrupted: it is never written over, the inner event is lost instead, and counted.
 * A reader, in any process, believes a record whose number is right before and after it was copied.
 * Context: writing any, of a CPU; reading and switching any process.
 */
#include "trace.h"
#include "lock.h"
#include "signals.h"
#include "sys.h"

#define TRACE_EVENT(group, name, fields) #group ":" #name,
static const char *const event_names[] = {
#include "trace.def"
};
#undef TRACE_EVENT

#define TRACE_EVENT(group, name, fields) fields,
static const char *const event_fields[] = {
#include "trace.def"
};
#undef TRACE_EVENT

#define IRQ_WORK(name) #name,
static const char *const work_names[] = {
#include "irq_work.def"
};
#undef IRQ_WORK

_Static_assert(NR_TRACE_EVENTS <= 64, "a bit each");

__export const char *shm_trace_name(unsigned int event)
{
	return event < ARRAY_SIZE(event_names) ? event_names[event] : NULL;
}

__export const char *shm_trace_fields(unsigned int event)
{
	return event < ARRAY_SIZE(event_fields) ? event_fields[event] : NULL;
}

__export const char *shm_irq_work_name(unsigned int func)
{
	return func < ARRAY_SIZE(work_names) ? work_names[func] : NULL;
}

static struct shm_trace_ring *ring_of(u32 cpu)
{
	return ptr_of(shm.trace_off + cpu * shm.trace_stride);
}

static struct shm_trace_event *place_of(struct shm_trace_ring *ring, u64 at)
{
	return (struct shm_trace_event *)(ring + 1) + (at & shm.trace_mask);
}

/* --- writing ----------------------------------------------------------------------------------------- */

/* Not before all that was read earlier: the times of a ring are to grow. */
static u64 read_tsc_ordered(void)
{
	__asm__ volatile("lfence" ::: "memory");
	return read_tsc();
}

/* Number that the place's last record must have: a ring's length ago, or never. */
static u64 number_before(u64 at)
{
	return at > shm.trace_mask ? at - shm.trace_mask : 0;
}

static bool has_room(const struct shm_trace_ring *ring, u64 at)
{
	return shm.hdr->trace.overwrite || at - load_acquire(&ring->tail) <= shm.trace_mask;
}

static bool still_written(struct shm_trace_ring *ring, u64 at)
{
	return READ_ONCE(place_of(ring, at)->seq) != number_before(at) && !broken(trace_in_flight);
}

/* A place, and the time; false: there is none, and the event is lost. */
static bool get_place(struct shm_trace_ring *ring, u64 *at, u64 *ts)
{
	u64 head = READ_ONCE(ring->head);

	for (;;) {
		if (still_written(ring, head) || !has_room(ring, head)) {
			u64 now = READ_ONCE(ring->head);

			if (now == head)
				break;
			head = now; /* an interrupt has moved on: ask again */
			continue;
		}
		*ts = read_tsc_ordered();
		*at = head;
		probe(trace_place);
		if (broken(trace_plain_add))
			WRITE_ONCE(ring->head, head + 1);
		else if (!this_cpu_try_cmpxchg64(&ring->head, &head, head + 1))
			continue;
		return true;
	}
	this_cpu_inc64(&ring->lost);
	return false;
}

/* What the event has not itself: number, time, context. */
void trace_write(struct shm_trace_event *event)
{
	struct shm_trace_event *place;
	struct shm_trace_ring *ring;
	u64 at;

	if (!shm.trace_stride)
		return;
	ring = ring_of(this_cpu()->id);
	event->where = (u8)(this_cpu()->level << 4 | this_ctx());
	WRITE_ONCE(ring->pid, this_cpu()->pid);
	if (!get_place(ring, &at, &event->ts))
		return;
	place = place_of(ring, at);
	event->seq = broken(trace_early_commit) ? at + 1 : 0;
	WRITE_ONCE(place->seq, event->seq);
	barrier();
	probe(trace_filling);
	*place = *event;
	store_release(&place->seq, at + 1); /* pairs with copy_record() */
}

/* Times grow along a ring: what is torn in front of all others has the time of the first that is whole. */
static u64 first_time(struct shm_trace_ring *ring, u64 from, u64 head)
{
	for (u64 at = from; at < head; at++)
		if (place_of(ring, at)->seq == at + 1)
			return place_of(ring, at)->ts;
	return read_tsc();
}

void trace_mend(u32 cpu)
{
	struct shm_trace_ring *ring;
	u64 head, from, ts;

	if (!shm.trace_stride)
		return;
	ring = ring_of(cpu);
	head = ring->head;
	from = head > shm.trace_mask ? head - shm.trace_mask - 1 : 0;
	ts = first_time(ring, from, head);
	for (u64 at = from; at < head; at++) {
		struct shm_trace_event *place = place_of(ring, at);

		if (place->seq != at + 1) {
			*place = (struct shm_trace_event){ .ts = ts, .id = TRACE_torn, .cache = SHM_NO_CACHE };
			store_release(&place->seq, at + 1);
		}
		ts = place->ts;
	}
}

/* --- reading ----------------------------------------------------------------------------------------- */

/* False: it is being written, or is another one by now. */
static bool copy_record(struct shm_trace_ring *ring, u64 at, struct shm_trace_event *out)
{
	const struct shm_trace_event *place = place_of(ring, at);

	if (load_acquire(&place->seq) != at + 1 && !broken(trace_torn_read))
		return false;
	*out = *place;
	__atomic_thread_fence(__ATOMIC_ACQUIRE); /* loads are in order: the number is read last */
	return (READ_ONCE(place->seq) == at + 1 && out->seq == at + 1) || broken(trace_torn_read);
}

/* It was killed, in the middle of what is not there. */
static bool writer_gone(u32 cpu)
{
	const struct shm_cpu *slot = &shm.cpus[cpu];

	return load_acquire(&slot->state) == CPU_OFFLINE || !shm_owner_alive(slot->pid, slot->start_time);
}

static u64 oldest(u64 head)
{
	return head > shm.trace_mask ? head - shm.trace_mask - 1 : 0;
}

__export int64_t shm_trace_read(unsigned int cpu, uint64_t *cursor, struct shm_trace_event *out, uint64_t max,
				uint64_t *missed)
{
	struct shm_trace_ring *ring;
	s64 nr = 0;

	if (!shm.base || !shm.trace_stride)
		return -ENOTCONN;
	if (cpu >= nr_cpu_slots())
		return -EINVAL;
	ring = ring_of(cpu);
	while ((u64)nr < max) {
		u64 head = load_acquire(&ring->head);

		if (*cursor >= head)
			break;
		if (*cursor < oldest(head)) {
			*missed += oldest(head) - *cursor;
			*cursor = oldest(head);
		}
		if (copy_record(ring, *cursor, &out[nr])) {
			nr++;
			++*cursor;
		} else if (*cursor >= oldest(READ_ONCE(ring->head))) {
			if (!writer_gone(cpu) || copy_record(ring, *cursor, &out[nr]))
				break; /* it is being written, or was just now */
			++*missed;
			++*cursor;
		}
	}
	return nr;
}

static bool begin_consuming(void)
{
	u32 owner = 0;

	return try_cmpxchg(&shm.hdr->trace.consumer, &owner, (u32)sys_getpid()) ||
	       (!shm_start_time(owner) && try_cmpxchg(&shm.hdr->trace.consumer, &owner, (u32)sys_getpid()));
}

__export int64_t shm_trace_consume(unsigned int cpu, struct shm_trace_event *out, uint64_t max)
{
	u64 cursor, missed = 0;
	struct shm_trace_ring *ring;
	s64 nr;

	if (!shm.base || !shm.trace_stride)
		return -ENOTCONN;
	if (cpu >= nr_cpu_slots())
		return -EINVAL;
	if (!begin_consuming())
		return -EBUSY;
	ring = ring_of(cpu);
	cursor = ring->tail;
	nr = shm_trace_read(cpu, &cursor, out, max, &missed);
	ring->overwritten += missed;
	store_release(&ring->tail, cursor); /* pairs with has_room() */
	store_release(&shm.hdr->trace.consumer, 0);
	return nr;
}

/* --- switching --------------------------------------------------------------------------------------- */

/*
 * Have a CPU look what is recorded: with nothing pending that is all that its handler does, irqs on or off.  One
 * that takes no interrupts looks by itself, but may take its time.
 */
static void tell(struct shm_cpu *cpu)
{
	if (load_acquire(&cpu->state) == CPU_ONLINE && cpu->handlers)
		sys_tgkill(cpu->pid, cpu->tid, shm_signal_of(KIND_IRQ));
}

__export int shm_trace_switch(uint64_t events, int overwrite)
{
	if (!shm.base)
		return -ENOTCONN;
	if (events >> NR_TRACE_EVENTS)
		return -EINVAL;
	if (events && !shm.trace_stride)
		return -EOPNOTSUPP;
	WRITE_ONCE(shm.hdr->trace.overwrite, overwrite != 0);
	WRITE_ONCE(shm.hdr->trace.events, events);
	atomic_add(&shm.hdr->trace.generation, 1);
	if (thread_is_cpu())
		first_attempts_load();
	for (u32 i = 0; i < shm.nr_cpus; i++)
		if (!shm_trace_followed(i))
			tell(&shm.cpus[i]);
	return 0;
}

__export int shm_trace_followed(unsigned int cpu)
{
	if (!shm.base)
		return -ENOTCONN;
	if (cpu >= shm.nr_cpus)
		return -EINVAL;
	return load_acquire(&shm.cpus[cpu].state) != CPU_ONLINE ||
	       load_acquire(&shm.cpus[cpu].trace_seen) == load_acquire(&shm.hdr->trace.generation);
}
