# SPDX-License-Identifier: MIT
"""Starting the processes of a run, and making sure of their end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

_ROOT = Path(__file__).resolve().parent.parent
_ERROR_CHARS = 600
_POLL_S = 0.002


class Process:
    """One process of a run: a fresh interpreter with one of our modules.

    What it prints goes to memory files, so that neither side ever waits for the other.

    Attributes: role: for messages, "CPU 3".  cpu: its number, or None.  pid.
    """

    def __init__(
        self, role: str, cpu: int | None, popen: subprocess.Popen[bytes], out: int, err: int
    ) -> None:
        self.role = role
        self.cpu = cpu
        self.pid = popen.pid
        self._popen = popen
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
            with _memory_file(json.dumps(spec).encode()) as stdin, _interrupts_held():
                popen = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, segment, str(os.getpid())],
                    stdin=stdin,
                    stdout=out,
                    stderr=err,
                    pass_fds=tuple(fds),
                    env={**os.environ, "PYTHONPATH": _python_path()},
                )
        except BaseException:
            os.close(out)
            os.close(err)
            raise
        return cls(role, cpu, popen, out, err)

    def pin(self, core: int) -> None:
        """Keep the process on one core; one that has ended already does not mind."""
        with suppress(psutil.NoSuchProcess):
            psutil.Process(self.pid).cpu_affinity([core])

    def poll(self) -> int | None:
        """Return how it ended, a negative signal number if by a signal; None while it lives."""
        return self._popen.poll()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._popen.kill()

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
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
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


def _python_path() -> str:
    """Let the child find this very package, whatever its working directory is."""
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(_ROOT), *([inherited] if inherited else [])])


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


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let the child begin with Ctrl-C blocked, until it has said that it does not care."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
