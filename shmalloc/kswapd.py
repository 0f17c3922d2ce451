# SPDX-License-Identifier: MIT
"""Being the kswapd of a node: reclaim in the background, in a CPU slot beyond the possible CPUs."""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import TYPE_CHECKING, Self

from shmalloc.errors import CpuBusy, ShmallocError

if TYPE_CHECKING:
    from shmalloc.arena import Arena


class Kswapd:
    """One node's kswapd, asleep at first; it is woken where the kernel wakes it.

    Either a process of its own that calls `run`, or a test that calls `step` when it would run.

    Args:
        arena: that it works on.
        node: its node.

    Raises:
        CpuBusy: the node has one.
        ShmallocError: there is no such node, or it has no memory.
    """

    def __init__(self, arena: Arena, node: int) -> None:
        arena.activate()
        self._lib, self._arena, self.node = arena.core.lib, arena, node
        result = self._lib.shm_kswapd_start(node) if node >= 0 else -errno.EINVAL
        if result == -errno.EBUSY:
            raise CpuBusy(f"node {node} of {arena.name} has a kswapd")
        if result:
            raise ShmallocError(f"kswapd of node {node}: {os.strerror(-result)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def awake(self) -> bool:
        """Whether it has been woken and has not gone back to sleep."""
        state = self._arena.item("struct node", "nodes", self.node).kswapd_state
        return int(state) == int(self._lib.KSWAPD_AWAKE)

    def step(self) -> int:
        """Do what it would do now, until it sleeps again.

        Returns:
            Pages given back; 0 if it sleeps.
        """
        return self._checked(self._lib.shm_kswapd_step(self.node))

    def run(self, seconds: float) -> bool:
        """Be it for so long; not in a thread that is a CPU.

        Returns:
            False once it has been told to end: then it is closed.
        """
        result = self._lib.shm_kswapd_run(self.node, seconds)
        if result == -errno.ETIMEDOUT:
            return True
        self._checked(result)
        return False

    def close(self) -> None:
        """Stop being it; the node has none then.  Again is no error."""
        self._lib.shm_kswapd_end(self.node)

    def _checked(self, result: int) -> int:
        if result < 0:
            raise ShmallocError(f"kswapd of node {self.node}: {os.strerror(-result)}")
        return int(result)
