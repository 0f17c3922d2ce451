# SPDX-License-Identifier: MIT
"""The sweep: it records what the core executes, comes to every instruction, and leaves nothing behind."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from harness.atlas.disassembly import disassembly
from harness.atlas.image import CoreImage
from harness.atlas.sweeper import ENDS, NONE, Call, LeftCore, Stage, Sweeper, Trace
from harness.atlas.traces import check_trace
from shmalloc import Arena, Cpu, designs, ops

NOLOCK = designs.index("kmalloc_nolock")
SIZE = 64
STATE, OUTCOME, IGNORE = range(3)


@dataclass
class Bench:
    """An arena of this thread, with a handler that allocates, and a sweep of it."""

    arena: Arena
    cpu: Cpu
    sweeper: Sweeper
    slots: Any
    held: list[int]

    @property
    def alloc(self) -> Call:
        return Call("shm_design_alloc", (NOLOCK, SIZE, 0, -1))

    @property
    def free(self) -> Call:
        return Call("shm_design_free", (NOLOCK, self.held[0]))

    def bytes(self) -> bytes:
        return bytes(self.arena.buffer)

    def interrupts(self, outcome: int) -> int:
        """How often NMIs were handled, by the words of an outcome."""
        lib, ffi = self.arena.core.lib, self.arena.core.ffi
        telemetry = self.arena.header.regions[lib.REGION_TELEMETRY].offset
        at = telemetry + ffi.offsetof("struct shm_telemetry", "interrupts")
        at += int(lib.KIND_NMI) * ffi.sizeof("struct shm_interrupts")
        at += ffi.offsetof("struct shm_interrupts", "handled")
        words = self.sweeper.outcome_words(outcome)
        return int(sum(word["new"] - word["old"] for word in words if word["offset"] == at))


def word_classes(arena: Arena) -> Any:
    """Counts are outcomes; what a handler's level was, and how long things took, is nothing."""
    lib, ffi = arena.core.lib, arena.core.ffi
    classes = np.zeros(arena.size_bytes // 4, dtype=np.uint8)
    telemetry, cpus = (arena.header.regions[region] for region in (lib.REGION_TELEMETRY, lib.REGION_CPUS))
    classes[telemetry.offset // 4 : (telemetry.offset + telemetry.bytes) // 4] = OUTCOME
    size = (ffi.sizeof("struct shm_telemetry") + 63) & ~63
    for at in range(telemetry.offset, telemetry.offset + telemetry.bytes, size):
        classes[(at + ffi.offsetof("struct shm_telemetry", "latency")) // 4 : (at + size) // 4] = IGNORE
    size = ffi.sizeof("struct shm_cpu")
    for at in range(cpus.offset, cpus.offset + cpus.bytes, size):
        levels = at + ffi.offsetof("struct shm_cpu", "levels")
        classes[levels // 4 : (at + ffi.offsetof("struct shm_cpu", "waiting_for")) // 4] = IGNORE
    return classes


@pytest.fixture
def bench() -> Iterator[Bench]:
    with (
        Arena.create(size="4MiB", nr_cpus=2, max_memcgs=0, max_maps=1, pool_entries=8) as arena,
        Cpu(arena, 1),
        Cpu(arena, 0, handlers=True) as cpu,
    ):
        calls = cpu.design("kmalloc_nolock")
        held = [calls.alloc(SIZE) for _ in range(3)]
        program = cpu.set_program("nmi", ops(("alloc", {"size": SIZE})), slots=4)
        assert program is not None
        image = CoreImage.of(arena.core)
        with Sweeper(arena, image, classes=word_classes(arena), watched=[program.slots]) as sweeper:
            sweeper.snapshot()
            yield Bench(arena, cpu, sweeper, program.slots, held)


def everywhere(trace: Trace) -> Any:
    return np.arange(len(trace))


@pytest.mark.parametrize("what", ["alloc", "free"])
def test_every_instruction_is_hit_and_both_ways_agree(bench: Bench, what: str) -> None:
    call = getattr(bench, what)
    before = bench.bytes()
    trace = bench.sweeper.record(call)
    again = bench.sweeper.record(call)
    assert (trace.rips == again.rips).all()
    assert bench.bytes() == before
    fast = bench.sweeper.sweep(call, trace, everywhere(trace))
    assert {ENDS[end] for end in fast["end"]} == {"returned"}
    assert bench.bytes() == before
    slow = [bench.sweeper.run(call, [Stage(trace, index)], by_trap_flag=True) for index in range(len(trace))]
    for name in ("value", "state", "outcome"):
        assert [int(row[name]) for row in slow] == fast[name].tolist(), name
    assert all(bench.interrupts(int(outcome)) == 1 for outcome in set(fast["outcome"].tolist()))
    assert bench.interrupts(int(bench.sweeper.run(call)["outcome"])) == 0


def test_same_numbers_the_second_time(bench: Bench) -> None:
    trace = bench.sweeper.record(bench.alloc)
    first = bench.sweeper.sweep(bench.alloc, trace, everywhere(trace))
    assert (first == bench.sweeper.sweep(bench.alloc, trace, everywhere(trace))).all()


def test_loops_are_counted_by_occurrence(bench: Bench) -> None:
    """A slab is made: its pages are cleared and its freelist is built in loops; each round is a boundary."""
    call = Call("shm_design_alloc", (NOLOCK, 512, 0, -1))
    trace = bench.sweeper.record(call)
    slowly = bench.sweeper.record(call, by_trap_flag=True)
    assert (trace.rips == slowly.rips).all()
    assert (trace.regs == slowly.regs).all()
    occurrences = np.array([trace.occurrence(index) for index in range(len(trace))])
    assert occurrences.max() > 4
    found = bench.sweeper.sweep(call, trace, everywhere(trace))
    assert (found["end"] == 0).all()
    assert found["hits"].max() > 1
    rounds = np.delete(occurrences, repeated(trace)).max()
    assert found["hits"].max() <= rounds + 4, "a trap for each round of a loop, two for a string instruction"
    for index in np.flatnonzero(occurrences == occurrences.max() // 2)[:1]:
        slow = bench.sweeper.run(call, [Stage(trace, int(index))], by_trap_flag=True)
        assert (slow["state"], slow["outcome"]) == (found[index]["state"], found[index]["outcome"])
        assert slow["hits"] == index + 1
    assert len(repeated(trace)) > 1000, "a string instruction clears the pages: each round is a boundary"


def repeated(trace: Trace) -> Any:
    """The steps that go on with a string instruction."""
    return np.flatnonzero(trace.rips[1:] == trace.rips[:-1]) + 1


def test_two_interrupts_one_after_the_other_and_one_within_the_other(bench: Bench) -> None:
    trace = bench.sweeper.record(bench.alloc)
    first = Stage(trace, len(trace) // 2)
    rest = bench.sweeper.record(bench.alloc, [first])
    inside = bench.sweeper.record(bench.alloc, [first], what="handler")
    assert rest.rips[0] == trace.rips[first.index]
    assert inside.rips[0] not in trace.rips
    after = bench.sweeper.sweep(bench.alloc, rest, everywhere(rest), before=[first])
    nested = bench.sweeper.sweep(bench.alloc, inside, everywhere(inside), before=[first], inside=True)
    for found in (after, nested):
        assert (found["end"] == 0).all()
        assert {bench.interrupts(outcome) for outcome in set(found["outcome"].tolist())} == {2}


def test_post_state_can_be_looked_at(bench: Bench) -> None:
    trace = bench.sweeper.record(bench.alloc)
    before = bench.bytes()
    row = bench.sweeper.run(bench.alloc, [Stage(trace, 40)])
    words = bench.sweeper.state_words(int(row["state"]))
    assert len(words)
    bench.sweeper.load_state(int(row["state"]))
    now = np.frombuffer(bench.arena.buffer, dtype=np.uint32)
    assert (now[words["offset"] // 4] == words["new"]).all()
    bench.cpu.design("kmalloc_nolock").alloc(2048)
    bench.sweeper.restore()
    assert bench.bytes() == before
    bench.sweeper.run_and_keep(bench.alloc, [Stage(trace, 40)])
    assert bench.slots[0]
    bench.sweeper.restore()
    assert bench.bytes() == before
    assert not bench.slots[0]


def test_crash_is_survived_and_told(bench: Bench) -> None:
    lib = bench.arena.core.lib
    cache = int(lib.shm_kmalloc_index(SIZE, 0))
    slab = bench.arena.item("struct kmem_cache_cpu", "cache_cpus", cache)
    trace = bench.sweeper.record(bench.alloc)
    slab.freelist = 1 << 60
    bench.sweeper.snapshot()
    row = bench.sweeper.run(bench.alloc)
    assert ENDS[row["end"]] == "crashed"
    assert row["state"] == row["outcome"] == NONE
    assert row["rip"] in trace.rips
    assert ENDS[bench.sweeper.run(bench.free)["end"]] == "returned"


def test_what_does_not_return_is_stuck(bench: Bench) -> None:
    """A workload waits for about a minute."""
    core = bench.arena.core
    op = core.ffi.new("struct shm_op *", {"code": core.lib.OP_DELAY, "size": 0xFFFFFFFF})
    replay = core.ffi.new("struct shm_replay *", {"ops": op, "nr_ops": 1, "max_ops": 1, "design": NOLOCK})
    call = Call("shm_replay", (int(core.ffi.cast("uintptr_t", replay)),))
    trace = bench.sweeper.record(bench.alloc)
    row = bench.sweeper.run(call)
    assert ENDS[row["end"]] == "stuck"
    assert CoreImage.of(core).symbol_at(int(row["rip"])) is not None
    assert (bench.sweeper.record(bench.alloc).rips == trace.rips).all()


def test_recorder_refuses_what_leaves_the_core(bench: Bench) -> None:
    before = bench.bytes()
    with pytest.raises(LeftCore, match=r"shm_detach left the core after [0-9]+ instructions"):
        bench.sweeper.record(Call("shm_detach"))
    assert bench.bytes() == before
    assert bench.cpu.design("kmalloc_nolock").alloc(SIZE)


def test_recorder_sees_what_follows_a_system_call(bench: Bench) -> None:
    """The trap flag alone would pass over the instruction behind it."""
    call = Call("shm_start_time", (os.getpid(),))
    trace = bench.sweeper.record(call)
    check_trace(trace, CoreImage.of(bench.arena.core))
    code = disassembly(CoreImage.of(bench.arena.core).path)
    base = CoreImage.of(bench.arena.core).base
    calls = [index for index, rip in enumerate(trace.rips) if code.at(int(rip) - base).kind == "syscall"]
    assert len(calls) == 3
    for index in calls:
        assert trace.rips[index + 1] == trace.rips[index] + 2
    found = bench.sweeper.sweep(call, trace, [index + 1 for index in calls])
    assert {ENDS[end] for end in found["end"]} == {"returned"}


def test_boundary_that_is_not_on_the_way_is_missed(bench: Bench) -> None:
    trace = bench.sweeper.record(bench.free)
    way = bench.sweeper.record(bench.alloc).rips
    elsewhere = [index for index, rip in enumerate(trace.rips) if rip not in way]
    row = bench.sweeper.run(bench.alloc, [Stage(trace, elsewhere[0])])
    assert ENDS[row["end"]] == "missed"
    assert ENDS[bench.sweeper.run(bench.alloc)["end"]] == "returned"


def test_refusals(bench: Bench) -> None:
    trace = bench.sweeper.record(bench.alloc)
    with pytest.raises(ValueError, match=f"allowed is 0 to {len(trace) - 1}"):
        bench.sweeper.run(bench.alloc, [Stage(trace, len(trace))])
    with pytest.raises(ValueError, match="classes: uint8 of shape"):
        Sweeper(bench.arena, CoreImage.of(bench.arena.core), classes=np.zeros(4, dtype=np.uint8))
    with pytest.raises(OSError, match="busy"):
        Sweeper(bench.arena, CoreImage.of(bench.arena.core), classes=word_classes(bench.arena))
