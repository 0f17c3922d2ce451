# SPDX-License-Identifier: MIT
"""Where memory of an arena with several nodes is, where it was asked for, and what distance would cost.

The counts are the arena's. `modelled_ns` is not measured: it is SLIT distances times a price that the config
names, for machines whose own memory is all equally far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shmalloc.procfs import memory_per_node, node_events

if TYPE_CHECKING:
    from harness.config import NumaModelSpec
    from shmalloc.arena import Arena

__all__ = ["Look", "blank", "measure", "modelled_ns", "several"]

Array = np.ndarray[Any, Any]

_LOCAL_DISTANCE = 10  # of a SLIT
_MEMORY = ("MemTotal", "MemFree", "MemUsed", "Slab", "SReclaimable", "SUnreclaim")
_EVENTS = ("numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node")


def blank(nodes: int) -> dict[str, Any]:
    """Return the part of a cell about nodes in which nothing has happened. Args: nodes: how many."""
    names = [f"node{number}" for number in range(nodes)]
    return {
        "events": {name: dict.fromkeys(_EVENTS, 0) for name in names},
        "memory_per_node": {name: dict.fromkeys(_MEMORY, 0) for name in names},
        "allocs": dict.fromkeys(names, 0),
        "allocs_from": {name: dict.fromkeys(names, 0) for name in names},
        "remote_share": 0.0,
        "elsewhere_share": 0.0,
        "slow_path_share": 0.0,
        "mismatch_share": 0.0,
        "modelled_ns": {"per_alloc": None, "if_all_local": None},
    }


@dataclass(frozen=True)
class Look:
    """One look at an arena's nodes.

    Attributes: events, memory: by node, in numastat's words; memory in bytes.  allocs: by CPU and node of the
        memory, (cpus, nodes).  home: node of each CPU, (cpus,).  distance: SLIT, (nodes, nodes).
    """

    events: Mapping[str, Mapping[str, int]]
    memory: Mapping[str, Mapping[str, int]]
    allocs: Array
    home: Array
    distance: Array

    @classmethod
    def at(cls, arena: Arena) -> Look:
        """Look at an arena whose structures are sound."""
        geometry = arena.header.geometry
        nodes = range(int(geometry.nr_nodes))
        return cls(
            events={f"node{node}": node_events(arena, node) for node in nodes},
            memory=memory_per_node(arena),
            allocs=arena.region("telemetry")["node_allocs"][:, : len(nodes)].astype(np.int64),
            home=np.array([geometry.cpu_node[cpu] for cpu in range(int(geometry.nr_cpus))]),
            distance=np.array([[geometry.distance[a][b] for b in nodes] for a in nodes]),
        )


def measure(look: Look, counters: Mapping[str, int], model: NumaModelSpec | None) -> dict[str, Any]:
    """Sum up what an arena counted by node.

    Args: look: at the end of the replay.  counters: of the cell.  model: the price of distance, or None.
    Returns: events and memory per node, in numastat's words, memory in bytes; allocs: by the node of the
        memory; allocs_from: the same for each node of the CPU; shares of allocations: remote to the CPU, not on
        the node that was named, through the slow path, after a node mismatch; modelled_ns, null without a
        model or without allocations.  An arena of one node counts neither allocations by node nor requests.
    """
    remote = look.allocs[look.home[:, None] != np.arange(len(look.distance))]
    nodes = range(len(look.distance))
    slab_allocs = counters["alloc_fastpath"] + counters["alloc_slowpath"]
    return {
        "events": dict(look.events),
        "memory_per_node": dict(look.memory),
        "allocs": {f"node{node}": int(count) for node, count in enumerate(look.allocs.sum(axis=0))},
        "allocs_from": {
            f"node{home}": {f"node{node}": int(look.allocs[look.home == home, node].sum()) for node in nodes}
            for home in nodes
        },
        "remote_share": _share(int(remote.sum()), int(look.allocs.sum())),
        "elsewhere_share": _share(counters["node_elsewhere"], counters["node_requests"]),
        "slow_path_share": _share(counters["alloc_slowpath"], slab_allocs),
        "mismatch_share": _share(counters["alloc_node_mismatch"], slab_allocs),
        "modelled_ns": modelled_ns(look.allocs, look.distance[look.home], model),
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 9) if whole else 0.0


def modelled_ns(allocs: Array, distance: Array, model: NumaModelSpec | None) -> dict[str, float | None]:
    """Price the accesses to what was allocated.

    Args: allocs: by CPU and node, (cpus, nodes).  distance: of each node from each CPU, SLIT, (cpus, nodes).
        model: an access to a node at distance d costs access_ns * d / 10.
    Returns: per_alloc: mean over all allocations, ns; if_all_local: the same, had none been remote.
    """
    total = int(allocs.sum())
    if model is None or not total:
        return {"per_alloc": None, "if_all_local": None}
    local = model.access_ns * model.accesses
    cost = float((allocs * distance).sum()) / _LOCAL_DISTANCE * local
    return {"per_alloc": round(cost / total, 3), "if_all_local": round(local, 3)}


def several(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the cells whose arena had more than one node with memory."""
    return [cell for cell in cells if sum(map(_has_memory, _nodes(cell))) > 1]


def _nodes(cell: Mapping[str, Any]) -> list[Mapping[str, int]]:
    return list(cell.get("numa", {}).get("memory_per_node", {}).values())


def _has_memory(node: Mapping[str, int]) -> bool:
    return node["MemTotal"] > 0
