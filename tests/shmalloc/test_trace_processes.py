# SPDX-License-Identifier: MIT
"""Events of several processes: switched by another one, and read while they are written."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
from peer import Peer, until
from rig import Rig

from shmalloc import Arena
from shmalloc.trace import Events

KEYS = {"size": "32MiB", "trace_bytes": 1 << 16}
PLACES = 1024


def first_attempts(arena: Arena, rig: Rig, peer: Peer) -> list[int]:
    """CPUs that record what their first attempts would serve."""
    before = Counter({state.cpu: state.events for state in arena.trace.states()})
    rig.free(rig.alloc())
    peer.do("free", peer.do("alloc"))
    after = Counter({state.cpu: state.events for state in arena.trace.states()})
    return sorted(after - before)


def test_a_switch_reaches_every_cpu(flavour: str) -> None:
    with Rig.create(flavour=flavour, bind=1, **KEYS) as rig, Peer(rig.arena, 1) as peer:
        assert first_attempts(rig.arena, rig, peer) == []
        assert rig.arena.trace.on(["kmalloc", "kfree"]) == []
        assert first_attempts(rig.arena, rig, peer) == [0, 1]
        assert rig.arena.trace.off() == []
        assert first_attempts(rig.arena, rig, peer) == []
        peer.do("settle")


def test_a_cpu_that_takes_no_interrupts_is_named_and_follows_by_itself() -> None:
    """What its first attempts serve leaves nothing meanwhile; what they do not serve looks what is recorded."""
    with Rig.create(bind=1, **KEYS) as rig, Peer(rig.arena, 1, handlers=False) as peer:
        peer.do("free", peer.do("alloc"))
        assert rig.arena.trace.on(["kmalloc", "kfree"]) == [1]
        assert first_attempts(rig.arena, rig, peer) == [0]
        assert rig.arena.trace.behind() == [1]
        peer.do("alloc", size=20_000)  # a guarded call looks what is recorded
        assert rig.arena.trace.behind() == []
        assert first_attempts(rig.arena, rig, peer) == [0, 1]
        rig.arena.trace.off()


def test_irqs_that_are_off_do_not_delay_a_switch() -> None:
    """There is nothing pending behind it: it is no interrupt that was masked, and none that was never taken."""
    with Rig.create(bind=1, **KEYS) as rig, Peer(rig.arena, 1) as peer:
        peer.do("irqs_off")
        assert rig.arena.trace.on(["shmalloc:handler_*"]) == []
        state = rig.arena.item("struct shm_cpu", "cpus", 1)
        assert state.irqs_disabled and not state.irq_pending
        assert rig.telemetry(1).interrupts[rig.lib.KIND_IRQ].masked == 0
        peer.do("irqs_restored")
        assert [state.events for state in rig.arena.trace.states()] == [0, 0]


def whole(events: Events) -> None:
    """No record is torn: each CPU's numbers and times grow, and each is an event that there is."""
    for cpu in events.cpus:
        own = events.records[events.records["cpu"] == cpu]
        assert np.all(np.diff(own["seq"].astype(np.int64)) >= 1)  # more: the writer has overtaken the reader
        assert np.all(np.diff(own["ts"].astype(np.int64)) > 0)
    made = events.select("shmalloc:alloc", "shmalloc:free")
    assert np.all((made["ptr"] != 0) | (made["reason"] != 0)) and np.all(made["dur"] > 0)
    assert np.all(np.isin(events.select("shmalloc:alloc")["bytes_req"], [64, 1024]))
    assert set(np.unique(events.records["id"])) <= {events.number("alloc"), events.number("free")}


LINES = [
    ("alloc", {"size": 64, "slot": 0}),
    ("alloc", {"size": 1024, "slot": 1}),
    "free",
    ("free", {"slot": 1}),
]


@pytest.mark.parametrize("mode", ["overwrite", "discard"])
def test_it_is_read_while_it_is_written(mode: str) -> None:
    """Readers come at any time, over and over; what they take, and what is left, is all, once."""
    with Rig.create(flavour="release", cpus=3, bind=1, **KEYS) as rig:
        arena = rig.arena
        arena.activate()
        with Peer(arena, 1) as one, Peer(arena, 2) as other:
            assert arena.trace.on(["shmalloc:alloc", "shmalloc:free"], mode) == []
            for peer in (one, other):
                peer.begin("replay_for", LINES, 60.0)
            taken, last = Counter[int](), dict[int, int]()
            reads = 0
            while not (one.done() and other.done()):
                whole(arena.trace.read())
                events = arena.trace.read(consume=True)
                whole(events)
                for cpu in events.cpus:
                    own = events.records["seq"][events.records["cpu"] == cpu]
                    taken[cpu] += len(own)
                    assert not len(own) or int(own[0]) > last.get(cpu, 0)
                    last[cpu] = int(own[-1]) if len(own) else last.get(cpu, 0)
                    if len(own):
                        assert taken[cpu] + events.overwritten[cpu] == last[cpu]
                reads += 1
                if reads > 5 and all(state.events > 9 * PLACES for state in arena.trace.states()[1:]):
                    arena.header.stop = 1
            ops = {peer.number: peer.result() for peer in (one, other)}
            rest = arena.trace.read()
            whole(rest)
            for state in arena.trace.states()[1:]:
                there = int((rest.records["cpu"] == state.cpu).sum())
                assert state.events == ops[state.cpu] > 5 * PLACES
                assert state.taken == taken[state.cpu] > PLACES and state.there == there
                assert state.events == state.there + state.taken + state.overwritten + state.lost
                assert (state.lost if mode == "overwrite" else state.overwritten) == 0
            arena.trace.off()


def more_than(arena: Arena, events: int) -> bool:
    return arena.trace.states()[1].events > events


def test_a_writer_that_was_killed_leaves_no_hole() -> None:
    """Killed at any instruction, over and over; who becomes the CPU next writes on, and all adds up."""
    with Rig.create(flavour="release", bind=1, **KEYS) as rig:
        arena = rig.arena
        arena.activate()
        arena.trace.on(["shmalloc:alloc", "shmalloc:free"])
        for _ in range(5):
            before = arena.trace.states()[1].events
            with Peer(arena, 1, steal=True) as peer:
                peer.begin("replay_for", LINES, 30.0)
                until(partial(more_than, arena, before + 1009), "it writes")
                peer.kill()
            events = arena.trace.read()
            state = arena.trace.states()[1]
            own = events.records[events.records["cpu"] == 1]
            assert state.there - 1 <= len(own) <= state.there == PLACES
            assert np.all(np.diff(own["seq"].astype(np.int64)) >= 1)
