# SPDX-License-Identifier: MIT
"""Running an op array at machine speed, from Python."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shmalloc import designs
from shmalloc.program import OpArray

if TYPE_CHECKING:
    from shmalloc.calls import Calls
    from shmalloc.program import BufferLike


@dataclass(frozen=True)
class ReplayResult:
    """What a replay did.

    Attributes:
        done: ops executed.
        elapsed_s: seconds.
        stopped: whether somebody stopped the arena's run before the end.
        held: the ops and their private slots, see `Cpu.drain`.
    """

    done: int
    elapsed_s: float
    stopped: bool
    held: OpArray


def run_replay(
    calls: Calls,
    source: BufferLike,
    *,
    design: str,
    slots: int | BufferLike | None,
    max_ops: int,
    seconds: float,
    sample: int,
    pattern: bool,
) -> ReplayResult:
    """Run an op array; see `Cpu.replay`."""
    core = calls.arena.core
    held = OpArray(core, source, slots)
    replay: Any = core.ffi.new(
        "struct shm_replay *",
        {
            "ops": held.ops,
            "nr_ops": held.nr_ops,
            "max_ops": max_ops,
            "seconds": seconds,
            "slots": held.slots_pointer,
            "nr_slots": len(held.slots),
            "design": designs.index(design),
            "sample": sample,
            "flags": core.lib.SHM_REPLAY_PATTERN if pattern else 0,
        },
    )
    result = calls.run(core.lib.shm_replay, replay, allowed=(-errno.ECANCELED,))
    return ReplayResult(int(replay.done), float(replay.elapsed), result != 0, held)
