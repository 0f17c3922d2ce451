# SPDX-License-Identifier: MIT
"""Pages: allocating blocks, draining the per-CPU lists, and what zones and pagesets hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.script.keys import a_design, a_node, gfp_names, key
from harness.script.registry import Step, quantity, step
from harness.script.topics.objects import FreeHeld
from shmalloc.errors import ShmallocError

if TYPE_CHECKING:
    from harness.script.nested import Nested
    from harness.script.scene import Scene


@step("pages_alloc")
class PagesAlloc(Step):
    """Allocate blocks of 2^order pages: 1 for each success."""

    order: int = key(0, low=0, high=10)
    gfp: str = key("GFP_ATOMIC", check=gfp_names)
    node: int = key(-1, check=a_node)
    design: str = key("", check=a_design)
    as_: str = key("", defines="objects")

    def run(self, scene: Scene) -> int:
        """Allocate one."""
        return scene.allocate(
            self, lambda calls: calls.pages_alloc(self.order, self.gfp, self.node), order=self.order
        )

    def nest(self, program: Nested) -> None:
        """Allocate one, into a slot."""
        fields = {"order": self.order, "gfp": self.gfp, "node": self.node}
        program.allocate("pages_alloc", fields, self.as_, f"alloc 2^{self.order} pages")

    def __str__(self) -> str:
        return f"{self.do} order {self.order}" + (f" by {self.design}" if self.design else "")


@step("pages_until_fail")
class PagesUntilFail(PagesAlloc):
    """Allocate blocks until one is refused, at most `limit`: how many there were."""

    limit: int = key(1_000_000, low=1, high=10_000_000)
    drain: bool = key(False)

    def run(self, scene: Scene) -> int:
        """Allocate until it fails; with drain the CPU's lists are given back before each, for what they hold."""
        for done in range(self.limit):
            if self.drain:
                scene.cpus[self.cpu].drain_pages()
            if not PagesAlloc.run(self, scene):
                return done
        return self.limit

    def nest(self, program: Nested) -> None:
        """Allocate up to the limit; successes are counted."""
        for _ in range(self.limit):
            PagesAlloc.nest(self, program)


@step("pages_free")
class PagesFree(FreeHeld):
    """Free blocks of pages that earlier steps hold: how many there were."""


@step("drain")
class Drain(Step):
    """Give the CPU's page lists back to the buddy."""

    def run(self, scene: Scene) -> None:
        """Drain."""
        scene.cpus[self.cpu].drain_pages()


def _register_zone(name: str, read: Any, text: str) -> None:
    def read_it(scene: Scene, *, node: int = -1) -> int:
        return int(sum(read(zone) for zone in scene.zones(node)))

    read_it.__doc__ = f"{text}, of all zones, or of a node's."
    quantity(f"zone.{name}")(read_it)


for _name, _text in {
    "free_pages": "Pages on the buddy's lists",
    "managed_pages": "Pages that there are",
    "nr_deferred_free": "Blocks that were parked because the zone was locked",
    "nr_kswapd_wakeups": "Wakeups of kswapd",
}.items():
    _register_zone(_name, lambda zone, name=_name: getattr(zone, name), _text)
for _at, _name in enumerate(("min", "low", "high")):
    _register_zone(f"wmark_{_name}", lambda zone, at=_at: zone.wmark[at], f"The {_name} watermark in pages")


_ZONES = ("DMA", "DMA32", "NORMAL", "MOVABLE")


def _zone_type(scene: Scene, name: str) -> int:
    if name not in _ZONES:
        raise ShmallocError(f"zone = {name!r}: allowed is one of {', '.join(_ZONES)}")
    return int(getattr(scene.lib, f"ZONE_{name}"))


@quantity("zone.lowmem_reserve")
def lowmem_reserve(scene: Scene, *, zone: str, against: str) -> int:
    """Pages that node 0's zone keeps back from requests that could have used a higher one."""
    kind, higher = _zone_type(scene, zone), _zone_type(scene, against)
    return sum(int(row.lowmem_reserve[higher]) for row in scene.zones(0) if row.type == kind)


@quantity("zone.managed")
def managed(scene: Scene, *, zone: str) -> int:
    """Pages of node 0's zone of one type."""
    kind = _zone_type(scene, zone)
    return sum(int(row.managed_pages) for row in scene.zones(0) if row.type == kind)


@quantity("zone.parked_blocks")
def parked_blocks(scene: Scene, *, node: int = -1) -> int:
    """Blocks that wait on the zones' trylock_free_pages for somebody to free them."""
    return sum(int(zone.nr_deferred_free) - int(zone.nr_deferred_drained) for zone in scene.zones(node))


@quantity("memory.used_pages")
def used_pages(scene: Scene, *, node: int = -1) -> int:
    """Pages that somebody holds, be it as slabs, pools or lists: neither in the buddy nor on a CPU's list."""
    rows = scene.zones(node)
    free = sum(int(zone.free_pages) for zone in rows) + pcp_count(scene, node=node)
    return sum(int(zone.managed_pages) for zone in rows) - free


@quantity("pcp.count")
def pcp_count(scene: Scene, *, cpu: int = -1, node: int = -1) -> int:
    """Pages on the lists of one CPU, or of all."""
    return sum(int(row.count) for row in _pagesets(scene, cpu, node))


@quantity("pcp.batch")
def pcp_batch(scene: Scene, *, cpu: int = 0, node: int = 0) -> int:
    """The batch of a CPU's lists, in pages: the largest of a node's zones."""
    return max(int(row.batch) for row in _pagesets(scene, cpu, node))


@quantity("pcp.high_min")
def pcp_high_min(scene: Scene, *, cpu: int = 0, node: int = 0) -> int:
    """The least that `high` of a CPU's lists is tuned to, in pages: the largest of a node's zones."""
    return max(int(row.high_min) for row in _pagesets(scene, cpu, node))


def _pagesets(scene: Scene, cpu: int, node: int) -> list[Any]:
    chosen = range(int(scene.arena.header.geometry.nr_cpus)) if cpu < 0 else [cpu]
    return [scene.pageset(each, int(zone.index)) for zone in scene.zones(node) for each in chosen]
