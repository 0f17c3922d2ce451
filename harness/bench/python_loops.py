# SPDX-License-Identifier: MIT
"""What is timed of Python: loops as a user would write them, each beside the same loop with nothing in it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from harness.bench.peers.python_own import CALLS
from shmalloc import Arena, Cpu

__all__ = ["LOOPS", "Loop", "empty", "timed"]

BYTES = 64
BULK = 512
ITEMS = 1000  # float64 of an array
_ARENA: dict[str, Any] = {"size": "64MiB", "kernel": "7.0", "nr_cpus": 2}
_RING = 64
_PR_SET_PDEATHSIG = 1

Body = Callable[[range], None]


@dataclass(frozen=True)
class Loop:
    """A loop. Attributes: body: goes round once for each number.  pairs: allocations of a round.

    sound: makes some and says what is wrong with them; None = nothing.  wakes: it has the core taken from itself, by a
        process of its own that it wakes (multiprocessing's tracker), so this says nothing about others.
    """

    body: Body
    sound: Callable[[int], str | None]
    pairs: int = 1
    wakes: bool = False


@contextmanager
def _cpu(**keys: Any) -> Iterator[Cpu]:
    with Arena.create(**_ARENA | keys) as arena, Cpu(arena, 0) as cpu:
        arena.unlink()  # whoever ends this process by force would leave its name
        yield cpu


def _distinct(views: list[Any]) -> str | None:
    """Write to each what no other holds, then read all again."""
    for number, view in enumerate(views):
        view[:8] = number.to_bytes(8, "little")
    wrong = [at for at, view in enumerate(views) if int.from_bytes(view[:8], "little") != at]
    return f"object {wrong[0]} of {len(views)} was written to by another" if wrong else None


@contextmanager
def _kmalloc(**keys: Any) -> Iterator[Loop]:
    with _cpu(**keys) as cpu:

        def body(rounds: range) -> None:
            for _ in rounds:
                cpu.kfree(cpu.kmalloc(BYTES))

        def sound(pairs: int) -> str | None:
            offsets = [cpu.kmalloc(BYTES) for _ in range(pairs)]
            fault = _distinct([cpu.view(offset, BYTES) for offset in offsets])
            for offset in offsets:
                cpu.kfree(offset)
            return fault

        yield Loop(body, sound)


@contextmanager
def _block() -> Iterator[Loop]:
    with _cpu(oracle=False) as cpu:

        def body(rounds: range) -> None:
            for _ in rounds:
                cpu.block(BYTES)

        yield Loop(body, lambda pairs: _distinct([memoryview(cpu.block(BYTES)) for _ in range(pairs)]))


@contextmanager
def _bulk() -> Iterator[Loop]:
    sizes = np.full(BULK, BYTES, np.uint64)
    with _cpu(oracle=False) as cpu:
        offsets = np.empty(BULK, np.uint64)
        backwards = offsets[::-1]

        def body(rounds: range) -> None:
            for _ in rounds:
                cpu.kmalloc_bulk(sizes, out=offsets)
                cpu.kfree_bulk(backwards)

        def sound(pairs: int) -> str | None:
            offsets = cpu.kmalloc_bulk(np.full(pairs, BYTES))
            fault = _distinct([cpu.view(offset, BYTES) for offset in offsets.tolist()])
            cpu.kfree_bulk(offsets)
            return fault

        yield Loop(body, sound, BULK)


@contextmanager
def _array() -> Iterator[Loop]:
    kind = np.dtype("f8")
    with _cpu(oracle=False) as cpu:

        def body(rounds: range) -> None:
            for _ in rounds:
                cpu.take(cpu.give(cpu.empty(ITEMS, kind)))

        def sound(pairs: int) -> str | None:
            arrays = [cpu.take(cpu.give(cpu.empty(ITEMS, kind))) for _ in range(min(pairs, 1009))]
            return _distinct([array.view("u1").data for array in arrays])

        yield Loop(body, sound)


@contextmanager
def _segments() -> Iterator[Loop]:
    """As the documentation of multiprocessing.shared_memory shows it; the second end is in this process, too."""
    kind, bytes_ = np.dtype("f8"), ITEMS * 8

    def body(rounds: range) -> None:
        for _ in rounds:
            made = SharedMemory(create=True, size=bytes_)
            array = np.ndarray((ITEMS,), kind, made.buf)
            got = SharedMemory(made.name)
            taken = np.ndarray((ITEMS,), kind, got.buf)
            del array, taken
            made.close()
            got.close()
            got.unlink()

    yield Loop(body, lambda pairs: None, wakes=True)


@contextmanager
def _peer(name: str) -> Iterator[Loop]:
    calls = CALLS[name]()
    alloc, free = calls.alloc, calls.free

    def dropped(rounds: range) -> None:
        for _ in rounds:
            alloc(BYTES)

    def freed(rounds: range) -> None:
        assert free is not None
        for _ in rounds:
            free(alloc(BYTES))

    def sound(pairs: int) -> str | None:
        held = [alloc(BYTES) for _ in range(min(pairs, 101))]
        views = [calls.view(one) for one in held]
        fault = _distinct(views)
        for view in views:
            view.release()
        if free is not None:
            for one in held:
                free(one)
        return fault

    yield Loop(freed if free is not None else dropped, sound)


# --- to another process ---------------------------------------------------------------------------


class _Ring:
    """A ring of words between two processes; each side spins."""

    def __init__(self) -> None:
        self.words = memoryview(mmap.mmap(-1, (_RING + 24) * 8)).cast("Q")
        self.sent, self.got = _RING + 8, _RING + 16  # on lines of their own

    def send(self, at: int, word: int) -> None:
        words, got = self.words, self.got
        while at - words[got] >= _RING:
            os.sched_yield()
        words[at % _RING] = word
        words[self.sent] = at + 1

    def receive(self, at: int) -> int:
        words, sent = self.words, self.sent
        while words[sent] == at:
            os.sched_yield()
        return words[at % _RING]


@contextmanager
def _child(run: Callable[[], None]) -> Iterator[None]:
    """Run something in a process of its own, on another core if there is one, until it is ended."""
    mine, parent = os.sched_getaffinity(0), os.getpid()
    pid = os.fork()
    if not pid:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            others = set(range(os.cpu_count() or 1)) - mine
            if others:
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(0, others)
            run()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def _handover(
    send_one: Callable[[], int], receive: Callable[[], Callable[[int], None]], *, wakes: bool = False
) -> Iterator[Loop]:
    ring, sent = _Ring(), 0
    words, got = ring.words, ring.got

    def consume() -> None:
        take, at = receive(), 0
        while True:
            take(ring.receive(at))
            at += 1
            words[got] = at

    def body(rounds: range) -> None:
        nonlocal sent
        for _ in rounds:
            ring.send(sent, send_one())
            sent += 1
        while words[got] != sent:
            os.sched_yield()

    with _child(consume):
        yield Loop(body, lambda pairs: None, wakes=wakes)


@contextmanager
def _array_handover() -> Iterator[Loop]:
    kind = np.dtype("f8")
    with _cpu(oracle=False) as cpu:

        def send_one() -> int:
            array = cpu.empty(ITEMS, kind)
            array[0] = 1.0
            return cpu.give(array)

        def receive() -> Callable[[int], None]:
            other = Cpu(cpu.arena, 1)

            def take(offset: int) -> None:
                assert other.take(offset)[0] == 1.0

            return take

        cpu.give(cpu.empty(1))  # numpy is set up before the fork
        with _handover(send_one, receive) as loop:
            yield loop


@contextmanager
def _segment_handover() -> Iterator[Loop]:
    kind, name, number = np.dtype("f8"), f"shmalloc-{os.getpid()}-", 0
    SharedMemory(name + "0", create=True, size=8).unlink()  # its tracker is there before the fork

    def send_one() -> int:
        nonlocal number
        number += 1
        made = SharedMemory(f"{name}{number}", create=True, size=ITEMS * 8)
        array = np.ndarray((ITEMS,), kind, made.buf)
        array[0] = 1.0
        del array
        made.close()
        return number

    def take(word: int) -> None:
        got = SharedMemory(f"{name}{word}")
        array = np.ndarray((ITEMS,), kind, got.buf)
        assert array[0] == 1.0
        del array
        got.close()
        got.unlink()

    with _handover(send_one, lambda: take, wakes=True) as loop:
        yield loop


@contextmanager
def _tensor_handover() -> Iterator[Loop]:
    """As pyarrow's documentation writes and reads tensors: by way of a file that both map."""
    import pyarrow

    folder, name, number = Path("/dev/shm"), f"shmalloc-{os.getpid()}-", 0

    def send_one() -> int:
        nonlocal number
        number += 1
        array = np.empty(ITEMS)
        array[0] = 1.0
        tensor = pyarrow.Tensor.from_numpy(array)
        path = str(folder / f"{name}{number}")
        with pyarrow.create_memory_map(path, pyarrow.ipc.get_tensor_size(tensor)) as file:
            pyarrow.ipc.write_tensor(tensor, file)
        return number

    def take(word: int) -> None:
        path = folder / f"{name}{word}"
        with pyarrow.memory_map(str(path)) as file:
            assert pyarrow.ipc.read_tensor(file).to_numpy()[0] == 1.0
        path.unlink()

    with _handover(send_one, lambda: take) as loop:
        yield loop


LOOPS: dict[str, Callable[[], Any]] = {
    "python_kmalloc": lambda: _kmalloc(oracle=False),
    "python_kmalloc_oracle": lambda: _kmalloc(),
    "python_block": _block,
    "python_heap": lambda: _peer("python_heap"),
    "python_pyarrow": lambda: _peer("python_pyarrow"),
    "python_bytearray": lambda: _peer("python_bytearray"),
    "python_bulk": _bulk,
    "python_array": _array,
    "python_shared_memory": _segments,
    "python_array_sent": _array_handover,
    "python_shared_memory_sent": _segment_handover,
    "python_pyarrow_sent": _tensor_handover,
}


def empty(rounds: range) -> None:
    """Go round with nothing to do."""
    for _ in rounds:
        pass


def timed(body: Body, rounds: range) -> int:
    """Return how long a loop takes, in ns."""
    start = time.perf_counter_ns()
    body(rounds)
    return time.perf_counter_ns() - start
