# SPDX-License-Identifier: MIT
"""Records the events of a cell's replay, from the parent, and leaves them beside its other arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.config import Config
    from shmalloc.arena import Arena
    from shmalloc.trace import Events

__all__ = ["Traced", "ring_bytes"]

_DEFAULT_BYTES = 1 << 20


def ring_bytes(config: Config) -> int:
    """Return bytes of each CPU's ring; 0 = none."""
    return config.trace.buffer or (_DEFAULT_BYTES if config.trace.events else 0)


@dataclass
class Traced:
    """What of a cell is recorded; CPUs wait where it begins and where it ends, so nothing of theirs is left out.

    Args: arena: the run's.  config: of the cell.
    Attributes: behind: CPUs that had not switched when the replay began: those that take no interrupts.
    """

    arena: Arena
    config: Config
    behind: list[int] = field(default_factory=list)
    _began: int = 0
    _ended: int = 0
    _events: Events | None = None
    _counts: list[dict[str, int]] = field(default_factory=list)

    def begin(self) -> None:
        """Switch on."""
        self._began = self._tsc()
        self.behind = self.arena.trace.on(self.config.trace.events, self.config.trace.mode)

    def end(self) -> None:
        """Switch off, and take what is there; a second call changes nothing."""
        if self._events is not None:
            return
        self.arena.trace.off()
        self._ended = self._tsc()
        self._events = self.arena.trace.read()
        read = {cpu: int((self._events.records["cpu"] == cpu).sum()) for cpu in self._events.cpus}
        self._counts = [
            {
                "cpu": state.cpu,
                "pid": state.pid,
                "events": state.events,
                "recorded": read.get(state.cpu, 0),
                "overwritten": state.overwritten,
                "lost": state.lost,
            }
            for state in self.arena.trace.states()
        ]

    def _tsc(self) -> int:
        return int(self.arena.core.lib.shm_tsc())

    def leave(self, pieces: dict[str, list[Any]], number: int) -> dict[str, Any]:
        """Put the trace among a run's arrays. Args: number: of the cell.  Returns: what its JSON says of it."""
        self.end()
        assert self._events is not None
        name = f"trace-{number:03}"
        pieces.setdefault("arrays", []).append((name, self._events.arrays()))
        return {
            "file": f"arrays/{name}.npz",
            "selected": list(self.config.trace.events),
            "mode": self.config.trace.mode,
            **{key: sum(each[key] for each in self._counts) for key in _SUMMED},
            "tsc_start": self._began,
            "tsc_stop": self._ended,
            "cpus": self._counts,
        }


_SUMMED = ("events", "recorded", "overwritten", "lost")
