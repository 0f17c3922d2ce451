# SPDX-License-Identifier: MIT
"""NUMA nodes: what was counted on each, in which order they are asked, where memory came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.problems import unknown
from harness.script.keys import Refused
from harness.script.registry import quantity

if TYPE_CHECKING:
    from harness.script.scene import Scene

_EVENTS = ("numa_hit", "numa_miss", "numa_foreign", "numa_local", "numa_other")


def _check(scene: Scene, node: int) -> None:
    nodes = int(scene.arena.header.geometry.nr_nodes)
    if not 0 <= node < nodes:
        raise Refused(f"node = {node}: allowed is 0..{nodes - 1}")


def _zones(scene: Scene) -> list[Any]:
    return [scene.arena.item("struct zone", "zones", at) for at in range(scene.arena.header.nr_zones)]


@quantity("node.event")
def event(scene: Scene, *, name: str, node: int) -> int:
    """One of the NUMA counters of a node's zones, of all CPUs: what its numastat would say."""
    _check(scene, node)
    if name not in _EVENTS:
        raise Refused(f"name = {name!r}: " + unknown("counter", name, list(_EVENTS)))
    possible = int(scene.arena.header.geometry.nr_cpus)
    zones = [int(zone.index) for zone in _zones(scene) if zone.node == node]
    places = [zone * possible + cpu for zone in zones for cpu in range(possible)]
    return sum(int(getattr(scene.arena.item("struct per_cpu_pages", "pagesets", at), name)) for at in places)


@quantity("node.objects")
def objects(scene: Scene, *, node: int) -> int:
    """Allocations of any kind so far whose memory is of a node; an arena of one node does not count them."""
    _check(scene, node)
    possible = int(scene.arena.header.geometry.nr_cpus)
    rows = (scene.arena.item("struct shm_telemetry", "telemetry", cpu) for cpu in range(possible))
    return sum(int(row.node_allocs[node]) for row in rows)


@quantity("node.zonelist")
def zonelist(scene: Scene, *, node: int) -> int:
    """The nodes in the order in which requests for one node try them: their numbers as digits."""
    _check(scene, node)
    row, zones = scene.arena.item("struct node", "nodes", node), _zones(scene)
    tried = [int(zones[row.zonelist[at]].node) for at in range(row.nr_zonelist)]
    return int("".join(map(str, dict.fromkeys(tried))))


@quantity("node.thisnode")
def thisnode(scene: Scene, *, node: int) -> int:
    """The same for requests with __GFP_THISNODE."""
    _check(scene, node)
    row, zones = scene.arena.item("struct node", "nodes", node), _zones(scene)
    tried = [int(zones[row.thisnode[at]].node) for at in range(row.nr_thisnode)]
    return int("".join(map(str, dict.fromkeys(tried))))
