/* SPDX-License-Identifier: MIT */
/*
 * Sets of changed words, each kept once and numbered in order of first appearance.
 *
 * Compared word for word; the hash only finds the candidate.
 */
#include <stdlib.h>
#include "internal.h"

struct entry {
	uint64_t hash;
	uint64_t first;          /* in the pool */
	uint32_t nr;
};

struct distinct {
	struct change *pool;
	uint64_t pool_nr, pool_room;
	struct entry *entries;
	uint32_t nr, room;
	uint32_t *table;         /* entry + 1, 0 = empty; a power of two */
	uint32_t table_size;
};

struct distinct *distinct_new(void)
{
	return calloc(1, sizeof(struct distinct));
}

void distinct_clear(struct distinct *set)
{
	set->pool_nr = set->nr = 0;
	if (set->table)
		memset(set->table, 0, set->table_size * sizeof(*set->table));
}

void distinct_free(struct distinct *set)
{
	if (!set)
		return;
	free(set->pool);
	free(set->entries);
	free(set->table);
	free(set);
}

static uint64_t hash_of(const struct change *changes, uint32_t nr)
{
	uint64_t hash = 0x9e3779b97f4a7c15ull + nr;

	for (uint32_t i = 0; i < nr; i++) {
		uint64_t word;

		memcpy(&word, &changes[i], sizeof(word));
		hash = (hash ^ word) * 0xff51afd7ed558ccdull;
		hash ^= hash >> 32;
	}
	return hash;
}

static uint32_t *place_of(struct distinct *set, uint64_t hash, const struct change *changes, uint32_t nr)
{
	for (uint32_t at = (uint32_t)hash;; at++) {
		uint32_t *place = &set->table[at & (set->table_size - 1)];
		const struct entry *entry = &set->entries[*place - 1];

		if (!*place || (entry->hash == hash && entry->nr == nr &&
				!memcmp(&set->pool[entry->first], changes, nr * sizeof(*changes))))
			return place;
	}
}

static bool grow_table(struct distinct *set)
{
	uint32_t size = set->table_size ? set->table_size * 2 : 1024;
	uint32_t *table = calloc(size, sizeof(*table));

	if (!table)
		return false;
	for (uint32_t i = 0; i < set->nr; i++) {
		uint32_t at = (uint32_t)set->entries[i].hash;

		while (table[at & (size - 1)])
			at++;
		table[at & (size - 1)] = i + 1;
	}
	free(set->table);
	set->table = table;
	set->table_size = size;
	return true;
}

static bool make_room(struct distinct *set, uint32_t nr)
{
	if (set->pool_nr + nr > set->pool_room) {
		uint64_t room = (set->pool_nr + nr) * 2 + 1024;
		struct change *pool = realloc(set->pool, room * sizeof(*pool));

		if (!pool)
			return false;
		set->pool = pool;
		set->pool_room = room;
	}
	if (set->nr == set->room) {
		uint32_t room = set->room * 2 + 64;
		struct entry *entries = realloc(set->entries, room * sizeof(*entries));

		if (!entries)
			return false;
		set->entries = entries;
		set->room = room;
	}
	return (set->nr + 1) * 2 <= set->table_size || grow_table(set);
}

uint32_t distinct_number(struct distinct *set, const struct change *changes, uint32_t nr)
{
	uint64_t hash = hash_of(changes, nr);
	uint32_t *place;

	if (!make_room(set, nr))
		return SWEEP_NONE;
	place = place_of(set, hash, changes, nr);
	if (!*place) {
		set->entries[set->nr] = (struct entry){ hash, set->pool_nr, nr };
		memcpy(&set->pool[set->pool_nr], changes, nr * sizeof(*changes));
		set->pool_nr += nr;
		*place = ++set->nr;
	}
	return *place - 1;
}

uint32_t distinct_count(const struct distinct *set)
{
	return set->nr;
}

const struct change *distinct_changes(const struct distinct *set, uint32_t number, uint32_t *nr)
{
	*nr = set->entries[number].nr;
	return &set->pool[set->entries[number].first];
}
