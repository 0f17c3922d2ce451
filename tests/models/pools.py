# SPDX-License-Identifier: MIT
"""A preallocated map in plain Python: a dict, and a stack of free elements for each CPU."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class MapModel:
    """What a preallocated map must do.

    Attributes: entries: max_entries.  cpus: possible ones.  values: key -> value.  free: elements on each CPU's
        freelist, the next to be popped last.  spare: each CPU's.  where: key -> element.
    """

    entries: int
    cpus: int
    values: dict[int, int] = field(default_factory=dict)
    where: dict[int, int] = field(default_factory=dict)
    free: list[list[int]] = field(default_factory=list)
    spare: list[int] = field(default_factory=list)
    steals: int = 0

    def __post_init__(self) -> None:
        dealt = 0
        for cpu in range(self.cpus):
            share = self.entries // self.cpus + (cpu < self.entries % self.cpus)
            self.free.append(list(range(dealt, dealt + share)))
            dealt += share
        self.spare = list(range(self.entries, self.entries + self.cpus))

    def update(self, cpu: int, key: int, value: int, flag: str) -> str:
        """Insert or replace. Returns: the name of the error, or nothing."""
        if key in self.values and flag == "noexist":
            return "EEXIST"
        if key not in self.values and flag == "exist":
            return "ENOENT"
        if key in self.values:
            self.spare[cpu], self.where[key] = self.where[key], self.spare[cpu]
        else:
            element = self._pop(cpu)
            if element is None:
                return "E2BIG"
            self.where[key] = element
        self.values[key] = value
        return ""

    def delete(self, cpu: int, key: int) -> str:
        """Delete. Returns: the name of the error, or nothing."""
        if key not in self.values:
            return "ENOENT"
        del self.values[key]
        self.free[cpu].append(self.where.pop(key))
        return ""

    def _pop(self, cpu: int) -> int | None:
        for other in [*range(cpu, self.cpus), *range(cpu)]:
            if self.free[other]:
                self.steals += other != cpu
                return self.free[other].pop()
        return None
