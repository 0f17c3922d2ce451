# SPDX-License-Identifier: MIT
"""What the processes of a run have in common: they end when their parent does, and leave nothing behind.

Imports the standard library and shmalloc only: no numpy, which starts threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

FINISHED = 0
FAILED = 1  # an exception: the traceback is on stderr
STOPPED = 3  # header.stop was set: asked to end
VERDICT = 4  # a verdict ended the replay
ORPHANED = 5  # the parent is gone

_PR_SET_PDEATHSIG = 1
_SHM = Path("/dev/shm")
_DYING_S = 1.0


@dataclass(frozen=True)
class Child:
    """This process, as its parent described it.

    Attributes: segment: name of the arena.  parent: pid.  spec: what to do.
    """

    segment: str
    parent: int
    spec: dict[str, Any]

    @property
    def is_orphan(self) -> bool:
        """Whether the parent has gone."""
        return os.getppid() != self.parent

    def end(self, code: int, *, told: bool = False, **report: Any) -> NoReturn:
        """Report and exit; an orphan removes the segment's name, whoever of them is first.

        Args: code: exit status.  told: SIGTERM has come, which may mean that the parent is dying.
        """
        if self.is_orphan or (told and orphaned_soon(self.parent)):
            unlink(self.segment)
            code = ORPHANED
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def begin() -> Child:
    """Tie this process to its parent and read what to do: argv is segment and parent, stdin is JSON."""
    segment, parent = sys.argv[1], int(sys.argv[2])

    def ended(_number: int, _frame: object) -> None:
        if orphaned_soon(parent):
            unlink(segment)
        os._exit(ORPHANED)

    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it died before prctl
        unlink(segment)
        os._exit(ORPHANED)
    spec = json.load(sys.stdin)
    if spec.get("core") is not None:
        os.sched_setaffinity(0, {spec["core"]})  # before it is a CPU, which says where it runs
    return Child(segment, parent, spec)


def orphaned_soon(parent: int) -> bool:
    """Whether the parent goes within a second.

    The signal comes when the thread that started us dies; while other threads of the parent are still
    dying, getppid() goes on naming it.
    """
    deadline = time.monotonic() + _DYING_S
    while os.getppid() == parent:
        if time.monotonic() > deadline:
            return False
        time.sleep(_DYING_S / 100)
    return True


def unlink(segment: str) -> None:
    """Remove the segment's name, and those of arenas that this process has made, if they are still there."""
    import posix_ipc

    from shmalloc.mapping import PREFIX

    own = (f"/{path.name}" for path in _SHM.glob(f"{PREFIX[1:]}{os.getpid()}-*"))
    for name in (segment, *own):
        with contextlib.suppress(posix_ipc.ExistentialError):
            posix_ipc.unlink_shared_memory(name)
