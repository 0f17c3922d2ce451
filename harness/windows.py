# SPDX-License-Identifier: MIT
"""Windows: what a run did in each of some stretches of about equal length, so that a number has a spread.

The parent looks at the arena's counts at the windows' borders; where it is kept waiting for a core, a window is longer
and the next one shorter, and rates are by each one's own length.  The first border is when every CPU has begun, the
last when none has finished: start and end are in no window. The failures of the start are kept by themselves: a
run may fail all the time once its memory lies so, and until then not at all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.quantiles import mid_quantiles
from harness.vocabulary import CONTEXTS, KINDS, Vocabulary

if TYPE_CHECKING:
    from shmalloc.arena import Arena

__all__ = ["WINDOWS", "Look", "Windows", "span_json"]

WINDOWS = 12  # of a run whose duration is known; of another one up to twice as many
START_S = 0.02
FIRST_PERIOD_S = 0.005  # where it is not known; it doubles as the run gets long

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Look:
    """Counts at one moment, from the start of the run.

    Attributes: t_s: on a clock of its own.  processor_s: used by the CPUs; None if one could not be asked.  ops.
        handled: interrupts, shape (kinds,).  allocs: (contexts,).  failures: (contexts, reasons), the first is
        "no reason".  latency: (contexts, buckets).
    """

    t_s: float
    processor_s: float | None
    ops: int
    handled: Array
    allocs: Array
    failures: Array
    latency: Array

    @classmethod
    def of(cls, telemetry: Array, t_s: float, processor_s: float | None, ops: int) -> Look:
        """Sum over CPUs and designs. Args: telemetry: struct shm_telemetry, shape (cpus,)."""
        counts = telemetry["counts"]
        return cls(
            t_s=t_s,
            processor_s=processor_s,
            ops=ops,
            handled=telemetry["interrupts"]["handled"].sum(axis=0, dtype=np.uint64),
            allocs=counts["allocs"].sum(axis=(0, 1), dtype=np.uint64),
            failures=counts["failures"].sum(axis=(0, 1), dtype=np.uint64),
            latency=telemetry["latency"].sum(axis=0, dtype=np.uint64),
        )

    def start(self) -> Look:
        """Return what there was before anything happened."""
        nothing = {name: getattr(self, name) * 0 for name in ("handled", "allocs", "failures", "latency")}
        return Look(0.0, None if self.processor_s is None else 0.0, 0, **nothing)


def processor_s(pid: int) -> float | None:
    """Return the processor time that a process has used, to the nanosecond; None if there is none any more."""
    with contextlib.suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)
    return None


class Windows:
    """Cuts a run into windows, from the parent.

    Args: arena: the run's.  pids: of its CPUs.  seconds: how long it will take, 0 = nobody knows.
        finished: the number of the phase that ends the run.  clock: in seconds.
    """

    def __init__(
        self,
        arena: Arena,
        pids: Sequence[int],
        seconds: float,
        finished: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._telemetry = arena.region("telemetry")
        self._cpus = arena.region("cpus")
        self._tsc_hz = float(arena.header.tsc_hz)
        self._pids = list(pids)
        self._finished = finished
        self._doubles = not seconds
        self._period_s = seconds / (WINDOWS + 1) if seconds else FIRST_PERIOD_S
        self._due_s = 0.0
        self._start: Look | None = None
        self._looks: list[Look] = []
        self._peaks: list[int] = []  # bytes in use, most in the window that begins with the look
        self._peak = 0

    def tick(self, used_bytes: int) -> None:
        """Look, if a border is reached. Args: used_bytes: memory in use, as last seen."""
        self._peak = max(self._peak, used_bytes)
        now_s = self._clock()
        if self._start is None and self._looks and now_s - self._looks[0].t_s >= START_S:
            self._start = self._look(now_s)
        if now_s < self._due_s:
            return
        numbers = slice(len(self._pids))
        if not self._looks and not self._cpus["ops_done"][numbers].all():
            return
        look = self._look(now_s)
        if (self._cpus["phase_done"][numbers] >= self._finished).any():  # asked last: nobody idled before
            self._due_s = float("inf")
            return
        if self._looks:
            self._peaks.append(self._peak)
        self._looks.append(look)
        self._peak = used_bytes
        if self._doubles and len(self._looks) > 2 * WINDOWS:
            self._halve()
        begin_s = self._looks[0].t_s
        self._due_s = begin_s + (round((now_s - begin_s) / self._period_s) + 1) * self._period_s

    def _halve(self) -> None:
        """Make two windows one, of each two."""
        del self._looks[1::2]
        self._peaks = [max(pair) for pair in zip(self._peaks[::2], self._peaks[1::2], strict=True)]
        self._period_s *= 2

    def _look(self, now_s: float) -> Look:
        """Look now. The counts are read while they change: each is off by what is in flight."""
        used = [processor_s(pid) for pid in self._pids]
        whole = None if None in used else sum(filter(None, used))
        return Look.of(self._telemetry, now_s, whole, int(self._cpus["ops_done"].sum()))

    def start_json(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """Write what was asked for and failed in the first `START_S`, by context; nothing of a shorter run."""
        if self._start is None:
            return {}
        span = span_json(self._start.start(), self._start, self._tsc_hz, vocabulary)
        return {
            context: {key: counts[key] for key in ("allocs", "failures")}
            for context, counts in span["contexts"].items()
        }

    def as_json(self, vocabulary: Vocabulary) -> list[dict[str, Any]]:
        """Write the windows, in order."""
        start_s = self._looks[0].t_s if self._looks else 0.0
        return [
            {
                "t_s": round(before.t_s - start_s, 4),
                **span_json(before, after, self._tsc_hz, vocabulary),
                "used_bytes": peak,
            }
            for before, after, peak in zip(self._looks, self._looks[1:], self._peaks, strict=False)
        ]


def span_json(before: Look, after: Look, tsc_hz: float, vocabulary: Vocabulary) -> dict[str, Any]:
    """Write what happened between two looks; contexts and reasons only where there was something."""
    seconds = after.t_s - before.t_s
    ops = after.ops - before.ops
    used = None
    if before.processor_s is not None and after.processor_s is not None:
        used = round(after.processor_s - before.processor_s, 6)
    return {
        "seconds": round(seconds, 6),
        "processor_s": used,
        "ops": ops,
        "throughput_ops_s": round(ops / seconds, 1) if seconds else 0.0,
        "interrupts": {kind: int(after.handled[at] - before.handled[at]) for at, kind in enumerate(KINDS)},
        "contexts": {
            context: _context(
                int(after.allocs[at] - before.allocs[at]),
                after.failures[at] - before.failures[at],
                after.latency[at] - before.latency[at],
                tsc_hz,
                vocabulary,
            )
            for at, context in enumerate(CONTEXTS)
            if after.allocs[at] != before.allocs[at] or (after.failures[at] != before.failures[at]).any()
        },
    }


def _context(
    allocs: int, failures: Array, latencies: Array, tsc_hz: float, vocabulary: Vocabulary
) -> dict[str, Any]:
    named = {name: int(failures[at]) for at, name in enumerate(vocabulary.reasons, start=1)}
    return {
        "allocs": allocs,
        "failures": {name: number for name, number in named.items() if number},
        "latency_ns": mid_quantiles(latencies, tsc_hz),
        "timed": int(latencies.sum(dtype=np.uint64)),
    }
