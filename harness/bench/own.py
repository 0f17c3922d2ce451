# SPDX-License-Identifier: MIT
"""The subjects that come with the package: the designs, and the floors."""

from __future__ import annotations

from pathlib import Path

from harness.bench.built import built
from harness.bench.runner import entries
from harness.bench.subjects import Kind, Subject

__all__ = ["EMPTY", "FLOORS", "SHARED_FLAG", "floor_of", "own"]

SHARED_FLAG = 0x1  # SUBJECT_SHARED of subject.h
EMPTY = "floor_empty"

#: floor that a design's algorithm is held against; whatever is not here: an array behind its owner's flag
FLOORS = {
    "kmalloc": "floor_cas16",
    "kmalloc_nolock": "floor_cas16",
    "try_kmalloc": "floor_cas16",
    "no_prealloc": "floor_cas16",
    "bpf_mem_alloc": "floor_bpf",
    "prealloc": "floor_pcpu_freelist",
    "objpool": "floor_objpool",
}
_PLUGINS: tuple[tuple[str, Kind], ...] = (
    ("shmalloc.so", "design"),
    ("floors_lists.so", "floor"),
    ("floors_rseq.so", "floor"),
    ("floors_pools.so", "floor"),
)


def floor_of(subject: str) -> str:
    """Return the floor that a subject is held against."""
    return FLOORS.get(subject, "floor_flag")


def own() -> list[Subject]:
    """Return the designs and the floors. Raises: BuildMissing, StaleBuildError."""
    return [subject for plugin, kind in _PLUGINS for subject in _of(built(plugin), kind)]


def _of(plugin: Path, kind: Kind) -> list[Subject]:
    return [
        Subject(
            entry["name"],
            kind,
            plugin,
            entry["name"],
            entry["summary"],
            "shared" if entry["flags"] & SHARED_FLAG else "private",
        )
        for entry in entries(plugin)
    ]
