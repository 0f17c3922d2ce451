# SPDX-License-Identifier: MIT
"""One process of the runner: measures one subject in one row, and may crash, hang or refuse without harm."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.bench.built import built
from harness.bench.rows import Row
from harness.bench.subjects import Subject

__all__ = ["Burst", "Check", "Failed", "Runner", "entries"]

EXECUTABLE = "shmalloc-bench-runner"
START_S, ANSWER_S = 60.0, 60.0
_LAST_BYTES = 400


class Failed(Exception):
    """A subject that is not measured in a row; the text says why.

    Attributes: broken: it crashed, hung or spoke nonsense; else it cannot do the row, and says so.
    """

    def __init__(self, why: str, *, broken: bool) -> None:
        self.broken = broken
        super().__init__(why)


@dataclass(frozen=True)
class Burst:
    """Samples taken one right after the other.

    Attributes:
        ns: of each, per allocation and free.
        switches: of each, how often others got the core.
        pairs, refused: of each, allocations, and how many yielded nothing.
        line_ns, line_after_ns: how long a cache line took between the sides before and after; 0 with one side.
        steal: ticks that the hypervisor gave to others meanwhile.
    """

    ns: tuple[float, ...]
    switches: tuple[int, ...]
    pairs: tuple[int, ...]
    refused: tuple[int, ...]
    line_ns: float
    line_after_ns: float
    steal: int

    @property
    def clean(self) -> list[float]:
        """The samples in which the core was ours."""
        if self.steal:
            return []
        return [ns for ns, switches in zip(self.ns, self.switches, strict=True) if not switches]


@dataclass(frozen=True)
class Check:
    """What a verifying run found. Attributes: pairs.  refused.  fault: None = nothing wrong."""

    pairs: int
    refused: int
    fault: str | None


class Runner:
    """A runner's process. As a context manager it is ended, whatever state it is in."""

    def __init__(self, subject: Subject, row: Row, cores: Sequence[int], ops: Path | None) -> None:
        """Start it; `ready` waits for it. Args: ops: file with the row's ops."""
        self.subject = subject
        self._said = os.memfd_create("shmalloc-bench-said")
        self._buffer = b""
        command = subject.runner or (str(built(EXECUTABLE)),)
        self._process = subprocess.Popen(
            [*command, *_words(subject, row, cores, ops)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **subject.environment},
            process_group=0,  # Ctrl-C is the parent's
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(kill=error is not None)

    def ready(self) -> None:
        """Wait until it is. Raises: Failed."""
        self._answer(START_S)

    def check(self, pairs: int) -> Check:
        """Let it verify that its objects are distinct and whole. Raises: Failed."""
        answer = self._ask(f"check {pairs}")
        try:
            return Check(int(answer["checked"]), int(answer["refused"]), answer["fault"])
        except (KeyError, TypeError, ValueError):
            raise self._nonsense(answer) from None

    def run(self, samples: int, microseconds: float) -> Burst:
        """Let it take samples of such a length. Raises: Failed."""
        answer = self._ask(f"run {samples} {microseconds}")
        try:
            columns = list(zip(*answer["samples"], strict=True))
            ns, pairs, switches, refused = columns
            if len(ns) != samples or not all(value > 0 for value in ns):
                raise self._nonsense(answer)
            return Burst(
                tuple(map(float, ns)),
                tuple(map(int, switches)),
                tuple(map(int, pairs)),
                tuple(map(int, refused)),
                float(answer["line_ns"]),
                float(answer.get("line_after_ns", answer["line_ns"])),
                int(answer["steal"]),
            )
        except (KeyError, TypeError, ValueError):
            raise self._nonsense(answer) from None

    def close(self, *, kill: bool = False) -> None:
        """End it: by the end of its stdin, or by force if it does not."""
        process = self._process
        if kill:
            process.kill()
        for end in (process.stdin, process.stdout):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.close()
        try:
            process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(self._said)

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        return self._answer(ANSWER_S)

    def _answer(self, seconds: float) -> dict[str, Any]:
        line = self._line(seconds)
        try:
            answer = json.loads(line)
        except ValueError:
            raise self._nonsense(line) from None
        if not isinstance(answer, dict):
            raise self._nonsense(line)
        if "cannot" in answer:
            raise Failed(str(answer["cannot"]), broken=False)
        if "died" in answer:
            raise Failed(str(answer["died"]), broken=True)
        return answer

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        descriptor, until = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                self._process.kill()
                raise Failed(f"did not answer within {seconds:.0f} s", broken=True)
            more = os.read(descriptor, 1 << 16)
            if not more:
                raise self._ended()
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _nonsense(self, answer: object) -> Failed:
        return Failed(f"its runner answered {str(answer)[:100]}", broken=True)

    def _ended(self) -> Failed:
        try:
            status = self._process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return Failed("its runner closed its output and went on", broken=True)
        how = f"with {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        start = max(0, os.fstat(self._said).st_size - _LAST_BYTES)
        said = os.pread(self._said, _LAST_BYTES, start).decode(errors="replace").strip()
        last = f": {said.splitlines()[-1]}" if said else ""
        return Failed(f"its runner ended {how}{last}", broken=True)


def _words(subject: Subject, row: Row, cores: Sequence[int], ops: Path | None) -> list[str]:
    words = {
        "plugin": subject.plugin,
        "subject": subject.entry,
        "row": row.name if row.kind == "python" else row.kind,
        "cores": ",".join(map(str, cores)),
        "options": subject.options,
    }
    if row.bytes:
        words |= {"bytes": row.bytes, "count": max(1, row.count)}
    if ops is not None:
        words["ops"] = ops
    if row.whole:
        words["whole"] = 1
    return [f"{key}={value}" for key, value in words.items()]


def entries(plugin: Path) -> list[dict[str, Any]]:
    """List the subjects of a plugin, as the runner reads them: name, summary, flags, max_bytes.

    Raises: Failed.
    """
    done = subprocess.run(
        [str(built(EXECUTABLE)), "list", str(plugin)], capture_output=True, check=False, timeout=START_S
    )
    found: list[dict[str, Any]] = []
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        if "cannot" in entry:
            raise Failed(str(entry["cannot"]), broken=True)
        found.append(entry)
    if done.returncode or not found:
        raise Failed(f"{plugin} has no subjects (status {done.returncode})", broken=True)
    return found
