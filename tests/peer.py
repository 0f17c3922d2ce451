# SPDX-License-Identifier: MIT
"""Another CPU in a process of its own, which does what it is told: one call of its Rig after the other.

with Peer(rig.arena, 1) as peer:
    peer.do("alloc", size=64)
    peer.begin("alloc")          # does not wait
    until(lambda: peer.waits_for())
    peer.result()
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rig import Rig

from shmalloc import Arena, Cpu, ops

DEADLINE_S = 60.0  # for what takes milliseconds: a machine may be slow, but a test must end


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.0005)


class _PeerRig(Rig):
    """What only another process is asked for."""

    def irqs_off(self) -> None:
        self.lib.shm_irq_save()

    def irqs_restored(self) -> None:
        self.lib.shm_irq_restore(0)

    def replay_for(self, lines: list[Any], seconds: float) -> int:
        """Replay lines for so long. Returns: ops that were executed."""
        made = ops(*(line if isinstance(line, str) else (line[0], line[1]) for line in lines))
        return int(self.cpu.replay(made, design="kmalloc_nolock", seconds=seconds).done)


class Peer:
    """A CPU process of a test. Args: keys: of its Cpu."""

    def __init__(self, arena: Arena, number: int, **keys: bool) -> None:
        self.number = number
        self.state = arena.item("struct shm_cpu", "cpus", number)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                str(Path(__file__)),
                arena.name,
                arena.flavour,
                str(number),
                json.dumps(keys),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        assert self.result() == "ready"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._to.close()
        self._from.close()
        self._process.wait()

    def done(self) -> bool:
        """Whether the call that was begun has returned."""
        return bool(select.select([self._from], [], [], 0)[0])

    def begin(self, call: str, *arguments: Any, **keys: Any) -> None:
        """Have a method of the process's Rig called."""
        self._to.write(json.dumps([call, arguments, keys]) + "\n")
        self._to.flush()

    def result(self) -> Any:
        """What the last call returned, or the name of the exception that it raised."""
        ready, _, _ = select.select([self._from], [], [], DEADLINE_S)
        assert ready, f"CPU {self.number} does not answer"
        line = self._from.readline()
        assert line, f"CPU {self.number} has ended: {self._process.wait()}"
        return json.loads(line)

    def do(self, call: str, *arguments: Any, **keys: Any) -> Any:
        self.begin(call, *arguments, **keys)
        return self.result()

    def waits_for(self) -> int:
        """Offset of the lock word that the CPU spins on, 0 if none; its level is in the highest byte."""
        return int(self.state.waiting_for) & (1 << 56) - 1

    def until_it_waits_for(self, lock: int) -> None:
        until(lambda: self.waits_for() == lock, f"CPU {self.number} waits for the lock at {lock:#x}")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it as the OOM killer does, and leave the zombie there."""
        self._process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)


def main() -> None:
    segment, flavour, number, keys = sys.argv[1:]
    with Arena.attach(segment, flavour=flavour) as arena, Cpu(arena, int(number), **json.loads(keys)) as cpu:
        rig = _PeerRig(arena, [cpu])
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            call, arguments, named = json.loads(line)
            try:
                result = getattr(rig, call)(*arguments, **named)
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
            print(json.dumps(result), flush=True)
        rig.disarm()


if __name__ == "__main__":
    main()
