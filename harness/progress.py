# SPDX-License-Identifier: MIT
"""Live progress on stderr: one line that is rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from harness import units

if TYPE_CHECKING:
    from rich.live import Live

    from harness.memory import Sample

_LIVE_S, _PLAIN_S = 0.2, 5.0  # between two lines


@dataclass(frozen=True)
class Goal:
    """What a cell is to do. Attributes: label: which cell of how many.  seconds, ops: 0 = no such limit."""

    label: str
    seconds: float
    ops: int


@dataclass(frozen=True)
class Advance:
    """How far an engine that has a list to work off has come.

    Attributes: t_s: since the start.  scenarios, of_scenarios: done, and all.  points: done.  of_points: all,
        some of them estimated; 0 = nobody knows yet.
    """

    t_s: float
    scenarios: int
    of_scenarios: int
    points: int
    of_points: int


class Progress(Protocol):
    """Something that is told how a run goes."""

    def begin(self, goal: Goal) -> None:
        """Begin a cell."""

    def update(self, sample: Sample | Advance) -> None:
        """Take note of a sample."""

    def end(self, verdict: str, expected: str) -> None:
        """End a cell."""

    def close(self) -> None:
        """End all; may be called twice."""


def line(goal: Goal, before: Sample | None, now: Sample) -> str:
    """Write one line: rate since the sample before, interrupts, failures, elapsed, time to go."""
    since_ops, since_s = (before.ops, before.t_s) if before else (0, 0.0)
    span_s = now.t_s - since_s
    rate = (now.ops - since_ops) / span_s if span_s > 0 else 0.0
    parts = [
        goal.label,
        f"{units.count(now.ops)} ops",
        f"{units.count(rate)} ops/s",
        f"{units.count(now.nmi)} NMIs",
        f"{units.count(now.irq)} IRQs",
        f"{units.count(now.failures)} failures",
        f"{units.count(now.used_bytes)}B used",
        f"{units.seconds(now.t_s)} elapsed",
    ]
    left_s = eta_s(goal, now)
    return "  ".join(parts if left_s is None else [*parts, f"ETA {units.seconds(left_s)}"])


def advance_line(goal: Goal, now: Advance) -> str:
    """Write one line: points, scenarios, elapsed, time to go."""
    parts = [
        goal.label,
        f"{units.count(now.points)} of {units.count(now.of_points)} points",
        f"{now.scenarios} of {now.of_scenarios} scenarios",
        f"{units.seconds(now.t_s)} elapsed",
    ]
    if now.points and now.of_points >= now.points:
        parts.append(f"ETA {units.seconds((now.of_points - now.points) * now.t_s / now.points)}")
    return "  ".join(parts)


def eta_s(goal: Goal, now: Sample) -> float | None:
    """Return the seconds to go, by whichever limit comes first; None if nobody knows."""
    ways = []
    if goal.seconds:
        ways.append(max(0.0, goal.seconds - now.t_s))
    if goal.ops and now.ops and now.t_s:
        ways.append(max(0, goal.ops - now.ops) * now.t_s / now.ops)
    return min(ways, default=None)


class Silent:
    """Says nothing."""

    def begin(self, goal: Goal) -> None:
        """Begin a cell."""

    def update(self, sample: Sample | Advance) -> None:
        """Take note of a sample."""

    def end(self, verdict: str, expected: str) -> None:
        """End a cell."""

    def close(self) -> None:
        """End all."""


class _Lines:
    """What both ways of showing have in common."""

    period_s = _PLAIN_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._goal = Goal("", 0.0, 0)
        self._before: Sample | None = None
        self._shown_at = 0.0

    def begin(self, goal: Goal) -> None:
        """Begin a cell."""
        self._goal, self._before, self._shown_at = goal, None, time.monotonic()

    def update(self, sample: Sample | Advance) -> None:
        """Show a sample, if the last is some time ago."""
        now = time.monotonic()
        if now - self._shown_at < self.period_s:
            return
        self._shown_at = now
        if isinstance(sample, Advance):
            self.show(advance_line(self._goal, sample))
            return
        self.show(line(self._goal, self._before, sample))
        self._before = sample

    def show(self, text: str) -> None:
        """Show a line."""
        print(text, file=self._stream, flush=True)

    def end(self, verdict: str, expected: str) -> None:
        """End a cell."""
        print(_ended(self._goal, verdict, expected), file=self._stream, flush=True)

    def close(self) -> None:
        """End all."""


class Plain(_Lines):
    """A line every few seconds."""


class Terminal(_Lines):
    """One line that is rewritten. It refreshes by itself never: the parent starts no thread."""

    period_s = _LIVE_S

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._live: Live | None = None

    def begin(self, goal: Goal) -> None:
        """Begin a cell."""
        from rich.console import Console
        from rich.live import Live

        super().begin(goal)
        self._live = Live("", console=Console(file=self._stream), auto_refresh=False, transient=True)
        self._live.start()
        self.show(f"{goal.label}  starting")

    def show(self, text: str) -> None:
        """Rewrite the line."""
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def end(self, verdict: str, expected: str) -> None:
        """Replace the line by the verdict."""
        self.close()
        super().end(verdict, expected)

    def close(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _ended(goal: Goal, verdict: str, expected: str) -> str:
    return f"{goal.label}: {verdict}" + ("" if verdict == expected else f" (expected {expected})")


def choose(stream: TextIO | None = None, *, quiet: bool = False) -> Progress:
    """Choose how progress is shown. Args: stream: default stderr.  quiet: not at all."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Silent()
    return Terminal(stream) if stream.isatty() else Plain(stream)
