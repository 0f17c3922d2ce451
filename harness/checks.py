# SPDX-License-Identifier: MIT
"""Mistakes that several keys make together: contradictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness import expect
from harness.atlas import check as atlas
from harness.config import ZONES, ArenaSpec, Config
from harness.problems import Problem, one_of, shown
from harness.script import check as script
from harness.traced import ring_bytes
from harness.vocabulary import KINDS, Vocabulary
from harness.workload.spec import MapSpec, sharing_problems

if TYPE_CHECKING:
    from shmalloc.geometry import Geometry

_PERMILLE = 1000
_POOL_DESIGNS = {"prealloc", "objpool"}
_MOST_KMALLOC_CACHES = 4 * 13  # types x size classes, if there is a DMA zone
# Geometry's attribute -> our key
_KEYS = {
    "size_bytes": "arena.size",
    "nr_cpus": "arena.cpus",
    "nr_nodes": "arena.nodes",
    "zone_permille": "arena.zones",
    "seed": "seed",
    "pool_size": "pool.size",
    "pool_entries": "pool.entries",
    "trace_bytes": "trace.buffer",
}


def contradictions(config: Config, vocabulary: Vocabulary, wrong: frozenset[str]) -> list[Problem]:
    """List what contradicts itself in a cell whose keys are each allowed.

    Args: config: the cell.  vocabulary: the names that exist.  wrong: paths of keys that were put aside,
        about which nothing more is said.
    """
    found = [
        *_flavour(config),
        *_kernel(config),
        *_up(config),
        *_cpus(config),
        *_repeats(config),
        *_trace(config),
        *_pools(config),
        *_interrupts(config),
        *_names(config, vocabulary),
        *script.problems(config, vocabulary),
        *atlas.problems(config, vocabulary),
    ]
    if not any(path.startswith("arena") for path in wrong | {problem.path for problem in found}):
        found += _arena(config)
    return [problem for problem in found if problem.path not in wrong]


def _flavour(config: Config) -> Iterator[Problem]:
    if config.broken != "none" and config.flavour != "checked" and config.engine != atlas.ENGINE:
        yield Problem(
            "broken", shown(config.broken), 'needs flavour = "checked"; release holds no broken variant'
        )
    if config.lock_rules and config.flavour != "checked":
        yield Problem("lock_rules", "true", 'needs flavour = "checked"; release has no lock-rule checker')


def _kernel(config: Config) -> Iterator[Problem]:
    """A design and the slab allocator that it is about."""
    needs = {"sheaves": "7.0", "try_kmalloc": "6.18"}.get(config.design, config.kernel)
    if config.kernel != needs:
        why = f'allowed is "{needs}" with design = "{config.design}"'
        yield Problem("arena.kernel", shown(config.kernel), why)


def _up(config: Config) -> Iterator[Problem]:
    """One CPU that excludes itself by switching irqs off: nothing may run beside it."""
    if not config.arena.up:
        return
    if config.possible_cpus != 1 or config.cpus != 1:
        key, number = ("arena.cpus", config.possible_cpus) if config.cpus == 1 else ("cpus", config.cpus)
        yield Problem(key, shown(number), "allowed is 1 with arena.up = true")
    if config.has_kswapd and config.engine == "stress":
        set_by = ("kswapd", "true") if config.kswapd else ("page_cache", shown(config.page_cache))
        why = (
            "allowed with arena.up = true is kswapd = false: its process would be a second CPU, without locks"
        )
        yield Problem(*set_by, why)


def _cpus(config: Config) -> Iterator[Problem]:
    arena = config.arena
    if arena.cpus is not None and arena.cpus < config.cpus:
        yield Problem("arena.cpus", shown(arena.cpus), f"allowed is at least cpus = {config.cpus}")
    if arena.cpu_node is not None and len(arena.cpu_node) != config.possible_cpus:
        yield Problem(
            "arena.cpu_node",
            f"{len(arena.cpu_node)} entries",
            f"allowed is one for each of {config.possible_cpus} possible CPUs",
        )
    if arena.zones is not None and len(arena.zones) != arena.nodes:
        yield Problem(
            "arena.zones", f"{len(arena.zones)} tables", f"allowed is one for each of {arena.nodes} nodes"
        )
    elif arena.zones is not None and not all(sum(node.values()) > 0 for node in arena.zones):
        yield Problem("arena.zones", shown(arena.zones), "allowed are shares above 0 on every node")
    if config.ops is not None and config.ops < config.cpus:
        yield Problem("ops", shown(config.ops), f"allowed is at least one for each of {config.cpus} CPUs")


def _repeats(config: Config) -> Iterator[Problem]:
    if config.repeats > 1 and config.engine != "stress":
        why = f'allowed is 1 with engine = "{config.engine}": each run of it does the same'
        yield Problem("repeats", shown(config.repeats), why)


def _trace(config: Config) -> Iterator[Problem]:
    if config.trace.events and config.engine == atlas.ENGINE:
        yield Problem(
            "trace.events", shown(config.trace.events), f'allowed is none with engine = "{atlas.ENGINE}"'
        )


def _pools(config: Config) -> Iterator[Problem]:
    pool, room = config.pool, config.arena.size
    uses = {config.design, *(config.interrupt(kind).design for kind in KINDS)} & _POOL_DESIGNS
    if uses and pool.size * pool.entries > room:
        allowed = f"allowed are at most {room // pool.size} of {pool.size} bytes in an arena of {room} bytes"
        yield Problem("pool.entries", shown(pool.entries), allowed)
    if isinstance(config.workload, MapSpec) and config.workload.map_bytes > room:
        allowed = f"a map of {config.workload.map_bytes} bytes does not fit an arena of {room} bytes"
        yield Problem("workload.entries", shown(config.workload.entries), allowed)


def _interrupts(config: Config) -> Iterator[Problem]:
    for kind in KINDS:
        spec, source = config.interrupt(kind), config.source(kind)
        path, every = f"interrupts.{kind}", config.interrupt_every(kind)
        if source in ("timer", "injector") and spec.rate_hz == 0:
            yield Problem(f"{path}.rate_hz", "0", f'allowed is a rate above 0 with source = "{source}"')
        if source == "ops" and not every:
            yield Problem(f"workload.{kind}_every", "0", f'allowed is at least 1 with {path}.source = "ops"')
        if source != "ops" and every:
            yield Problem(
                f"workload.{kind}_every", shown(every), f'needs {path}.source = "ops", not "{source}"'
            )
    for text in sharing_problems(
        config.workload,
        {
            f"interrupts.{kind}.program": config.interrupt(kind).program
            for kind in KINDS
            if config.source(kind) != "none"
        },
    ):
        path, _, rest = text.partition(": ")
        yield Problem(path, None, rest)


def _names(config: Config, vocabulary: Vocabulary) -> Iterator[Problem]:
    known = script.facts(config), atlas.facts(config, vocabulary)
    for at, text in enumerate(config.must_happen):
        yield from _expression(f"must_happen[{at}]", text, vocabulary, *known)
    for at, spec in enumerate(config.expect):
        path = f"expect[{at}]"
        if (spec.condition is None) == (spec.verdict is None):
            yield Problem(path, None, "allowed is either a condition or a verdict, one of them")
        if spec.condition is not None:
            yield from _expression(f"{path}.condition", spec.condition, vocabulary, *known)
        for why in expect.template_mistakes(spec.measured or "", vocabulary, *known):
            yield Problem(f"{path}.measured", shown(spec.measured), why)
        if spec.verdict is not None and spec.verdict not in vocabulary.verdicts:
            yield Problem(f"{path}.verdict", shown(spec.verdict), one_of(vocabulary.verdicts))
        for problem in expect.selector_problems(spec.cell, vocabulary):
            yield Problem(f"{path}.cell", shown(spec.cell), problem)


def _expression(
    path: str, text: str, vocabulary: Vocabulary, facts: Iterable[str], more: Mapping[str, Any]
) -> Iterator[Problem]:
    for why in expect.mistakes(text, vocabulary, facts, more):
        yield Problem(path, shown(text), why)


def _arena(config: Config) -> Iterator[Problem]:
    """Ask the library whether an arena of this geometry can be."""
    for text in geometry(config).check():
        key, _, rest = text.partition(" = ")
        value, _, allowed = rest.partition(": ")
        name, bracket, index = key.partition("[")
        yield Problem(_KEYS.get(name, f"arena.{name}") + bracket + index, value or None, allowed or text)


def geometry(config: Config, nr_slots: int = 0, nr_caches: int = 0) -> Geometry:
    """Make the library's geometry of a cell.

    Args: config: the cell.  nr_slots: shared slots that its workload needs.  nr_caches: caches that it creates.
    """
    from shmalloc.geometry import Geometry, room_of_rings

    arena = config.arena
    enough = max(Geometry.max_caches, _MOST_KMALLOC_CACHES + nr_caches)
    return Geometry(
        size_bytes=arena.size + room_of_rings(ring_bytes(config), config.possible_cpus + arena.nodes),
        nr_cpus=config.possible_cpus,
        nr_nodes=arena.nodes,
        max_caches=arena.max_caches or enough,
        pageblock_order=arena.pageblock_order,
        min_free_kbytes=arena.min_free_kbytes,
        watermark_scale_factor=arena.watermark_scale_factor,
        kernel=config.kernel,
        up=arena.up,
        debug_objects=arena.debug_objects,
        freelist_random=arena.freelist_random,
        freelist_hardened=arena.freelist_hardened,
        oracle=config.oracle,
        cmpxchg_double=arena.cmpxchg_double,
        slab_min_order=arena.slab_min_order,
        slab_max_order=arena.slab_max_order,
        slab_min_objects=arena.slab_min_objects,
        nr_slots=nr_slots,
        irq_work=("interrupt", "tick", "never").index(arena.irq_work),
        bpf_low_bytes=arena.bpf_low_bytes,
        sheaf_factor=arena.sheaf_factor,
        rcu_gp_us=arena.rcu_gp_us,
        rcu_stall_ms=arena.rcu_stall_ms,
        pool_size=config.pool.size,
        pool_entries=config.pool.entries,
        trace_bytes=ring_bytes(config),
        slab_debug=arena.slab_debug,
        zone_permille=zone_permille(arena),
        distance=arena.distance,
        cpu_node=arena.cpu_node,
        seed=config.seed,
    )


def zone_permille(arena: ArenaSpec) -> list[list[int]] | None:
    """Turn shares into 1/1000 of all memory that add up to 1000, by largest remainders."""
    if arena.zones is None:
        return None
    shares = [_share(node, zone) for node in arena.zones for zone in ZONES]
    total = sum(shares)
    exact = [share * _PERMILLE / total for share in shares]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda at: (parts[at] - exact[at], at))
    for at in by_remainder[: _PERMILLE - sum(parts)]:
        parts[at] += 1
    return [parts[row : row + len(ZONES)] for row in range(0, len(parts), len(ZONES))]


def _share(node: Mapping[Any, float], zone: str) -> float:
    return node.get(zone, 0.0)
