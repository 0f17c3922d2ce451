# SPDX-License-Identifier: MIT
"""Sheaves and a barn of one cache on one node, in plain Python (7.0's rules); memory is never short.

A sheaf is a list of objects; one that a refill has brought is None until it is handed out, since which objects lie in
slabs is not modelled.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MAX_FULL = MAX_EMPTY = 10
Sheaf = list[int | None]


@dataclass
class Cpu:
    """One CPU's sheaves."""

    main: Sheaf = field(default_factory=list)
    spare: Sheaf | None = None
    rcu: Sheaf | None = None


@dataclass
class Sheaves:
    """All that is cached.

    Attributes: full: the barn's full sheaves, the one that is taken next first.  empty: how many empty ones it
        has.  pending: sheaves that wait for a grace period, oldest first.  events: by the core's names.
    """

    capacity: int
    cpus: list[Cpu]
    full: list[Sheaf] = field(default_factory=list)
    empty: int = 0
    pending: list[Sheaf] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)

    def alloc(self, cpu: int, *, spin: bool) -> tuple[bool, int | None]:
        """Return whether a sheaf serves the request, and which object it is, None if that is open."""
        mine = self.cpus[cpu]
        if not mine.main and not self._get_full(mine, spin=spin):
            self.events["alloc_slowpath"] += 1
            return False, None
        self.events["alloc_fastpath"] += 1
        return True, mine.main.pop()

    def _get_full(self, mine: Cpu, *, spin: bool) -> bool:
        if mine.spare:
            mine.main, mine.spare = mine.spare, mine.main
            return True
        if self.full:
            self.events["barn_get"] += 1
            mine.main = self.full.pop(0)
            self.empty += 1
            return True
        self.events["barn_get_fail"] += 1
        if not spin:
            return False
        if mine.spare is not None:
            mine.spare = None
        else:
            self._take_empty()
        self.events["sheaf_refill"] += self.capacity
        if mine.spare is None:
            mine.spare = []
        else:
            self.empty += 1
        mine.main = [None] * self.capacity
        return True

    def _take_empty(self) -> None:
        if self.empty:
            self.empty -= 1
        else:
            self.events["sheaf_alloc"] += 1

    def free(self, cpu: int, obj: int, *, spin: bool) -> bool:
        """Return whether a sheaf takes the object."""
        mine = self.cpus[cpu]
        if len(mine.main) == self.capacity and not self._make_room(mine, spin=spin):
            return False
        self.events["free_fastpath"] += 1
        mine.main.append(obj)
        return True

    def _make_room(self, mine: Cpu, *, spin: bool) -> bool:
        if mine.spare is not None and len(mine.spare) < self.capacity:
            mine.main, mine.spare = mine.spare, mine.main
            return True
        enough = mine.spare is not None and len(self.full) >= MAX_FULL
        if not spin and (enough or not self.empty):
            return False
        if mine.spare is None:
            self._take_empty()
            mine.spare = mine.main
        elif enough:
            self.events["barn_put_fail"] += 1
            self.events["sheaf_flush"] += self.capacity
            mine.spare = mine.main
        else:
            self._take_empty()
            self._put_full(mine.main)
        mine.main = []
        return True

    def _put_full(self, sheaf: Sheaf) -> None:
        self.events["barn_put"] += 1
        self.full.insert(0, sheaf)

    def kfree_rcu(self, cpu: int, obj: int) -> None:
        """Collect an object; a full sheaf begins to wait."""
        mine = self.cpus[cpu]
        if mine.rcu is None:
            if mine.spare is not None and not mine.spare:
                mine.spare = None
            else:
                self._take_empty()
            mine.rcu = []
        mine.rcu.append(obj)
        self.events["free_rcu_sheaf"] += 1
        if len(mine.rcu) == self.capacity:
            self.pending.append(mine.rcu)
            mine.rcu = None

    def barrier(self) -> None:
        """Wait for the grace period, and do what is to be done after it."""
        for sheaf in self.pending:
            if len(self.full) < MAX_FULL:
                self._put_full(sheaf)
                continue
            self.events["barn_put_fail"] += 1
            self.events["sheaf_flush"] += len(sheaf)
            if self.empty < MAX_EMPTY:
                self.empty += 1
            else:
                self.events["sheaf_free"] += 1
        self.pending.clear()

    def flush(self) -> None:
        """Empty every CPU, and wait for the grace period of what kfree_rcu had collected."""
        for mine in self.cpus:
            for sheaf in (mine.spare, mine.rcu):
                if sheaf is not None:
                    self.events["sheaf_flush"] += len(sheaf)
                    self.events["sheaf_free"] += 1
            self.events["sheaf_flush"] += len(mine.main)
            mine.main, mine.spare, mine.rcu = [], None, None
        self.barrier()

    def sizes(self) -> list[tuple[int, int, int]]:
        """Return what each CPU has: objects in main, spare and rcu sheaf, -1 for none."""
        return [
            (len(cpu.main), *(-1 if sheaf is None else len(sheaf) for sheaf in (cpu.spare, cpu.rcu)))
            for cpu in self.cpus
        ]
