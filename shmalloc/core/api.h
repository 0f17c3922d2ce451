/* SPDX-License-Identifier: MIT */
/*
 * What the core offers: to Python (cffi reads this file) and to C programs.
 *
 * Offsets (uint64_t) are bytes from the start of the arena; 0 = failure, SHM_ZERO_SIZE = the object
 * of size zero.  int results are 0 or a negative errno.  A function marked [guarded] checks that it
 * is called by the thread that is the CPU (else -EPERM or 0), and survives a proven deadlock: the
 * violation is recorded, the arena is stopped, and -EDEADLK (or 0) returned.
 */
#ifndef SHM_API_H
#define SHM_API_H

/* --- the build --------------------------------------------------------------------------------- */
const char *shm_flavour(void);         /* "release" or "checked" */
const char *shm_build_id(void);        /* hash of the core's sources and flags, hex */
uint64_t shm_abi_hash(void);           /* hash of arena.h and its parts */
const char *shm_compiler(void);
const char *shm_verdict_name(unsigned int verdict);   /* NULL past the last, as all the names */
const char *shm_reason_name(unsigned int reason);
const char *shm_checker_name(unsigned int checker);
const char *shm_lock_class_name(unsigned int class);
const char *shm_design_name(unsigned int design);
const char *shm_design_summary(unsigned int design);
const char *shm_design_contexts(unsigned int design); /* contexts it may be called from, comma separated */
const char *shm_broken_name(unsigned int variant);    /* 0 = NULL-variant "none" */
const char *shm_broken_summary(unsigned int variant);
const char *shm_broken_set_off_by(unsigned int variant); /* NULL: an interrupt of one CPU; else what it takes */
unsigned int shm_broken_variant(void); /* compiled into this object of the release flavour; else 0 */
const char *shm_slab_bug_name(unsigned int kind);     /* what a debug check reports, enum shm_slab_bug */
const char *shm_probe_name(unsigned int site);
const char *shm_trace_name(unsigned int event);      /* "group:name" of a tracepoint */
const char *shm_trace_fields(unsigned int event);    /* its fields, separated by spaces */
const char *shm_irq_work_name(unsigned int func);
uint64_t shm_tsc(void);                /* now, in the ticks that everything in the arena is timed in */
const char *shm_rcu_func_name(unsigned int func);    /* what may be done after a grace period */
uint64_t shm_text_base(void);          /* load address that stack entries are relative to */

/* --- the arena ---------------------------------------------------------------------------------- */
uint64_t shm_arena_min_bytes(const struct shm_geometry *geometry); /* smallest size_bytes that works */
int shm_arena_format(void *base, const struct shm_geometry *geometry); /* -EBUSY while a CPU takes interrupts */
/* 0, or: -ENOEXEC not an arena, -EPROTO another ABI, -EMSGSIZE truncated, -EBADMSG hostile header, -EAGAIN not ready */
int shm_arena_check(const void *base, uint64_t bytes);
int shm_attach(void *base, uint64_t bytes);  /* make it this process's arena; -EBUSY if there is one */
int shm_detach(void);                        /* unbinds every CPU of this process first */
int shm_set_broken(unsigned int variant);    /* release: -EOPNOTSUPP but for its own */

/* --- CPUs --------------------------------------------------------------------------------------- */
#define SHM_BIND_HANDLERS 0x1u   /* install the signal handlers and the alternate stack */
#define SHM_BIND_STEAL 0x2u      /* take over a slot whose owner is dead */
#define SHM_BIND_NEST 0x8u       /* NMIs nest, as deep as there are levels: stronger than hardware */
#define SHM_BIND_TERM 0x4u       /* SIGTERM (which PDEATHSIG sends) sets header.stop, from C, at once */
int shm_cpu_bind(unsigned int cpu, unsigned int flags); /* -EBUSY slot taken, -EINVAL no such CPU,
 * -EOWNERDEAD: to be stolen, but its dead owner holds locks */
int shm_cpu_unbind(unsigned int cpu);
int shm_cpu_switch(unsigned int cpu);  /* tests: become another CPU bound by this thread */
int shm_cpu_current(void);             /* CPU number or -1 */
int shm_terminated(void);              /* 1 once SIGTERM has arrived (SHM_BIND_TERM) */
int shm_thread_ok(void);               /* 1 if the calling thread is the bound CPU's */
int shm_owner_alive(uint32_t pid, uint64_t start_time); /* 1 alive, 0 dead or a zombie */
uint64_t shm_start_time(uint32_t pid); /* clock ticks since boot, 0 if there is none */

/* --- pages [guarded] ---------------------------------------------------------------------------- */
uint64_t shm_alloc_pages(uint32_t gfp, int node, unsigned int order);
uint64_t shm_alloc_pages_nolock(uint32_t gfp, int node, unsigned int order);
int shm_free_pages(uint64_t off, unsigned int order);
int shm_free_pages_nolock(uint64_t off, unsigned int order);
int shm_drain_pages(void);             /* all pagesets of the bound CPU; not the zones' deferred lists */
int shm_drain_all_pages(void);         /* those of all CPUs */
int shm_vmstat_tick(void);             /* periodic work of the bound CPU: pagesets decay, idle remote ones are drained */
/* page cache: clean pages that reclaim gives back.  gfp 0 = GFP_HIGHUSER_MOVABLE; result: pages */
int64_t shm_page_cache_add(uint32_t nr, uint32_t gfp, int node);
int64_t shm_page_cache_drop(void);     /* all of it, of all nodes */
int shm_set_memalloc(int on);          /* PF_MEMALLOC: this task frees memory and may use all reserves */

/* --- kswapd: in a slot beyond the possible CPUs -------------------------------------------------- */
int shm_kswapd_start(unsigned int node); /* become it, asleep; -EBUSY: somebody is */
int shm_kswapd_run(unsigned int node, double seconds); /* 0 told to end, -ETIMEDOUT call again, -ECANCELED stop */
int64_t shm_kswapd_step(unsigned int node); /* tests: on this thread until it would sleep; pages given back */
int shm_kswapd_stop(unsigned int node);  /* any process: it ends after its pass */
int shm_kswapd_end(unsigned int node);   /* who started it: it is gone */

/* --- fault injection ------------------------------------------------------------------------------ */
int shm_fault_set(enum shm_fault kind, const struct fault_attr *attr); /* -EINVAL: out of range */
int shm_fault_mark_cache(unsigned int cache, int on); /* for cache-filter */
int shm_fail_nth(unsigned int nth);      /* of this CPU: the nth call that may fail does; 0 = off */
int shm_make_it_fail(int on);            /* of this CPU: for task-filter */

/* --- slab [guarded] ----------------------------------------------------------------------------- */
uint64_t shm_kmalloc(uint64_t size, uint32_t gfp);
uint64_t shm_kmalloc_node(uint64_t size, uint32_t gfp, int node);
uint64_t shm_kmalloc_nolock(uint64_t size, uint32_t gfp, int node);
int shm_kfree(uint64_t off);           /* -EINVAL with the oracle on: not the start of a live object */
int shm_kfree_nolock(uint64_t off);
uint64_t shm_krealloc(uint64_t off, uint64_t size, uint32_t gfp);
uint64_t shm_ksize(uint64_t off);      /* usable bytes; 0 if not an object */
/* index of the cache, or a negative errno (-EINVAL, -EEXIST, -ENOSPC, -EDEADLK) */
int shm_kmem_cache_create(const char *name, uint32_t size, uint32_t align, uint32_t flags, uint32_t ctor);
/* 0; or how many slabs had objects in use: the cache is gone, and they are lost with it */
int shm_kmem_cache_destroy(unsigned int cache);
int shm_kmem_cache_shrink(unsigned int cache);
uint64_t shm_kmem_cache_alloc(unsigned int cache, uint32_t gfp, int node);
uint64_t shm_kmem_cache_alloc_nolock(unsigned int cache, uint32_t gfp, int node);
int shm_kmem_cache_free(unsigned int cache, uint64_t off);
/* size objects or none: their number or 0; size: 1 .. SHM_MAX_BULK */
uint32_t shm_kmem_cache_alloc_bulk(unsigned int cache, uint32_t gfp, unsigned int size, uint64_t *objects);
/* -EINVAL: one of them is no live object of the cache, and nothing was changed; else the array is reordered */
int shm_kmem_cache_free_bulk(unsigned int cache, unsigned int size, uint64_t *objects);
/* kmalloc of size bytes, at most an object's, from a cache made with SLAB_KMALLOC */
uint64_t shm_kmalloc_cache(unsigned int cache, uint64_t size, uint32_t gfp, int node);
/* look at every object of a debug cache; reports made meanwhile, -EOPNOTSUPP without debug flags */
int64_t shm_validate_slab(unsigned int cache);
int shm_defer_free_barrier(void);      /* every CPU's deferred frees are done */
int shm_set_mems_allowed(uint32_t nodes); /* nodes that a partial slab may come from, a bit each; -EINVAL: none */
uint32_t shm_kmalloc_index(uint64_t size, uint32_t gfp); /* cache index that serves it, or 0xffffffff */
/* what one cache of this size would look like: out[0] order, [1] objects, [2] cpu_partial_slabs, [3] min_partial */
int shm_slab_sizing(uint32_t size, uint32_t flags, const struct shm_geometry *geometry, uint32_t *out);

/* --- for programs [guarded]: a design that any context may call, and a signal handler need not say that it is one --- */
uint64_t shm_malloc(uint64_t size);
uint64_t shm_zalloc(uint64_t size);      /* its bytes are 0 */
uint64_t shm_realloc(uint64_t off, uint64_t size); /* 0: off is as it was; it never shrinks; size 0 frees */
int shm_free(uint64_t off);              /* -EINVAL: no object begins there, as far as can be told */
uint64_t shm_malloc_nolock(uint64_t size); /* never waits for anybody's lock */
int shm_free_nolock(uint64_t off);
uint64_t shm_cache_alloc(unsigned int cache);
uint64_t shm_cache_alloc_nolock(unsigned int cache);
int shm_cache_free(unsigned int cache, uint64_t off); /* -EINVAL also: an object of another cache */
int shm_cache_free_nolock(unsigned int cache, uint64_t off);
uint64_t shm_pages(unsigned int order);  /* 2^order pages in a row */
int shm_pages_free(uint64_t off, unsigned int order);
/* Around the work of a handler that calls much: as if an NMI had arrived.  The result of enter, 0 or 1, goes to
 * leave; -EPERM not the CPU's thread, -EBUSY no level left. */
int shm_handler_enter(void);
int shm_handler_leave(int previous);
unsigned int shm_last_failure(void);     /* reason of the last of these calls that returned 0, in any context */

/* --- memcg [guarded]: ids are 1..max_memcgs, 0 is the root, which is not charged -------------------- */
/* id of the memcg, or a negative errno (-EINVAL no such parent or a bad name, -EEXIST, -ENOSPC) */
int shm_memcg_create(const char *name, unsigned int parent);
int shm_memcg_destroy(unsigned int memcg);  /* -EBUSY: it has children, or some CPU runs in it */
int shm_memcg_set_max(unsigned int memcg, uint64_t bytes);  /* rounded down to pages; drains stocks that are in the way */
int shm_memcg_set_high(unsigned int memcg, uint64_t bytes);
uint64_t shm_memcg_current(unsigned int memcg);  /* bytes charged, stocks included */
int shm_memcg_enter(unsigned int memcg);         /* what the bound CPU's task is charged to */
int shm_memcg_set_active(unsigned int memcg);    /* ... in its stead, for a while; 0 ends it */
int shm_memcg_set_int_active(unsigned int memcg); /* what interrupts and NMIs of the bound CPU are charged to */
int shm_memcg_drain(void);                       /* every CPU's stocks; by IPI, with a deadline */
int shm_memcg_run_work(void);                    /* what charges have left to the bound CPU's worker pool */

/* reason of the last allocation that failed on this CPU at task level */
unsigned int shm_last_reason(void);

/* --- designs [guarded]: the operations table of one row of the registry, with oracle and counts -- */
uint64_t shm_design_alloc(unsigned int design, uint64_t size, uint32_t gfp, int node);
uint64_t shm_design_cache_alloc(unsigned int design, unsigned int cache, uint32_t gfp, int node);
uint64_t shm_design_pages_alloc(unsigned int design, uint32_t gfp, int node, unsigned int order);
int shm_design_free(unsigned int design, uint64_t off);   /* checked against the oracle: -EINVAL */
int shm_design_pages_free(unsigned int design, uint64_t off, unsigned int order);
/* Once per arena, task context: before the CPUs run, and when all memory of the design is back.
 * setup: 0 also if there is nothing to set up or it was done; -EINVAL no pool in the geometry, -ENOMEM.
 * teardown: -EBUSY while objects or maps of the design are in use. */
int shm_design_setup(unsigned int design);
int shm_design_teardown(unsigned int design);

/* --- hash maps [guarded] ------------------------------------------------------------------------- */
/* task context; the map's index, or -EINVAL sizes, -ENOSPC no room in the table, -ENOMEM; flags: 0 */
int shm_map_create(unsigned int design, uint32_t key_bytes, uint32_t value_bytes, uint32_t max_entries,
	uint32_t flags);
int shm_map_destroy(unsigned int map);  /* task context, nobody else working on it */
/* 0, or: -E2BIG full, -ENOMEM, -EEXIST, -ENOENT, and of the bucket's lock -EDEADLK, -ETIMEDOUT */
int shm_map_update(unsigned int map, const void *key, const void *value, uint64_t flags);
int shm_map_lookup(unsigned int map, const void *key, void *value);  /* value: value_bytes, or NULL */
int shm_map_delete(unsigned int map, const void *key);
/* ownership: 1 if off is the start of a live object */
int shm_oracle_is_live(uint64_t off);
uint64_t shm_oracle_extent(uint64_t off); /* bytes owned from off, 0 if not the start of an object */

/* --- contexts [guarded] ------------------------------------------------------------------------- */
int shm_irq_save(void);                /* returns the previous flag */
int shm_irq_restore(int previous);
int shm_bh_disable(void);
int shm_bh_enable(void);
int shm_irq_pending(void);
int shm_signal_of(enum shm_irq_kind kind);    /* the signal that stands for the interrupt */
int shm_send_interrupt(unsigned int cpu, enum shm_irq_kind kind); /* any process; thread-directed; -ESRCH, -ENOTCONN: nobody, or no handlers */
int shm_flush_all(unsigned int cache); /* every CPU's slabs of the cache, ~0u = all caches; by IPI, with a deadline */
int shm_run_irq_work(void);            /* run what is pending now, as if irqs had just been enabled */

/* --- RCU [guarded] -------------------------------------------------------------------------------- */
int shm_rcu_read_lock(enum shm_rcu_domain domain);
int shm_rcu_read_unlock(enum shm_rcu_domain domain);   /* -EINVAL: not in a read-side section */
/* free after a grace period; bytes head_offset .. head_offset + 15 of the object become its rcu_head.
 * -EINVAL: no live object of a slab, or it does not have these bytes */
int shm_kfree_rcu(uint64_t off, uint32_t head_offset);
int shm_kfree_rcu_nolock(uint64_t off, uint32_t head_offset); /* any context; -EOPNOTSUPP: not a 7.x arena */
int shm_synchronize_rcu(enum shm_rcu_domain domain);   /* wait for a grace period; -EDEADLK from within a reader */
int shm_rcu_barrier(void);             /* until no callback is left on any CPU, in any domain */
int shm_quiesce(void);                 /* until neither irq_work nor callbacks are left on any CPU */
int shm_rcu_tick(void);                /* as the timer does: irq_work that waits for it, grace periods, callbacks that are due here */
int64_t shm_rcu_pending(void);         /* callbacks on all CPUs that are not yet invoked */

/* --- programs: what a handler does --------------------------------------------------------------- */
struct shm_program {
	const struct shm_op *ops;
	uint64_t nr_ops;
	uint64_t per_interrupt;   /* ops run by one interrupt, cyclically; 0 = all */
	uint64_t *slots;          /* private to the program, nr_slots words */
	uint64_t nr_slots;
	uint32_t design;
	uint32_t flags;           /* SHM_REPLAY_* */
};
/* program == NULL takes it away; the memory stays the caller's and must outlive the binding */
int shm_set_program(enum shm_irq_kind kind, const struct shm_program *program);
/* periodic interrupt of the bound CPU: one-shot timer, set again at the handler's end; 0 Hz = off */
int shm_set_timer(enum shm_irq_kind kind, double rate_hz, double jitter);
/* send interrupts to CPUs [first, last] at random until stopped; runs in a process that is no CPU.
 * Returns the number sent. */
uint64_t shm_inject(unsigned int first, unsigned int last, enum shm_irq_kind kind, double rate_hz, uint64_t seed,
	double seconds);

/* --- replay --------------------------------------------------------------------------------------- */
struct shm_replay {
	const struct shm_op *ops;
	uint64_t nr_ops;
	uint64_t max_ops;         /* stop after so many ops, 0 = no limit; the array repeats */
	double seconds;           /* stop after so long, 0 = no limit */
	uint64_t *slots;          /* private slots, nr_slots words */
	uint64_t nr_slots;
	uint64_t done;            /* out: ops executed */
	double elapsed;           /* out: seconds */
	uint32_t design;
	uint32_t sample;          /* latency of every n-th op is taken, 0 = none */
	uint32_t flags;           /* SHM_REPLAY_* */
	uint32_t pad;
};
#define SHM_REPLAY_PATTERN 0x1u   /* write a keyed pattern into each object, check it at the free */
/* 0: done; -ECANCELED: header.stop was set; -EDEADLK: a verdict ended it */
int shm_replay(struct shm_replay *replay);
/* free what a slot array holds, with the design that allocated it; returns the number freed */
int64_t shm_drain_slots(uint64_t *slots, uint64_t nr_slots);
int64_t shm_drain_shared_slots(unsigned int first, unsigned int last); /* [first, last) */

/* --- barriers of a run ---------------------------------------------------------------------------- */
void shm_phase_finish(uint32_t phase);           /* publish: this CPU has finished the phase */
void shm_phase_open(uint32_t phase);                /* let those that wait for it go on */
int shm_phase_wait(uint32_t phase, double seconds); /* until header.phase >= phase; -ETIMEDOUT, -ECANCELED, -EOWNERDEAD */
void shm_stop(uint32_t why);                     /* 1 asked for, 2 verdict */

/* --- traces: any process ------------------------------------------------------------------------------- */
/* record these (a bit for each event; 0 = off), or: -EOPNOTSUPP no rings in the geometry, -EINVAL no such event */
int shm_trace_switch(uint64_t events, int overwrite);
int shm_trace_followed(unsigned int cpu);  /* 0: its first attempts are not switched yet: it takes no interrupts */
/* From place *cursor on, which moves; places that were overwritten before they could be read are added to *missed.
 * Returns the number; fewer than max: no more is there, or the next one is being written. */
int64_t shm_trace_read(unsigned int cpu, uint64_t *cursor, struct shm_trace_event *out, uint64_t max, uint64_t *missed);
/* the same from where the last one ended, and room for new ones; -EBUSY: another process does so now */
int64_t shm_trace_consume(unsigned int cpu, struct shm_trace_event *out, uint64_t max);

/* --- verdicts --------------------------------------------------------------------------------------- */
int shm_report(unsigned int verdict, unsigned int checker, const char *text); /* from outside: parent, audit */

/* --- probes (checked flavour; -EOPNOTSUPP in release) ------------------------------------------------ */
enum shm_probe_action { PROBE_NONE, PROBE_PROBE, PROBE_NMI, PROBE_IRQ, PROBE_OTHER_CPU };
/* at the nth time (1 = next) that the site is passed by this process, run the program once:
 * as a synchronous probe, as an NMI, as an IRQ (pending if masked), or as another CPU of this process */
int shm_probe_arm(unsigned int site, enum shm_probe_action action, uint64_t nth, const struct shm_program *program,
	unsigned int other_cpu);
int shm_probe_disarm(void);
uint64_t shm_probe_hits(unsigned int site);      /* times the site was passed since the last disarm */
uint64_t shm_probe_fired(void);                  /* times an armed program ran */

#endif
