# SPDX-License-Identifier: MIT
"""NUMA nodes: what was counted on each, in which order they are asked, where memory came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


@quantity("node.event")
def event(scene: Scene, *, name: str, node: int) -> int:
    """One of the NUMA counters of a node's zones, of all CPUs: what its numastat would say."""
    _check(scene, node)
    if name not in _EVENTS:
        raise Refused(f"name = {name!r}: " + unknown("counter", name, list(_EVENTS)))
    cpus = range(int(scene.arena.header.geometry.nr_cpus))
    return sum(
        int(getattr(scene.pageset(cpu, zone.index), name)) for zone in scene.zones(node) for cpu in cpus
    )


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
    row, zones = scene.arena.item("struct node", "nodes", node), scene.zones()
    tried = [int(zones[row.zonelist[at]].node) for at in range(row.nr_zonelist)]
    return int("".join(map(str, dict.fromkeys(tried))))


@quantity("node.thisnode")
def thisnode(scene: Scene, *, node: int) -> int:
    """The same for requests with __GFP_THISNODE."""
    _check(scene, node)
    row, zones = scene.arena.item("struct node", "nodes", node), scene.zones()
    tried = [int(zones[row.thisnode[at]].node) for at in range(row.nr_thisnode)]
    return int("".join(map(str, dict.fromkeys(tried))))
