# SPDX-License-Identifier: MIT
"""Cores on loan: a pool that all test processes of one user on this machine share.

A test whose CPU processes must have their cores to themselves leases them:

    from leases import lease

    with lease(2) as cores: ...

One file per core, locked with flock(2): a lease ends with its process, however that ends. A gate
lock is held while a lease is being collected, so that two tests never hold half of what they need.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

_POLL_S = 0.02
_held: list[int] = []


def pool_dir() -> Path:
    """Return the folder of the locks, the same for every test process of this user."""
    path = Path(tempfile.gettempdir(), f"shmalloc-cores-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def cores() -> list[int]:
    """List the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def lease(count: int) -> Iterator[tuple[int, ...]]:
    """Hold *count* cores; wait until so many are free, skip the test if the machine has fewer.

    Yields: the numbers of the cores.
    """
    if count > len(cores()):
        pytest.skip(f"needs {count} cores to itself; this process may use {len(cores())}")
    if _held:
        raise RuntimeError(f"this process already leases cores {_held}: a second lease could never end")
    with contextlib.ExitStack() as stack:
        got = _collect(count, stack)
        _held[:] = got
        try:
            yield tuple(got)
        finally:
            _held.clear()


def _collect(count: int, stack: contextlib.ExitStack) -> list[int]:
    got: list[int] = []
    with (pool_dir() / "gate.lock").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        while True:
            for number in cores():
                if number not in got and (file := _try_lock(pool_dir() / f"core-{number}.lock")):
                    stack.enter_context(file)
                    got.append(number)
                if len(got) == count:
                    return got
            time.sleep(_POLL_S)  # flock cannot wait for "any of these"


def _try_lock(path: Path) -> IO[str] | None:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
