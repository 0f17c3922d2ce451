# SPDX-License-Identifier: MIT
"""Starting the processes of a run, and making sure of their end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from harness import spawning
from harness.spawning import Handle

_ERROR_CHARS = 600
_POLL_S = 0.002


class Process:
    """One process of a run: an interpreter with one of our modules.

    What it prints goes to memory files, so that neither side ever waits for the other.

    Attributes: role: for messages, "CPU 3".  cpu: its number, or None.  pid.
    """

    def __init__(self, role: str, cpu: int | None, handle: Handle, out: int, err: int) -> None:
        self.role = role
        self.cpu = cpu
        self.pid = handle.pid
        self._handle = handle
        self._out, self._err = out, err

    @classmethod
    def start(
        cls,
        role: str,
        cpu: int | None,
        module: str,
        segment: str,
        spec: Mapping[str, Any],
        fds: Sequence[int] = (),
    ) -> Process:
        """Start a module. Args: segment: the arena's name.  spec: its JSON, on stdin.  fds: to keep open."""
        out, err = os.memfd_create("shmalloc-out"), os.memfd_create("shmalloc-err")
        try:
            with _memory_file(json.dumps(spec).encode()) as stdin:
                handle = spawning.start(
                    module,
                    (segment, str(os.getpid())),
                    spec.get("flavour"),
                    {0: stdin, 1: out, 2: err, **{fd: fd for fd in fds}},
                )
        except BaseException:
            os.close(out)
            os.close(err)
            raise
        return cls(role, cpu, handle, out, err)

    def pin(self, core: int) -> None:
        """Keep the process on one core; one that has ended already does not mind."""
        with suppress(psutil.NoSuchProcess):
            psutil.Process(self.pid).cpu_affinity([core])

    def poll(self) -> int | None:
        """Return how it ended, a negative signal number if by a signal; None while it lives."""
        return self._handle.poll()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._handle.kill()

    def report(self) -> dict[str, Any]:
        """Return the JSON that it printed last, empty if none."""
        lines = _read(self._out).strip().splitlines()
        try:
            found = json.loads(lines[-1]) if lines else {}
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}

    def errors(self) -> str:
        """Return the end of what it wrote to stderr."""
        return _read(self._err).strip()[-_ERROR_CHARS:]

    def close(self) -> None:
        """Reap it, for good, and let go of what it printed."""
        if self._handle.poll() is None:
            self._handle.kill()
            self._handle.wait()
        os.close(self._out)
        os.close(self._err)


def reap(processes: Sequence[Process], grace_s: float) -> None:
    """Wait until all have ended; kill those that take too long."""
    deadline = time.monotonic() + grace_s
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
            deadline = float("inf")
        time.sleep(_POLL_S)


def _read(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


@contextmanager
def _memory_file(data: bytes) -> Iterator[int]:
    """Hold bytes in a file of memory, positioned at its start."""
    fd = os.memfd_create("shmalloc-in")
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
