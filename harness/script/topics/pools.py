# SPDX-License-Identifier: MIT
"""What lies where in preallocated pools, those of maps among them, and in the rings of objpool."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.script.registry import quantity
from shmalloc.errors import ShmallocError

if TYPE_CHECKING:
    from harness.script.scene import Scene

_MOST_KEYS = 1 << 24


def _map(scene: Scene, name: str) -> int:
    if name not in scene.maps:
        raise ShmallocError(f"map {name}: there is none now; there are {', '.join(scene.maps) or 'none'}")
    return scene.maps[name]


def _pool_index(scene: Scene, name: str) -> int:
    return 1 + _map(scene, name) if name else 0


def _head(scene: Scene, name: str, cpu: int) -> Any:
    cpus = int(scene.arena.header.geometry.nr_cpus)
    return scene.arena.item("struct pcpu_freelist_head", "freelists", _pool_index(scene, name) * cpus + cpu)


def _length(scene: Scene, name: str, cpu: int) -> int:
    link, count = int(_head(scene, name, cpu).first), 0
    while link and count <= _MOST_KEYS:
        link, count = int(scene.arena.pointer("uint64_t", link)[0]), count + 1
    return count


def _over_cpus(scene: Scene, function: Callable[[int], int]) -> list[int]:
    return [function(cpu) for cpu in range(int(scene.arena.header.geometry.nr_cpus))]


@quantity("freelist.length")
def freelist_length(scene: Scene, *, of: int, map_: str = "") -> int:
    """Elements on the freelist of one possible CPU: of a map's pool, or of the design prealloc's."""
    return _length(scene, map_, of)


@quantity("freelist.shortest")
def freelist_shortest(scene: Scene, *, map_: str = "") -> int:
    """Elements on the shortest freelist of all possible CPUs."""
    return min(_over_cpus(scene, lambda cpu: _length(scene, map_, cpu)))


@quantity("freelist.longest")
def freelist_longest(scene: Scene, *, map_: str = "") -> int:
    """Elements on the longest freelist of all possible CPUs."""
    return max(_over_cpus(scene, lambda cpu: _length(scene, map_, cpu)))


@quantity("freelist.total")
def freelist_total(scene: Scene, *, map_: str = "") -> int:
    """Elements on all freelists."""
    return sum(_over_cpus(scene, lambda cpu: _length(scene, map_, cpu)))


@quantity("freelist.spare")
def freelist_spare(scene: Scene, *, map_: str) -> int:
    """Elements put aside for replacing updates, one for each CPU."""
    return sum(_over_cpus(scene, lambda cpu: bool(_head(scene, map_, cpu).extra)))


@quantity("pool.pages")
def pool_pages(scene: Scene, *, map_: str = "") -> int:
    """Pages that a preallocated pool holds."""
    pool = scene.arena.item("struct shm_pool", "pools", _pool_index(scene, map_))
    return int(pool.area.nr_pages)


def _row(scene: Scene, name: str) -> Any:
    return scene.arena.item("struct shm_map", "maps", _map(scene, name))


@quantity("map.bucket_pages")
def map_bucket_pages(scene: Scene, *, map_: str) -> int:
    """Pages of a map's buckets."""
    return int(_row(scene, map_).buckets.nr_pages)


@quantity("map.buckets")
def map_buckets(scene: Scene, *, map_: str) -> int:
    """Buckets of a map."""
    return int(_row(scene, map_).n_buckets)


@quantity("objpool.capacity")
def objpool_capacity(scene: Scene) -> int:
    """Places in the ring of each CPU."""
    return int(scene.arena.header.objpool.capacity)


def _ring(scene: Scene, cpu: int) -> Any:
    record = scene.arena.item("struct objpool_cpu", "objpool_cpus", cpu)
    return scene.arena.pointer("struct objpool_slot", record.slot)


@quantity("objpool.in_ring")
def objpool_in_ring(scene: Scene, *, of: int) -> int:
    """Objects that can be popped from one possible CPU's ring."""
    ring = _ring(scene, of)
    return int(ring.last - ring.head) & 0xFFFFFFFF


@quantity("objpool.hidden")
def objpool_hidden(scene: Scene) -> int:
    """Places of all rings that are reserved, and that the poppers do not know of."""
    return sum(
        _over_cpus(scene, lambda cpu: int(_ring(scene, cpu).tail - _ring(scene, cpu).last) & 0xFFFFFFFF)
    )


@quantity("objpool.share")
def objpool_share(scene: Scene, *, of: int) -> int:
    """Objects that lie beside one possible CPU's ring."""
    return int(scene.arena.item("struct objpool_cpu", "objpool_cpus", of).nr_objs)


@quantity("objpool.pages")
def objpool_pages(scene: Scene) -> int:
    """Pages of all rings and objects."""
    records = _over_cpus(
        scene, lambda cpu: int(scene.arena.item("struct objpool_cpu", "objpool_cpus", cpu).nr_pages)
    )
    return sum(records)


@quantity("objpool.ring_bytes")
def objpool_ring_bytes(scene: Scene) -> int:
    """Bytes of the places of all rings."""
    return int(scene.arena.header.geometry.nr_cpus) * objpool_capacity(scene) * 8


@quantity("objpool.default_maxactive")
def objpool_default_maxactive(scene: Scene) -> int:
    """Instances that a kretprobe gets if its owner names no number."""
    return max(10, 2 * int(scene.arena.header.geometry.nr_cpus))
