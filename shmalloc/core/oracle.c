/* SPDX-License-Identifier: MIT */
/*
 * The ownership oracle: who owns which 8 bytes, kept outside the allocators' reach.
 *
 * Three bitmaps over page memory, one bit per 8-byte granule: owned, first granule, last granule.
 * Bits are set after an allocation has returned and cleared before the free is called, so they cover
 * a subset of the time of ownership: an owned bit found set by an allocation is two owners, never a
 * false alarm.  The extent is found by the last-granule bit alone, because neighbours' bits change
 * at any time.  Any context, any process.
 */
#include "oracle.h"

#define BITS 64

__helper u64 granule_of(u64 off)
{
	return (off - shm.mem_off) >> 3;
}

__helper u64 mask_of(u64 from, u64 count)
{
	return (count >= BITS ? ~0ull : (1ull << count) - 1) << from;
}

static void two_owners(u64 off, const char *text)
{
	violation(VERDICT_CORRUPTION, CHECKER_ORACLE, NULL, LOCK_NONE, 0, off, text);
}

static bool set_owned(u64 granule, u64 count)
{
	bool taken = false;

	while (count) {
		u64 at = granule % BITS, n = min_of(count, BITS - at), mask = mask_of(at, n);

		taken |= (atomic_or(&shm.owned[granule / BITS], mask) & mask) != 0;
		granule += n;
		count -= n;
	}
	return taken;
}

static bool clear_owned(u64 granule, u64 count)
{
	bool all = true;

	while (count) {
		u64 at = granule % BITS, n = min_of(count, BITS - at), mask = mask_of(at, n);

		all &= (atomic_and(&shm.owned[granule / BITS], ~mask) & mask) == mask;
		granule += n;
		count -= n;
	}
	return all;
}

void oracle_own(u64 off, u64 bytes)
{
	u64 granule = granule_of(off), count = (bytes + 7) / 8;

	if (!oracle_on() || off <= SHM_ZERO_SIZE)
		return;
	if (off & 7 || !off_in_memory(off) || !off_in_memory(off + bytes - 1)) {
		two_owners(off, "an allocation lies outside the arena's memory");
		return;
	}
	if (set_owned(granule, count))
		two_owners(off, "memory was handed out that is already owned");
	atomic_or(&shm.end[(granule + count - 1) / BITS], 1ull << (granule + count - 1) % BITS);
	atomic_or(&shm.start[granule / BITS], 1ull << granule % BITS);
}

bool oracle_is_live(u64 off)
{
	u64 granule = granule_of(off);

	return !(off & 7) && off_in_memory(off) && READ_ONCE(shm.start[granule / BITS]) >> granule % BITS & 1;
}

static u64 granules_to_end(u64 granule)
{
	u64 limit = shm.nr_pages << (SHM_PAGE_SHIFT - 3), word = granule / BITS;
	u64 bits = READ_ONCE(shm.end[word]) & ~0ull << granule % BITS;

	while (!bits && ++word < limit / BITS)
		bits = READ_ONCE(shm.end[word]);
	return bits ? word * BITS + (u64)__builtin_ctzll(bits) - granule + 1 : 0;
}

u64 oracle_extent(u64 off)
{
	return oracle_on() && oracle_is_live(off) ? granules_to_end(granule_of(off)) * 8 : 0;
}

/* False: this is not the start of a live object.  Of two frees of one object one gets true. */
bool oracle_release(u64 off)
{
	u64 granule = granule_of(off), bit = 1ull << granule % BITS, count;

	if (!oracle_on() || off <= SHM_ZERO_SIZE)
		return true;
	if (off & 7 || !off_in_memory(off) || !(atomic_and(&shm.start[granule / BITS], ~bit) & bit))
		return false;
	count = granules_to_end(granule);
	if (!count || !clear_owned(granule, count))
		two_owners(off, "a live object's memory lost its owner");
	if (count)
		atomic_and(&shm.end[(granule + count - 1) / BITS], ~(1ull << (granule + count - 1) % BITS));
	return true;
}

__attribute__((noinline, cold)) u64 oracle_owned(u64 off, u64 bytes)
{
	oracle_own(off, bytes);
	return off;
}

__cold_call bool oracle_release_kept(u64 off)
{
	return oracle_release(off);
}

__export int shm_oracle_is_live(uint64_t off)
{
	return shm.base && oracle_on() && oracle_is_live(off);
}

__export uint64_t shm_oracle_extent(uint64_t off)
{
	return shm.base ? oracle_extent(off) : 0;
}
