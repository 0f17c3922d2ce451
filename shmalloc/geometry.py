# SPDX-License-Identifier: MIT
"""What an arena is made of: its size, CPUs, nodes, zones, distances and switches.

`Geometry` mirrors ``struct shm_geometry``.  Its limits are the header's constants, read from the
core, so that nothing is declared twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from shmalloc import slab_debug as slab_debug_text
from shmalloc.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from shmalloc._binding import Core

PERMILLE = 1000
LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20
MAX_DISTANCE = 254  # a SLIT byte; 255 means unreachable
MAX_WATERMARK_SCALE = 3000  # vm.watermark_scale_factor: at most 30 % of a zone
MAX_OBJECTS = 32767  # fifteen bits of a slab's counters
MAX_SIZE_BYTES = 1 << 46  # slots keep an offset and 18 bits of other things in one word
KERNELS = ("6.18", "7.0")
_SWITCHES = ("up", "debug_objects", "freelist_random", "freelist_hardened", "oracle", "cmpxchg_double")
_NO_NUMBERS = ("zone_permille", "distance", "cpu_node", "slab_debug")


@dataclass(frozen=True)
class Geometry:
    """The parameters of an arena.

    Attributes:
        size_bytes: of the whole segment; a multiple of the page size.
        nr_cpus: possible CPUs; they decide the slab orders, as in the kernel.
        nr_nodes: NUMA nodes.
        max_caches: entries of the slab cache table, the kmalloc caches included.
        pageblock_order: pages of a pageblock, as a power of two.
        min_free_kbytes: 0 = by the kernel's formula.
        watermark_scale_factor: distance of the watermarks, in 1/10000 of a zone.
        freelist_random: CONFIG_SLAB_FREELIST_RANDOM.
        freelist_hardened: CONFIG_SLAB_FREELIST_HARDENED.
        kernel: whose slab allocator the arena has: "6.18" (cpu slabs) or "7.0" (sheaves).
        oracle: keep the ownership bitmap; without it a double free is not always noticed.
        up: !SMP: one possible CPU, whose spinlocks are no-ops and whose trylocks always succeed.
        debug_objects: CONFIG_DEBUG_OBJECTS_FREE: freed pages are looked up in a hash, under its lock.
        cmpxchg_double: False = as on a machine without a 16-byte compare-and-exchange.
        slab_min_order: slab_min_order=.
        slab_max_order: slab_max_order=.
        slab_min_objects: 0 = by the number of CPUs.
        nr_slots: slots that CPUs and handlers of a workload share.
        slab_debug: what follows slab_debug=, such as ``"FZ,kmalloc-*;U,mine"``; True = slab_debug alone; or
            SLAB_* debug flags, as a number, for the kmalloc caches only.
        irq_work: how queued irq_work comes to run: 0 by a self-interrupt, 1 at the next tick, 2 never by itself.
        bpf_low_bytes: low watermark of bpf_mem_alloc for sizes above 256, in bytes; high is three times that.
        sheaf_factor: sheaves (kernel = "7.0") hold so many times what the kernel's do; long batches then meet
            fewer exchanges, and more objects lie about.
        rcu_gp_us: how long a grace period lasts at least, unless somebody waits for it.
        rcu_stall_ms: a reader that delays a grace period for longer is named, and the run is stalled.
        pool_size: bytes of an element of the pools of the designs prealloc and objpool; 0 = no pools.
        pool_entries: elements of each of those pools; memory is taken when the design is set up.
        max_maps: hash maps that there can be.
        trace_bytes: of each CPU's ring of events (`Arena.trace`), a power of two; 0 = nothing can be recorded.
        max_memcgs: entries of the table of memory cgroups; 0 = none, and nothing is ever charged.
        zone_permille: a row per node, a column per zone type (DMA, DMA32, NORMAL, MOVABLE): share of all
            pages, together 1000.  None = all NORMAL, nodes alike.
        distance: a row per node; 10 = local.  None = 10 and 20.
        cpu_node: the node of each CPU.  None = CPUs spread blockwise.
        seed: of everything random in the arena.
    """

    size_bytes: int
    nr_cpus: int = 4
    nr_nodes: int = 1
    max_caches: int = 64
    pageblock_order: int = 9
    min_free_kbytes: int = 0
    watermark_scale_factor: int = 10
    freelist_random: bool = False
    freelist_hardened: bool = False
    kernel: str = "6.18"
    oracle: bool = True
    up: bool = False
    debug_objects: bool = False
    cmpxchg_double: bool = True
    slab_min_order: int = 0
    slab_max_order: int = 3
    slab_min_objects: int = 0
    nr_slots: int = 0
    slab_debug: int | str = 0
    irq_work: int = 0
    bpf_low_bytes: int = 8192
    sheaf_factor: int = 1
    rcu_gp_us: int = 3000
    rcu_stall_ms: int = 21_000
    pool_size: int = 256
    pool_entries: int = 1024
    max_maps: int = 4
    max_memcgs: int = 16
    trace_bytes: int = 0
    zone_permille: Sequence[Sequence[int]] | None = None
    distance: Sequence[Sequence[int]] | None = None
    cpu_node: Sequence[int] | None = None
    seed: int = 0

    @classmethod
    def of(cls, size: int | str, **keys: Any) -> Geometry:
        """Make a geometry from a size such as ``"64MiB"`` and the attributes above as keywords.

        Args:
            size: of the whole segment.
            **keys: any attribute but size_bytes.

        Returns:
            The geometry; `check` says whether it can be built.

        Raises:
            GeometryError: unknown keys, or a size that is none: all of them at once.
        """
        from shmalloc.errors import GeometryError

        known = [field.name for field in fields(cls) if field.name != "size_bytes"]
        problems = [
            f"{key} = {value!r}: unknown key; allowed: size, {', '.join(known)}"
            for key, value in keys.items()
            if key not in known
        ]
        size_bytes = 0
        try:
            size_bytes = parse_bytes(size)
        except ValueError as error:
            problems.insert(0, f"size = {size!r}: {error}")
        if problems:
            raise GeometryError(problems)
        return cls(size_bytes=size_bytes, **keys)

    def check(self, core: Core | None = None) -> list[str]:
        """List everything that is wrong, each as ``key = value: what is allowed``.

        Args:
            core: whose limits count; None = the release flavour.

        Returns:
            The problems; empty if an arena can be made.
        """
        if core is None:
            from shmalloc._binding import core as load

            core = load()
        problems = _scalar_problems(self, core.lib)
        if not problems:
            problems = _table_problems(self, core.lib)
        if not problems:
            problems = _size_problems(self, core)
        return problems

    def to_c(self, core: Core) -> Any:
        """Fill a ``struct shm_geometry``.

        Args:
            core: whose structure.

        Returns:
            A cffi pointer that owns the structure.
        """
        lib, geometry = core.lib, core.ffi.new("struct shm_geometry *")
        for field in fields(self):
            if hasattr(geometry, field.name) and field.name not in _NO_NUMBERS:
                setattr(geometry, field.name, getattr(self, field.name))
        geometry.flags = (
            (lib.SHM_GEO_FREELIST_RANDOM if self.freelist_random else 0)
            | (lib.SHM_GEO_FREELIST_HARDENED if self.freelist_hardened else 0)
            | (lib.SHM_GEO_ORACLE if self.oracle else 0)
            | (0 if self.cmpxchg_double else lib.SHM_GEO_NO_CMPXCHG_DOUBLE)
            | (lib.SHM_GEO_SHEAVES if self.kernel == "7.0" else 0)
            | (lib.SHM_GEO_UP if self.up else 0)
            | (lib.SHM_GEO_DEBUG_OBJECTS if self.debug_objects else 0)
        )
        if isinstance(self.slab_debug, str | bool):
            geometry.slab_debug_text = self.slab_debug_text().encode()
        else:
            geometry.slab_debug = self.slab_debug
        for node, row in enumerate(self.zones(lib)):
            for zone, share in enumerate(row):
                geometry.zone_permille[node][zone] = share
        for node, row in enumerate(self.distances()):
            for other, distance in enumerate(row):
                geometry.distance[node][other] = distance
        for cpu, node in enumerate(self.nodes_of_cpus()):
            geometry.cpu_node[cpu] = node
        return geometry

    def slab_debug_text(self) -> str:
        """Return what follows slab_debug=; "" if it is not given, or as a number."""
        if isinstance(self.slab_debug, bool):
            return slab_debug_text.ALONE if self.slab_debug else ""
        return self.slab_debug if isinstance(self.slab_debug, str) else ""

    def zones(self, lib: Any) -> list[list[int]]:
        """Return the share of each zone type on each node, in 1/1000 of all pages, defaults filled in."""
        if self.zone_permille is not None:
            return [list(row) for row in self.zone_permille]
        share, rest = divmod(PERMILLE, self.nr_nodes)
        rows = [[0] * lib.NR_ZONE_TYPES for _ in range(self.nr_nodes)]
        for node, row in enumerate(rows):
            row[lib.ZONE_NORMAL] = share + (node < rest)
        return rows

    def distances(self) -> list[list[int]]:
        """Return the distance table, defaults filled in."""
        if self.distance is not None:
            return [list(row) for row in self.distance]
        nodes = range(self.nr_nodes)
        return [[LOCAL_DISTANCE if a == b else REMOTE_DISTANCE for b in nodes] for a in nodes]

    def nodes_of_cpus(self) -> list[int]:
        """Return the node of each CPU, defaults filled in."""
        if self.cpu_node is not None:
            return list(self.cpu_node)
        return [cpu * self.nr_nodes // self.nr_cpus for cpu in range(self.nr_cpus)]


def room_of_rings(trace_bytes: int, slots: int) -> int:
    """Return what rings of that size take of an arena, in whole pages. Args: slots: CPUs and nodes together."""
    page = 4096
    return -(-slots * (trace_bytes + 128) // page) * page if trace_bytes else 0


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _int_problem(key: str, value: object, low: int, high: int) -> list[str]:
    if _is_int(value) and low <= value <= high:  # type: ignore[operator]
        return []
    return [f"{key} = {value!r}: allowed is an integer from {low} to {high}"]


def _scalar_problems(geometry: Geometry, lib: Any) -> list[str]:
    ranges = {
        "nr_cpus": (1, lib.SHM_MAX_CPUS),
        "nr_nodes": (1, lib.SHM_MAX_NODES),
        "max_caches": (1, 0xFFFF),
        "pageblock_order": (1, lib.SHM_MAX_PAGE_ORDER),
        "min_free_kbytes": (0, 0xFFFFFFFF),
        "watermark_scale_factor": (1, MAX_WATERMARK_SCALE),
        "slab_min_order": (0, lib.SHM_MAX_PAGE_ORDER),
        "slab_max_order": (0, lib.SHM_MAX_PAGE_ORDER),
        "slab_min_objects": (0, MAX_OBJECTS),
        "nr_slots": (0, 0xFFFFFFFF),
        "irq_work": (0, lib.SHM_IRQ_WORK_NEVER),
        "bpf_low_bytes": (0, 1 << 20),
        "sheaf_factor": (1, lib.SHM_MAX_SHEAF_FACTOR),
        "rcu_gp_us": (0, 0xFFFFFFFF),
        "rcu_stall_ms": (1, 0xFFFFFFFF),
        "pool_size": (0, lib.SHM_MAX_POOL_SIZE),
        "pool_entries": (1, lib.SHM_MAX_POOL_ENTRIES),
        "max_maps": (0, lib.SHM_MAX_MAPS),
        "max_memcgs": (0, lib.SHM_MAX_MEMCGS),
        "trace_bytes": (0, lib.SHM_TRACE_MAX_BYTES),
        "seed": (0, 2**64 - 1),
    }
    problems = _size_form_problems(geometry.size_bytes, lib.SHM_PAGE_SIZE)
    for key, (low, high) in ranges.items():
        problems += _int_problem(key, getattr(geometry, key), low, high)
    problems += _trace_problems(geometry.trace_bytes, lib)
    problems += _slab_debug_problems(geometry.slab_debug, lib)
    problems += [
        f"{key} = {getattr(geometry, key)!r}: allowed is True or False"
        for key in _SWITCHES
        if not isinstance(getattr(geometry, key), bool)
    ]
    if geometry.kernel not in KERNELS:
        problems.append(f"kernel = {geometry.kernel!r}: allowed are {', '.join(KERNELS)}")
    if geometry.up is True and geometry.nr_cpus != 1:
        problems.append(f"up = True: allowed only with nr_cpus = 1, not {geometry.nr_cpus}")
    low_order, high_order = geometry.slab_min_order, geometry.slab_max_order
    if _is_int(low_order) and _is_int(high_order) and low_order > high_order:
        problems.append(f"slab_min_order = {low_order}: allowed is at most slab_max_order = {high_order}")
    return problems


def _trace_problems(value: int, lib: Any) -> list[str]:
    low, high = int(lib.SHM_TRACE_MIN_BYTES), int(lib.SHM_TRACE_MAX_BYTES)
    if not _is_int(value) or not 0 < value <= high or (value >= low and not value & (value - 1)):
        return []
    return [f"trace_bytes = {value}: allowed is 0, or a power of two from {low} to {high}"]


def _slab_debug_problems(value: object, lib: Any) -> list[str]:
    if isinstance(value, str):
        found = slab_debug_text.problems(value, int(lib.SHM_SLAB_DEBUG_TEXT) - 1)
        return [f"slab_debug = {value!r}: {'; '.join(found)}; {slab_debug_text.FORM}"] if found else []
    return [] if isinstance(value, bool) else _int_problem("slab_debug", value, 0, lib.SLAB_DEBUG_FLAGS)


def _size_form_problems(size_bytes: object, page_size: int) -> list[str]:
    if not _is_int(size_bytes) or size_bytes <= 0:  # type: ignore[operator]
        return [f"size_bytes = {size_bytes!r}: allowed is a positive number of bytes"]
    if size_bytes % page_size:  # type: ignore[operator]
        return [f"size_bytes = {size_bytes}: allowed is a multiple of the page size, {page_size}"]
    return []


def _table_problems(geometry: Geometry, lib: Any) -> list[str]:
    problems = []
    nodes = geometry.nr_nodes
    if geometry.zone_permille is not None:
        problems += _matrix_problems(
            "zone_permille", geometry.zone_permille, nodes, lib.NR_ZONE_TYPES, (0, PERMILLE)
        )
        if not problems and (total := sum(map(sum, geometry.zone_permille))) != PERMILLE:
            problems.append(f"zone_permille = shares of {total}/1000 in all: allowed is exactly {PERMILLE}")
    if geometry.distance is not None:
        found = _matrix_problems("distance", geometry.distance, nodes, nodes, (LOCAL_DISTANCE, MAX_DISTANCE))
        problems += found or _distance_problems(geometry.distance)
    if not problems:
        problems += _cache_problems(geometry, lib)
    if geometry.cpu_node is not None:
        problems += _row_problems("cpu_node", geometry.cpu_node, geometry.nr_cpus, (0, nodes - 1))
    return problems


def _matrix_problems(key: str, table: Any, rows: int, columns: int, allowed: tuple[int, int]) -> list[str]:
    if isinstance(table, str) or not isinstance(table, Sequence) or len(table) != rows:
        return [f"{key} = {table!r}: allowed is one row for each of {rows} nodes"]
    return [
        problem
        for number, row in enumerate(table)
        for problem in _row_problems(f"{key}[{number}]", row, columns, allowed)
    ]


def _row_problems(key: str, row: Any, columns: int, allowed: tuple[int, int]) -> list[str]:
    if isinstance(row, str) or not isinstance(row, Sequence) or len(row) != columns:
        return [f"{key} = {row!r}: allowed are {columns} integers"]
    return [
        problem
        for column, value in enumerate(row)
        for problem in _int_problem(f"{key}[{column}]", value, *allowed)
    ]


def _distance_problems(table: Sequence[Sequence[int]]) -> list[str]:
    return [
        f"distance[{a}][{b}] = {value}: allowed is {LOCAL_DISTANCE} on the diagonal and more elsewhere"
        for a, row in enumerate(table)
        for b, value in enumerate(row)
        if (a == b) != (value == LOCAL_DISTANCE)
    ]


def _cache_problems(geometry: Geometry, lib: Any) -> list[str]:
    """Check that the kmalloc caches fit the table; those for DMA are made only if there is such a zone."""
    dma = any(row[lib.ZONE_DMA] for row in geometry.zones(lib))
    least = (lib.NR_KMALLOC_CACHES - 1) * (lib.NR_KMALLOC_TYPES - (not dma))
    if geometry.max_caches >= least:
        return []
    return [
        f"max_caches = {geometry.max_caches}: allowed is at least {least}, the number of kmalloc caches"
        f"{' with a DMA zone' if dma else ''}"
    ]


def _size_problems(geometry: Geometry, core: Core) -> list[str]:
    least = int(core.lib.shm_arena_min_bytes(geometry.to_c(core)))
    problems = []
    if not least:
        return [f"size_bytes = {geometry.size_bytes}: allowed is less than {MAX_SIZE_BYTES} (64 TiB)"]
    if geometry.size_bytes < least:
        problems.append(
            f"size_bytes = {geometry.size_bytes} ({format_bytes(geometry.size_bytes)}): allowed is at least "
            f"{least} ({format_bytes(least)}) with these CPUs, nodes and caches"
        )
    if geometry.min_free_kbytes * 1024 >= geometry.size_bytes:
        problems.append(
            f"min_free_kbytes = {geometry.min_free_kbytes}: allowed is less than the arena, "
            f"{geometry.size_bytes // 1024} KiB"
        )
    return problems
