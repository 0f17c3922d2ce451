# SPDX-License-Identifier: MIT
"""Slab caches: making, using and destroying them, and what they hold where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.script.keys import Refused, Words, a_design, a_node, gfp_names, key
from harness.script.places import chain
from harness.script.registry import Step, quantity, step
from harness.script.topics.objects import FreeHeld

if TYPE_CHECKING:
    from harness.script.nested import Nested
    from harness.script.scene import Scene

_SIZES = ("8", "16", "32", "64", "96", "128", "192", "256", "512", "1k", "2k", "4k", "8k")
_KMALLOC = frozenset(
    f"{prefix}{size}"
    for prefix in ("kmalloc-", "kmalloc-rcl-", "kmalloc-cg-", "dma-kmalloc-")
    for size in _SIZES
)
_ALL_CACHES = 0xFFFFFFFF


def _slab_flags(value: Any, _words: Words) -> None:
    from shmalloc.flags import slab_flags

    try:
        slab_flags(value)
    except ValueError as error:
        raise Refused(str(error)) from None


def cache_key(*, optional: bool = False) -> Any:
    """Declare a key that is a cache: a name, or a size."""
    return key("", uses="caches", known=_KMALLOC) if optional else key(uses="caches", known=_KMALLOC)


@step("cache_create")
class CacheCreate(Step):
    """Make a cache."""

    name: str = key(defines="caches")
    size: int = key(low=1, high=1 << 22)
    align: int = key(0, low=0, high=4096)
    flags: str = key("", check=_slab_flags)
    ctor: int = key(0, low=0, high=1)

    def run(self, scene: Scene) -> None:
        """Make it; at the end it is destroyed."""
        cpu = scene.cpus[self.cpu]
        made = cpu.kmem_cache_create(self.name, self.size, align=self.align, flags=self.flags, ctor=self.ctor)
        scene.caches[self.name] = made

    def __str__(self) -> str:
        return f"{self.do} {self.name}, {self.size} bytes"


@step("cache_alloc")
class CacheAlloc(Step):
    """Allocate objects of a cache: 1 for each success."""

    cache: str | int = cache_key()
    gfp: str = key("GFP_ATOMIC", check=gfp_names)
    node: int = key(-1, check=a_node)
    design: str = key("", check=a_design)
    as_: str = key("", defines="objects")

    def run(self, scene: Scene) -> int:
        """Allocate one."""
        cache = scene.cache(self.cache)
        return scene.allocate(self, lambda calls: calls.cache_alloc(cache, self.gfp, self.node))

    def nest(self, program: Nested) -> None:
        """Allocate one, into a slot."""
        fields = {"cache": program.cache(self.cache), "gfp": self.gfp, "node": self.node}
        program.allocate("cache_alloc", fields, self.as_, f"alloc of {self.cache}")

    def __str__(self) -> str:
        return f"{self.do} of {self.cache}" + (f" by {self.design}" if self.design else "")


@step("cache_free")
class CacheFree(FreeHeld):
    """Free objects of caches that earlier steps hold: how many there were."""


@step("cache_shrink")
class CacheShrink(Step):
    """Give a cache's empty slabs back."""

    cache: str | int = cache_key()

    def run(self, scene: Scene) -> None:
        """Shrink it."""
        scene.become(self.cpu)
        scene.cpus[self.cpu].run(scene.lib.shm_kmem_cache_shrink, scene.cache(self.cache).index)


@step("cache_destroy")
class CacheDestroy(Step):
    """Destroy a cache that has no objects."""

    cache: str = key(uses="caches")

    def run(self, scene: Scene) -> None:
        """Destroy it."""
        scene.caches.pop(self.cache).destroy()


@step("flush")
class Flush(Step):
    """Make every CPU give up its slabs of one cache, or of all."""

    cache: str | int = cache_key(optional=True)

    def run(self, scene: Scene) -> None:
        """Flush."""
        index = scene.cache(self.cache).index if self.cache else _ALL_CACHES
        scene.cpus[self.cpu].run(scene.lib.shm_flush_all, index)


# --- what a cache is like -------------------------------------------------------------------------


def _register_field(name: str, read: Any, text: str) -> None:
    def read_it(scene: Scene, *, cache: str | int) -> int:
        return int(read(scene.cache_row(cache)))

    read_it.__doc__ = text
    quantity(f"cache.{name}")(read_it)


for _name, _read, _text in (
    ("order", lambda row: row.oo >> 16, "Order of a slab's pages."),
    ("objects", lambda row: row.oo & 0xFFFF, "Objects in a slab."),
    ("size", lambda row: row.size, "Bytes of an object with its metadata."),
    ("cpu_partial_slabs", lambda row: row.cpu_partial_slabs, "Slabs that each CPU keeps besides its own."),
    ("cpu_partial", lambda row: row.cpu_partial, "Objects that each CPU keeps besides its own slab's."),
    ("min_partial", lambda row: row.min_partial, "Slabs that each node keeps though they are empty."),
):
    _register_field(_name, _read, _text)


# --- where its objects are ------------------------------------------------------------------------


def _cpu_row(scene: Scene, cache: str | int, cpu: int) -> Any:
    most = int(scene.arena.header.geometry.max_caches)
    return scene.arena.item("struct kmem_cache_cpu", "cache_cpus", cpu * most + scene.cache(cache).index)


def _partial_pages(scene: Scene, row: Any) -> list[Any]:
    pages: list[Any] = []
    at = int(row.partial)
    while at and len(pages) < 1 << 16:
        page = scene.arena.pointer("struct page", at)
        pages.append(page)
        at = int(page.lru.next)
    return pages


def _free_in(page: Any) -> int:
    counters = int(page.counters)
    return (counters >> 16 & 0x7FFF) - (counters & 0xFFFF)


@quantity("cache.cpu_slab_free")
def cpu_slab_free(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
    """Free objects that a CPU finds on its cpu slab's freelist, without a lock."""
    return chain(scene.arena, scene.cache_row(cache), int(_cpu_row(scene, cache, cpu).freelist))


@quantity("cache.cpu_partial_free")
def cpu_partial_free(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
    """Free objects in the slabs of a CPU's partial list."""
    return sum(_free_in(page) for page in _partial_pages(scene, _cpu_row(scene, cache, cpu)))


@quantity("cache.cpu_partial_count")
def cpu_partial_count(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
    """Slabs on a CPU's partial list."""
    return len(_partial_pages(scene, _cpu_row(scene, cache, cpu)))


@quantity("cache.objects_free_on_cpu")
def objects_free_on_cpu(scene: Scene, *, cache: str | int, cpu: int = 0) -> int:
    """Free objects that a CPU keeps: on its cpu slab, freed to it remotely, and in its partial list."""
    row = _cpu_row(scene, cache, cpu)
    remote = 0
    if row.slab:
        page = scene.arena.pointer("struct page", int(row.slab))
        remote = chain(scene.arena, scene.cache_row(cache), int(page.freelist))
    return cpu_slab_free(scene, cache=cache, cpu=cpu) + remote + cpu_partial_free(scene, cache=cache, cpu=cpu)


def _node_row(scene: Scene, cache: str | int, node: int) -> Any:
    nodes = int(scene.arena.header.geometry.nr_nodes)
    return scene.arena.item("struct kmem_cache_node", "cache_nodes", scene.cache(cache).index * nodes + node)


@quantity("cache.nr_slabs")
def nr_slabs(scene: Scene, *, cache: str | int, node: int = 0) -> int:
    """Slabs of a cache on a node."""
    return int(_node_row(scene, cache, node).nr_slabs)


@quantity("cache.nr_partial")
def nr_partial(scene: Scene, *, cache: str | int, node: int = 0) -> int:
    """Slabs on a node's partial list."""
    return int(_node_row(scene, cache, node).nr_partial)
