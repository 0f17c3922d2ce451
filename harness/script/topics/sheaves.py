# SPDX-License-Identifier: MIT
"""Sheaves and barns of an arena of Linux 7.x."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.script.registry import quantity

if TYPE_CHECKING:
    from harness.script.scene import Scene

_HEADER_BYTES = 32
_WORD_BYTES = 8


def _sheaves(scene: Scene, cache: str | int, cpu: int) -> Any:
    most = int(scene.arena.header.geometry.max_caches)
    return scene.arena.item(
        "struct slub_percpu_sheaves", "cache_sheaves", cpu * most + scene.cache(cache).index
    )


def _barn(scene: Scene, cache: str | int, node: int) -> Any:
    nodes = int(scene.arena.header.geometry.nr_nodes)
    return scene.arena.item("struct node_barn", "barns", scene.cache(cache).index * nodes + node)


def _size(scene: Scene, sheaf: int) -> int:
    return int(scene.arena.pointer("struct slab_sheaf", sheaf).size) if sheaf else 0


@quantity("sheaf.capacity")
def capacity(scene: Scene, *, cache: str | int) -> int:
    """Objects that a sheaf of a cache holds; 0 = the cache has none."""
    return int(scene.cache_row(cache).sheaf_capacity)


@quantity("sheaf.bytes")
def sheaf_bytes(scene: Scene, *, cache: str | int) -> int:
    """Bytes of a sheaf: a kmalloc object."""
    return _HEADER_BYTES + _WORD_BYTES * capacity(scene, cache=cache)


@quantity("sheaf.in_main")
def in_main(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
    """Objects in a CPU's main sheaf."""
    return _size(scene, int(_sheaves(scene, cache, cpu).main))


@quantity("sheaf.in_spare")
def in_spare(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
    """Objects in a CPU's spare sheaf; 0 also if it has none."""
    return _size(scene, int(_sheaves(scene, cache, cpu).spare))


@quantity("sheaf.in_rcu_free")
def in_rcu_free(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
    """Objects that kfree_rcu has collected on a CPU, and not yet handed to a grace period."""
    return _size(scene, int(_sheaves(scene, cache, cpu).rcu_free))


@quantity("sheaf.on_cpu")
def on_cpu(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
    """Objects that a CPU serves without a barn: main and spare."""
    return in_main(scene, cache=cache, cpu=cpu) + in_spare(scene, cache=cache, cpu=cpu)


@quantity("sheaf.barn_full")
def barn_full(scene: Scene, *, cache: str | int, node: int = 0) -> int:
    """Full sheaves in a node's barn."""
    return int(_barn(scene, cache, node).nr_full)


@quantity("sheaf.barn_empty")
def barn_empty(scene: Scene, *, cache: str | int, node: int = 0) -> int:
    """Empty sheaves in a node's barn."""
    return int(_barn(scene, cache, node).nr_empty)


@quantity("sheaf.in_barn")
def in_barn(scene: Scene, *, cache: str | int, node: int = 0) -> int:
    """Objects in the full sheaves of a node's barn."""
    barn = _barn(scene, cache, node)
    at, total = int(barn.sheaves_full.next), 0
    for _ in range(int(barn.nr_full)):
        sheaf = scene.arena.pointer("struct slab_sheaf", at)
        total += int(sheaf.size)
        at = int(sheaf.barn_list.next)
    return total


def _event(name: str) -> None:
    def read(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
        return int(getattr(_sheaves(scene, cache, cpu), name))

    read.__doc__ = f"Event {name} of a cache on a CPU."
    quantity(f"sheaf.{name}")(read)


for _name in ("sheaf_refill", "sheaf_flush", "barn_get", "barn_get_fail", "barn_put", "barn_put_fail"):
    _event(_name)


def _stat(scene: Scene, cache: str | int, cpu: int) -> Any:
    most = int(scene.arena.header.geometry.max_caches)
    return scene.arena.item("struct kmem_cache_stat", "cache_stats", cpu * most + scene.cache(cache).index)


@quantity("sheaf.hits")
def hits(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
    """Allocations of a CPU that its sheaves have served (alloc_fastpath)."""
    return int(_stat(scene, cache, cpu).alloc_fastpath)


@quantity("sheaf.misses")
def misses(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
    """Allocations of a CPU that went to list_lock or a new slab, one object each (alloc_slowpath)."""
    return int(_stat(scene, cache, cpu).alloc_slowpath)
