/* SPDX-License-Identifier: MIT */
/*
 * Hash maps whose elements a design allocates.
 *
 * Answers to: kernel/bpf/hashtab.c (6.18).
 * Kept: buckets, as many as max_entries rounded up to a power of two, each with a lock for writers (an
 * rqspinlock, irqs off) and a chain that readers follow without it; the chain's end names its bucket, and a
 * reader that arrives at another's begins again; the order of an update (lock, look up, flags, element, link
 * before unlink); errors.  A preallocated map is full when its freelists are, any other by its count.
 * Changed: a replacing update puts the old element aside as the CPU's spare one only when it is out of its
 * bucket.  In 6.18 the two change places first, and an update in an NMI between the two steps takes an
 * element for new that is still linked: the broken variant extra_swap.  The hash is no jhash.
 * Left out: per-CPU values, LRU, batches, timers in values, accounting to a memcg.
 * Context: updates, lookups and deletes any that the design allows; create and destroy task.
 */
#include "oracle.h"
#include "pool.h"
#include "rcu.h"

#define MAX_KEY_BYTES 512u
#define MAX_VALUE_BYTES (1u << 20)
#define MAX_ENTRIES (1u << 24)
#define MAX_RESTARTS 1000

/* a program that uses a map runs in a read-side section */
#define READING(call) ({ \
	int result_; \
	rcu_read_lock(); \
	result_ = (call); \
	rcu_read_unlock(); \
	result_; })

struct map_key {
	u32 hash;
	u32 words;
	u64 data[MAX_KEY_BYTES / 8];
};

__helper u64 *elem_key(u64 elem)
{
	return ptr_of(elem + sizeof(struct htab_elem));
}

__helper u64 *elem_value(const struct shm_map *map, u64 elem)
{
	return ptr_of(elem + sizeof(struct htab_elem) + round_up(map->key_size, 8));
}

__helper u32 value_words(const struct shm_map *map)
{
	return (map->value_size + 7) / 8;
}

__helper u64 mix(u64 x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ x >> 32;
}

__slowtext static void key_of(const struct shm_map *map, const void *bytes, struct map_key *key)
{
	u64 h = map->hashrnd;

	key->words = (map->key_size + 7) / 8;
	key->data[key->words - 1] = 0;
	copy_bytes(key->data, bytes, map->key_size);
	for (u32 i = 0; i < key->words; i++)
		h = mix(h ^ key->data[i]);
	key->hash = (u32)h;
}

__slowtext static void key_of_number(const struct shm_map *map, u32 number, struct map_key *key)
{
	u64 bytes[MAX_KEY_BYTES / 8];

	zero_bytes(bytes, round_up(map->key_size, 8));
	bytes[0] = number;
	key_of(map, bytes, key);
}

__helper bool key_equal(u64 elem, const struct map_key *key)
{
	const u64 *words = elem_key(elem);

	for (u32 i = 0; i < key->words; i++)
		if (READ_ONCE(words[i]) != key->data[i])
			return false;
	return true;
}

/* Word i of the value of a key that is a number. */
__helper u64 value_word(u32 number, u32 i)
{
	return mix(((u64)number << 32 | i) + 0x5ca1ab1e);
}

__helper struct bucket *select_bucket(const struct shm_map *map, u32 hash)
{
	return ptr_of(area_elem(&map->buckets, hash & (map->n_buckets - 1)));
}

/* --- chains ------------------------------------------------------------------------------------- */

__helper u64 make_nulls(const struct shm_map *map, u32 hash)
{
	return (u64)(hash & (map->n_buckets - 1)) << 1 | 1;
}

__helper bool is_nulls(u64 at)
{
	return at & 1;
}

__helper struct htab_elem *elem_ptr(u64 elem)
{
	return ptr_of(elem);
}

__helper bool elem_plausible(const struct shm_map *map, u64 at)
{
	return !(at & 7) && off_in_memory(at) && off_in_memory(at + map->elem_size - 1);
}

/* Lock held.  Before it, so that a search that runs meanwhile finds the new element before the old one. */
__slowtext static void chain_add(struct bucket *b, u64 elem)
{
	struct htab_elem *e = elem_ptr(elem);

	e->next = b->first;
	e->pprev = off_of(&b->first);
	store_release(&b->first, elem); /* pairs with the load of a reader */
	if (!is_nulls(e->next))
		elem_ptr(e->next)->pprev = off_of(&e->next);
}

/* Lock held.  Its own link stays, for readers that stand on it. */
__slowtext static void chain_del(u64 elem)
{
	const struct htab_elem *e = elem_ptr(elem);

	WRITE_ONCE(*(u64 *)ptr_of(e->pprev), e->next);
	if (!is_nulls(e->next))
		elem_ptr(e->next)->pprev = e->pprev;
}

/* Lock held: nothing changes, so whatever is strange is corrupt. */
__slowtext static u64 lookup_locked(const struct shm_map *map, const struct bucket *b, const struct map_key *key)
{
	u64 at = b->first, from = off_of(&b->first);

	for (u32 steps = 0; !is_nulls(at); steps++) {
		const struct htab_elem *e;

		if (!elem_plausible(map, at) || elem_ptr(at)->map != map->index + 1 || elem_ptr(at)->pprev != from ||
		    steps > map->max_entries + shm.nr_cpus)
			fatal(VERDICT_CORRUPTION, CHECKER_POOL, NULL, LOCK_NONE, 0, at,
			      "a bucket's chain leads to what is no element of it");
		e = elem_ptr(at);
		if (e->hash == key->hash && key_equal(at, key))
			return at;
		from = off_of(&e->next);
		at = e->next;
	}
	if (at != make_nulls(map, key->hash))
		fatal(VERDICT_CORRUPTION, CHECKER_POOL, NULL, LOCK_NONE, 0, off_of(b),
		      "a bucket's chain ends at another bucket's mark");
	return 0;
}

/* No lock: an element may become another key's, in another bucket, at any time.  0 = not there. */
__fastpath static u64 lookup_elem(const struct shm_map *map, const struct map_key *key)
{
	const struct bucket *b = select_bucket(map, key->hash);
	u64 mark = make_nulls(map, key->hash), at;

	for (u32 restarts = 0; restarts < MAX_RESTARTS; restarts++) {
		at = load_acquire(&b->first);
		for (u32 steps = 0; elem_plausible(map, at) && steps <= map->max_entries + shm.nr_cpus; steps++) {
			const struct htab_elem *e = elem_ptr(at);

			if (READ_ONCE(e->hash) == key->hash && key_equal(at, key))
				return at;
			probe(elem_passed);
			at = READ_ONCE(e->next);
		}
		if (at == mark)
			return 0;
		this_cpu_inc64(&shm.tele->map_restarts);
	}
	violation(VERDICT_CORRUPTION, CHECKER_POOL, NULL, LOCK_NONE, 0, off_of(b),
		  "a bucket's chain does not end at its mark, however often it is followed");
	return 0;
}

/* --- writers ------------------------------------------------------------------------------------ */

__slowtext static int htab_lock_bucket(struct bucket *b, u32 *flags)
{
	int error;

	*flags = local_irq_save();
	error = res_spin_lock(&b->lock);
	if (!error)
		return 0;
	local_irq_restore(*flags);
	this_cpu_inc64(error == -EDEADLK ? &shm.tele->map_edeadlk : &shm.tele->map_etimedout);
	return error;
}

__slowtext static void htab_unlock_bucket(struct bucket *b, u32 flags)
{
	spin_unlock(&b->lock);
	local_irq_restore(flags);
}

__helper bool htab_is_prealloc(const struct shm_map *map)
{
	return designs[map->design]->preallocated;
}

__slowtext static struct pcpu_freelist_head *this_head(const struct shm_map *map)
{
	return pool_head(map_pool(map), this_cpu()->id);
}

/* The CPU's spare element, unless an interrupted update of this CPU has it; then one from the freelists. */
__slowtext static u64 take_spare(struct shm_map *map, u64 old)
{
	u64 elem;

	if (broken(extra_swap)) {
		elem = this_head(map)->extra;
		this_head(map)->extra = old;
	} else {
		elem = xchg(&this_head(map)->extra, 0);
	}
	return elem ? design_elem_taken(map, elem) : design_elem_alloc(map);
}

/* What came out of a bucket: the spare one if there is none, else back to the freelists. */
__slowtext static void put_spare(struct shm_map *map, u64 old)
{
	u64 none = 0;

	if (broken(extra_swap)) {
		design_elem_given(map, old);
		return;
	}
	design_elem_given(map, old);
	if (!try_cmpxchg(&this_head(map)->extra, &none, old))
		designs[map->design]->elem_free(map, old);
}

/* 0: none, with the error. */
__slowtext static u64 alloc_htab_elem(struct shm_map *map, u64 old, int *error)
{
	u64 elem;

	if (htab_is_prealloc(map)) {
		elem = old ? take_spare(map, old) : design_elem_alloc(map);
		*error = elem ? 0 : -E2BIG;
	} else if (!old && READ_ONCE(map->count) >= map->max_entries) {
		elem = 0;
		*error = -E2BIG;
	} else {
		elem = design_elem_alloc(map);
		*error = elem ? 0 : -ENOMEM;
	}
	if (elem)
		atomic_add(&map->count, 1);
	else
		this_cpu_inc64(*error == -E2BIG ? &shm.tele->map_e2big : &shm.tele->map_enomem);
	return elem;
}

__slowtext static void free_htab_elem(struct shm_map *map, u64 elem, bool replaced)
{
	atomic_sub(&map->count, 1);
	if (replaced && htab_is_prealloc(map))
		put_spare(map, elem);
	else
		design_elem_free(map, elem);
}

__slowtext static void fill_elem(const struct shm_map *map, u64 elem, const struct map_key *key, const void *value,
				 u32 number)
{
	struct htab_elem *e = elem_ptr(elem);
	u64 *words = elem_value(map, elem);

	e->map = map->index + 1;
	e->hash = key->hash;
	copy_bytes(elem_key(elem), key->data, key->words * 8);
	if (value)
		copy_bytes(words, value, map->value_size);
	else
		for (u32 i = 0; i < value_words(map); i++)
			WRITE_ONCE(words[i], value_word(number, i));
}

__slowtext static int check_flags(u64 old, u64 flags)
{
	if (old && flags == BPF_NOEXIST)
		return -EEXIST;
	return !old && flags == BPF_EXIST ? -ENOENT : 0;
}

__fastpath static int update(struct shm_map *map, const struct map_key *key, const void *value, u32 number, u64 flags)
{
	struct bucket *b = select_bucket(map, key->hash);
	u64 old = 0, new = 0;
	u32 irqs;
	int error;

	this_cpu_inc64(&shm.tele->map_updates);
	if (flags > BPF_EXIST)
		return -EINVAL;
	error = htab_lock_bucket(b, &irqs);
	if (error)
		return error;
	probe(bucket_locked);
	old = lookup_locked(map, b, key);
	error = check_flags(old, flags);
	if (!error)
		new = alloc_htab_elem(map, old, &error);
	if (new) {
		probe(elem_replacing);
		fill_elem(map, new, key, value, number);
		chain_add(b, new);
		if (old) {
			chain_del(old);
			free_htab_elem(map, old, true);
		}
	}
	htab_unlock_bucket(b, irqs);
	return error;
}

__fastpath static int delete(struct shm_map *map, const struct map_key *key)
{
	struct bucket *b = select_bucket(map, key->hash);
	u32 irqs;
	u64 elem;
	int error;

	this_cpu_inc64(&shm.tele->map_deletes);
	error = htab_lock_bucket(b, &irqs);
	if (error)
		return error;
	probe(bucket_locked);
	elem = lookup_locked(map, b, key);
	if (elem)
		chain_del(elem);
	htab_unlock_bucket(b, irqs);
	if (!elem) {
		this_cpu_inc64(&shm.tele->map_misses);
		return -ENOENT;
	}
	free_htab_elem(map, elem, false);
	return 0;
}

__slowtext int htab_map_update(struct shm_map *map, const void *key, const void *value, u64 flags)
{
	struct map_key k;

	key_of(map, key, &k);
	return READING(update(map, &k, value, 0, flags));
}

__slowtext int htab_map_update_number(struct shm_map *map, u32 number, u64 flags)
{
	struct map_key k;

	key_of_number(map, number, &k);
	return READING(update(map, &k, NULL, number, flags));
}

__slowtext int htab_map_delete(struct shm_map *map, const void *key)
{
	struct map_key k;

	key_of(map, key, &k);
	return READING(delete(map, &k));
}

__slowtext int htab_map_delete_number(struct shm_map *map, u32 number)
{
	struct map_key k;

	key_of_number(map, number, &k);
	return READING(delete(map, &k));
}

/* --- readers ------------------------------------------------------------------------------------ */

__slowtext static u64 lookup(const struct shm_map *map, const struct map_key *key)
{
	u64 elem = lookup_elem(map, key);

	this_cpu_inc64(&shm.tele->map_lookups);
	if (!elem)
		this_cpu_inc64(&shm.tele->map_misses);
	probe(elem_found);
	return elem;
}

__slowtext static int copy_value(struct shm_map *map, const struct map_key *key, void *value)
{
	u64 elem = lookup(map, key);

	if (elem && value)
		copy_bytes(value, elem_value(map, elem), map->value_size);
	return elem ? 0 : -ENOENT;
}

__slowtext int htab_map_lookup(struct shm_map *map, const void *key, void *value)
{
	struct map_key k;

	key_of(map, key, &k);
	return READING(copy_value(map, &k, value));
}

__slowtext static bool value_is(const struct shm_map *map, u64 elem, u32 number)
{
	const u64 *words = elem_value(map, elem);

	for (u32 i = 0; i < value_words(map); i++)
		if (READ_ONCE(words[i]) != value_word(number, i))
			return false;
	return true;
}

__slowtext static void wrong_value(u64 elem)
{
	violation(VERDICT_CORRUPTION, CHECKER_PATTERN, NULL, LOCK_NONE, 0, elem,
		  "a map's value is not the one that its key was given");
}

/* With the lock nobody may have touched the value, whatever a design does with freed elements. */
__slowpath static void check_locked(struct shm_map *map, const struct map_key *key, u32 number)
{
	struct bucket *b = select_bucket(map, key->hash);
	u64 elem;
	u32 irqs;

	if (htab_lock_bucket(b, &irqs))
		return;
	elem = lookup_locked(map, b, key);
	if (elem && !value_is(map, elem, number))
		wrong_value(elem);
	htab_unlock_bucket(b, irqs);
}

__slowtext static int check_value(struct shm_map *map, const struct map_key *key, u32 number)
{
	u64 elem = lookup(map, key);

	if (!elem)
		return -ENOENT;
	if (value_is(map, elem, number))
		return 0;
	if (elem_reused_at_once(map)) {
		this_cpu_inc64(&shm.tele->map_reads_reused);
		check_locked(map, key, number);
	} else {
		wrong_value(elem);
	}
	return 0;
}

/*
 * Find a number's element and compare the value with the number's pattern.  Where freed elements are used
 * again at once, a reader may find another key's value, or part of one: that is counted, and then the
 * value is looked at again with the lock held.
 */
__slowtext int htab_map_check_number(struct shm_map *map, u32 number)
{
	struct map_key k;

	key_of_number(map, number, &k);
	return READING(check_value(map, &k, number));
}

/* --- creation ----------------------------------------------------------------------------------- */

static void buckets_init(struct shm_map *map)
{
	for (u32 i = 0; i < map->n_buckets; i++)
		*(struct bucket *)ptr_of(area_elem(&map->buckets, i)) =
			(struct bucket){ .first = make_nulls(map, i), .lock.class = LOCK_BUCKET };
}

static u32 free_map_index(void)
{
	u32 i = 0;

	while (i < shm.hdr->geometry.max_maps && shm.maps[i].state != MAP_UNUSED)
		i++;
	return i;
}

static u32 next_power_of_two(u32 n)
{
	return n > 1 ? 1u << fls64(n - 1) : 1;
}

static int map_create(u32 design, u32 key_size, u32 value_size, u32 max_entries, u32 flags)
{
	u32 index = free_map_index();
	struct shm_map *map = &shm.maps[index];
	int error;

	if (!key_size || key_size > MAX_KEY_BYTES || !value_size || value_size > MAX_VALUE_BYTES || !max_entries ||
	    max_entries > MAX_ENTRIES || flags || this_ctx() != CTX_TASK || irqs_disabled())
		return -EINVAL;
	if (index == shm.hdr->geometry.max_maps)
		return -ENOSPC;
	*map = (struct shm_map){
		.index = index, .design = design, .key_size = key_size, .value_size = value_size,
		.elem_size = (u32)(sizeof(struct htab_elem) + round_up(key_size, 8) + round_up(value_size, 8)),
		.max_entries = max_entries, .n_buckets = next_power_of_two(max_entries),
		.hashrnd = (u32)random_next(&this_cpu()->random),
	};
	error = area_alloc(&map->buckets, map->n_buckets, sizeof(struct bucket));
	if (error)
		return error;
	buckets_init(map);
	if (designs[design]->map_init)
		error = designs[design]->map_init(map);
	if (error) {
		area_free(&map->buckets);
		return error;
	}
	store_release(&map->state, MAP_LIVE);
	return (int)index;
}

static void free_all_elems(struct shm_map *map)
{
	for (u32 i = 0; i < map->n_buckets; i++) {
		struct bucket *b = ptr_of(area_elem(&map->buckets, i));

		for (u64 at = b->first, next; !is_nulls(at) && elem_plausible(map, at); at = next) {
			next = elem_ptr(at)->next;
			free_htab_elem(map, at, false);
		}
		b->first = make_nulls(map, i);
	}
}

static int map_destroy(struct shm_map *map)
{
	if (!map || this_ctx() != CTX_TASK || irqs_disabled())
		return -EINVAL;
	free_all_elems(map);
	map->state = MAP_UNUSED;
	if (designs[map->design]->map_exit)
		designs[map->design]->map_exit(map);
	area_free(&map->buckets);
	return 0;
}

#define REFUSED (thread_is_cpu() ? -EDEADLK : -EPERM)

__export int shm_map_create(unsigned int design, uint32_t key_bytes, uint32_t value_bytes, uint32_t max_entries,
			    uint32_t flags)
{
	if (!shm.base || design >= NR_DESIGNS)
		return -EINVAL;
	return GUARDED(int, REFUSED, map_create(design, key_bytes, value_bytes, max_entries, flags));
}

__export int shm_map_destroy(unsigned int map)
{
	return shm.base ? GUARDED(int, REFUSED, map_destroy(map_of(map))) : -EINVAL;
}

__export int shm_map_update(unsigned int map, const void *key, const void *value, uint64_t flags)
{
	if (!shm.base || !map_of(map) || !key || !value)
		return -EINVAL;
	return GUARDED(int, REFUSED, htab_map_update(map_of(map), key, value, flags));
}

__export int shm_map_lookup(unsigned int map, const void *key, void *value)
{
	if (!shm.base || !map_of(map) || !key)
		return -EINVAL;
	return GUARDED(int, REFUSED, htab_map_lookup(map_of(map), key, value));
}

__export int shm_map_delete(unsigned int map, const void *key)
{
	if (!shm.base || !map_of(map) || !key)
		return -EINVAL;
	return GUARDED(int, REFUSED, htab_map_delete(map_of(map), key));
}
