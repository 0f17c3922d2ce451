# SPDX-License-Identifier: MIT
"""Which arena is looked at: the one that was named, or the only one, and then those that its process makes next.

A run of several cells makes an arena for each, one after the other, under fresh names.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.top.observed import Observed, is_alive
from shmalloc._binding import core as load_core
from shmalloc.errors import AbiMismatch, HostileArena, NotAnArena, ShmallocError
from shmalloc.segments import SegmentInfo, list_segments


@dataclass(frozen=True)
class Waiting:
    """There is no arena yet. Attributes: text: what is waited for."""

    text: str


@dataclass(frozen=True)
class Over:
    """There will be none. Attributes: text: why.  is_usage: it must be said which one."""

    text: str
    is_usage: bool = False


class Follower:
    """Finds the arena to look at. Args: name: of it, None = the only one.  wait: for one that is not there yet."""

    def __init__(self, name: str | None, *, wait: bool) -> None:
        self._name = name
        self._wait = wait
        self._why: str | None = None  # the last one is over
        self._creator: tuple[int, int] | None = None

    def find(self) -> Observed | Waiting | Over:
        """Look once.

        Raises: ShmallocError: the arena that was named cannot be looked at, and it is not to be waited for.
            ValueError: it cannot be a name.
        """
        found = self._the_only() if self._name is None else self._named(self._name)
        if isinstance(found, Observed):
            self._creator = found.creator
        return found

    def leave(self, arena: Observed, why: str) -> None:
        """Let go of an arena that is over."""
        arena.close()
        self._why = why

    def _named(self, name: str) -> Observed | Waiting | Over:
        if self._why is not None and not self._wait:
            return Over(self._why)
        try:
            found = Observed.attach(name)
        except (AbiMismatch, HostileArena):
            raise
        except ShmallocError as error:
            if not self._wait:
                raise
            return Waiting(str(error))
        if self._why is not None and not found.users():  # the one that is over
            found.close()
            return Waiting(f"{self._why}; waiting for the next of that name")
        return found

    def _the_only(self) -> Observed | Waiting | Over:
        follows = self._creator is not None and is_alive(load_core(), *self._creator)
        live = [info for info in list_segments() if info.state == "ready" and info.users]
        if follows and self._creator is not None:
            live = [info for info in live if info.creator_pid == self._creator[0]]
        elif self._why is not None and not self._wait:
            return Over(f"{self._why}, and so has the process that made it")
        if len(live) > 1:
            return Over(f"which arena? {', '.join(info.name for info in live)}", is_usage=True)
        if live:
            return self._attached(live[0])
        if follows and self._creator is not None:
            return Waiting(f"{self._why}; waiting for the next arena of process {self._creator[0]}")
        if self._wait:
            return Waiting(f"{self._why}; waiting for the next" if self._why else "waiting for an arena")
        return Over("there is no arena in use; name one (shmalloc ls), or --wait", is_usage=True)

    def _attached(self, info: SegmentInfo) -> Observed | Waiting:
        try:
            return Observed.attach(info.name)
        except NotAnArena:  # it has just gone
            return Waiting(f"{info.name} has ended")
