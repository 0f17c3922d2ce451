# SPDX-License-Identifier: MIT
"""Sheaves and a barn beside their model: which object, what is where, and every event, after each step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.sheaves import Cpu, Sheaves
from rig import Rig

CPUS = 2
KERNEL = 0xCC0
EVENTS = (
    *("sheaf_flush", "sheaf_refill", "sheaf_alloc", "sheaf_free", "free_rcu_sheaf"),
    *("barn_get", "barn_get_fail", "barn_put", "barn_put_fail"),
)
STATS = ("alloc_fastpath", "alloc_slowpath", "free_fastpath")
Step = tuple[str, int, int]  # what, on which CPU, how often
WHATS = ("alloc", "alloc_nolock", "free", "free_nolock", "kfree_rcu", "barrier", "flush")
STEPS = st.lists(st.tuples(st.sampled_from(WHATS), st.integers(0, CPUS - 1), st.integers(1, 23)), max_size=40)


class Both:
    """A cache of its own in an arena, and its model."""

    def __init__(self, rig: Rig, size: int) -> None:
        self.rig, self.lib = rig, rig.lib
        self.index = rig.cpu.kmem_cache_create("own", size).index
        capacity = int(rig.arena.item("struct kmem_cache", "caches", self.index).sheaf_capacity)
        self.model = Sheaves(capacity, [Cpu() for _ in range(CPUS)])
        self.model.events["sheaf_alloc"] = CPUS
        self.live: list[int] = []

    def step(self, what: str, cpu: int, times: int) -> None:
        if what == "kfree_rcu":
            cpu = 0  # callbacks of several CPUs have no order among them
        assert self.lib.shm_cpu_switch(cpu) == 0
        for _ in range(times if what not in ("barrier", "flush") else 1):
            getattr(self, what)(cpu)
            self.compare()

    def alloc(self, cpu: int, *, spin: bool = True) -> None:
        function = self.lib.shm_kmem_cache_alloc if spin else self.lib.shm_kmem_cache_alloc_nolock
        offset = function(self.index, KERNEL if spin else 0, -1)
        _, wanted = self.model.alloc(cpu, spin=spin)
        assert offset
        assert wanted in (None, offset)
        self.live.append(offset)

    def alloc_nolock(self, cpu: int) -> None:
        self.alloc(cpu, spin=False)

    def free(self, cpu: int, *, spin: bool = True) -> None:
        if not self.live:
            return
        offset = self.live.pop(len(self.live) * 2 // 3)
        taken = self.model.free(cpu, offset, spin=spin)
        before = int(self.stat(cpu).defer_free)
        assert (self.lib.shm_kfree if spin else self.lib.shm_kfree_nolock)(offset) == 0
        assert int(self.stat(cpu).defer_free) - before == (not taken and not spin)

    def free_nolock(self, cpu: int) -> None:
        self.free(cpu, spin=False)

    def kfree_rcu(self, cpu: int) -> None:
        if self.live:
            offset = self.live.pop()
            self.model.kfree_rcu(cpu, offset)
            assert self.lib.shm_kfree_rcu(offset, 0) == 0

    def barrier(self, _cpu: int) -> None:
        self.model.barrier()
        assert self.lib.shm_rcu_barrier() == 0

    def flush(self, _cpu: int) -> None:
        self.model.flush()
        assert self.lib.shm_flush_all(self.index) == 0
        assert self.lib.shm_rcu_barrier() == 0

    def stat(self, cpu: int) -> Any:
        at = cpu * self.rig.arena.header.geometry.max_caches + self.index
        return self.rig.arena.item("struct kmem_cache_stat", "cache_stats", at)

    def compare(self) -> None:
        sheaves = [self.rig.sheaves(cpu=cpu, cache=self.index) for cpu in range(CPUS)]
        sizes = [tuple(self.size(at) for at in (mine.main, mine.spare, mine.rcu_free)) for mine in sheaves]
        assert sizes == self.model.sizes()
        barn = self.rig.barn(cache=self.index)
        assert (barn.nr_full, barn.nr_empty) == (len(self.model.full), self.model.empty)
        events = {name: sum(int(getattr(mine, name)) for mine in sheaves) for name in EVENTS}
        events |= {name: sum(int(getattr(self.stat(c), name)) for c in range(CPUS)) for name in STATS}
        assert events == {name: self.model.events[name] for name in events}

    def size(self, offset: int) -> int:
        return int(self.rig.sheaf(offset).size) if offset else -1


@contextmanager
def both(size: int, flavour: str = "checked") -> Iterator[Both]:
    with Rig.create(cpus=CPUS, size="16MiB", flavour=flavour, kernel="7.0") as rig:
        yield Both(rig, size)
        assert rig.lib.shm_cpu_switch(0) == 0
        rig.assert_clean()


@settings(max_examples=13)
@given(steps=STEPS)
def test_short_histories(steps: list[Step]) -> None:
    with both(4096) as pair:
        for step in steps:
            pair.step(*step)


@pytest.mark.parametrize("size", [4096, 1024, 64])
def test_a_long_walk(flavour: str, size: int) -> None:
    draw = Random(size)
    filling, emptying = [9, 1, 1, 0, 1, 1, 0], [1, 1, 9, 2, 2, 1, 0.2]
    with both(size, flavour) as pair:
        for turn in range(101):  # in waves, so that the barn fills and runs dry
            weights = filling if turn // 12 % 2 == 0 else emptying
            most = pair.model.capacity * 3
            pair.step(*draw.choices(WHATS, weights), draw.randrange(CPUS), draw.randint(1, most))
        events = pair.model.events
        assert all(events[name] for name in ("barn_get", "barn_put", "barn_put_fail", "alloc_slowpath"))
