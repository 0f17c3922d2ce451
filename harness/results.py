# SPDX-License-Identifier: MIT
"""What a cell measured, as JSON: sums over CPUs, caches and zones of what the arena counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import latency, numa
from harness.vocabulary import CONTEXTS, KINDS, OK, VACUOUS, Vocabulary
from shmalloc.layout import constants

if TYPE_CHECKING:
    from shmalloc.arena import Arena

SCHEMA = "shmalloc-result/1"
_INTERRUPTS = ("sent", "handled", "in_allocator", "in_slow_path", "masked", "nested")
MAX_NODES = constants()["SHM_MAX_NODES"]
_WITHOUT_REASON = "failures_without_reason"
_MAXIMA = ("retries_max", "lock_wait_max_cycles")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Snapshot:
    """A copy of the arena's counts.

    Attributes: telemetry: struct shm_telemetry, shape (cpus,).  cache_stats: struct kmem_cache_stat,
        (cpus, caches).  sheaves: struct slub_percpu_sheaves, (cpus, caches), or no caches in a 6.18 arena.
        pagesets: struct per_cpu_pages, (zones, cpus).  zones: struct zone, (zones,).  nodes: struct
        node, (nodes,).
        memcg_cpus: struct memcg_cpu, (cpus,), or (0,) without memcgs.  tsc_hz: ticks per second.
    """

    telemetry: Array
    cache_stats: Array
    sheaves: Array
    pagesets: Array
    zones: Array
    memcg_cpus: Array
    nodes: Array
    tsc_hz: float

    @classmethod
    def of(cls, arena: Arena) -> Snapshot:
        """Copy the counts of an arena."""
        return cls(
            telemetry=arena.region("telemetry").copy(),
            cache_stats=arena.region("cache_stats").copy(),
            sheaves=arena.region("cache_sheaves").copy(),
            pagesets=arena.region("pagesets").copy(),
            zones=arena.region("zones").copy(),
            memcg_cpus=arena.region("memcg_cpus").copy(),
            nodes=arena.region("nodes").copy(),
            tsc_hz=float(arena.header.tsc_hz),
        )


def blank_cell(vocabulary: Vocabulary, facts: Iterable[str] = ()) -> dict[str, Any]:
    """Return a cell in which nothing has happened: every key is there.

    Args: vocabulary.  facts: counters that a script stores.
    """
    reasons = dict.fromkeys(vocabulary.reasons, 0)
    percentiles: dict[str, float | None] = {**dict.fromkeys(latency.PERCENTILES), "max": None}
    return {
        "id": "",
        "params": {},
        "design": "",
        "verdict": OK,
        "expected": OK,
        "violations": [],
        "seconds": 0.0,
        "cpus": 0,
        "ops": 0,
        "allocs": 0,
        "frees": 0,
        "failures": dict(reasons),
        "contexts": {
            context: {
                "allocs": 0,
                "frees": 0,
                "failures": dict(reasons),
                "latency_ns": dict(percentiles),
                "latency_curve": [],
                "timed": 0,
            }
            for context in CONTEXTS
        },
        "interrupts": {kind: dict.fromkeys(_INTERRUPTS, 0) for kind in KINDS},
        "processor_s": 0.0,
        "throughput_ops_s": 0.0,
        "memory": {"peak_bytes": 0, "live_bytes": 0, "arena_bytes": 0, "sample_period_s": 0.0, "samples": 0},
        "windows": [],
        "repeats": [],
        "counters": dict.fromkeys((*vocabulary.counter_names, _WITHOUT_REASON, *facts), 0),
        "map": None,
        "numa": numa.blank(MAX_NODES),
    }


def measure(snapshot: Snapshot, vocabulary: Vocabulary) -> dict[str, Any]:
    """Sum a snapshot up into the keys of a cell that are counts.

    Returns: allocs, frees, failures, contexts, interrupts, counters, designs.
    """
    counts = snapshot.telemetry["counts"]
    failures = counts["failures"].sum(axis=(0, 1), dtype=np.uint64)  # (contexts, reasons)
    histograms = snapshot.telemetry["latency"].sum(axis=0, dtype=np.uint64)  # (contexts, buckets)
    allocs = counts["allocs"].sum(axis=(0, 1), dtype=np.uint64)
    frees = counts["frees"].sum(axis=(0, 1), dtype=np.uint64)
    return {
        "allocs": int(allocs.sum()),
        "frees": int(frees.sum()),
        "failures": _by_reason(failures.sum(axis=0), vocabulary),
        "contexts": {
            context: {
                "allocs": int(allocs[at]),
                "frees": int(frees[at]),
                "failures": _by_reason(failures[at], vocabulary),
                "latency_ns": latency.summary(histograms[at], snapshot.tsc_hz),
                "latency_curve": latency.curve(histograms[at], snapshot.tsc_hz),
                "timed": int(histograms[at].sum(dtype=np.uint64)),
            }
            for at, context in enumerate(CONTEXTS)
        },
        "interrupts": _interrupts(snapshot.telemetry["interrupts"]),
        "counters": {**_counters(snapshot, vocabulary), _WITHOUT_REASON: int(failures[:, 0].sum())},
        "designs": _designs(counts, vocabulary),
    }


def _by_reason(failures: Array, vocabulary: Vocabulary) -> dict[str, int]:
    """Name the counts; number 0 is "no reason"."""
    return {name: int(failures[at]) for at, name in enumerate(vocabulary.reasons, start=1)}


def _interrupts(interrupts: Array) -> dict[str, dict[str, int]]:
    return {
        kind: {name: int(interrupts[name][:, at].sum(dtype=np.uint64)) for name in _INTERRUPTS}
        for at, kind in enumerate(KINDS)
    }


def _counters(snapshot: Snapshot, vocabulary: Vocabulary) -> dict[str, int]:
    arrays = {
        "kmem_cache_stat": snapshot.cache_stats,
        "slub_percpu_sheaves": snapshot.sheaves,
        "per_cpu_pages": snapshot.pagesets,
        "memcg_cpu": snapshot.memcg_cpus,
        "shm_telemetry": snapshot.telemetry,
        "zone": snapshot.zones,
        "node": snapshot.nodes,
    }
    return {
        name: int(arrays[struct][name].max(initial=0))
        if name in _MAXIMA
        else int(arrays[struct][name].sum(dtype=np.uint64))
        for struct, names in vocabulary.counters.items()
        for name in names
    }


def _designs(counts: Array, vocabulary: Vocabulary) -> dict[str, Any]:
    """Count per design and context, where there is something to count."""
    found: dict[str, Any] = {}
    for number, design in enumerate(vocabulary.designs):
        for at, context in enumerate(CONTEXTS):
            row = counts[:, number, at]
            failures = row["failures"].sum(axis=0, dtype=np.uint64)
            if int(row["allocs"].sum()) + int(row["frees"].sum()) + int(failures.sum()) == 0:
                continue
            found.setdefault(design, {})[context] = {
                "allocs": int(row["allocs"].sum()),
                "frees": int(row["frees"].sum()),
                "failures": {n: c for n, c in _by_reason(failures, vocabulary).items() if c},
            }
    return found


def run_verdict(cells: Sequence[Mapping[str, Any]], vocabulary: Vocabulary) -> str:
    """Return the verdict of the worst unexpected cell, ok if there is none.

    A cell that came out ok where another verdict was expected has proved nothing: it counts as vacuous.
    """
    unexpected = [cell["verdict"] for cell in cells if cell["verdict"] != cell["expected"]]
    return vocabulary.worst([VACUOUS if verdict == OK else verdict for verdict in unexpected])


def passed(run: Mapping[str, Any]) -> bool:
    """Whether every cell's verdict is the expected one and every expectation, claims aside, holds."""
    return all(cell["verdict"] == cell["expected"] for cell in run["cells"]) and not any(
        expectation["holds"] is False and expectation["kind"] != "claim"
        for expectation in run["expectations"]
    )
