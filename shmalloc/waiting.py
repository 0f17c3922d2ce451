# SPDX-License-Identifier: MIT
"""RCU from Python: read-side sections, frees after a grace period, and waiting for one."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shmalloc.errors import BadFree, Unsupported

if TYPE_CHECKING:
    from typing import Any

    from shmalloc.arena import Arena
    from shmalloc.calls import Calls

_DOMAINS = ("rcu", "tasks_trace")


def domain_index(name: str) -> int:
    """Return the number of a domain of grace periods, ``"rcu"`` or ``"tasks_trace"``."""
    if name not in _DOMAINS:
        raise ValueError(f"domain = {name!r}: allowed are {', '.join(_DOMAINS)}")
    return _DOMAINS.index(name)


class Waiting:
    """What a CPU does with grace periods; a part of `Cpu`."""

    arena: Arena
    _calls: Calls
    _lib: Any

    @contextmanager
    def rcu_read_lock(self, domain: str = "rcu") -> Iterator[None]:
        """Be a reader: what is freed after a grace period meanwhile stays until this section's end."""
        number = domain_index(domain)
        self._calls.run(self._lib.shm_rcu_read_lock, number)
        try:
            yield
        finally:
            self._calls.run(self._lib.shm_rcu_read_unlock, number)

    def kfree_rcu(self, offset: int, head_offset: int = 0) -> None:
        """Free an object after a grace period.

        Args:
            offset: of the object, in bytes.
            head_offset: where in the object the 16 bytes begin that link it until then.

        Raises:
            BadFree: no live object of a slab begins there, or it has no such bytes; nothing was changed.
        """
        self._free_rcu(self._lib.shm_kfree_rcu, offset, head_offset)

    def kfree_rcu_nolock(self, offset: int, head_offset: int = 0) -> None:
        """Free an object after a grace period, without waiting for any lock; arenas of Linux 7.x only.

        Mirrors: mm/slab_common.c kfree_rcu_nolock (7.3).

        Args:
            offset: of the object, in bytes.
            head_offset: where in the object the 16 bytes begin that link it until then.

        Raises:
            BadFree: no live object of a slab begins there, or it has no such bytes; nothing was changed.
            Unsupported: the arena's kernel has no such call.
        """
        self._free_rcu(self._lib.shm_kfree_rcu_nolock, offset, head_offset)

    def _free_rcu(self, function: Callable[..., int], offset: int, head_offset: int) -> None:
        result = self._calls.call(function, offset, head_offset)
        if result == -errno.EOPNOTSUPP:
            raise Unsupported('kfree_rcu_nolock: allowed in an arena with kernel = "7.0"')
        if result:
            self._calls.refuse_caller()
            self._calls.raise_verdict()
            raise BadFree(
                offset,
                f"no live object of a slab begins there that holds 16 bytes at {head_offset} (a multiple of 8)",
            )

    def synchronize_rcu(self, domain: str = "rcu") -> None:
        """Wait for a grace period.

        Raises:
            DeadlockProved: this CPU, or another one of this thread, is a reader of the domain.
        """
        self._calls.run(self._lib.shm_synchronize_rcu, domain_index(domain))

    def rcu_barrier(self) -> None:
        """Wait until no callback is left on any CPU.

        Raises:
            DeadlockProved: as in `synchronize_rcu`, for any domain.
        """
        self._calls.run(self._lib.shm_rcu_barrier)

    def rcu_tick(self) -> None:
        """Do what the timer tick does: move grace periods on, invoke what is due on this CPU."""
        self._calls.run(self._lib.shm_rcu_tick)

    def rcu_pending(self) -> int:
        """Return the callbacks on all CPUs that are not yet invoked."""
        return self._calls.run(self._lib.shm_rcu_pending)
