# SPDX-License-Identifier: MIT
"""Starting the processes of a run: by a zygote that a run keeps, or as fresh interpreters.

Both ways they are children of this process, with the same arguments, descriptors and environment.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from harness.zygote import MODULES, REQUEST_BYTES

_ROOT = Path(__file__).resolve().parent.parent
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_LOST = 1  # the exit status of a process that somebody else has reaped
_PADDING = "." * 200  # room for the arguments of what the zygote becomes

_ANSWER_S = 30.0  # of waiting for a zygote, which answers in milliseconds

_kept: list[list[Zygote]] = []  # one list while a zygote is to be kept, with the zygote once there is one


class Handle(Protocol):
    """A process that this one has started, as `subprocess.Popen` and `Forked` show it."""

    pid: int

    def poll(self) -> int | None:
        """Return how it ended, a negative signal number if by a signal; None while it lives."""

    def kill(self) -> None:
        """End it."""

    def wait(self) -> int:
        """Wait for its end, and return how it ended."""


class Forked:
    """A process that a zygote has made, and this one has adopted."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended: int | None = None

    def poll(self) -> int | None:
        """Return how it ended, a negative signal number if by a signal; None while it lives."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end, and return how it ended."""
        ended = self._wait(0)
        assert ended is not None
        return ended

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self._ended is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                self._ended = _LOST
            else:
                self._ended = os.waitstatus_to_exitcode(status) if pid else None
        return self._ended


class Zygote:
    """The parent's end of one; see harness.zygote."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self._connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(_ANSWER_S)
        arguments = ["harness.zygote", str(os.getpid()), str(other.fileno()), _PADDING]
        with other, _interrupts_held():
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(other.fileno(),),
                env=environment(),
            )

    def close(self) -> None:
        """End it; what it has made lives on."""
        self._connection.close()
        self._popen.kill()
        self._popen.wait()

    @property
    def fits(self) -> bool:
        """Whether what it makes would be what a fresh interpreter would be now."""
        return self.environment == dict(os.environ) and self._popen.poll() is None

    def start(
        self, module: str, arguments: Sequence[str], flavour: str, descriptors: Mapping[int, int]
    ) -> Forked | None:
        """Have a process made. Returns: it; None if the zygote cannot, for whatever reason."""
        request = {
            "module": module,
            "flavour": flavour,
            "arguments": list(arguments),
            "descriptors": list(descriptors),
        }
        try:
            with _adopting():
                socket.send_fds(self._connection, [json.dumps(request).encode()], list(descriptors.values()))
                answer: dict[str, Any] = json.loads(self._connection.recv(REQUEST_BYTES) or b"{}")
        except (OSError, ValueError):
            self._popen.kill()
            return None
        return Forked(answer["pid"]) if "pid" in answer else None


@contextmanager
def kept_zygote() -> Iterator[None]:
    """Start processes by a zygote while the context lasts; it is made when it is first needed."""
    if _kept:
        yield
        return
    mine: list[Zygote] = []
    _kept.append(mine)
    try:
        yield
    finally:
        _kept.remove(mine)
        for zygote in mine:
            zygote.close()


def start(
    module: str, arguments: Sequence[str], flavour: str | None, descriptors: Mapping[int, int]
) -> Handle:
    """Start a module.

    Args: flavour: of the core that it will load; None = it says so itself.  descriptors: what it will have open,
        by the number that it is to have there; 0, 1 and 2 are among them.
    """
    if _kept and flavour is not None and module in MODULES:
        forked = _zygote(_kept[0]).start(module, arguments, flavour, descriptors)
        if forked is not None:
            return forked
    return _fresh(module, arguments, descriptors)


def _zygote(kept: list[Zygote]) -> Zygote:
    """Return the zygote that is kept, or another if it is of no use any more."""
    if kept and not kept[0].fits:
        kept.pop().close()
    if not kept:
        kept.append(Zygote())
    return kept[0]


def _fresh(module: str, arguments: Sequence[str], descriptors: Mapping[int, int]) -> Handle:
    with _interrupts_held():
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=descriptors[0],
            stdout=descriptors[1],
            stderr=descriptors[2],
            pass_fds=tuple(number for number in descriptors if number > 2),
            env=environment(),
        )


def environment() -> dict[str, str]:
    """Let the child find this very package, whatever its working directory is."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(_ROOT), *([inherited] if inherited else [])])
    return {**os.environ, "PYTHONPATH": path}


@contextmanager
def _adopting() -> Iterator[None]:
    """Be the parent of what loses its own below this process."""
    libc, before = ctypes.CDLL(None, use_errno=True), ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this machine does not let a process adopt")
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let the child begin with Ctrl-C blocked, until it has said that it does not care."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
