# SPDX-License-Identifier: MIT
"""Memory cgroups: making them, running in them, and what they are charged for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.script.keys import key
from harness.script.registry import Step, quantity, step
from shmalloc.memcg import MemCgroup, memcg_of, memcgs, stocks

if TYPE_CHECKING:
    from harness.script.nested import Nested
    from harness.script.scene import Scene

_ROOT = "root"
_PAGE = 4096
_KIND = "memcgs"
_UNLIMITED = -1


def _find(scene: Scene, name: str) -> MemCgroup | None:
    return None if name == _ROOT else memcg_of(scene.arena, name)


def _some(scene: Scene, name: str) -> MemCgroup:
    return memcg_of(scene.arena, name)


@step("memcg_create")
class MemcgCreate(Step):
    """Make a memcg below another, with limits in pages (-1 = none): its id."""

    name: str = key(defines=_KIND)
    parent: str = key(_ROOT, uses=_KIND, known=[_ROOT])
    max: int = key(_UNLIMITED, low=_UNLIMITED)
    high: int = key(_UNLIMITED, low=_UNLIMITED)

    def run(self, scene: Scene) -> int:
        """Make it; at the end every CPU leaves it and it is destroyed."""
        made = scene.cpus[self.cpu].memcg_create(self.name, _find(scene, self.parent))
        _limit(scene, self.cpu, made, self.max, self.high)
        return made.id


def _limit(scene: Scene, cpu: int, memcg: MemCgroup, most: int, high: int) -> None:
    scene.cpus[cpu].memcg_limit(
        memcg,
        max_bytes=None if most < 0 else most * _PAGE,
        high_bytes=None if high < 0 else high * _PAGE,
    )


@step("memcg_limit")
class MemcgLimit(Step):
    """Set limits of a memcg, in pages; -1 leaves one alone."""

    name: str = key(uses=_KIND)
    max: int = key(_UNLIMITED, low=_UNLIMITED)
    high: int = key(_UNLIMITED, low=_UNLIMITED)

    def run(self, scene: Scene) -> None:
        """Set them."""
        _limit(scene, self.cpu, _some(scene, self.name), self.max, self.high)


@step("memcg_enter")
class MemcgEnter(Step):
    """Have a CPU's task run in a memcg, or in the root, which is not charged."""

    name: str = key(_ROOT, uses=_KIND, known=[_ROOT])

    def run(self, scene: Scene) -> None:
        """Enter it."""
        scene.cpus[self.cpu].memcg_enter(_find(scene, self.name))


@step("memcg_interrupts")
class MemcgInterrupts(Step):
    """Have a CPU's interrupts and NMIs charged to a memcg; root = not charged."""

    name: str = key(_ROOT, uses=_KIND, known=[_ROOT])

    def run(self, scene: Scene) -> None:
        """Set it."""
        scene.cpus[self.cpu].memcg_interrupts(_find(scene, self.name))


@step("memcg_id")
class MemcgId(Step):
    """Inside an interrupt: charge the memcg with this id from here on (set_active_memcg); 0 ends it."""

    id: int = key(0, low=0, high=1024)

    def run(self, scene: Scene) -> None:
        """The same outside of one."""
        scene.cpus[self.cpu].run(scene.lib.shm_memcg_set_active, self.id)

    def nest(self, program: Nested) -> None:
        """Set it by an op."""
        program.line("memcg", {"size": self.id}, f"charge memcg {self.id}")


@step("memcg_destroy")
class MemcgDestroy(Step):
    """Destroy a memcg; what is charged to it is its parent's from now on."""

    name: str = key(uses=_KIND)

    def run(self, scene: Scene) -> None:
        """Destroy it."""
        scene.cpus[self.cpu].memcg_destroy(_some(scene, self.name))


@step("memcg_drain")
class MemcgDrain(Step):
    """Give back what the stocks of all CPUs hold."""

    def run(self, scene: Scene) -> None:
        """Drain them."""
        scene.cpus[self.cpu].memcg_drain()


@step("memcg_work")
class MemcgWork(Step):
    """Do what charges have left to this CPU's worker, and pay for what was charged beyond memory.high."""

    def run(self, scene: Scene) -> None:
        """Do it."""
        scene.cpus[self.cpu].memcg_run_work()


@quantity("memcg.usage")
def usage(scene: Scene, *, name: str) -> int:
    """Pages charged to a memcg and those below it, stocks included."""
    return _some(scene, name).usage_pages


@quantity("memcg.kmem")
def kmem(scene: Scene, *, name: str) -> int:
    """Pages charged for objects and blocks, without page stocks."""
    return _some(scene, name).kmem_pages


@quantity("memcg.peak")
def peak(scene: Scene, *, name: str) -> int:
    """The largest usage so far, in pages."""
    return _some(scene, name).watermark_pages


@quantity("memcg.failcnt")
def failcnt(scene: Scene, *, name: str) -> int:
    """Charges that this memcg's limit refused, batches included."""
    return _some(scene, name).failcnt


@quantity("memcg.pending_bytes")
def pending_bytes(scene: Scene, *, name: str) -> int:
    """Bytes charged with whole pages, in use by no object and in no stock."""
    return _some(scene, name).pending_bytes


@quantity("memcg.event")
def event(scene: Scene, *, name: str, event: str) -> int:
    """A line of memory.events: low, high, max, oom, oom_kill."""
    return _some(scene, name).events()[event]


@quantity("memcg.notified")
def notified(scene: Scene, *, name: str) -> int:
    """Events that those who poll memory.events were told of."""
    return _some(scene, name).notifications[0]


@quantity("memcg.high_work")
def high_work(scene: Scene, *, name: str) -> int:
    """Times that an interrupt has left reclaim to a worker."""
    return _some(scene, name).high_work_queued


@quantity("memcg.slab_bytes")
def slab_bytes(scene: Scene, *, name: str) -> int:
    """Bytes in slabs that the memcg's statistics know of."""
    return sum(_some(scene, name).slab_bytes())


@quantity("memcg.count")
def count(scene: Scene) -> int:
    """Memcgs, dying ones included."""
    return len(memcgs(scene.arena))


@quantity("memcg.stock_pages")
def stock_pages(scene: Scene, *, name: str, cpu: int = 0) -> int:
    """Pages that one CPU keeps charged in advance for a memcg; -1 = it has no slot for it."""
    return stocks(scene.arena, cpu).pages.get(_some(scene, name).id, -1)


@quantity("memcg.stock_slots")
def stock_slots(scene: Scene, *, cpu: int = 0) -> int:
    """Slots of a CPU's page stock that are in use."""
    return len(stocks(scene.arena, cpu).pages)


@quantity("memcg.stock_bytes")
def stock_bytes(scene: Scene, *, cpu: int = 0) -> int:
    """The rest of a page that one CPU keeps."""
    return stocks(scene.arena, cpu).nr_bytes


@quantity("memcg.stat_bytes")
def stat_bytes(scene: Scene, *, cpu: int = 0) -> int:
    """Statistics that one CPU has not yet passed on, in bytes."""
    return sum(stocks(scene.arena, cpu).slab_bytes)
