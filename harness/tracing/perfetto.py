# SPDX-License-Identifier: MIT
"""Recorded events as Perfetto's native TrackEvents: a track for each CPU, and counters.

Packets are written some thousands at a time; the file is these pieces in a row. Slices of a track come in the order of
their nesting, so that a beginning and an end at the same nanosecond are in the right order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from harness.memory import Sample
from harness.problems import CannotRun
from harness.tracing.lives import lives
from harness.tracing.timeline import CALL, HANDLER, IRQ_WORK, LOCK, Slice, cpus_of, timelines
from shmalloc import gfp
from shmalloc.trace import FLAGS, NO_PFN, Events

__all__ = ["Memory", "protos", "write_perfetto"]

#: samples of the memory in use, each with its time as TSC
Memory = Sequence[tuple[int, Sample]]

_PIECE_PACKETS = 4096
_SEQUENCE = 1
_PROCESS, _FIRST_CPU, _MEMORY, _FAILURES = 1, 1000, 2, 3
_BOOTTIME, _MONOTONIC = 6, 3
_LATEST_NS = (1 << 63) - 1
_MOST_ORDER = 62
_HEX = ("ptr", "pfn", "lock_addr", "rip")
_CATEGORIES = {CALL: "shmalloc", HANDLER: "interrupt", IRQ_WORK: "irq_work", LOCK: "lock"}


def write_perfetto(events: Events, file: BinaryIO, title: str, memory: Memory = ()) -> None:
    """Write a trace that Perfetto opens.

    Args: title: of the process that the CPUs are shown as.  memory: from the samples of the run.
    Raises: CannotRun, if Perfetto's formats are not installed.
    """
    writer = _Writer(events, file)
    writer.describe(title, memory=bool(memory))
    writer.counters(memory)
    writer.cpus()
    writer.flush()


def protos() -> Any:
    """Return Perfetto's formats. Raises: CannotRun, if they are not installed."""
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
    except ImportError as error:
        raise CannotRun(f"Perfetto's formats are missing ({error}): pip install perfetto") from None
    return perfetto_trace_pb2


class _Writer:
    def __init__(self, events: Events, file: BinaryIO) -> None:
        self._protos = protos()
        self._events = events
        self._file = file
        self._piece = self._protos.Trace()
        self._hz = events.tsc_hz
        self._flows: tuple[dict[int, int], dict[int, int]] = {}, {}
        for number, life in enumerate(lives(events), 1):
            if life.remote:
                self._flows[0][life.alloc] = number
                self._flows[1][life.free] = number

    def _packet(self, ts: int | None = None) -> Any:
        if len(self._piece.packet) >= _PIECE_PACKETS:
            self.flush()
        packet = self._piece.packet.add()
        packet.trusted_packet_sequence_id = _SEQUENCE
        if ts is not None:
            packet.timestamp = self._ns(ts)
        return packet

    def _ns(self, ticks: int) -> int:
        return min(ticks * 1_000_000_000 // self._hz, _LATEST_NS)

    def flush(self) -> None:
        """Write what there is."""
        self._file.write(self._piece.SerializeToString())
        self._piece = self._protos.Trace()

    # --- what the tracks are ---------------------------------------------------------------------------

    def describe(self, title: str, *, memory: bool) -> None:
        """Describe clocks and tracks."""
        events = self._events
        first = int(events.records["ts"][0]) if len(events) else 0
        packet = self._packet()
        packet.sequence_flags = self._protos.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        for clock in (_BOOTTIME, _MONOTONIC):
            packet.clock_snapshot.clocks.add(clock_id=clock, timestamp=self._ns(first))
        packet.clock_snapshot.primary_trace_clock = _BOOTTIME
        pids = [events.pids.get(cpu) or cpu + 1 for cpu in cpus_of(events)]
        process = self._track(_PROCESS)
        process.process.pid = min(pids, default=1)
        process.process.process_name = title
        for cpu, pid in zip(cpus_of(events), pids, strict=True):
            track = self._track(_FIRST_CPU + cpu, _PROCESS)
            track.thread.pid, track.thread.tid = process.process.pid, pid
            track.thread.thread_name = f"CPU {cpu}"
        if memory:
            track = self._track(_MEMORY, _PROCESS)
            track.name = "memory in use"
            track.counter.unit = self._protos.CounterDescriptor.UNIT_SIZE_BYTES
        track = self._track(_FAILURES, _PROCESS)
        track.name = "failed allocations"
        track.counter.unit = self._protos.CounterDescriptor.UNIT_COUNT

    def _track(self, uuid: int, parent: int = 0) -> Any:
        track = self._packet().track_descriptor
        track.uuid = uuid
        if parent:
            track.parent_uuid = parent
        return track

    # --- counters --------------------------------------------------------------------------------------

    def counters(self, memory: Memory) -> None:
        """Write the counters: memory as sampled, failures as they happened."""
        for ts, sample in memory:
            self._counter(_MEMORY, ts, sample.used_bytes)
        records, calls = self._events.records, self._events.select("shmalloc:alloc")
        times = calls["ts"][calls["reason"] != 0].tolist()
        if len(records):
            self._counter(_FAILURES, int(records["ts"][0]), 0)
        for count, ts in enumerate(times, 1):
            self._counter(_FAILURES, ts, count)

    def _counter(self, track: int, ts: int, value: int) -> None:
        event = self._packet(ts).track_event
        event.type = self._protos.TrackEvent.TYPE_COUNTER
        event.track_uuid = track
        event.counter_value = value

    # --- CPUs ------------------------------------------------------------------------------------------

    def cpus(self) -> None:
        """Write the slices and instants of all CPUs, and what was lost."""
        for cpu, line in timelines(self._events).items():
            track = _FIRST_CPU + cpu
            self._losses(cpu, track)
            self._slices(line.slices, track)
            for index in line.instants:
                self._instant(index, track)

    def _losses(self, cpu: int, track: int) -> None:
        lost, overwritten = self._events.lost.get(cpu, 0), self._events.overwritten.get(cpu, 0)
        mine = self._events.records["ts"][self._events.records["cpu"] == cpu]
        if not (lost or overwritten):
            return
        ts = int(mine[0]) if mine.size else 0
        event = self._event(ts, track, "TYPE_INSTANT", "events lost", "trace")
        self._annotate(event, [("lost", lost), ("overwritten", overwritten)])

    def _event(self, ts: int, track: int, kind: str, name: str = "", category: str = "") -> Any:
        event = self._packet(ts).track_event
        event.type = getattr(self._protos.TrackEvent, kind)
        event.track_uuid = track
        if name:
            event.name = name
            event.categories.append(category)
        return event

    def _slices(self, slices: Sequence[Slice], track: int) -> None:
        stack: list[Iterator[Slice]] = [iter(slices)]
        ends: list[int] = []
        while stack:
            one = next(stack[-1], None)
            if one is None:
                stack.pop()
                if ends:
                    self._event(ends.pop(), track, "TYPE_SLICE_END")
                continue
            self._begin(one, track)
            ends.append(one.end)
            stack.append(iter(one.children))

    def _begin(self, one: Slice, track: int) -> None:
        record = self._events.records[one.record]
        event = self._event(one.start, track, "TYPE_SLICE_BEGIN", self._name(one), _CATEGORIES[one.kind])
        self._annotate(event, self._arguments(one.record))
        if one.lost:
            self._annotate(event, [("not recorded", one.lost)])
        if one.kind == CALL and int(record["flags"]) & FLAGS["pages"]:
            self._annotate(event, [("pages", 1 << min(int(record["order"]), _MOST_ORDER))])
        self._flow(event, one.record)

    def _flow(self, event: Any, index: int) -> None:
        if (begun := self._flows[0].get(index)) is not None:
            event.flow_ids.append(begun)
        if (ended := self._flows[1].get(index)) is not None:
            event.terminating_flow_ids.append(ended)

    def _instant(self, index: int, track: int) -> None:
        group, _, name = self._events.name(self._events.records[index]).partition(":")
        event = self._event(int(self._events.records["ts"][index]), track, "TYPE_INSTANT", name, group)
        self._annotate(event, self._arguments(index))
        self._flow(event, index)

    def _name(self, one: Slice) -> str:
        record, events = self._events.records[one.record], self._events
        if one.kind == HANDLER:
            return str(events.value(record, "kind")).upper()
        if one.kind == IRQ_WORK:
            return f"irq_work {events.value(record, 'func')}"
        if one.kind == LOCK:
            return f"wait for {events.value(record, 'class')}"
        what = events.name(record).partition(":")[2]
        reason = f": {events.value(record, 'reason')}" if what == "alloc" and int(record["reason"]) else ""
        return f"{what} {events.value(record, 'design')}{reason}"

    def _arguments(self, index: int) -> list[tuple[str, int | str]]:
        """List a record's fields as Perfetto shows them."""
        record, found = self._events.records[index], []
        for name, value in self._events.items(record):
            shown: int | str = value if isinstance(value, str) else int(value)
            if name in ("call_site", "rip"):
                shown = self._events.symbol(record) if value else ""
            elif name == "pfn" and value == NO_PFN:
                shown = "none"
            elif name == "gfp_flags":
                shown = gfp.format(int(value))
            elif name in _HEX:
                shown = f"{int(value):#x}"
            elif name == "dur":
                name, shown = "dur_ns", self._ns(int(value))
            if shown != "":
                found.append((name, shown))
        context = self._events.contexts
        number = int(record["ctx"])
        return [
            *found,
            ("ctx", context[number] if number < len(context) else str(number)),
            ("level", int(record["level"])),
        ]

    @staticmethod
    def _annotate(event: Any, fields: Sequence[tuple[str, int | str]]) -> None:
        for name, value in fields:
            annotation = event.debug_annotations.add(name=name)
            if isinstance(value, str):
                annotation.string_value = value
            else:
                annotation.int_value = value
