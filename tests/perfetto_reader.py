# SPDX-License-Identifier: MIT
"""A strict reader of Perfetto traces, not Perfetto's own: what a viewer would have to guess at is refused."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos

TYPES = protos.TrackEvent


@dataclass
class Shown:
    """A slice as a viewer would build it."""

    name: str
    category: str
    start: int
    args: dict[str, Any]
    flows: list[int]
    ended_flows: list[int]
    end: int = -1
    children: list["Shown"] = field(default_factory=list)


@dataclass
class Viewer:
    """A trace that has been read: what is on each track."""

    tracks: dict[int, Any] = field(default_factory=dict)
    slices: dict[int, list[Shown]] = field(default_factory=lambda: defaultdict(list))
    instants: dict[int, list[Shown]] = field(default_factory=lambda: defaultdict(list))
    counters: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    clocks: dict[int, int] = field(default_factory=dict)


def args_of(event: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in event.debug_annotations:
        assert one.name not in found, f"{one.name} twice"
        found[one.name] = getattr(one, one.WhichOneof("value"))
    return found


def read(data: bytes) -> Viewer:
    """Read a trace, and refuse what a viewer would have to guess at."""
    trace, viewer = protos.Trace(), Viewer()
    assert trace.ParseFromString(data) == len(data)
    open_: dict[int, list[Shown]] = defaultdict(list)
    latest: dict[int, int] = defaultdict(int)
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id
        kind = packet.WhichOneof("data")
        if kind == "track_descriptor":
            assert packet.track_descriptor.uuid not in viewer.tracks
            viewer.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        elif kind == "clock_snapshot":
            viewer.clocks = {one.clock_id: one.timestamp for one in packet.clock_snapshot.clocks}
        else:
            assert kind == "track_event"
            event, uuid = packet.track_event, packet.track_event.track_uuid
            assert uuid in viewer.tracks, "an event before its track is described"
            if event.type == TYPES.TYPE_COUNTER:
                assert viewer.tracks[uuid].HasField("counter")
                viewer.counters[uuid].append((packet.timestamp, event.counter_value))
                continue
            assert viewer.tracks[uuid].HasField("thread")
            one = Shown(
                event.name,
                "".join(event.categories),
                packet.timestamp,
                args_of(event),
                [*event.flow_ids],
                [*event.terminating_flow_ids],
            )
            if event.type == TYPES.TYPE_INSTANT:
                assert event.name and event.categories
                viewer.instants[uuid].append(one)
                continue
            assert packet.timestamp >= latest[uuid], "back in time on a track"
            latest[uuid] = packet.timestamp
            if event.type == TYPES.TYPE_SLICE_BEGIN:
                assert event.name and event.categories
                (open_[uuid][-1].children if open_[uuid] else viewer.slices[uuid]).append(one)
                open_[uuid].append(one)
            else:
                assert event.type == TYPES.TYPE_SLICE_END
                assert open_[uuid], "an end without a beginning"
                open_[uuid].pop().end = packet.timestamp
    assert not any(open_.values()), "a beginning without an end"
    return viewer


def flat(slices: list[Shown]) -> list[Shown]:
    return [one for each in slices for one in (each, *flat(each.children))]


def check_flows(viewer: Viewer) -> list[tuple[Shown, Shown]]:
    """Every flow has one beginning and one end, later and on another track. Returns: both of each."""
    begins: dict[int, tuple[int, Shown]] = {}
    ends: dict[int, tuple[int, Shown]] = {}
    for uuid in viewer.tracks:
        for one in (*flat(viewer.slices[uuid]), *viewer.instants[uuid]):
            for flow in one.flows:
                assert flow not in begins, "two allocations with one flow"
                begins[flow] = uuid, one
            for flow in one.ended_flows:
                assert flow not in ends, "two frees of one flow"
                ends[flow] = uuid, one
    assert begins.keys() == ends.keys()
    for flow, (uuid, one) in begins.items():
        assert ends[flow][0] != uuid
        assert one.start <= max(ends[flow][1].start, ends[flow][1].end)
    return [(begins[flow][1], ends[flow][1]) for flow in sorted(begins)]
