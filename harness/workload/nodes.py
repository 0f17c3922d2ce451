# SPDX-License-Identifier: MIT
"""Which node a request names: none, one for all, or one that depends on where the CPU is.

`workload.node` names one node in every request. With `workload.node_from` a share of the requests names a
node that is remote to the CPU that asks; the others name none, or its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.workload.model import Part, Place
from harness.workload.ops import IntArray, alloc_codes
from harness.workload.spec import GeneratedSpec
from harness.workload.strict import WorkloadError
from shmalloc import gfp as gfp_flags

__all__ = ["Nodes", "name_nodes", "node_problems", "remote_nodes"]


@dataclass(frozen=True)
class Nodes:
    """The nodes of the arena that a workload is made for.

    Attributes: distance: SLIT, one row per node.  cpu_node: of each possible CPU.
    """

    distance: Sequence[Sequence[int]]
    cpu_node: Sequence[int]


def node_problems(spec: GeneratedSpec, nodes: int | None) -> list[str]:
    """List what contradicts itself in the keys about nodes. Args: nodes: of the arena, if known."""
    relative = spec.node_from != "fixed"
    found = []
    if relative and spec.node != -1:
        found.append(f'workload.node = {spec.node}: needs workload.node_from = "fixed"')
    if relative and nodes == 1:
        found.append(f'workload.node_from = "{spec.node_from}": needs arena.nodes of at least 2, which is 1')
    if not relative and spec.node == -1:
        keys = {"node_share": spec.node_share != 1, "thisnode": spec.thisnode}
        found += [
            f"workload.{key} = {str(getattr(spec, key)).lower()}: no request names a node; "
            "needs workload.node or workload.node_from"
            for key, given in keys.items()
            if given
        ]
    if nodes is not None and spec.node >= nodes:
        found.append(f"workload.node = {spec.node}: the arena's nodes are 0..{nodes - 1}, -1 is any")
    return found


def remote_nodes(choice: str, home: int, nodes: Nodes) -> IntArray:
    """Return the nodes that requests from one node may name.

    Args: choice: nearest, farthest or random.  home: the CPU's node.
    Returns: one node; for random all but the CPU's own. Of equally far ones, that with the next number.
    """
    count = len(nodes.distance)
    others = sorted((other for other in range(count) if other != home), key=lambda n: (n - home) % count)
    if choice == "random":
        return np.array(others, dtype=np.int64)
    sign = 1 if choice == "nearest" else -1
    return np.array([min(others, key=lambda other: sign * nodes.distance[home][other])], dtype=np.int64)


def name_nodes(
    part: Part, spec: GeneratedSpec, place: Place, nodes: Nodes | None, rng: np.random.Generator
) -> Part:
    """Let a CPU's allocations name nodes as the spec says.

    Returns: the part; its notes say how many requests name a node that is not the CPU's.
    Raises: WorkloadError, if the nodes are not known and a request's depends on them.
    """
    if spec.node_from == "fixed" and spec.node_share == 1 and not spec.thisnode:
        return part
    ops = part.ops.copy()
    allocs = np.flatnonzero(np.isin(ops["code"], alloc_codes()))
    chosen = allocs[rng.random(allocs.size) < spec.node_share]
    if spec.node_from == "fixed":
        ops["node"][allocs] = -1
        ops["node"][chosen] = spec.node
    else:
        if nodes is None:
            raise WorkloadError(f'workload.node_from = "{spec.node_from}": the nodes are not known')
        home = nodes.cpu_node[place.cpu]
        remote = remote_nodes(spec.node_from, home, nodes)
        ops["node"][allocs] = home if spec.node_rest == "local" else -1
        ops["node"][chosen] = remote[rng.integers(0, remote.size, size=chosen.size)]
    if spec.thisnode:
        ops["gfp"][allocs[ops["node"][allocs] >= 0]] |= gfp_flags.parse("__GFP_THISNODE")
    return replace(part, ops=ops, notes={**part.notes, "node_requests": int(chosen.size)})
