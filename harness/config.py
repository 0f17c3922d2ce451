# SPDX-License-Identifier: MIT
"""The config of one cell: every key, its type, its default and its limits.

The names of designs and broken variants are checked against the core's lists, which come in as the
validation context (a `Vocabulary`).  What only several keys together can get wrong is in `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
)

from harness.problems import one_of
from harness.vocabulary import Vocabulary
from harness.workload.spec import ProgramSpec, WorkloadSpec, parse_program, parse_workload
from shmalloc import slab_debug
from shmalloc._binding import core
from shmalloc.faults import FaultAttr
from shmalloc.tracing import event_mask
from shmalloc.units import format_bytes, parse_bytes

_LIMITS = core().lib
MAX_CPUS = int(_LIMITS.SHM_MAX_CPUS)
MAX_NODES = int(_LIMITS.SHM_MAX_NODES)
MAX_ORDER = int(_LIMITS.SHM_MAX_PAGE_ORDER)
ZONES = ("DMA", "DMA32", "NORMAL", "MOVABLE")
DEFAULT_SECONDS = 2.0
_MAX_SECONDS = 7 * 86400.0


class Table(BaseModel):
    """A table of the config: no key but those declared, no conversion between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("allowed is a number of bytes or a text such as '64MiB'")
    return parse_bytes(value)


def _size_text(value: int) -> str:
    text = format_bytes(value).replace(" ", "")
    return text if parse_bytes(text) == value else str(value)


def _known(names: list[str] | None, value: str) -> str:
    if names is not None and value not in names:
        raise ValueError(one_of(names))
    return value


def _design(value: str, info: ValidationInfo) -> str:
    return _known(list(info.context.designs) if isinstance(info.context, Vocabulary) else None, value)


def _broken(value: str, info: ValidationInfo) -> str:
    return _known(list(info.context.broken) if isinstance(info.context, Vocabulary) else None, value)


def _prime(value: int) -> int:
    if value > 1 and any(value % i == 0 for i in range(2, int(value**0.5) + 1)):
        raise ValueError("allowed is a prime, 1 (every op) or 0 (none)")
    return value


def _debug(value: str | bool) -> str | bool:
    found = slab_debug.problems(value, int(_LIMITS.SHM_SLAB_DEBUG_TEXT) - 1) if isinstance(value, str) else []
    if found:
        raise ValueError(f"{'; '.join(found)}; {slab_debug.FORM}, or true for {slab_debug.ALONE}")
    return value


Size = Annotated[int, BeforeValidator(_size), PlainSerializer(_size_text), Field(gt=0)]
DesignName = Annotated[str, AfterValidator(_design)]
Share = Annotated[float, Field(ge=0)]
ZoneShares = dict[Literal["DMA", "DMA32", "NORMAL", "MOVABLE"], Share]


class ArenaSpec(Table):
    """The arena: physical memory.  See `shmalloc.Geometry`."""

    size: Size = 32 << 20
    cpus: int | None = Field(
        None, ge=1, le=MAX_CPUS, description="possible CPUs; default: at least 4, and cpus; 1 with up"
    )
    up: bool = Field(
        False, description="a kernel without SMP: one possible CPU, no spinlocks, trylocks always succeed"
    )
    debug_objects: bool = Field(
        False, description="CONFIG_DEBUG_OBJECTS_FREE: freed pages are looked up in a hash, under its lock"
    )
    nodes: int = Field(1, ge=1, le=MAX_NODES)
    reserve: Literal["full", "sparse"] = "full"
    kernel: Literal["6.18", "7.0"] | None = Field(
        None, description="slab allocator: cpu slabs or sheaves; default: 7.0 for design sheaves, else 6.18"
    )
    max_caches: int | None = Field(
        None, ge=1, le=65535, description="entries of the cache table; None = enough for the workload"
    )
    pageblock_order: int = Field(9, ge=1, le=MAX_ORDER)
    min_free_kbytes: int = Field(0, ge=0, description="0 = by the kernel's formula")
    watermark_scale_factor: int = Field(10, ge=1, le=3000)
    zones: list[ZoneShares] | None = Field(None, description="shares of memory, one table per node")
    distance: list[list[int]] | None = Field(None, description="SLIT, one row per node, 10 = local")
    cpu_node: list[int] | None = Field(None, description="the node of each possible CPU")
    real_nodes: Literal["bind", "ignore"] = Field(
        "bind", description="where the machine has several nodes too: put each of the arena's on one of them"
    )
    freelist_random: bool = False
    freelist_hardened: bool = False
    cmpxchg_double: bool = True
    slab_min_order: int = Field(0, ge=0, le=MAX_ORDER)
    slab_max_order: int = Field(3, ge=0, le=MAX_ORDER)
    slab_min_objects: int = Field(0, ge=0, le=32767)
    irq_work: Literal["interrupt", "tick", "never"] = Field(
        "interrupt", description="how queued irq_work comes to run: by a self-interrupt, or else"
    )
    bpf_low_bytes: int = Field(
        8192,
        ge=0,
        le=1 << 20,
        description="bpf_mem_alloc above 256 bytes: low watermark, high is three times it",
    )
    sheaf_factor: int = Field(
        1, ge=1, le=16, description="sheaves (kernel 7.0) hold so many times what the kernel's do"
    )
    rcu_gp_us: int = Field(3000, ge=0, le=0xFFFFFFFF, description="least duration of a grace period")
    rcu_stall_ms: int = Field(
        21_000, ge=1, le=0xFFFFFFFF, description="a reader that delays a grace period longer is a stall"
    )
    slab_debug: Annotated[str | bool, AfterValidator(_debug)] = Field(
        "", description="what follows slab_debug=, for all caches: FZPU, or FZ,kmalloc-64,task*;U,mine"
    )
    slab_errors: Literal["stop", "count"] = Field(
        "stop", description="a debug check's report is a verdict, or is only counted"
    )


class PoolSpec(Table):
    """The pools of the designs prealloc and objpool."""

    size: int = Field(256, ge=8, le=int(_LIMITS.SHM_MAX_POOL_SIZE), description="bytes of an element")
    entries: int = Field(1024, ge=1, le=int(_LIMITS.SHM_MAX_POOL_ENTRIES))


class FaultSpec(Table):
    """When requests of one kind are made to fail; the names are those of debugfs."""

    probability: int = Field(0, ge=0, le=100, description="percent")
    interval: int = Field(1, ge=1, lt=1 << 32, description="only every n-th request that comes so far")
    times: int = Field(-1, ge=-1, lt=1 << 31, description="failures until it ends, -1 = no limit")
    space: int = Field(0, ge=0, lt=1 << 31, description="bytes (slab) or pages that pass first")
    ignore_gfp_wait: bool = Field(True, description="leave requests that may block alone")
    ignore_gfp_highmem: bool = Field(True, description="pages: and those that may be highmem")
    min_order: int = Field(1, ge=0, le=MAX_ORDER, description="pages: leave smaller ones alone")
    cache_filter: bool = Field(False, description="slab: only caches marked by slab_debug's A")


def _fault(value: object) -> object:
    """Read the boot syntax; a table is checked as any other."""
    if not isinstance(value, str):
        return value
    try:
        made = FaultAttr.parse(value)
    except ValueError as error:
        raise ValueError(f"{error}, or a table of {', '.join(FaultSpec.model_fields)}") from None
    return {name: getattr(made, name) for name in FaultSpec.model_fields}


Fault = Annotated[FaultSpec, BeforeValidator(_fault)]


class FaultSpecs(Table):
    """Faults that are injected: `"<interval>,<probability>,<space>,<times>"` as at boot, or a table."""

    failslab: Fault | None = None
    fail_page_alloc: Fault | None = None


class InterruptSpec(Table):
    """Where interrupts of one kind come from, and what their handler does."""

    source: Literal["none", "timer", "injector", "ops"] | None = Field(
        None, description="default: timer if there is a rate, ops if the workload has some, else none"
    )
    rate_hz: float = Field(0.0, ge=0, le=1e7, description="per CPU (timer), or all CPUs together (injector)")
    jitter: float = Field(0.2, ge=0, le=1, description="of the timer's period, as a share of it")
    program: ProgramSpec = Field(default_factory=lambda: parse_program("alloc_free"))
    design: DesignName | None = Field(None, description="default: the cell's, or kmalloc_nolock for NMIs")


class NmiSpec(InterruptSpec):
    """The same for NMIs."""

    nesting: bool = Field(False, description="NMIs interrupt NMIs, which is stronger than hardware")


class InterruptSpecs(Table):
    """Both kinds of interrupt."""

    nmi: NmiSpec = Field(default_factory=NmiSpec)
    irq: InterruptSpec = Field(default_factory=InterruptSpec)


class NumaModelSpec(Table):
    """What distance would cost on hardware that has it: a model, never part of a measured time."""

    access_ns: float = Field(ge=0, le=1e6, description="one access to memory of the CPU's own node")
    accesses: float = Field(1.0, gt=0, le=1e6, description="that a CPU makes to each object it allocates")


class MemcgSpec(Table):
    """Memory cgroups that the CPUs run in: a top one with the limits, and groups below it."""

    max: Size | None = Field(None, description="limit of them all together; None = none")
    high: Size | None = Field(None, description="memory.high of them all together")
    groups: int = Field(1, ge=1, le=5, description="CPU n runs in group n % groups")
    depth: int = Field(1, ge=1, le=3, description="memcgs of a group, one below the other")
    account: float = Field(1.0, ge=0, le=1, description="share of the requests that ask to be charged")
    interrupts: bool = Field(True, description="handlers are charged to the group of their CPU")


class AtlasSpec(Table):
    """What the engine `atlas` sweeps: patterns of names (`*`, `alloc_*`), and what it does beyond single NMIs."""

    operations: list[str] = Field(["*"], description="names of operations")
    handlers: list[str] = Field(["*"], description="names of what a handler does")
    task: list[str] = Field(["*"], description="designs that are interrupted; the cell's is the handler's")
    kinds: list[Literal["nmi", "irq"]] = Field(["nmi"], description="what interrupts")
    pairs: list[str] = Field(
        [], description="scenarios in which two NMIs come, at any two accesses to shared memory"
    )
    nested: bool = Field(
        False, description="pairs: the second NMI also inside the first's handler, stronger than hardware"
    )
    accesses: bool = Field(
        False, description="compare with NMIs before accesses to shared memory only: the same outcomes?"
    )
    cores: int = Field(0, ge=0, le=MAX_CPUS, description="that sweep, one process each; 0 = all there are")


class MapSpec(Table):
    """What is recorded of what each page is, while a stress cell runs."""

    moments: int = Field(
        32, ge=0, le=256, description="at most, between the start and the end; 0 = no map is recorded"
    )
    objects: bool = Field(True, description="also which objects of each slab are live")


def _events(globs: list[str]) -> list[str]:
    event_mask(core(), globs)
    return globs


def _ring(value: int) -> int:
    low, high = int(_LIMITS.SHM_TRACE_MIN_BYTES), int(_LIMITS.SHM_TRACE_MAX_BYTES)
    if not low <= value <= high or value & (value - 1):
        raise ValueError(f"allowed is a power of two from {_size_text(low)} to {_size_text(high)}")
    return value


class TraceSpec(Table):
    """Events that are recorded while the ops of a cell are replayed, or the steps of its script."""

    events: Annotated[list[str], AfterValidator(_events)] = Field(
        default_factory=list, description='globs: "kmem:*", "shmalloc:handler_*", "kmalloc"; none = off'
    )
    buffer: Annotated[Size, AfterValidator(_ring)] | None = Field(
        None,
        description="of each CPU: 64 bytes an event; on top of the arena's size; default: 1MiB with events, else "
        "none; without events they can be switched on from outside",
    )
    mode: Literal["overwrite", "discard"] = Field(
        "overwrite", description="what a full buffer loses: the oldest events, or the newest"
    )


class ExpectSpec(Table):
    """One expectation: a condition, or the verdict that a cell should have."""

    text: str = ""
    condition: str | None = None
    verdict: str | None = None
    kind: Literal["test", "claim"] = "test"
    measured: str | None = Field(
        None, description='what to say was measured: a text with values, "{allocs} of {allocs + 3}"'
    )
    cell: dict[str, Any] = Field(default_factory=dict, description="keys and values of the cells it is about")


class Config(Table):
    """One cell of an experiment, all keys resolved."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    engine: Literal["stress", "script", "atlas"] = "stress"
    design: DesignName = "kmalloc_nolock"
    flavour: Literal["release", "checked"] = "release"
    broken: Annotated[str, AfterValidator(_broken)] = "none"
    seed: int = Field(1, ge=0, lt=1 << 63)
    cpus: int = Field(2, ge=1, le=MAX_CPUS, description="CPU processes")
    pin: Literal["shared", "exclusive", "none"] = "shared"
    duration_s: float | None = Field(
        None, gt=0, le=_MAX_SECONDS, description="per cell; 2 s if neither is given"
    )
    ops: int | None = Field(None, ge=1, description="ops of all CPUs together; None = as many as fit")
    repeats: int = Field(
        1,
        ge=1,
        le=1000,
        description="runs of each cell, interleaved over the cells, each with a seed of its own",
    )
    oracle: bool = True
    pattern: bool | None = Field(None, description="keyed pattern in objects; default: as oracle")
    sample: Annotated[int, AfterValidator(_prime)] = Field(
        61, ge=0, lt=1 << 31, description="latency is taken of every n-th op: a prime"
    )
    lock_rules: bool | None = Field(None, description="lock-rule checker; default: on in checked")
    deadline_s: float = Field(10.0, gt=0, le=3600, description="CPU seconds without progress: stall")
    arena: ArenaSpec = Field(default_factory=ArenaSpec)
    pool: PoolSpec = Field(default_factory=PoolSpec)
    workload: WorkloadSpec = Field(default_factory=lambda: parse_workload({"kind": "mix"}))
    interrupts: InterruptSpecs = Field(default_factory=InterruptSpecs)
    faults: FaultSpecs = Field(default_factory=FaultSpecs)
    kswapd: bool | None = Field(
        None, description="a kswapd process for each node; default: if there is page cache"
    )
    page_cache: Annotated[int, BeforeValidator(_size), PlainSerializer(_size_text), Field(ge=0)] = Field(
        0, description="clean page cache at the start, which reclaim gives back; as much as there is room for"
    )
    memcg: MemcgSpec | None = Field(None, description="None: nothing is charged")
    numa_model: NumaModelSpec | None = Field(None, description="None = no modelled time")
    let: dict[str, int | float | str | bool] = Field(
        default_factory=dict, description='values that the steps of a script name: "$name"'
    )
    step: list[dict[str, Any]] = Field(default_factory=list, description="the script; see harness.script")
    atlas: AtlasSpec = Field(default_factory=AtlasSpec)
    map: MapSpec = Field(default_factory=MapSpec)
    trace: TraceSpec = Field(default_factory=TraceSpec)
    must_happen: list[str] = Field(default_factory=list)
    expect: list[ExpectSpec] = Field(default_factory=list)

    @property
    def possible_cpus(self) -> int:
        """CPUs the arena is made for."""
        if self.arena.cpus is not None:
            return self.arena.cpus
        return self.cpus if self.arena.up else max(4, self.cpus)

    @property
    def kernel(self) -> str:
        """Whose slab allocator the arena has."""
        return self.arena.kernel or ("7.0" if self.design == "sheaves" else "6.18")

    @property
    def seconds(self) -> float:
        """Seconds that the CPUs replay, 0 = until their ops are done."""
        if self.duration_s is not None:
            return self.duration_s
        return 0.0 if self.ops is not None else DEFAULT_SECONDS

    @property
    def has_kswapd(self) -> bool:
        """Whether each node has a kswapd."""
        return self.page_cache > 0 if self.kswapd is None else self.kswapd

    @property
    def has_lock_rules(self) -> bool:
        """Whether the lock-rule checker reports."""
        return self.flavour == "checked" if self.lock_rules is None else self.lock_rules

    @property
    def has_pattern(self) -> bool:
        """Whether objects carry a keyed pattern."""
        return self.oracle if self.pattern is None else self.pattern

    def interrupt(self, kind: str) -> InterruptSpec:
        """Return the table of one kind, "nmi" or "irq"."""
        return self.interrupts.nmi if kind == "nmi" else self.interrupts.irq

    def source(self, kind: str) -> str:
        """Return where interrupts of one kind come from, the default filled in."""
        spec = self.interrupt(kind)
        if spec.source is not None:
            return spec.source
        if spec.rate_hz > 0:
            return "timer"
        return "ops" if self.interrupt_every(kind) else "none"

    def interrupt_every(self, kind: str) -> int:
        """Return after how many ops the workload interrupts itself, 0 = never."""
        return self.workload.nmi_every if kind == "nmi" else self.workload.irq_every

    def ops_of(self, cpu: int) -> int:
        """Return the share of `ops` that one CPU does, 0 = no limit."""
        if self.ops is None:
            return 0
        share, rest = divmod(self.ops, self.cpus)
        return share + (cpu < rest)


@dataclass(frozen=True)
class Cell:
    """One combination of the values that vary.

    Attributes: id: short, unique in the run.  params: dotted path -> value, for each key that varies.
        config: all keys resolved.
    """

    id: str
    params: Mapping[str, Any]
    config: Config
