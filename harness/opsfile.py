# SPDX-License-Identifier: MIT
"""All ops of a run in one file of memory, which the CPU processes map."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

import numpy as np

OpArray = np.ndarray[Any, Any]


def relocate(ops: OpArray, first_cache: int, codes: frozenset[int]) -> OpArray:
    """Return ops whose cache numbers are indices into the arena's table.

    Args: ops: with indices into the workload's caches.  first_cache: index of the first of those.
        codes: of the ops that name a cache.
    """
    moved = ops.copy()
    names_cache = np.isin(moved["code"], list(codes))
    moved["cache"][names_cache] += first_cache
    return moved


class OpsFile:
    """A file without a name, gone with the last process that has it open. Attributes: fd."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("shmalloc-ops")
        self._bytes = 0

    def add(self, ops: OpArray) -> list[int]:
        """Append an array. Returns: [offset in bytes, number of ops]."""
        view = np.ascontiguousarray(ops).view(np.uint8).data
        place = [self._bytes, len(ops)]
        while view:
            written = os.pwrite(self.fd, view, self._bytes)
            self._bytes += written
            view = view[written:]
        return place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)
