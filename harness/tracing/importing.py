# SPDX-License-Identifier: MIT
"""Read traces of kmem events into a workload, however long they are."""

import fnmatch
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.problems import ConfigError, Problem
from harness.tracing.call_lines import CallReader
from harness.tracing.gfp_text import GfpText
from harness.tracing.lines import KmemEvent, LineReader, Lost, Other, Unknown
from harness.tracing.pairing import Pairs
from harness.tracing.sources import Source

__all__ = ["Found", "Imported", "Wanted", "import_trace"]

_SHOWN_LINES, _SHOWN_CHARS = 3, 110


@dataclass(frozen=True)
class Wanted:
    """Which events. Attributes: comms: patterns of names of tasks.  cpus: numbers.  Empty: all.

    slab_pages: also pages that slabs were made of.  calls: calls of designs, instead of kmem events.
    """

    comms: tuple[str, ...] = ()
    cpus: frozenset[int] = frozenset()
    slab_pages: bool = True
    calls: bool = False


@dataclass
class Found:
    """What one source held.

    Attributes:
        events: by name.
        others: events that neither allocate nor free, by name.
        lost: events; markers that do not say how many are in lost_unknown.
        overwritten: events that were gone from the ring when it was printed.
        unknown: lines; the first of them are in shown, with their numbers.
        backward: events whose time lies before that of the one before.
        layout: of the last event.
        without_cpu, with_flags: events that do not say their CPU; that say their context.
    """

    name: str
    lines: int = 0
    events: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    lost_unknown: int = 0
    overwritten: int = 0
    unknown: int = 0
    shown: list[str] = field(default_factory=list)
    backward: int = 0
    layout: str = ""
    without_cpu: int = 0
    with_flags: int = 0
    cut: str = ""


@dataclass(frozen=True)
class Imported:
    """A workload, and what came of the traces.

    Attributes: arrays: of the workload's file, but for meta.  pairs: what was paired, and counted.  found: of each
        source.  other_cpus: events of CPUs that were not asked for.  gfp: unknown flags.
    """

    arrays: dict[str, np.ndarray]
    pairs: Pairs
    found: list[Found]
    other_cpus: int
    gfp: Counter[str]


def import_trace(paths: Sequence[Path], wanted: Wanted) -> Imported:
    """Read traces; the events of several are put in the order of their times.

    Raises: ConfigError, if one cannot be read, or if there is no event in one, or none that is wanted.
    """
    gfp, pairs = GfpText(), Pairs(one_space=wanted.calls)
    found: list[Found] = []
    streams = []
    for path in paths:
        source = Source(path)
        found.append(Found(source.name))
        reader = CallReader(gfp) if wanted.calls else LineReader(gfp)
        streams.append(_events(source, reader, found[-1]))
    events = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda event: event.time_s)
    other_cpus = _take(events, pairs, wanted)
    for one in found:
        if not one.events:
            raise _nothing_in(one, wanted)
    if not len(pairs.rows):
        raise ConfigError(
            "import-trace", [Problem("--comm, --cpus", None, "no event is left of all that were read")]
        )
    arrays = pairs.rows.arrays(set() if wanted.slab_pages else pairs.below_slabs)
    if not arrays["op"].size:
        raise ConfigError("import-trace", [Problem("--no-slab-pages", None, "no event is left")])
    return Imported(arrays, pairs, found, other_cpus, gfp.unknown)


def _take(events: Iterator[KmemEvent], pairs: Pairs, wanted: Wanted) -> int:
    """Pair what is wanted. Returns: how many events were of other CPUs."""
    others = 0
    known: dict[bytes, bool] = {}
    for event in events:
        if wanted.cpus and event.cpu not in wanted.cpus:
            others += 1
            continue
        mine = True
        if wanted.comms:
            known_mine = known.get(event.comm)
            if known_mine is None:
                known_mine = known[event.comm] = _is_one_of(event.comm, wanted.comms)
            mine = known_mine
        pairs.add(event, wanted=mine)
    return others


def _is_one_of(comm: bytes, patterns: Sequence[str]) -> bool:
    name = (
        comm.rpartition(b": ")[2].decode("utf-8", "backslashreplace").strip()
    )  # trace-cmd puts its buffer first
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _events(source: Source, reader: LineReader, found: Found) -> Iterator[KmemEvent]:
    """Go through a source's events, and count all else in it."""
    last = 0.0
    for line in source:
        what = reader.read(line)
        if isinstance(what, KmemEvent):
            found.events[what.name.decode()] += 1
            if what.time_s < last:
                found.backward += 1
            last = what.time_s
            yield what
        elif isinstance(what, Other):
            found.others[what.name.decode("ascii", "backslashreplace")] += 1
        elif isinstance(what, Lost):
            _count_lost(what, found)
        elif isinstance(what, Unknown):
            found.unknown += 1
            if len(found.shown) < _SHOWN_LINES:
                text = line[:_SHOWN_CHARS].decode("utf-8", "backslashreplace").strip()
                printable = "".join(c if c.isprintable() else "?" for c in text)
                found.shown.append(f"line {source.lines}: {what.why}: {printable}")
    found.lines, found.cut = source.lines, source.cut
    found.layout = reader.layout
    found.without_cpu, found.with_flags = reader.without_cpu, reader.with_flags


def _count_lost(what: Lost, found: Found) -> None:
    if what.events is None:
        found.lost_unknown += 1
    elif what.overwritten:
        found.overwritten += what.events
    else:
        found.lost += what.events


def _nothing_in(found: Found, wanted: Wanted) -> ConfigError:
    """Say that a source held no event, and what it held."""
    held = f"{found.lines} lines"
    if found.others:
        held += ", events " + ", ".join(sorted(found.others)[:5])
    what = "call of a design" if wanted.calls else "kmem event"
    text = f"no {what} in {held}; allowed is text of perf script, tracefs or trace-cmd report"
    why = "; ".join([text, *found.shown[:1], *([found.cut] if found.cut else [])])
    return ConfigError("import-trace", [Problem("FILE", found.name, why)])
