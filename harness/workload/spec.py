# SPDX-License-Identifier: MIT
"""What a config may say about its workload: the table `workload`, one model for each kind."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from harness.workload.program_spec import ProgramBase, ProgramSpec, parse_program
from harness.workload.strict import (
    MAX_SLOTS,
    Every,
    GfpNames,
    Node,
    Share,
    Size,
    Strict,
    WorkloadError,
    by_kind,
    pick,
)

__all__ = [
    "AnyWorkload",
    "BatchSpec",
    "BurstSpec",
    "GeneratedSpec",
    "LocalSpec",
    "MapSpec",
    "MixSpec",
    "PairSpec",
    "ProducerConsumerSpec",
    "ProgramSpec",
    "TraceSpec",
    "WaveSpec",
    "WindowSpec",
    "WorkloadBase",
    "WorkloadError",
    "WorkloadSpec",
    "parse_program",
    "parse_workload",
    "sharing_problems",
]


#: Bytes of a map's element before its key, and of a bucket.
_ELEMENT_BYTES, _BUCKET_BYTES = 48, 16
#: More spare elements than any arena has CPUs.
_SPARE_ELEMENTS = 128


class WindowSpec(Strict):
    """Windows with irqs or BHs off: the last `length` of each `every` ops; allocations there use `gfp`."""

    every: int = Field(ge=2, le=1 << 22)
    length: int = Field(ge=1, le=1 << 22)
    gfp: GfpNames = "GFP_NOWAIT"

    @model_validator(mode="after")
    def _leave_a_gap(self) -> "WindowSpec":
        if self.length >= self.every:
            raise PydanticCustomError(
                "window",
                "length = {length} must be below every = {every}",
                {"length": self.length, "every": self.every},
            )
        return self


class WorkloadBase(Strict):
    """Keys that every kind of workload has.

    Attributes:
        shared_with_handlers: slots per CPU that its task shares with its handlers' programs.
        handler_share: share of the ops that work on those slots, 0..1.
        nmi_every, irq_every: a self-interrupt after so many ops (source "ops"); 0 = none.
    """

    kind: str
    shared_with_handlers: int = Field(default=0, ge=0, le=MAX_SLOTS)
    handler_share: float = Field(default=0.1, gt=0, le=0.9)
    nmi_every: Every = 0
    irq_every: Every = 0


class GeneratedSpec(WorkloadBase):
    """Keys of the kinds that are made from a seed.

    Attributes:
        gfp: flags of allocations.
        node: that every request names, -1 = any.
        node_from: "fixed" = that; else one that is remote to the CPU: its nearest, its farthest, a random one.
        node_share: share of the requests that name it, 0..1.
        node_rest: with node_from, the other requests name no node ("any") or the CPU's own ("local").
        thisnode: requests that name a node have __GFP_THISNODE: there or not at all.
        array_ops: about how many ops a CPU's array has before it repeats.
        irq_off, bh_off: windows.
        page_cache_every: read page cache in after so many ops; 0 = never.
        page_cache_pages: clean pages each time, by GFP_HIGHUSER_MOVABLE.
    """

    gfp: GfpNames = "GFP_KERNEL"
    node: Node = -1
    node_from: Literal["fixed", "nearest", "farthest", "random"] = "fixed"
    node_share: Share = 1.0
    node_rest: Literal["any", "local"] = "any"
    thisnode: bool = False
    array_ops: int = Field(default=16384, ge=2, le=1 << 22)
    irq_off: WindowSpec | None = None
    bh_off: WindowSpec | None = None
    page_cache_every: Every = 0
    page_cache_pages: int = Field(default=32, ge=1, le=1 << 20)


class LocalSpec(GeneratedSpec):
    """Keys of the kinds whose objects a CPU frees itself, but for a share.

    Attributes:
        remote: share of the objects that the next CPU frees, 0..1.
        remote_slots: shared slots per CPU for those.
    """

    remote: Share = 0.0
    remote_slots: int = Field(default=64, ge=1, le=MAX_SLOTS)


class PairSpec(LocalSpec):
    """`pair`: one object is allocated and freed, again and again."""

    kind: Literal["pair"]
    size: Size = 256


class BatchSpec(LocalSpec):
    """`batch`: `count` allocations, then as many frees in the same (fifo) or the opposite order (lifo)."""

    kind: Literal["batch"]
    size: Size = 256
    count: int = Field(default=64, ge=1, le=MAX_SLOTS)
    order: Literal["lifo", "fifo"] = "lifo"


class BurstSpec(LocalSpec):
    """`burst`: `count` allocations of one size that drain the caches, then as many frees in random order."""

    kind: Literal["burst"]
    size: Size = "kernel"
    count: int = Field(default=2048, ge=1, le=MAX_SLOTS)


class WaveSpec(LocalSpec):
    """`wave`: the number of live objects rises and falls, and objects are replaced all the time.

    Attributes:
        slots: live objects at the crest.
        low: in the trough, as a share of that, 0..1.
        waves: in the array, before it repeats.
    """

    kind: Literal["wave"]
    size: Size = 256
    slots: int = Field(default=2048, ge=1, le=MAX_SLOTS)
    low: Share = 0.1
    waves: int = Field(default=1, ge=1, le=1024)


class MixSpec(LocalSpec):
    """`mix`: random lifetimes over `slots` slots, kernel-like sizes.

    Attributes:
        slots: objects that may live at once; about half of them do.
        caches: kmem_caches, in turn plain, with a constructor, TYPESAFE_BY_RCU, both; 0 = kmalloc only.
        cache_share, large_share, pages_share: of the allocations; the rest is kmalloc up to 8 KiB.
        pages_gfp: flags of page allocations.
        realloc_share: of the kmalloc objects, resized once in their life.
        zero_share: of the allocations, with __GFP_ZERO.
        shrink_every: shrink a cache after so many ops; 0 = never.
    """

    kind: Literal["mix"]
    size: Size = "kernel"
    slots: int = Field(default=512, ge=1, le=MAX_SLOTS)
    caches: int = Field(default=4, ge=0, le=32)
    cache_share: Share = 0.5
    large_share: Share = 0.002
    pages_share: Share = 0.1
    pages_gfp: GfpNames = "GFP_HIGHUSER_MOVABLE"
    realloc_share: Share = 0.02
    zero_share: Share = 0.25
    shrink_every: Every = 0

    @model_validator(mode="after")
    def _leave_a_rest(self) -> "MixSpec":
        total = self.cache_share + self.large_share + self.pages_share
        if total > 1:
            raise PydanticCustomError(
                "shares",
                "cache_share + large_share + pages_share = {total} must be at most 1",
                {"total": round(total, 6)},
            )
        return self


class ProducerConsumerSpec(GeneratedSpec):
    """`producer_consumer`: CPU i allocates into a queue of `slots` slots; CPU i+1 frees, `count` at a time.

    A full queue is waited for by skipping, as is an empty one.
    """

    kind: Literal["producer_consumer"]
    size: Size = 256
    slots: int = Field(default=1024, ge=1, le=MAX_SLOTS)
    count: int = Field(default=32, ge=1, le=MAX_SLOTS)


class MapSpec(GeneratedSpec):
    """`map`: updates, lookups and deletes of one hash map, whose elements the design allocates.

    Attributes:
        entries: max_entries of the map.
        key_size, value_size: bytes.
        update, delete: shares of the ops; the rest are lookups.
        occupancy: share of the entries that are in use once it has run for a while, with uniform keys; above 1
            the map is full, and updates fail.
        keys: how they are drawn.
        zipf: exponent of the distribution, for zipf.
    """

    kind: Literal["map"]
    entries: int = Field(default=1024, ge=1, le=1 << 24)
    key_size: int = Field(default=4, ge=4, le=512)
    value_size: int = Field(default=64, ge=1, le=1 << 20)
    update: Share = 0.4
    delete: Share = 0.2
    occupancy: float = Field(default=0.5, gt=0, le=100)
    keys: Literal["uniform", "zipf"] = "uniform"
    zipf: float = Field(default=1.0, gt=0, le=4)

    @model_validator(mode="after")
    def _leave_a_rest(self) -> "MapSpec":
        if self.update + self.delete > 1:
            raise PydanticCustomError(
                "shares",
                "update + delete = {total} must be at most 1",
                {"total": round(self.update + self.delete, 6)},
            )
        return self

    @property
    def key_space(self) -> int:
        """Number of keys: each of them is in the map for the share of time that its last op was an update."""
        present = self.update / (self.update + self.delete) if self.update else 1.0
        return max(1, round(self.occupancy * self.entries / present))

    @property
    def map_bytes(self) -> int:
        """Bytes of the map if all its elements exist, at most."""
        element = _ELEMENT_BYTES + -(-self.key_size // 8) * 8 + -(-self.value_size // 8) * 8
        return (self.entries + _SPARE_ELEMENTS) * element + 2 * self.entries * _BUCKET_BYTES


class TraceSpec(WorkloadBase):
    """`trace`: a recorded kernel trace. Its flags, nodes and windows are those of the recording.

    Attributes:
        file: .npz, relative to the config's folder.
        events: use only so many events from the start; 0 = all.
    """

    kind: Literal["trace"]
    file: str = Field(min_length=1)
    events: int = Field(default=0, ge=0)


AnyWorkload = (
    PairSpec | BatchSpec | BurstSpec | WaveSpec | MixSpec | ProducerConsumerSpec | MapSpec | TraceSpec
)
_KINDS: dict[str, type[AnyWorkload]] = by_kind(get_args(AnyWorkload))


def parse_workload(data: Any) -> AnyWorkload:
    """Make a workload's spec from the table `workload` of a config.

    Args: data: mapping with the key `kind`, or a spec, which is returned as it is.
    Raises: pydantic.ValidationError, listing every mistake with its key.
    """
    return data if isinstance(data, AnyWorkload) else pick(_KINDS, data, "workload")


#: For a field of a config's model; `parse_workload` makes one alone.
WorkloadSpec = Annotated[AnyWorkload, WrapValidator(lambda data, _: parse_workload(data))]


def sharing_problems(workload: WorkloadBase, programs: Mapping[str, ProgramBase | None]) -> list[str]:
    """Say which programs need slots that the workload does not share.

    Args: workload: its spec.  programs: by the path of their key, such as "interrupts.nmi.program".
    Returns: one text for each problem; empty if there is none.
    """
    wrong = [
        f'{path}: kind "map" needs workload.kind = "map", not "{workload.kind}"'
        for path, program in programs.items()
        if program is not None and program.kind == "map" and workload.kind != "map"
    ]
    if workload.shared_with_handlers:
        return wrong
    return wrong + [
        f'{path}: kind "{program.kind}" needs workload.shared_with_handlers of at least 1, which is 0'
        for path, program in programs.items()
        if program is not None and program.kind in ("alloc", "free")
    ]
