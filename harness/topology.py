# SPDX-License-Identifier: MIT
"""The NUMA nodes of this machine, read from sysfs, and which of them an arena's nodes go to.

Nothing here changes anything: `membind` does, by what is decided here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.config import Config

__all__ = ["ALONE", "Placement", "RealNode", "allowed_cores", "describe", "parse_list", "place", "read"]

ALONE = "left alone: the arena has one node"
SYSFS = Path("/sys/devices/system/node")


@dataclass(frozen=True)
class RealNode:
    """A node of this machine. Attributes: number: the kernel's.  cores: of it.  memory_bytes.  distance: SLIT row."""

    number: int
    cores: frozenset[int]
    memory_bytes: int
    distance: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """Where an arena's nodes and its CPUs go.

    Attributes: real_nodes: the real node of each of the arena's, empty if they are left alone.  cores: for each
        CPU process, None = not pinned.  why: in words, what is done or why nothing is.
    """

    real_nodes: tuple[int, ...]
    cores: tuple[int | None, ...]
    why: str

    @property
    def is_bound(self) -> bool:
        """Whether the arena's nodes are put on real ones."""
        return bool(self.real_nodes)

    def as_json(self) -> dict[str, Any]:
        """Describe it for a result."""
        real = {f"node{node}": number for node, number in enumerate(self.real_nodes)}
        return {"bound": self.is_bound, "real_nodes": real, "cores": list(self.cores), "why": self.why}


def parse_list(text: str) -> frozenset[int]:
    """Read a list of numbers in the kernel's form, such as ``0-3,8``; empty is none."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def read(sysfs: Path = SYSFS) -> tuple[RealNode, ...]:
    """Return the nodes of this machine that have memory, by number; where the kernel tells none, none."""
    try:
        numbers = parse_list((sysfs / "has_memory").read_text())
        return tuple(_read(sysfs / f"node{number}", number) for number in sorted(numbers))
    except (OSError, ValueError, IndexError):
        return ()


def _read(folder: Path, number: int) -> RealNode:
    total = next(line for line in (folder / "meminfo").read_text().splitlines() if "MemTotal:" in line)
    return RealNode(
        number=number,
        cores=parse_list((folder / "cpulist").read_text()),
        memory_bytes=int(total.split()[-2]) * 1024,
        distance=tuple(map(int, (folder / "distance").read_text().split())),
    )


def place(
    config: Config, cpu_node: Sequence[int], nodes: Sequence[RealNode], allowed: frozenset[int]
) -> Placement:
    """Decide where the nodes and CPUs of a cell go.

    Args: config: of the cell.  cpu_node: node of each possible CPU.  nodes: of the machine.  allowed: cores that
        this process may use.
    """
    usable = {node.number: sorted(node.cores & allowed) for node in nodes if node.cores & allowed}
    why = _why_not(config, cpu_node, len(nodes), usable)
    if why:
        return Placement((), _cores_in_turn(config, sorted(allowed)), why)
    numbers = list(usable)
    real = tuple(numbers[node % len(numbers)] for node in range(config.arena.nodes))
    said = ", ".join(f"node {node} on {number}" for node, number in enumerate(real))
    shared = "" if config.arena.nodes <= len(numbers) else "; some share a real node, whose distance is none"
    return Placement(real, _cores_of_nodes(config, cpu_node, real, usable), f"bound: {said}{shared}")


def _why_not(config: Config, cpu_node: Sequence[int], nodes: int, usable: Mapping[int, Sequence[int]]) -> str:
    """Say why an arena's nodes are left alone; "" if they are not."""
    if config.arena.nodes == 1:
        return ALONE
    if config.arena.real_nodes == "ignore":
        return 'left alone: arena.real_nodes = "ignore"'
    if len(usable) < 2:
        there = "one node" if nodes <= 1 else f"{nodes} nodes, cores of {len(usable)} allowed"
        return f"left alone: this machine has {there}; distance is a model here (numa_model) or nothing"
    needed = [list(cpu_node[: config.cpus]).count(node) for node in range(config.arena.nodes)]
    rooms = [len(cores) for cores in usable.values()]
    asked = [sum(needed[at :: len(rooms)]) for at in range(len(rooms))]
    if config.pin == "exclusive" and any(want > room for want, room in zip(asked, rooms, strict=True)):
        return 'left alone: pin = "exclusive", and a real node has fewer cores than CPUs to hold'
    return ""


def _cores_in_turn(config: Config, cores: Sequence[int]) -> tuple[int | None, ...]:
    if config.pin == "none":
        return (None,) * config.cpus
    return tuple(cores[cpu % len(cores)] for cpu in range(config.cpus))


def _cores_of_nodes(
    config: Config, cpu_node: Sequence[int], real: Sequence[int], usable: Mapping[int, Sequence[int]]
) -> tuple[int | None, ...]:
    """Pin each CPU to a core of the real node that its own is on, in turn."""
    if config.pin == "none":
        return (None,) * config.cpus
    taken = dict.fromkeys(usable, 0)
    chosen = []
    for cpu in range(config.cpus):
        number = real[cpu_node[cpu]]
        chosen.append(usable[number][taken[number] % len(usable[number])])
        taken[number] += 1
    return tuple(chosen)


def describe(nodes: Sequence[RealNode]) -> list[dict[str, Any]]:
    """Describe the machine's nodes for a result."""
    return [
        {
            "node": node.number,
            "cores": len(node.cores),
            "memory_bytes": node.memory_bytes,
            "distance": list(node.distance),
        }
        for node in nodes
    ]


def allowed_cores() -> frozenset[int]:
    """Return the cores that this process may use."""
    return frozenset(os.sched_getaffinity(0))
