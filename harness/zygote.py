# SPDX-License-Identifier: MIT
"""A process that has imported what the processes of a run need, and becomes one of them by forking.

A fresh interpreter takes 50 ms of processor time to get there, a fork 1 ms. What it makes is what a fresh
interpreter would be: a child of our parent (the one in between ends at once, and the parent adopts), of one
thread, with the descriptors and arguments it was given and no others; only the address that it maps the arena at
would be everybody's, so each first takes some room of a random size.

`python -P -m harness.zygote PARENT DESCRIPTOR PADDING`: requests come over a socket, with descriptors.
Imports the standard library and shmalloc only: no numpy, which starts threads, and threads do not survive a fork.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import mmap
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

MODULES = ("harness.cpu_process", "harness.injector", "harness.kswapd", "harness.script.process")
REQUEST_BYTES = 65536
MOST_DESCRIPTORS = 32

_PR_SET_PDEATHSIG = 1
_SOON_S = 0.0001
_ROOM_PAGES = 1 << 20  # up to 4 GiB of address space
_ARGUMENTS_START, _ARGUMENTS_END = 48, 49  # fields of /proc/self/stat, from 1


def main() -> None:
    """Serve requests until the parent hangs up."""
    parent, descriptor = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    with socket.socket(fileno=descriptor) as connection:
        while True:
            text, received, _, _ = socket.recv_fds(connection, REQUEST_BYTES, MOST_DESCRIPTORS)
            if not text:
                return
            connection.send(json.dumps(_serve(json.loads(text), received)).encode())
            for one in received:
                os.close(one)


def _serve(request: dict[str, Any], received: list[int]) -> dict[str, Any]:
    """Make one process; say its pid, or why there is none."""
    try:
        module = _prepared(request)
    except Exception as error:  # a fresh interpreter says it better
        return {"error": str(error)}
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        return {"error": f"{threads} threads"}
    reading, writing = os.pipe()
    between = os.fork()
    if not between:
        between = os.getpid()
        pid = os.fork()
        if pid:
            os.write(writing, pid.to_bytes(8, "little"))
            os._exit(0)
        _become(between, request, received, module)
    os.close(writing)
    try:
        os.waitpid(between, 0)  # from here on the process is our parent's child
        return {"pid": int.from_bytes(os.read(reading, 8), "little")}
    finally:
        os.close(reading)


def _prepared(request: dict[str, Any]) -> Any:
    """Import what the process will need."""
    from shmalloc._binding import core

    if request["module"] not in MODULES:
        raise ValueError(f"module = {request['module']!r}: allowed are {', '.join(MODULES)}")
    module = importlib.import_module(request["module"])
    core(request["flavour"])
    gc.freeze()  # a collection in the child would copy every page of what is there already
    return module


def _become(between: int, request: dict[str, Any], received: list[int], module: Any) -> NoReturn:
    """Be the process that was asked for."""
    try:
        _take_descriptors(received, request["descriptors"])
        sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
        sys.stderr = open(2, "w", errors="backslashreplace", buffering=1)  # noqa: SIM115
        sys.argv = [module.__file__, *request["arguments"]]
        _show_arguments(f"-P -m {request['module']} {' '.join(request['arguments'])}")
        while os.getppid() == between:
            time.sleep(_SOON_S)  # it is about to end
        room = mmap.mmap(-1, mmap.PAGESIZE * _random_pages(), flags=mmap.MAP_PRIVATE, prot=0)
        module.main()
        room.close()
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    os._exit(1)


def _random_pages() -> int:
    return 1 + int.from_bytes(os.urandom(4), "little") % _ROOM_PAGES


def _take_descriptors(received: list[int], wanted: list[int]) -> None:
    """Have what was received under the numbers that are wanted, and nothing else open."""
    above = max(wanted) + 1
    for number, one in zip(wanted, [fcntl.fcntl(one, fcntl.F_DUPFD, above) for one in received], strict=True):
        os.dup2(one, number)
    begin = 0
    for number in [*sorted(wanted), os.sysconf("SC_OPEN_MAX")]:
        if begin < number:  # CPython makes "all" of an empty range from 0
            os.closerange(begin, number)
        begin = number + 1


def _show_arguments(text: str) -> None:
    """Have `ps` show what the process is: its arguments lie where the kernel put those of the zygote."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(fields[field - 3]) for field in (_ARGUMENTS_START, _ARGUMENTS_END))
    shown = b"\0".join([sys.executable.encode(), *text.encode().split()]) + b"\0"
    if len(shown) <= end - start:
        ctypes.memmove(start, shown.ljust(end - start, b"\0"), end - start)


if __name__ == "__main__":
    main()
