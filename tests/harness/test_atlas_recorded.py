# SPDX-License-Identifier: MIT
"""What the recorder writes down, read with the disassembly: its accesses are those that change the arena."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from harness.atlas import levels, stacks
from harness.atlas.accesses import shared
from harness.atlas.image import CoreImage
from harness.atlas.sweeper import Call, Stage, Sweeper
from harness.atlas.traces import Steps, check_trace
from shmalloc import Arena, Cpu, designs, ops

SIZE = 64
NEW_SLAB_SIZE = 512
DESIGNS = ("kmalloc", "kmalloc_nolock", "try_kmalloc")


@dataclass
class Bench:
    """An arena in which each word is state, and a sweep of it."""

    arena: Arena
    image: CoreImage
    sweeper: Sweeper
    calls: dict[str, Call]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with (
        Arena.create(size="4MiB", nr_cpus=2, max_memcgs=0, max_maps=1, pool_entries=8) as arena,
        Cpu(arena, 1),
        Cpu(arena, 0, handlers=True) as cpu,
    ):
        held = {name: cpu.design(name).alloc(SIZE) for name in DESIGNS}
        program = cpu.set_program("nmi", ops(("alloc", {"size": SIZE})), slots=4)
        assert program is not None
        calls = {}
        for name in DESIGNS:
            design = designs.index(name)
            calls[f"alloc {name}"] = Call("shm_design_alloc", (design, SIZE, 0, -1))
            calls[f"new slab {name}"] = Call("shm_design_alloc", (design, NEW_SLAB_SIZE, 0, -1))
            calls[f"free {name}"] = Call("shm_design_free", (design, held[name]))
            calls[f"pages {name}"] = Call("shm_design_pages_alloc", (design, 0, -1, 1))
        classes = np.zeros(arena.size_bytes // 4, dtype=np.uint8)
        image = CoreImage.of(arena.core)
        with Sweeper(arena, image, classes=classes, watched=[program.slots]) as sweeper:
            sweeper.snapshot()
            yield Bench(arena, image, sweeper, calls)


CALLS = [f"{what} {name}" for what in ("alloc", "new slab", "free", "pages") for name in DESIGNS]


@pytest.mark.parametrize("name", CALLS)
def test_one_step_leads_to_the_next(bench: Bench, name: str) -> None:
    check_trace(bench.sweeper.record(bench.calls[name]), bench.image)


@pytest.mark.parametrize("name", CALLS)
def test_what_has_changed_was_written(bench: Bench, name: str) -> None:
    call, arena = bench.calls[name], bench.arena
    trace = bench.sweeper.record(call)
    changed = bench.sweeper.state_words(int(bench.sweeper.run(call)["state"]))["offset"]
    assert len(changed)
    accesses = shared(bench.image, trace, arena.base, arena.base + arena.size_bytes)
    writes = accesses[accesses["writes"]]
    covered = np.zeros(arena.size_bytes, dtype=bool)
    for row in writes:
        covered[int(row["offset"]) : int(row["offset"]) + int(row["size"])] = True
    assert all(covered[int(offset) : int(offset) + 4].any() for offset in changed)
    # and hardly anything was written that stays as it was: pages that are zero, locks taken and released
    assert len(np.unique(writes["offset"])) >= len(changed) // 2


def test_accesses_of_the_fast_path(bench: Bench) -> None:
    """The exchange of the cpu slab is one access of 16 bytes, without a lock prefix; the oracle's have one."""
    trace = bench.sweeper.record(bench.calls["alloc kmalloc_nolock"])
    start = bench.arena.base
    found = shared(bench.image, trace, start, start + bench.arena.size_bytes)
    exchange = found[found["size"] == 16]
    assert len(exchange) == 1 and exchange["reads"] and exchange["writes"] and not exchange["locked"]
    assert found["locked"].any()
    assert (np.diff(found["index"].astype(int)) >= 0).all()
    assert len(found) < len(trace) / 4  # most of what is executed nobody else can see
    assert len(shared(bench.image, trace, start, start)) == 0


def test_levels_of_a_new_slab(bench: Bench) -> None:
    trace = bench.sweeper.record(bench.calls["new slab kmalloc_nolock"])
    found = levels.of_trace(bench.image, trace)
    first = {levels.LEVELS[level]: int(np.argmax(found == level)) for level in set(found.tolist())}
    slide = [level for level in levels.SLIDES if level in first]
    assert sorted(slide, key=lambda level: first[level]) == slide  # the stack, from top to bottom
    assert {"___slab_alloc", "new_slab", "alloc_pages", "rmqueue_pcplist"} <= set(slide)
    assert levels.HELPERS not in first  # each has a caller


def test_stack_in_a_handler(bench: Bench) -> None:
    call = bench.calls["alloc kmalloc"]
    trace = bench.sweeper.record(call)
    handler = bench.sweeper.record(call, [Stage(trace, len(trace) // 2)], what="handler")
    check_trace(handler, bench.image)
    steps = Steps.of(bench.image, handler)
    exchange = next(step for step in range(len(handler)) if steps[step].mnemonic.startswith("cmpxchg16b"))
    stack = [line.partition(" ")[0].partition("+")[0] for line in stacks.at(bench.image, handler, exchange)]
    assert stack[:3] == ["this_cpu_cmpxchg_double", "cpu_slab_cmpxchg", "cpu_slab_pop"]
    assert stack[-1] == "on_nmi" and "kmalloc_nolock_alloc_first" in stack and "program_run_ops" in stack


def test_what_follows_an_interrupt(bench: Bench) -> None:
    call = bench.calls["free kmalloc"]
    trace = bench.sweeper.record(call)
    for index in range(0, len(trace), 23):
        rest = bench.sweeper.record(call, [Stage(trace, index)])
        assert int(rest.rips[0]) == int(trace.rips[index])
        check_trace(rest, bench.image)
