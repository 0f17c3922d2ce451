# SPDX-License-Identifier: MIT
"""The arena's regions as numpy arrays.

Imports numpy: not for CPU processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shmalloc.errors import HostileArena
from shmalloc.layout import constants, dtype

if TYPE_CHECKING:
    from shmalloc._binding import Core

Array = np.ndarray[Any, Any]
_Strides = tuple[int, ...] | None


class Mapped(Protocol):
    """A mapped arena. Attributes as `Arena` has them; the buffer may be readonly."""

    core: Core

    @property
    def header(self) -> Any:
        """A struct shm_header *."""

    @property
    def buffer(self) -> memoryview[int]:
        """The whole segment."""


@dataclass(frozen=True)
class _Shape:
    """What a region holds: the structure (or scalar) of an item, and its axes.

    Attributes:
        item: structure without the word struct, or a numpy scalar type.
        axes: the lengths of the axes, from the header; -1 on the first = as many as the region has room for.
        first_stride: bytes from one item of the first axis to the next, if the header says so.
    """

    item: str
    axes: Callable[[Any], tuple[int, ...]]
    first_stride: Callable[[Any], int] | None = None


def _per_cpu(region: str) -> Callable[[Any], int]:
    """Return what finds the stride of a region whose items begin on a cache line of their own."""
    return lambda h: int(h.regions[constants()[region]].bytes) // int(h.geometry.nr_cpus)


def _per_slot(region: str) -> Callable[[Any], int]:
    """Return the same of a region that has an item for each CPU and, behind them, one for each kswapd."""
    return lambda h: (
        int(h.regions[constants()[region]].bytes) // int(h.geometry.nr_cpus + h.geometry.nr_nodes)
    )


def _has_sheaves(header: Any) -> bool:
    return bool(int(header.geometry.flags) & constants()["SHM_GEO_SHEAVES"])


_REGIONS = {
    "cpus": _Shape("shm_cpu", lambda h: (h.geometry.nr_cpus,), _per_slot("REGION_CPUS")),
    "nodes": _Shape("node", lambda h: (h.geometry.nr_nodes,)),
    "zones": _Shape("zone", lambda h: (h.nr_zones,)),
    "pagesets": _Shape("per_cpu_pages", lambda h: (h.nr_zones, h.geometry.nr_cpus)),
    "caches": _Shape("kmem_cache", lambda h: (h.geometry.max_caches,)),
    "cache_nodes": _Shape("kmem_cache_node", lambda h: (h.geometry.max_caches, h.geometry.nr_nodes)),
    "cache_cpus": _Shape(
        "kmem_cache_cpu",
        lambda h: (h.geometry.nr_cpus, h.geometry.max_caches),
        lambda h: int(h.cache_cpus_stride),
    ),
    "cache_stats": _Shape(
        "kmem_cache_stat",
        lambda h: (h.geometry.nr_cpus, h.geometry.max_caches),
        lambda h: int(h.cache_stats_stride),
    ),
    "pools": _Shape("shm_pool", lambda h: (h.geometry.max_maps + 1,)),
    "freelists": _Shape("pcpu_freelist_head", lambda h: (h.geometry.max_maps + 1, h.geometry.nr_cpus)),
    "bpf_caches": _Shape("bpf_mem_cache", lambda h: (h.geometry.nr_cpus, h.bpf_caches_per_cpu)),
    "objpool_cpus": _Shape("objpool_cpu", lambda h: (h.geometry.nr_cpus,)),
    "maps": _Shape("shm_map", lambda h: (h.geometry.max_maps,)),
    "memcgs": _Shape("mem_cgroup", lambda h: (h.geometry.max_memcgs,)),
    "memcg_cpus": _Shape(
        "memcg_cpu",
        lambda h: (h.geometry.nr_cpus if h.geometry.max_memcgs else 0,),
        _per_cpu("REGION_MEMCG_CPUS"),
    ),
    "cache_sheaves": _Shape(
        "slub_percpu_sheaves",
        lambda h: (h.geometry.nr_cpus, h.geometry.max_caches if _has_sheaves(h) else 0),
        lambda h: int(h.cache_sheaves_stride),
    ),
    "barns": _Shape(
        "node_barn", lambda h: (h.geometry.max_caches if _has_sheaves(h) else 0, h.geometry.nr_nodes)
    ),
    "pageblocks": _Shape("pageblock", lambda h: (-1,)),
    "pages": _Shape("page", lambda h: (h.nr_pages,)),
    "slab_words": _Shape("u8", lambda h: (h.nr_pages,)),
    "telemetry": _Shape("shm_telemetry", lambda h: (h.geometry.nr_cpus,), _per_slot("REGION_TELEMETRY")),
    "slots": _Shape("u8", lambda h: (h.geometry.nr_slots,)),
    "trace": _Shape(
        "shm_trace_ring",
        lambda h: (h.geometry.nr_cpus if h.geometry.trace_bytes else 0,),
        _per_slot("REGION_TRACE"),
    ),
    "oracle_owned": _Shape("u8", lambda h: (-1,)),
    "oracle_start": _Shape("u8", lambda h: (-1,)),
    "oracle_end": _Shape("u8", lambda h: (-1,)),
    "memory": _Shape("u1", lambda h: (h.nr_pages, constants()["SHM_PAGE_SIZE"])),
}


def region_array(arena: Mapped, name: str) -> Array:
    """Return one region of the arena as an array over the arena itself; see `Arena.region`."""
    if name not in _REGIONS:
        raise ValueError(f"region = {name!r}: allowed are {', '.join(_REGIONS)}")
    shape, header = _REGIONS[name], arena.header
    region = header.regions[getattr(arena.core.lib, f"REGION_{name.upper()}")]
    window = arena.buffer[region.offset : region.offset + region.bytes]
    item = np.dtype(shape.item) if shape.item in ("u1", "u8") else dtype(shape.item)
    axes = tuple(int(length) for length in shape.axes(header))
    if axes[0] < 0:
        axes = (len(window) // item.itemsize,)
    strides: _Strides = None
    if shape.first_stride is not None:
        strides = (shape.first_stride(header), item.itemsize)[: len(axes)]
    if 0 in axes:
        return np.empty(axes, item)
    first = strides[0] if strides else item.itemsize * int(np.prod(axes[1:]))
    if first < item.itemsize or (axes[0] - 1) * first + item.itemsize * int(np.prod(axes[1:])) > len(window):
        raise HostileArena(f"region {name} = {len(window)} bytes: its items {axes} of the header need more")
    # Not over the window itself: np.ndarray would keep only the map alive, and not keep it from being closed.
    return np.ndarray(axes, item, buffer=np.frombuffer(window, np.uint8), strides=strides)
