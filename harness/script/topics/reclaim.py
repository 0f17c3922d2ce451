# SPDX-License-Identifier: MIT
"""Page cache, reclaim, kswapd, reserves, the pagesets' periodic work, and faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.script.keys import a_node, gfp_names, key
from harness.script.registry import Step, quantity, step
from shmalloc.faults import FaultAttr
from shmalloc.kswapd import Kswapd

if TYPE_CHECKING:
    from harness.script.scene import Scene

_kswapds: dict[int, Kswapd] = {}


@step("page_cache")
class PageCache(Step):
    """Read clean pages into the page cache, from where reclaim gives them back: how many there were."""

    pages: int = key(1, low=1, high=1 << 30)
    gfp: str = key("GFP_HIGHUSER_MOVABLE", check=gfp_names)
    node: int = key(-1, check=a_node)

    def run(self, scene: Scene) -> int:
        """Add them."""
        return scene.cpus[self.cpu].page_cache_add(self.pages, self.gfp, self.node)


@step("page_cache_drop")
class PageCacheDrop(Step):
    """Give the whole page cache back: how many pages."""

    def run(self, scene: Scene) -> int:
        """Drop it."""
        return scene.cpus[self.cpu].page_cache_drop()


@step("vmstat_tick")
class VmstatTick(Step):
    """Do the CPU's periodic work once: its page lists shrink, idle ones of other nodes are emptied."""

    def run(self, scene: Scene) -> None:
        """Tick."""
        scene.cpus[self.cpu].vmstat_tick()


@step("drain_all")
class DrainAll(Step):
    """Give the page lists of all CPUs back to the buddy."""

    def run(self, scene: Scene) -> None:
        """Drain."""
        scene.cpus[self.cpu].drain_all_pages()


@step("memalloc")
class Memalloc(Step):
    """Make the CPU's task one that frees memory (PF_MEMALLOC), or not."""

    on: bool = key(True)

    def run(self, scene: Scene) -> None:
        """Set it."""
        scene.cpus[self.cpu].run(scene.lib.shm_set_memalloc, int(self.on))


@step("fail_nth")
class FailNth(Step):
    """Have the nth request of the CPU's task from here on fail, of those that faults may meet."""

    nth: int = key(1, low=0, high=1 << 31)

    def run(self, scene: Scene) -> None:
        """Set it."""
        scene.cpus[self.cpu].fail_nth(self.nth)


@step("failslab")
class Failslab(Step):
    """Say when slab requests are made to fail: `<interval>,<probability>,<space>,<times>`, or nothing for never."""

    attr: str = key("")
    ignore_gfp_wait: bool = key(True)

    def run(self, scene: Scene) -> None:
        """Set it."""
        scene.arena.failslab(_attr(self.attr, ignore_gfp_wait=self.ignore_gfp_wait))


@step("fail_page_alloc")
class FailPageAlloc(Step):
    """Say when page requests are made to fail; see failslab."""

    attr: str = key("")
    ignore_gfp_wait: bool = key(True)
    min_order: int = key(1, low=0, high=10)

    def run(self, scene: Scene) -> None:
        """Set it."""
        attr = _attr(self.attr, ignore_gfp_wait=self.ignore_gfp_wait, min_order=self.min_order)
        scene.arena.fail_page_alloc(attr)


def _attr(text: str, **more: Any) -> FaultAttr | None:
    if not text:
        return None
    made = FaultAttr.parse(text)
    return FaultAttr(made.probability, made.interval, made.times, made.space, **more)


@step("kswapd_start")
class KswapdStart(Step):
    """Give a node a kswapd, asleep: it is woken where the kernel wakes it, and works at kswapd_step."""

    node: int = key(0, check=a_node)

    def run(self, scene: Scene) -> None:
        """Start it."""
        _kswapds[self.node] = Kswapd(scene.arena, self.node)
        scene.at_end.append(_kswapds[self.node].close)


@step("kswapd_step")
class KswapdStep(Step):
    """Let a node's kswapd work, if it is awake, until it sleeps: pages given back."""

    node: int = key(0, check=a_node)

    def run(self, scene: Scene) -> int:
        """Step."""
        return _kswapds[self.node].step()


def _nodes(scene: Scene, node: int) -> list[Any]:
    chosen = range(scene.arena.header.geometry.nr_nodes) if node < 0 else [node]
    return [scene.arena.item("struct node", "nodes", at) for at in chosen]


def _register_node(name: str, text: str) -> None:
    def read_it(scene: Scene, *, node: int = -1) -> int:
        return sum(int(getattr(row, name)) for row in _nodes(scene, node))

    read_it.__doc__ = f"{text}, of all nodes or of one."
    quantity(f"node.{name}")(read_it)


for _name, _text in {
    "nr_lru": "Pages of the page cache",
    "kswapd_wakeups": "Calls of wakeup_kswapd",
    "kswapd_woken": "Times that kswapd slept and was woken",
    "kswapd_failures": "Passes of kswapd in a row that got nothing",
    "pageoutrun": "Passes of kswapd",
    "pgsteal_kswapd": "Pages that kswapd has given back",
    "pgsteal_direct": "Pages that direct reclaim has given back",
    "allocstall": "Requests that went into direct reclaim",
    "drain_all": "Drains of all page lists by the slow path",
    "oom": "Requests that failed where the kernel would kill somebody",
}.items():
    _register_node(_name, _text)


@quantity("zone.wmark_boost")
def wmark_boost(scene: Scene, *, node: int = -1) -> int:
    """Pages that fragmentation has added to the watermarks, of all zones or of a node's."""
    return sum(int(zone.wmark_boost) for zone in scene.zones(node))


@quantity("zone.nr_reserved_highatomic")
def nr_reserved_highatomic(scene: Scene, *, node: int = -1) -> int:
    """Pages of the pageblocks that are kept for urgent requests, of all zones or of a node's."""
    return sum(int(zone.nr_reserved_highatomic) for zone in scene.zones(node))


def _register_pageset(name: str, text: str) -> None:
    def read_it(scene: Scene, *, cpu: int = 0, zone: int = 0) -> int:
        return int(getattr(scene.pageset(cpu, zone), name))

    read_it.__doc__ = f"{text}, of one CPU in one zone."
    quantity(f"pageset.{name}")(read_it)


for _name, _text in {
    "count": "Pages on the lists",
    "high": "Above it a free gives pages back",
    "high_max": "The most that `high` is tuned to",
    "alloc_factor": "Doublings of the next refill",
    "pcp_refill": "Refills from the buddy",
}.items():
    _register_pageset(_name, _text)
