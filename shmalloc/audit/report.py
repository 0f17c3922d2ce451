# SPDX-License-Identifier: MIT
"""What an audit says: problems, totals and notes, and how the checks collect them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["BROKEN_RULE", "CORRUPTION", "LOST_MEMORY", "AuditReport", "Findings", "Problem"]

CORRUPTION = "corruption"  # the allocator's state contradicts itself, or memory has two places
LOST_MEMORY = "lost_memory"  # memory that nobody owns and that no allocation can find
BROKEN_RULE = "broken_rule"  # a lock, a mask or a buddy left as it must not be left

_WORST_FIRST = (CORRUPTION, LOST_MEMORY, BROKEN_RULE)
_SHOWN = 5  # of each kind; the rest are counted


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes: verdict: "corruption", "lost_memory" or "broken_rule".  where: the zone, cache, CPU or
        page.  text: what is wrong there, with the numbers.
    """

    verdict: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.where}: {self.text}"


@dataclass(frozen=True)
class AuditReport:
    """The result of one audit.

    Attributes: problems: everything that is wrong; of many alike, the first few and their number.
        totals: pages, slabs, objects and bytes by state, overall and per cache.  notes: what is no
        error and still worth a word, such as pages parked on a deferred list.  seconds: it took.
    """

    problems: list[Problem] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """The worst problem's verdict, or "ok"."""
        found = {problem.verdict for problem in self.problems}
        return next((verdict for verdict in _WORST_FIRST if verdict in found), "ok")


class Findings:
    """Collects problems while the checks run, and remembers what they make doubtful.

    A broken list is one problem; that the counters disagree with it too is a consequence, and would
    only hide it. So a check that finds a structure broken doubts its zone or cache, and the checks
    that add up leave that one alone.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.totals: dict[str, int] = {}
        self.notes: list[str] = []
        self._doubtful: set[tuple[str, int]] = set()

    def add(self, verdict: str, where: str, text: str) -> None:
        """Record one problem."""
        self.problems.append(Problem(verdict, where, text))

    def add_each(
        self, verdict: str, items: Iterable[int], describe: Callable[[int], tuple[str, str]], alike: str
    ) -> None:
        """Record one problem for each of the first few items, and one for the rest together.

        Args: describe: makes (where, text) of an item.  alike: what the items are, in the plural.
        """
        found = [int(item) for item in items]
        for item in found[:_SHOWN]:
            self.add(verdict, *describe(item))
        if len(found) > _SHOWN:
            self.add(verdict, "arena", f"{len(found) - _SHOWN} more {alike}, {len(found)} in all")

    def doubt(self, kind: str, index: int) -> None:
        """Distrust the counters of a "zone", "cache" or "slab"."""
        self._doubtful.add((kind, int(index)))

    def trusts(self, kind: str, index: int) -> bool:
        """Say whether nothing was found wrong with it so far."""
        return (kind, int(index)) not in self._doubtful

    def trusted_of(self, kind: str, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say of some of a kind whether nothing was found wrong with them so far."""
        doubted = [index for other, index in self._doubtful if other == kind]
        return ~np.isin(indices, doubted) if doubted else np.ones(len(indices), bool)

    def trusted(self, kind: str, length: int) -> NDArray[np.bool_]:
        """Say of each of the first *length* of a kind whether nothing was found wrong with it."""
        mask = np.ones(length, bool)
        mask[[index for doubted, index in self._doubtful if doubted == kind and index < length]] = False
        return mask
