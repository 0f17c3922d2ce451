# SPDX-License-Identifier: MIT
"""bpf_mem_alloc: what lies on the lists of a CPU and size, of the global allocator or of a map's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.script.registry import quantity
from shmalloc.errors import ShmallocError

if TYPE_CHECKING:
    from harness.script.scene import Scene

_FIELDS = {
    "free": "free_cnt",
    "low": "low_watermark",
    "high": "high_watermark",
    "batch": "batch",
    "unit_bytes": "unit_size",
    "refills": "nr_refills",
    "trims": "nr_trims",
    "reused": "nr_reused",
    "extra": "nr_extra",
}
_CHAINS = ("free_llist", "free_by_rcu")
_HEADS = (
    "free_llist_extra",
    "free_llist_extra_rcu",
    "waiting_for_gp",
    "free_by_rcu_ttrace",
    "waiting_for_gp_ttrace",
)
_MOST = 1 << 24


def _lists(scene: Scene, cpu: int) -> Iterator[Any]:
    per_cpu = int(scene.arena.header.bpf_caches_per_cpu)
    for index in range(per_cpu):
        yield scene.arena.item("struct bpf_mem_cache", "bpf_caches", cpu * per_cpu + index)


def _list(scene: Scene, size: int, map_: str, cpu: int) -> Any:
    buckets = int(scene.lib.BPF_NR_BUCKETS)
    found = list(_lists(scene, cpu))
    if map_:
        return found[buckets + scene.maps[map_]]
    # the smallest that holds it with its header
    fits = [record for record in found[:buckets] if record.unit_size >= size + 8]
    if not fits:
        raise ShmallocError(
            f"bpf.list: size = {size}: no bucket of bpf_mem_alloc holds it, or it is not set up"
        )
    return min(fits, key=lambda record: int(record.unit_size))


def _length(scene: Scene, link: int) -> int:
    count = 0
    while link and count < _MOST:
        link, count = int(scene.arena.pointer("uint64_t", link)[0]), count + 1
    return count


def _kept(scene: Scene, record: Any) -> int:
    found = sum(_length(scene, int(getattr(record, name))) for name in _CHAINS)
    return found + sum(_length(scene, int(getattr(record, name).first)) for name in _HEADS)


@quantity("bpf.list")
def bpf_list(scene: Scene, *, field: str, size: int = 0, map_: str = "", cpu: int = 0) -> int:
    """Read one number of a CPU's list: free, low, high, batch, unit_bytes, refills, trims, reused, extra."""
    if field not in _FIELDS:
        raise ShmallocError(f"bpf.list: field = {field!r}: allowed are {', '.join(_FIELDS)}")
    return int(getattr(_list(scene, size, map_, cpu), _FIELDS[field]))


@quantity("bpf.waiting")
def bpf_waiting(scene: Scene, *, size: int = 0, map_: str = "") -> int:
    """Objects of one size, over all CPUs, that wait for a grace period."""
    cpus = range(int(scene.arena.header.geometry.nr_cpus))
    records = [_list(scene, size, map_, cpu) for cpu in cpus]
    return sum(_kept(scene, record) - _length(scene, int(record.free_llist)) for record in records)


@quantity("bpf.kept")
def bpf_kept(scene: Scene, *, size: int = 0, map_: str = "") -> int:
    """Objects of one size that bpf_mem_alloc keeps, on all lists of all CPUs."""
    cpus = range(int(scene.arena.header.geometry.nr_cpus))
    return sum(_kept(scene, _list(scene, size, map_, cpu)) for cpu in cpus)


@quantity("bpf.kept_bytes")
def bpf_kept_bytes(scene: Scene) -> int:
    """Bytes that bpf_mem_alloc keeps: global and of all maps, on all lists of all CPUs."""
    cpus = range(int(scene.arena.header.geometry.nr_cpus))
    return sum(_kept(scene, record) * int(record.unit_size) for cpu in cpus for record in _lists(scene, cpu))
