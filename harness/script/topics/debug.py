# SPDX-License-Identifier: MIT
"""Slab debugging: marking objects, writing where one must not, and having the caches looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from harness.script.keys import Refused, Words, gfp_names, key
from harness.script.registry import Step, quantity, step
from harness.script.scene import Held
from harness.script.topics.caches import cache_key
from shmalloc.errors import ShmallocError

if TYPE_CHECKING:
    from harness.script.scene import Scene

_LINK = "link"  # where a free object's free pointer lies
_TRACK_BYTES = 64  # two of them
_marks: WeakKeyDictionary[Scene, dict[str, int]] = WeakKeyDictionary()
_overwritten: WeakKeyDictionary[Scene, tuple[int, bytes]] = WeakKeyDictionary()


def _place(value: Any, _words: Words) -> None:
    if value != _LINK and (isinstance(value, str) or not -8192 <= value < 1 << 22):
        raise Refused(f"allowed are bytes from the object's start, -8192 to 4194303, or {_LINK!r}")


def _marked(scene: Scene, name: str) -> int:
    there = _marks.get(scene, {})
    if name not in there:
        raise ShmallocError(f"mark {name!r}: there is none; marked are {', '.join(there) or 'no objects'}")
    return there[name]


def _row_of(scene: Scene, offset: int) -> Any:
    memory = scene.arena.header.regions[scene.lib.REGION_MEMORY].offset
    page = scene.arena.item("struct page", "pages", (offset - memory) // scene.lib.SHM_PAGE_SIZE)
    if page.flags & scene.lib.PG_tail:
        page = scene.arena.item("struct page", "pages", page.compound_head)
    return scene.arena.item("struct kmem_cache", "caches", page.slab_cache - 1)


@step("mark")
class Mark(Step):
    """Remember where the oldest object of a name lies, also for when it is freed."""

    which: str = key(uses="objects")
    as_: str = key(defines="marks")

    def run(self, scene: Scene) -> int:
        """Remember it: 1 if there is one."""
        there = scene.held.get(self.which, [])
        if there:
            _marks.setdefault(scene, {})[self.as_] = there[0].offset
        return len(there[:1])


@step("poke")
class Poke(Step):
    """Write bytes from somewhere within, before or behind a marked object on."""

    mark: str = key(uses="marks")
    at: int | str = key(0, check=_place)
    value: int = key(0xAB, low=0, high=255)
    n: int = key(1, low=1, high=1 << 16)

    def run(self, scene: Scene) -> None:
        """Write them."""
        offset = _marked(scene, self.mark)
        at = offset + (int(_row_of(scene, offset).offset) if self.at == _LINK else int(self.at))
        where = scene.arena.buffer[at : at + self.n]
        _overwritten[scene] = (at, bytes(where))
        where[:] = bytes([self.value] * self.n)

    def __str__(self) -> str:
        return f"{self.do} {self.n} byte(s) {self.value:#x} at {self.mark} + {self.at}"


@step("unpoke")
class Unpoke(Step):
    """Write back what the last `poke` has overwritten."""

    def run(self, scene: Scene) -> None:
        """Write it."""
        at, old = _overwritten[scene]
        scene.arena.buffer[at : at + len(old)] = old


@step("validate")
class Validate(Step):
    """Look at every object of a debug cache: how many reports that makes, repairs included."""

    cache: str | int = cache_key()

    def run(self, scene: Scene) -> int:
        """Validate it."""
        scene.become(self.cpu)
        return scene.cpus[self.cpu].run(scene.lib.shm_validate_slab, scene.cache(self.cache).index)

    def __str__(self) -> str:
        return f"{self.do} {self.cache}"


@step("kmalloc_cache")
class KmallocCache(Step):
    """Allocate some bytes from a cache made with SLAB_KMALLOC: 1 for each success."""

    cache: str = key(uses="caches")
    size: int = key(low=1, high=8192)
    gfp: str = key("GFP_KERNEL", check=gfp_names)
    as_: str = key("", defines="objects")

    def run(self, scene: Scene) -> int:
        """Allocate one."""
        cache = scene.cache(self.cache)
        offset = scene.attempt(lambda: cache.kmalloc(self.size, self.gfp))
        if offset is None:
            return 0
        scene.hold(self.as_, Held(offset, "kmalloc"))
        return 1


@step("krealloc")
class Krealloc(Step):
    """Change the size of the oldest object of a name: 1 if it stays where it is."""

    which: str = key(uses="objects")
    size: int = key(low=1, high=1 << 22)
    gfp: str = key("GFP_KERNEL", check=gfp_names)

    def run(self, scene: Scene) -> int:
        """Change it."""
        (held,) = scene.take(self.which, 1)
        offset = scene.cpus[self.cpu].krealloc(held.offset, self.size, self.gfp)
        scene.hold(self.which, Held(offset, "kmalloc"))
        return int(offset == held.offset)


@step("cache_leak")
class CacheLeak(Step):
    """Destroy a cache whatever it holds: 1 if it leaks. What it held is no longer freed at the end."""

    cache: str = key(uses="caches")
    which: str = key(uses="objects")

    def run(self, scene: Scene) -> int:
        """Destroy it."""
        scene.held.pop(self.which, None)
        try:
            scene.caches.pop(self.cache).destroy()
        except ShmallocError:
            return 1
        return 0


@quantity("slab.errors")
def slab_errors(scene: Scene) -> int:
    """Reports of the debug checks so far, repairs included."""
    return scene.arena.slab_errors.count


@quantity("slab.traces")
def slab_traces(scene: Scene) -> int:
    """Allocations and frees of SLAB_TRACE caches so far."""
    return int(scene.arena.header.slab_traces)


@quantity("object.orig_size")
def orig_size(scene: Scene, *, mark: str) -> int:
    """Requested size that is recorded behind a marked object of a kmalloc cache with SLAB_STORE_USER."""
    offset = _marked(scene, mark)
    row = _row_of(scene, offset)
    if not row.flags & scene.lib.SLAB_STORE_USER or not row.flags & scene.lib.SLAB_KMALLOC:
        raise ShmallocError(f"object.orig_size of {mark}: its cache records none")
    end = row.inuse + 8 if row.offset >= row.inuse else row.inuse
    at = offset + int(end) + _TRACK_BYTES
    return int.from_bytes(scene.arena.buffer[at : at + 4], "little")


@quantity("object.bytes")
def count_bytes(scene: Scene, *, mark: str, at: int, n: int, value: int) -> int:
    """How many of n bytes of a marked object, from one on, have a value."""
    begin = _marked(scene, mark) + at
    return bytes(scene.arena.buffer[begin : begin + n]).count(value)
