# SPDX-License-Identifier: MIT
"""The processes that sweep, one for each core, and the parent's talk with them: lines of JSON over a socket."""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.problems import CannotRun
from harness.processes import Process, reap
from harness.verdicts import death_text, death_verdict
from shmalloc.mapping import PREFIX

_MODULE = "harness.atlas.entry"
_SEGMENT = f"{PREFIX}of-a-worker"  # their arenas lose their names as soon as they have them
_SHM = Path("/dev/shm")
_GRACE_S = 2.0
_PART_BYTES = 1 << 20
_LISTEN_S = 0.1
_MOST_DEATHS = 5

Order = Mapping[str, Any]  # {"do": what, ...}


class Worker:
    """One process that sweeps. Attributes: core.  order: what it is at; None = idle."""

    def __init__(self, core: int, spec: Mapping[str, Any]) -> None:
        self.core = core
        self.order: Order | None = None
        self._rest = b""
        self._socket, theirs = socket.socketpair()
        try:
            fd = theirs.fileno()
            role = f"the worker on core {core}"
            self.process = Process.start(role, None, _MODULE, _SEGMENT, {**spec, "fd": fd}, (fd,))
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self.process.pin(core)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def give(self, order: Order) -> None:
        """Give it something to do; one that has died will be met by whoever listens."""
        self.order = order
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(json.dumps(order).encode() + b"\n")

    def heard(self) -> Iterator[dict[str, Any] | None]:
        """Yield what it has said since, and None at its end."""
        try:
            part = self._socket.recv(_PART_BYTES)
        except ConnectionResetError:
            part = b""
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            yield dict(json.loads(line))
        if not part:
            yield None

    def death(self) -> dict[str, Any]:
        """Say how it ended, as the answer to its order."""
        reap([self.process], _GRACE_S)
        code = self.process.poll() or 0
        text = f"{self.process.role} {death_text(code)}"
        errors = self.process.errors()
        if errors:
            text += f": {errors.splitlines()[-1]}"
        return {"died": text, "verdict": death_verdict(code)}

    def close(self) -> None:
        """End it, whatever it does; nothing of it is left."""
        self.process.kill()
        self.process.close()
        self._socket.close()
        for path in _SHM.glob(
            f"{PREFIX[1:]}{self.process.pid}-*"
        ):  # killed before it could take the name away
            path.unlink(missing_ok=True)


class Crew:
    """The workers of a cell; leaving the context ends them. Args: cores: one worker each.  spec: what all are told."""

    def __init__(self, cores: Sequence[int], spec: Mapping[str, Any]) -> None:
        self._spec = spec
        self._selector = selectors.DefaultSelector()
        self._deaths: list[str] = []
        self.workers: list[Worker] = []
        try:
            for core in cores:
                self.start(core)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, core: int) -> Worker:
        """Start a worker on a core."""
        worker = Worker(core, self._spec)
        self.workers.append(worker)
        self._selector.register(worker, selectors.EVENT_READ, worker)
        return worker

    def work_off(
        self, orders: Iterable[Order], tick: Callable[[], None]
    ) -> Iterator[tuple[Order, dict[str, Any]]]:
        """Have the workers carry out orders, each the next as soon as it is free.

        Args: orders: looked at only when somebody is free.  tick: called several times a second.
        Yields: an order and what was said about it: `points` on the way, at its end `done`, `failed` (why), or
            `died` (how) and `verdict`, whereupon another worker takes the dead one's place.
        Raises: CannotRun: this machine cannot do it, or workers die without end.
        """
        waiting = iter(orders)
        for worker in self.workers:
            self._next(worker, waiting)
        while any(worker.order is not None for worker in self.workers):
            tick()
            for key, _ in self._selector.select(_LISTEN_S):
                for message in key.data.heard():
                    yield from self._heard(key.data, message, waiting)
        tick()

    def _heard(
        self, worker: Worker, message: dict[str, Any] | None, waiting: Iterator[Order]
    ) -> Iterator[tuple[Order, dict[str, Any]]]:
        order = worker.order
        if message is None:
            message = worker.death()
            worker = self._replace(worker, message["died"])
        if "cannot" in message:
            raise CannotRun(message["cannot"])
        if order is None:
            raise CannotRun(f'engine = "atlas": {message}, from a worker that had nothing to do')
        yield order, message
        if "points" not in message:
            self._next(worker, waiting)

    def _next(self, worker: Worker, waiting: Iterator[Order]) -> None:
        worker.order = None
        order = next(waiting, None)
        if order is not None:
            worker.give(order)

    def _replace(self, worker: Worker, why: str) -> Worker:
        """Start another in the place of one that has died."""
        self._deaths.append(why)
        self._selector.unregister(worker)
        self.workers.remove(worker)
        worker.close()
        if len(self._deaths) > _MOST_DEATHS:
            raise CannotRun(f'engine = "atlas": worker after worker dies: {"; ".join(self._deaths)}')
        return self.start(worker.core)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()
        self.workers.clear()
        self._selector.close()
