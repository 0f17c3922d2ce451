# SPDX-License-Identifier: MIT
"""What grows within one process: arenas, live objects, caches. Each function takes one round of samples of a value."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shmalloc.arena import Arena
from shmalloc.audit import audit
from shmalloc.cpu import Cpu
from shmalloc.procfs import slabinfo
from shmalloc.program import ops

__all__ = [
    "OBJECT_BYTES",
    "Samples",
    "caches_at_first",
    "of_caches",
    "of_objects",
    "of_sizes",
    "tsc_hz",
    "warm_up",
]

Samples = dict[tuple[str, str], list[float]]  # (what, unit) -> samples

_ORACLE = ", with oracle"
_OPS = 1 << 14  # some 0.3 ms: most samples see no interrupt of the machine
_ATTACHED = 5  # times in a round
_FAST = 9  # samples of a fast path in a round
OBJECT_BYTES = 8
_BULK = 128
_NS = 1e9


def of_sizes(size_bytes: int) -> Samples:
    """Make an arena of this size, attach to it, allocate, look at it."""
    samples: Samples = defaultdict(list)
    for design, kernel in (("kmalloc", "6.18"), ("sheaves", "7.0")):
        with _taken(samples, f"create, {kernel}", "ms"):
            arena = Arena.create(size=size_bytes, reserve="sparse", kernel=kernel, oracle=False)
        with arena:
            _look(arena, samples, design)
    with Arena.create(size=size_bytes, reserve="sparse") as arena:
        _audits(arena, samples, "audit, with oracle")
    return samples


def _look(arena: Arena, samples: Samples, design: str) -> None:
    for _ in range(_ATTACHED):  # the first one finds the core's caches full of what was just made
        with _taken(samples, "attach", "ms"):
            attached = Arena.attach(arena.name)
            attached.activate()
        attached.close()
    attached = Arena.attach(arena.name)
    with attached, Cpu(attached, 0) as cpu:
        with _taken(samples, f"first allocation, {design}", "ms"):
            first = cpu.kmalloc(64)
        cpu.kfree(first)
        _fast_paths(cpu, samples, design)
        seconds = _audits(attached, samples)
        samples["pages audited in a second", "M/s"].append(len(attached.region("pages")) / seconds / 1e6)
        with _taken(samples, "slabinfo", "ms"):
            slabinfo(attached)


def of_objects(number: int) -> Samples:
    """Have so many objects of 8 bytes live, and then do what does not concern them."""
    samples: Samples = defaultdict(list)
    for oracle in (False, True):
        with Arena.create(size="1GiB", reserve="sparse", oracle=oracle) as arena, Cpu(arena, 0) as cpu:
            cache = cpu.kmem_cache_create("live", OBJECT_BYTES)
            with _taken(samples, f"allocate one of them, in bulk{_ORACLE * oracle}", "ns", number):
                for at in range(0, number, _BULK):
                    cache.alloc_bulk(min(_BULK, number - at))
            seconds = _audits(arena, samples, f"audit{_ORACLE * oracle}")
            if oracle:
                samples["objects audited in a second", "M/s"].append(number / seconds / 1e6)
                continue
            _fast_paths(cpu, samples, "kmalloc")
            _fast_paths(cpu, samples, "kmalloc_nolock")
            with _taken(samples, "slabinfo", "ms"):
                slabinfo(arena)
    return samples


def warm_up() -> None:
    """Import what is imported at first use."""
    of_sizes(1 << 24)


def caches_at_first() -> int:
    """Return the number of caches of an arena that nobody has created one in."""
    with Arena.create(size="16MiB", reserve="sparse") as arena:
        return int(arena.header.nr_caches)


def tsc_hz() -> float:
    """Return the ticks of the time stamp counter in a second."""
    with Arena.create(size="16MiB", reserve="sparse") as arena:
        return float(arena.header.tsc_hz)


def of_caches(number: int) -> Samples:
    """Have so many caches, each with a slab, and then do what does not concern them."""
    samples: Samples = defaultdict(list)
    with (
        Arena.create(size="256MiB", reserve="sparse", max_caches=number + 1, oracle=False) as arena,
        Cpu(arena, 0) as cpu,
    ):
        more = number - int(arena.header.nr_caches)
        if more > 0:
            with _taken(samples, "create one of them", "us", more):
                caches = [cpu.kmem_cache_create(f"cache{at}", 64 + 8 * (at % 100)) for at in range(more)]
            with _taken(samples, "a first allocation from each", "us", more):
                for cache in caches:
                    cache.alloc()
        _fast_paths(cpu, samples, "kmalloc")
        _fast_paths(cpu, samples, "kmalloc_nolock")
        _audits(arena, samples)
        with _taken(samples, "slabinfo", "ms"):
            slabinfo(arena)
    return samples


def _audits(arena: Arena, samples: Samples, what: str = "audit") -> float:
    """Audit twice: the second time its memory is there. Returns: the seconds of that."""
    with _taken(samples, f"first {what}", "ms"):
        audit(arena)
    with _taken(samples, what, "ms") as taken:
        audit(arena)
    return taken[0]


def _fast_paths(cpu: Cpu, samples: Samples, design: str) -> None:
    """Take the time of a pair, and of a batch of 64, replayed in C, in ns for an allocation and its free."""
    alone = ops(("alloc", {"size": 64, "slot": 0}), ("free", {"slot": 0}))
    batch = [("alloc", {"size": 64, "slot": slot}) for slot in range(64)]
    batch += [("free", {"slot": slot}) for slot in range(63, -1, -1)]
    for what, source in (("pair", alone), ("batch of 64", ops(*batch))):
        cpu.drain(cpu.replay(source, design=design, max_ops=_OPS).held)  # slabs, caches of the core
        for _ in range(_FAST):
            ns = _undisturbed(lambda source=source: _replayed_ns(cpu, source, design))  # type: ignore[misc]
            if ns is not None:
                samples[f"{what}, {design}", "ns"].append(ns)


def _replayed_ns(cpu: Cpu, source: bytes, design: str) -> float:
    result = cpu.replay(source, design=design, max_ops=_OPS)
    cpu.drain(result.held)
    return result.elapsed_s * _NS / (result.done / 2)


def _undisturbed(measure: Callable[[], float]) -> float | None:
    """Return what was measured, None if somebody else had the core meanwhile."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
    found = measure()
    return found if resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw == before else None


_FACTORS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


@contextmanager
def _taken(samples: Samples, what: str, unit: str, number: int = 1) -> Iterator[list[float]]:
    """Note the processor time of the context, in kernel and user; yield a list that gets it in seconds."""
    took: list[float] = []
    before = time.thread_time()
    yield took
    took.append(time.thread_time() - before)
    samples[what, unit].append(took[0] * _FACTORS[unit] / number)
