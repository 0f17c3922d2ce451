# SPDX-License-Identifier: MIT
"""What a test left behind: segments, processes, descriptors.

Right under xdist too: other workers' segments and processes are none of this worker's business. A
segment belongs to this worker if its name bears the worker's pid, that of a process the worker
started during the test, or that of a living descendant. The worker adopts orphans, so that a process whose
parent was killed on purpose is still found among its descendants.
"""

import ctypes
import gc
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

SHM_DIR = Path("/dev/shm")
_SEGMENT = re.compile(r"shmalloc-(\d+)-")
_KEPT_OPEN = "/matplotlib/mpl-data/fonts/"  # by matplotlib's font cache, for the life of the process
_PR_SET_CHILD_SUBREAPER = 36

_spawned: set[int] = set()
_apart: set[int] = set()


def watch_spawns() -> None:
    """Note the pid of every process that this one starts, and adopt the orphans among their children."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    original_init, original_fork = subprocess.Popen.__init__, os.fork

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original_init(self, *args, **kwargs)
        _spawned.add(self.pid)

    def fork() -> int:
        pid = original_fork()
        if pid:
            _spawned.add(pid)
        return pid

    subprocess.Popen.__init__ = init  # type: ignore[method-assign]
    os.fork = fork


@contextmanager
def set_apart(pids: Iterable[int]) -> Iterator[None]:
    """Have some processes come and go below these: a browser's, which outlives a test. Its starter sees to its end."""
    added = set(pids)
    _apart.update(added)
    try:
        yield
    finally:
        _apart.difference_update(added)


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def segments() -> dict[str, int]:
    """Map the name of each of our segments in /dev/shm to the pid in it."""
    names = os.listdir(SHM_DIR) if SHM_DIR.is_dir() else []
    return {name: int(match[1]) for name in names if (match := _SEGMENT.match(name))}


def descriptors() -> dict[int, str]:
    """Map each open descriptor of this process to what it leads to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed the folder
    return found


def children() -> dict[int, str]:
    """Map the pid of each living descendant to its command line; bury adopted orphans that have ended.

    What the processes of set_apart() have started is left out.
    """
    found = {}
    apart = {process.pid for pid in _apart for process in _below(pid)}
    for process in psutil.Process().children(recursive=True):
        if process.pid in apart:
            continue
        try:
            zombie = process.status() == psutil.STATUS_ZOMBIE
            if zombie and process.pid not in _spawned:
                os.waitpid(process.pid, os.WNOHANG)
                continue
            found[process.pid] = "not waited for" if zombie else " ".join(process.cmdline())
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
    return found


@dataclass
class Snapshot:
    """What there was before a test."""

    segments: dict[str, int] = field(default_factory=segments)
    descriptors: dict[int, str] = field(default_factory=descriptors)
    children: dict[int, str] = field(default_factory=children)

    @classmethod
    def take(cls) -> "Snapshot":
        """Begin a test."""
        _spawned.clear()
        return cls()

    def leaks(self) -> list[str]:
        """Say what is there now and was not then."""
        found = self._compare()
        if found:
            gc.collect()  # an exception's traceback may hold the last reference
            found = self._compare()
        return found

    def _compare(self) -> list[str]:
        now = children()
        mine = {os.getpid(), *_spawned, *now}
        return [
            *(
                f"segment {SHM_DIR / name}"
                for name, pid in segments().items()
                if name not in self.segments and pid in mine
            ),
            *(f"process {pid}: {line}" for pid, line in now.items() if pid not in self.children),
            *(
                f"descriptor {number} -> {target}"
                for number, target in descriptors().items()
                if self.descriptors.get(number) != target and _KEPT_OPEN not in target
            ),
        ]


def ownerless_segments() -> list[str]:
    """List the segments whose creator is dead, as `shmalloc ls` would."""
    return [name for name, pid in segments().items() if not psutil.pid_exists(pid)]
