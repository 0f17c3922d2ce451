# SPDX-License-Identifier: MIT
"""Measuring: all subjects of a row side by side, in turns, on pinned cores.

A round starts a fresh process for each subject and takes few samples of it, so that what depends on the luck of a
process, such as where its pages lie, is in the spread: of a thing and itself, five bursts from each of three
processes differed now and then by 6 %, outside of their intervals; two from each of eight do not. In a pass each
subject takes one burst of short samples, in an order that is drawn anew; a burst's median is one sample of the
row. Samples in which somebody else had the core are dropped, and counted; a burst that has no other is taken again.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from harness.bench.own import EMPTY
from harness.bench.rows import Line, Row
from harness.bench.runner import Burst, Failed, Runner
from harness.bench.subjects import Subject
from harness.estimates import Estimate, estimate

__all__ = ["AGAIN", "NEAR_NS", "Effort", "Measured", "line_of", "measure_row", "ops_file", "twin"]

AGAIN = "_again"
NEAR_NS = (
    100.0  # a cache line from one core to the other: some 20 to 60 ns within a cache, 100 and more beyond
)
_MOST_REFUSED = 0.01
_ATTEMPTS = 3  # bursts for each that is wanted, before what there is has to do


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        passes: bursts of a subject in a round.
        burst: samples of a burst.
        microseconds: of a sample.
        check_pairs: allocations of the verifying run before the first round of a row.
    """

    passes: int = 2
    burst: int = 7
    microseconds: float = 200.0
    check_pairs: int = 4000


@dataclass
class Measured:
    """A subject in a row, so far.

    Attributes:
        bursts: the median of each, with the line that it met; of a row with one side that is None.
        taken, dropped: samples, and those in which the core was not ours.
        pairs, refused: allocations of the samples that were not, and those that yielded nothing.
        why: it is not measured, because; None = it is.
        broken: because it crashed, hung, or gave out memory that was not its to give.
    """

    subject: Subject
    bursts: list[tuple[float, Line | None]] = field(default_factory=list)
    taken: int = 0
    dropped: int = 0
    pairs: int = 0
    refused: int = 0
    why: str | None = None
    broken: bool = False

    def estimate(self, line: Line | None = None) -> Estimate | None:
        """Return its median and interval, of bursts that met this line only; None = there are none."""
        bursts = [ns for ns, met in self.bursts if line is None or met == line]
        return estimate(bursts) if bursts else None

    def fail(self, why: str, *, broken: bool) -> None:
        """Take it out of the row."""
        self.why, self.broken = why, broken
        self.bursts.clear()

    def add(self, burst: Burst) -> bool:
        """Take a burst in. Returns: it counts."""
        self.taken += len(burst.ns)
        same_line = line_of(burst.line_ns) == line_of(burst.line_after_ns)  # else one of the sides was moved
        clean = burst.clean if same_line else []
        self.dropped += len(burst.ns) - len(clean)
        for switches, pairs, refused in zip(burst.switches, burst.pairs, burst.refused, strict=True):
            if not switches:  # whoever held a lock when its core was taken has others refused
                self.pairs += pairs
                self.refused += refused
        if clean:
            self.bursts.append((median(clean), line_of(burst.line_ns) if burst.line_ns else None))
        return bool(clean)


def line_of(line_ns: float) -> Line:
    """Tell whether a cache line that takes so long is near."""
    return "near" if line_ns < NEAR_NS else "far"


def twin(subject: Subject) -> Subject:
    """Return a second instance of a subject, which must show no difference."""
    return replace(subject, name=subject.name + AGAIN)


def measure_row(
    row: Row,
    found: dict[str, Measured],
    cores: Sequence[int],
    effort: Effort,
    told: Callable[[str], None] = lambda text: None,
    *,
    first: bool = True,
) -> None:
    """Measure one round of a row: each subject in `found` gets `passes` more bursts, as far as the core is ours.

    Args: found: by the subjects' names.  cores: one for each side.  told: is told what is going on.  first: this
        is the first round; each subject's objects are verified.
    """
    going = [measured for measured in found.values() if measured.why is None]
    with ExitStack() as stack:
        ops = stack.enter_context(ops_file(row))
        runners: dict[str, Runner] = {}
        for measured in going:
            told(f"{row.name}: {measured.subject.name} starts")
            runners[measured.subject.name] = stack.enter_context(Runner(measured.subject, row, cores, ops))
        for measured in going:
            with _failing(measured):
                _begin(measured, runners[measured.subject.name], effort, first=first)
        _passes(row, [m for m in going if m.why is None], runners, effort, told)
    for measured in going:
        if measured.why is None and measured.refused > _MOST_REFUSED * measured.pairs:
            measured.fail(f"refused {measured.refused:,} of {measured.pairs:,} requests", broken=False)


@contextmanager
def ops_file(row: Row) -> Iterator[Path | None]:
    """Write a row's ops where its runners find them, for a while; None if it has none."""
    if row.ops is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="shmalloc-bench-") as folder:
        path = Path(folder, "ops")
        path.write_bytes(row.ops.tobytes())
        yield path


def _begin(measured: Measured, runner: Runner, effort: Effort, *, first: bool) -> None:
    runner.ready()
    if not first or measured.subject.name.endswith(AGAIN) or measured.subject.name == EMPTY:
        return
    check = runner.check(effort.check_pairs)
    if check.fault is not None:
        measured.fail(f"gives out memory that is not its own to give: {check.fault}", broken=True)
    elif check.refused == check.pairs:
        measured.fail(f"refused {check.refused:,} of {check.pairs:,} requests", broken=False)


def _passes(
    row: Row,
    going: Sequence[Measured],
    runners: dict[str, Runner],
    effort: Effort,
    told: Callable[[str], None],
) -> None:
    """Take bursts in turns until each subject has as many as it should, or has had its attempts."""
    wanted = {measured.subject.name: effort.passes for measured in going}
    order = random.Random(row.name)
    for number in range(effort.passes * _ATTEMPTS):
        turn = [m for m in going if m.why is None and wanted[m.subject.name]]
        if not turn:
            return
        told(f"{row.name}: pass {number + 1}, {len(turn)} subjects")
        order.shuffle(turn)
        for measured in turn:
            with _failing(measured):
                burst = runners[measured.subject.name].run(effort.burst, effort.microseconds)
                wanted[measured.subject.name] -= measured.add(burst)


@contextmanager
def _failing(measured: Measured) -> Iterator[None]:
    """Take a subject out of the row if its runner fails."""
    try:
        yield
    except Failed as failed:
        measured.fail(str(failed), broken=failed.broken)
