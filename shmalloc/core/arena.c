/* SPDX-License-Identifier: MIT */
/*
 * The segment: where its regions lie, formatting it, and refusing what is not an arena.
 *
 * Attaching follows nothing in the segment before shm_arena_check has compared every region with
 * what the geometry says it must be: a header is input, possibly hostile.
 * Context: set-up only.
 */
#include <time.h>
#include "list.h"
#include "memcontrol.h"
#include "page_alloc.h"
#include "slab.h"
#include "sys.h"

struct shm_env shm;

#define REGION_ALIGN 64
#define MEMORY_ALIGN (SHM_PAGE_SIZE << 3) /* slabs of the largest order are naturally aligned */

struct layout {
	struct shm_region regions[NR_REGIONS];
	u64 nr_pages;
};

static u64 blocks_of(u64 pages, u32 pageblock_order)
{
	return (pages + (1ull << pageblock_order) - 1) >> pageblock_order;
}

static u32 sheaves_stride(const struct shm_geometry *g)
{
	return g->flags & SHM_GEO_SHEAVES ? (u32)(g->max_caches * sizeof(struct slub_percpu_sheaves)) : 0;
}

static u64 trace_stride(const struct shm_geometry *g)
{
	return g->trace_bytes ? sizeof(struct shm_trace_ring) + g->trace_bytes : 0;
}

static void layout_for(const struct shm_geometry *g, u64 pages, struct layout *out)
{
	const u64 bytes[NR_REGIONS] = {
		[REGION_CPUS] = (g->nr_cpus + g->nr_nodes) * sizeof(struct shm_cpu),
		[REGION_NODES] = g->nr_nodes * sizeof(struct node),
		[REGION_ZONES] = SHM_MAX_ZONES * sizeof(struct zone),
		[REGION_PAGESETS] = (u64)g->nr_nodes * NR_ZONE_TYPES * g->nr_cpus * sizeof(struct per_cpu_pages),
		[REGION_CACHES] = g->max_caches * sizeof(struct kmem_cache),
		[REGION_CACHE_NODES] = (u64)g->max_caches * g->nr_nodes * sizeof(struct kmem_cache_node),
		[REGION_CACHE_CPUS] = (u64)g->nr_cpus * g->max_caches * sizeof(struct kmem_cache_cpu),
		[REGION_CACHE_STATS] = (u64)g->nr_cpus * g->max_caches * sizeof(struct kmem_cache_stat),
		[REGION_POOLS] = (1ull + g->max_maps) * sizeof(struct shm_pool),
		[REGION_FREELISTS] = (1ull + g->max_maps) * g->nr_cpus * sizeof(struct pcpu_freelist_head),
		[REGION_OBJPOOL_CPUS] = (u64)g->nr_cpus * sizeof(struct objpool_cpu),
		[REGION_MAPS] = (u64)g->max_maps * sizeof(struct shm_map),
		[REGION_BPF_CACHES] = (u64)g->nr_cpus * (BPF_NR_BUCKETS + g->max_maps) * sizeof(struct bpf_mem_cache),
		[REGION_MEMCGS] = g->max_memcgs * sizeof(struct mem_cgroup),
		[REGION_MEMCG_CPUS] = g->max_memcgs ? g->nr_cpus * sizeof(struct memcg_cpu) : 0,
		[REGION_CACHE_SHEAVES] = (u64)g->nr_cpus * sheaves_stride(g),
		[REGION_BARNS] = sheaves_stride(g) ? (u64)g->max_caches * g->nr_nodes * sizeof(struct node_barn) : 0,
		[REGION_PAGEBLOCKS] = blocks_of(pages, g->pageblock_order) * sizeof(struct pageblock),
		[REGION_PAGES] = pages * sizeof(struct page),
		[REGION_SLAB_WORDS] = pages * 8,
		[REGION_TELEMETRY] = (g->nr_cpus + g->nr_nodes) * round_up(sizeof(struct shm_telemetry), 64),
		[REGION_SLOTS] = (u64)g->nr_slots * 8,
		[REGION_TRACE] = (g->nr_cpus + g->nr_nodes) * trace_stride(g),
		[REGION_ORACLE_OWNED] = g->flags & SHM_GEO_ORACLE ? pages * 64 : 0,
		[REGION_ORACLE_START] = g->flags & SHM_GEO_ORACLE ? pages * 64 : 0,
		[REGION_ORACLE_END] = g->flags & SHM_GEO_ORACLE ? pages * 64 : 0,
		[REGION_MEMORY] = pages << SHM_PAGE_SHIFT,
	};
	u64 at = round_up(sizeof(struct shm_header), SHM_PAGE_SIZE);

	out->nr_pages = pages;
	for (u32 i = 0; i < NR_REGIONS; i++) {
		at = round_up(at, i == REGION_MEMORY ? MEMORY_ALIGN : REGION_ALIGN);
		out->regions[i] = (struct shm_region){ at, bytes[i] };
		at += bytes[i];
	}
}

_Static_assert(sizeof(struct shm_cpu) % 64 == 0, "pad struct shm_cpu to whole cache lines");
_Static_assert(sizeof(struct shm_trace_event) == 64 && sizeof(struct shm_trace_ring) == 128, "whole cache lines");

static u64 layout_end(const struct layout *l)
{
	return l->regions[REGION_MEMORY].offset + l->regions[REGION_MEMORY].bytes;
}

/* As many pages as fit, a whole number of pageblocks. */
static void layout_fit(const struct shm_geometry *g, struct layout *out)
{
	u64 block = 1ull << g->pageblock_order, low = 0, high = g->size_bytes / SHM_PAGE_SIZE / block + 1;

	while (high - low > 1) {
		u64 middle = low + (high - low) / 2;

		layout_for(g, middle * block, out);
		if (layout_end(out) <= g->size_bytes)
			low = middle;
		else
			high = middle;
	}
	layout_for(g, low * block, out);
}

static bool nodes_ok(const struct shm_geometry *g)
{
	u64 total = 0;

	for (u32 n = 0; n < g->nr_nodes; n++) {
		for (u32 type = 0; type < NR_ZONE_TYPES; type++) {
			if (g->zone_permille[n][type] > 1000)
				return false;
			total += g->zone_permille[n][type];
		}
		for (u32 m = 0; m < g->nr_nodes; m++)
			if (g->distance[n][m] < 10 || (n == m) != (g->distance[n][m] == 10))
				return false;
	}
	for (u32 cpu = 0; cpu < g->nr_cpus; cpu++)
		if (g->cpu_node[cpu] >= g->nr_nodes)
			return false;
	return total == 1000;
}

static bool trace_bytes_ok(u32 bytes)
{
	return !bytes || (bytes >= SHM_TRACE_MIN_BYTES && bytes <= SHM_TRACE_MAX_BYTES && !(bytes & (bytes - 1)));
}

static bool geometry_ok(const struct shm_geometry *g)
{
	return g->nr_cpus >= 1 && g->nr_cpus <= SHM_MAX_CPUS && g->nr_nodes >= 1 && g->nr_nodes <= SHM_MAX_NODES &&
	       g->max_caches >= 1 && g->max_caches <= 65535 && g->pageblock_order >= 1 &&
	       g->pageblock_order <= SHM_MAX_PAGE_ORDER && g->slab_max_order <= SHM_MAX_PAGE_ORDER &&
	       g->slab_min_order <= g->slab_max_order && g->watermark_scale_factor <= 10000 &&
	       g->size_bytes % SHM_PAGE_SIZE == 0 && g->size_bytes < 1ull << 46 &&
	       g->pool_size <= SHM_MAX_POOL_SIZE && g->pool_entries <= SHM_MAX_POOL_ENTRIES &&
	       g->max_maps <= SHM_MAX_MAPS &&
	       !(g->flags & SHM_GEO_UP && g->nr_cpus > 1) && g->slab_min_objects <= 32767 && g->irq_work <= SHM_IRQ_WORK_NEVER &&
	       g->max_memcgs <= SHM_MAX_MEMCGS && g->sheaf_factor <= SHM_MAX_SHEAF_FACTOR && !(g->slab_debug & ~SLAB_DEBUG_FLAGS) &&
	       !g->slab_debug_text[SHM_SLAB_DEBUG_TEXT - 1] && trace_bytes_ok(g->trace_bytes) && nodes_ok(g);
}

/*
 * Pages that are surely enough for the main sheaves of the kmalloc caches: 4480 bytes for each type and
 * CPU, times the factor, slabs of up to 8 pages that are not used up, and what the watermarks keep back.
 */
static u64 main_sheaf_pages(const struct shm_geometry *g)
{
	u64 bytes = (u64)g->nr_cpus * NR_KMALLOC_TYPES * 4480 * max_of(g->sheaf_factor, 1u);

	return g->flags & SHM_GEO_SHEAVES ? 128 + bytes * 3 / 2 / SHM_PAGE_SIZE : 0;
}

__export uint64_t shm_arena_min_bytes(const struct shm_geometry *geometry)
{
	struct layout l;
	u64 blocks = 0;

	if (!geometry_ok(geometry))
		return 0;
	for (u32 n = 0; n < geometry->nr_nodes; n++)
		for (u32 type = 0; type < NR_ZONE_TYPES; type++)
			if (geometry->zone_permille[n][type]) /* the smallest share must hold a pageblock */
				blocks = max_of(blocks, (1000 + geometry->zone_permille[n][type] - 1) /
								geometry->zone_permille[n][type] * 1ull);
	blocks += (main_sheaf_pages(geometry) + (1ull << geometry->pageblock_order) - 1) >> geometry->pageblock_order;
	layout_for(geometry, blocks << geometry->pageblock_order, &l);
	return round_up(layout_end(&l), SHM_PAGE_SIZE);
}

/* Measured by a process once: it takes 5 ms, most of what making a small arena takes. */
static u64 measure_tsc_hz(void)
{
	static u64 hz;
	struct timespec a, b;
	u64 from, to, ns;

	if (hz)
		return hz;
	clock_gettime(CLOCK_MONOTONIC, &a);
	from = read_tsc();
	do {
		clock_gettime(CLOCK_MONOTONIC, &b);
		ns = (u64)(b.tv_sec - a.tv_sec) * 1000000000 + (u64)(b.tv_nsec - a.tv_nsec);
	} while (ns < 5000000);
	to = read_tsc();
	hz = (u64)((double)(to - from) * 1e9 / (double)ns);
	return hz;
}

static void map_regions(void *base)
{
	struct shm_header *h = base;

	shm.base = base;
	shm.hdr = h;
	shm.bytes = h->size_bytes;
	shm.nr_pages = h->nr_pages;
	shm.mem_bytes = h->nr_pages << SHM_PAGE_SHIFT;
	shm.nr_cpus = h->geometry.nr_cpus;
	shm.nr_nodes = h->geometry.nr_nodes;
	shm.nr_zones = h->nr_zones;
	shm.nr_slots = h->geometry.nr_slots;
	shm.pageblock_order = h->geometry.pageblock_order;
	shm.geo_flags = h->geometry.flags;
	shm.tid_step = h->tid_step;
	shm.broken = SHM_CHECKED ? h->broken : 0;
	shm.mem_off = h->regions[REGION_MEMORY].offset;
	shm.cpus = ptr_of(h->regions[REGION_CPUS].offset);
	shm.nodes = ptr_of(h->regions[REGION_NODES].offset);
	shm.zones = ptr_of(h->regions[REGION_ZONES].offset);
	shm.pagesets = ptr_of(h->regions[REGION_PAGESETS].offset);
	shm.caches = ptr_of(h->regions[REGION_CACHES].offset);
	shm.cache_nodes = ptr_of(h->regions[REGION_CACHE_NODES].offset);
	shm.pools = ptr_of(h->regions[REGION_POOLS].offset);
	shm.freelists = ptr_of(h->regions[REGION_FREELISTS].offset);
	shm.objpool_cpus = ptr_of(h->regions[REGION_OBJPOOL_CPUS].offset);
	shm.bpf_lists = ptr_of(h->regions[REGION_BPF_CACHES].offset);
	shm.bpf_lists_bytes = h->regions[REGION_BPF_CACHES].bytes;
	shm.pool_size = h->geometry.pool_size;
	shm.maps = ptr_of(h->regions[REGION_MAPS].offset);
	shm.nr_memcgs = h->geometry.max_memcgs;
	shm.memcgs = ptr_of(h->regions[REGION_MEMCGS].offset);
	shm.memcg_cpus = ptr_of(h->regions[REGION_MEMCG_CPUS].offset);
	shm.barns = ptr_of(h->regions[REGION_BARNS].offset);
	shm.pageblocks = ptr_of(h->regions[REGION_PAGEBLOCKS].offset);
	shm.pages = ptr_of(h->regions[REGION_PAGES].offset);
	shm.slab_words = ptr_of(h->regions[REGION_SLAB_WORDS].offset);
	shm.slots = ptr_of(h->regions[REGION_SLOTS].offset);
	shm.trace_off = h->regions[REGION_TRACE].offset;
	shm.trace_stride = trace_stride(&h->geometry);
	shm.trace_mask = h->geometry.trace_bytes / sizeof(struct shm_trace_event) - 1;
	shm.owned = ptr_of(h->regions[REGION_ORACLE_OWNED].offset);
	shm.start = ptr_of(h->regions[REGION_ORACLE_START].offset);
	shm.end = ptr_of(h->regions[REGION_ORACLE_END].offset);
}

static void init_cpu(u32 id, const struct shm_geometry *g)
{
	struct shm_cpu *cpu = &shm.cpus[id];

	cpu->id = id;
	cpu->node = id < g->nr_cpus ? g->cpu_node[id] : id - g->nr_cpus; /* behind the CPUs: kswapds */
	cpu->core = NO_CORE;
	cpu->random = (g->seed + id + 1) * 0x9e3779b97f4a7c15ull | 1;
	cpu->defer_work.func = IRQ_WORK_FUNC_free_deferred;
	cpu->entropy.lock.class = LOCK_RANDOM;
	cpu->mems_allowed = ~0u;
}

static u32 tid_step_of(const struct shm_geometry *g)
{
	return g->nr_cpus > 1 ? 1u << fls64(g->nr_cpus - 1) : 1;
}

static u32 zones_of(const struct shm_geometry *g)
{
	u32 zones = 0;

	for (u32 n = 0; n < g->nr_nodes; n++)
		for (u32 type = 0; type < NR_ZONE_TYPES; type++)
			zones += g->zone_permille[n][type] > 0;
	return zones;
}

static void init_header(struct shm_header *h, const struct shm_geometry *g)
{
	h->state = SHM_STATE_FORMATTING;
	h->abi_hash = shm_abi_hash();
	h->size_bytes = g->size_bytes;
	h->geometry = *g;
	h->creator_pid = (u32)shm.pid;
	h->creator_start_time = shm_start_time(h->creator_pid);
	h->tsc_hz = measure_tsc_hz();
	h->tid_step = tid_step_of(g);
	h->cache_cpus_stride = (u32)(g->max_caches * sizeof(struct kmem_cache_cpu));
	h->cache_stats_stride = (u32)(g->max_caches * sizeof(struct kmem_cache_stat));
	h->bpf_caches_per_cpu = BPF_NR_BUCKETS + g->max_maps;
	h->cache_sheaves_stride = sheaves_stride(g);
	h->slab_mutex.class = LOCK_SLAB_MUTEX;
	h->ipi_lock.class = LOCK_USER;
	for (u32 domain = 0; domain < NR_RCU_DOMAINS; domain++)
		h->rcu[domain].lock.class = LOCK_RCU;
	h->obj_hash_lock.class = LOCK_OBJ_HASH;
	h->lock_rules = 1;
}

static int format(void *base, const struct shm_geometry *g)
{
	struct shm_header *h = base;
	struct layout l;
	int error;

	layout_fit(g, &l);
	if (!l.nr_pages)
		return -ENOSPC;
	init_header(h, g);
	for (u32 i = 0; i < NR_REGIONS; i++)
		h->regions[i] = l.regions[i];
	h->nr_pages = l.nr_pages;
	map_regions(base);
	fault_inject_init();
	for (u32 i = 0; i < nr_cpu_slots(); i++)
		init_cpu(i, g);
	setup_zones();
	if (shm.nr_zones != zones_of(g)) /* one that was asked for did not get a pageblock */
		return -ENOSPC;
	/* formatting runs as CPU 0, which the counters of the first frees belong to */
	free_area_init();
	build_zonelists();
	mem_cgroup_init();
	error = kmem_cache_init();
	if (!error)
		error = bootstrap_kmalloc_sheaves();
	if (error)
		return error;
	h->magic = SHM_MAGIC;
	store_release(&h->state, SHM_STATE_READY);
	return 0;
}

/* base: size_bytes of zeroes.  Leaves nothing attached. */
__export int shm_arena_format(void *base, const struct shm_geometry *geometry)
{
	struct shm_env saved = shm;
	int error;

	if (!geometry_ok(geometry))
		return -EINVAL;
	if (shm.handlers) /* its interrupts would find no CPU meanwhile */
		return -EBUSY;
	shm = (struct shm_env){ 0 };
	shm.pid = sys_getpid();
	error = format(base, geometry);
	shm = saved;
	return error;
}

__export int shm_arena_check(const void *base, uint64_t bytes)
{
	const struct shm_header *h = base;
	struct layout l;

	if (bytes < sizeof(*h) || h->magic != SHM_MAGIC)
		return bytes >= sizeof(*h) && h->state == SHM_STATE_FORMATTING ? -EAGAIN : -ENOEXEC;
	if (h->abi_hash != shm_abi_hash())
		return -EPROTO;
	if (load_acquire(&h->state) != SHM_STATE_READY)
		return -EAGAIN;
	if (h->size_bytes > bytes)
		return -EMSGSIZE;
	if (!geometry_ok(&h->geometry) || h->size_bytes != h->geometry.size_bytes)
		return -EBADMSG;
	layout_fit(&h->geometry, &l);
	for (u32 i = 0; i < NR_REGIONS; i++)
		if (h->regions[i].offset != l.regions[i].offset || h->regions[i].bytes != l.regions[i].bytes)
			return -EBADMSG;
	if (h->nr_pages != l.nr_pages || h->nr_zones != zones_of(&h->geometry) ||
	    h->nr_caches > h->geometry.max_caches || h->tid_step != tid_step_of(&h->geometry) ||
	    h->tsc_hz < 1000000 || h->tsc_hz > 1000000000000 || h->broken >= NR_BROKEN ||
	    (h->trace.events && !h->geometry.trace_bytes) || h->bpf_caches_per_cpu != BPF_NR_BUCKETS + h->geometry.max_maps ||
	    h->slab_mutex.class != LOCK_SLAB_MUTEX || h->ipi_lock.class != LOCK_USER ||
	    h->objcg_lock.class != LOCK_OBJCG || h->kernfs_lock.class != LOCK_KERNFS ||
	    h->percpu_charge_mutex.class != LOCK_CHARGE || h->obj_hash_lock.class != LOCK_OBJ_HASH ||
	    h->rcu[RCU_PLAIN].lock.class != LOCK_RCU || h->rcu[RCU_TASKS_TRACE].lock.class != LOCK_RCU ||
	    h->cache_cpus_stride != h->geometry.max_caches * sizeof(struct kmem_cache_cpu) ||
	    h->cache_stats_stride != h->geometry.max_caches * sizeof(struct kmem_cache_stat) ||
	    h->cache_sheaves_stride != sheaves_stride(&h->geometry))
		return -EBADMSG;
	for (u32 type = 0; type < NR_KMALLOC_TYPES; type++)
		for (u32 i = 1; i < NR_KMALLOC_CACHES; i++)
			if (h->kmalloc_caches[type][i] >= h->nr_caches)
				return -EBADMSG;
	return 0;
}

__export int shm_attach(void *base, uint64_t bytes)
{
	int error = shm_arena_check(base, bytes);

	if (error)
		return error;
	if (shm.base)
		return -EBUSY;
	map_regions(base);
	return 0;
}

__export int shm_detach(void)
{
	if (!shm.base)
		return -ENOTCONN;
	for (u32 i = 0; i < shm.nr_cpus; i++)
		if (shm.cpus[i].state == CPU_ONLINE && shm.cpus[i].pid == shm.pid)
			shm_cpu_unbind(i);
	shm = (struct shm_env){ .pid = shm.pid, .handlers = shm.handlers };
	return 0;
}

__export int shm_set_broken(unsigned int variant)
{
	if (!shm.base)
		return -ENOTCONN;
	if (variant >= NR_BROKEN)
		return -EINVAL;
	if (!SHM_CHECKED && variant != shm_broken_variant())
		return -EOPNOTSUPP;
	shm.hdr->broken = shm.broken = variant;
	return 0;
}
