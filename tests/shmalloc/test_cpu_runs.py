# SPDX-License-Identifier: MIT
"""Designs by name, replays, probe sites, and verdicts as exceptions."""

import signal
import subprocess
import sys
from array import array
from collections.abc import Iterator

import pytest

from shmalloc import (
    AllocationFailed,
    Arena,
    BadFree,
    Cpu,
    DeadlockProved,
    ShmallocError,
    Unsupported,
    designs,
    ops,
    probes,
)
from shmalloc.audit import audit

SIZE = 8 << 20


@pytest.fixture
def cpu(flavour: str) -> Iterator[Cpu]:
    with Arena.create(size=SIZE, nr_cpus=2, nr_slots=7, flavour=flavour) as arena, Cpu(arena, 0) as made:
        yield made


@pytest.fixture
def checked() -> Iterator[Cpu]:
    with Arena.create(size=SIZE, nr_cpus=2, flavour="checked") as arena, Cpu(arena, 0) as made:
        yield made


# --- designs ------------------------------------------------------------------------------------


WITHOUT_PAGES = {"prealloc", "objpool", "bpf_mem_alloc", "no_prealloc"}  # they have tests of their own


@pytest.mark.parametrize("name", [name for name in designs.names() if name not in WITHOUT_PAGES])
def test_a_design_by_name(cpu: Cpu, name: str) -> None:
    design = cpu.design(name)
    design.setup()
    offset, pages = design.alloc(100, "GFP_KERNEL"), design.pages_alloc(1)
    assert len(cpu.view(offset)) == 104
    with cpu.kmem_cache_create("one", 64) as cache:
        design.free(design.cache_alloc(cache))
        cpu.run_irq_work()
    design.free(offset)
    design.pages_free(pages, 1)
    with pytest.raises(BadFree):
        design.free(offset)
    with pytest.raises(BadFree):
        design.pages_free(pages, 1)
    with pytest.raises(AllocationFailed, match=r"design_alloc\(.*67108864.*size_limit"):
        design.alloc(64 << 20)
    counts = cpu.contexts(name)["task"]
    assert (counts["allocs"], counts["frees"]) == (3, 3)
    assert sum(counts["failures"].values()) == 1
    assert repr(design) == f"<design {name}>"
    cpu.drain_pages()
    assert audit(cpu.arena).ok


def test_an_unknown_design(cpu: Cpu) -> None:
    with pytest.raises(ValueError, match=r"design = 'slob': allowed are .*kmalloc"):
        cpu.design("slob")


# --- replays ------------------------------------------------------------------------------------


def test_a_replay_once_through(cpu: Cpu) -> None:
    made = ops(*[("alloc", {"size": 8 * i, "slot": i}) for i in range(1, 24)], ("free", {"slot": 5}))
    result = cpu.replay(made, pattern=True)
    assert (result.done, result.stopped) == (24, False)
    assert result.elapsed_s > 0
    held = result.held.held()
    assert len(held) == 22
    assert sorted(cpu.ksize(offset) for offset in held)[0] == 8
    assert cpu.drain(result.held) == 22
    assert audit(cpu.arena, expect_live=False).ok


def test_a_replay_goes_round(cpu: Cpu) -> None:
    pair = ops(("alloc", {"size": 64}), "free")
    assert cpu.replay(pair, max_ops=101).done == 101
    assert cpu.contexts()["task"]["allocs"] == 51


def test_slots_outlive_a_replay(cpu: Cpu) -> None:
    words = array("Q", bytes(16))
    first = cpu.replay(ops(("alloc", {"size": 64, "slot": 1})), slots=words)
    assert first.held.held() == [word & (1 << 48) - 1 for word in words if word]
    cpu.replay(ops(("free", {"slot": 1})), slots=words)
    assert list(words) == [0, 0]


def test_a_stopped_arena_ends_a_replay(cpu: Cpu) -> None:
    cpu.arena.core.lib.shm_stop(1)
    result = cpu.replay(ops("nop"), max_ops=23)
    assert (result.done, result.stopped) == (0, True)


@pytest.mark.parametrize("kind", ["nmi", "irq"])
def test_an_impossible_program_is_refused_with_every_mistake(cpu: Cpu, kind: str) -> None:
    bad = ops(
        ("alloc", {"slot": 7, "flags": "shared"}),
        ("pages_alloc", {"order": 11}),
        ("cache_alloc", {"cache": 60}),
        ("alloc", {"slot": 2, "node": 1}),
    )
    with pytest.raises(ValueError) as caught:
        cpu.set_program(kind, bad, slots=2)
    assert [problem.rpartition(":")[0] for problem in str(caught.value).split("; ")] == [
        "op 0: slot = 7",
        "op 1: order = 11",
        "op 2: cache = 60",
        "op 3: slot = 2",
        "op 3: node = 1",
    ]
    broken = bytearray(ops("nop"))
    broken[0] = 99
    with pytest.raises(ValueError, match="op 0: code = 99: allowed is less than"):
        cpu.set_program(kind, broken)


def test_an_impossible_replay_is_refused(cpu: Cpu) -> None:
    with pytest.raises(ShmallocError, match=r"replay.*Invalid argument"):
        cpu.replay(ops(("pages_alloc", {"order": 11})))


# --- probe sites --------------------------------------------------------------------------------


def test_a_probe_runs_where_it_is_hooked(checked: Cpu) -> None:
    site = "alloc_fastpath"
    checked.kfree(checked.kmalloc(64))
    program = probes.arm(checked, site, ops(("alloc", {"size": 64})), action="nmi", nth=2)
    first = checked.kmalloc(64)
    assert (probes.hits(checked, site), probes.fired(checked)) == (1, 0)
    second = checked.kmalloc(64)
    assert probes.fired(checked) == 1
    assert len({first, second, *program.held()}) == 3
    assert checked.contexts()["nmi"]["allocs"] == 1
    assert checked.counters()["cmpxchg_double_cpu_fail"] == 1
    checked.drain(program)
    probes.disarm(checked)
    assert probes.hits(checked, site) == 0


def test_another_cpu_at_a_probe(checked: Cpu) -> None:
    with Cpu(checked.arena, 1) as other:
        program = probes.arm(
            checked, "before_new_slab", ops(("alloc", {"size": 64})), action="other_cpu", other=other
        )
        checked.kmalloc(64)
        assert len(program.held()) == 1
        assert other.contexts()["task"]["allocs"] == 1
        checked.drain(program)


def test_the_memory_of_an_armed_program_is_kept(checked: Cpu) -> None:
    probes.arm(checked, "alloc_fastpath", ops(("alloc", {"size": 64}), "free"))
    bytes(1 << 20)
    checked.kmalloc(64)
    checked.kmalloc(64)
    assert probes.fired(checked) == 1
    assert checked.contexts()["task"]["allocs"] == 3


def test_an_armed_probe_does_not_outlive_the_cpu() -> None:
    for _ in range(2):
        with Arena.create(size=SIZE, flavour="checked") as arena, Cpu(arena, 0) as cpu:
            assert probes.fired(cpu) == 0
            cpu.kfree(cpu.kmalloc(64))
            cpu.kfree(cpu.kmalloc(64))
            probes.arm(cpu, "alloc_fastpath", ops("nop"), nth=23)


def test_bad_probes_are_named(checked: Cpu) -> None:
    with pytest.raises(ValueError, match=r"site = 'nowhere': allowed are alloc_fastpath, "):
        probes.arm(checked, "nowhere", ops("nop"))
    with pytest.raises(ValueError, match=r"action = 'smi': allowed are probe, nmi, irq, other_cpu"):
        probes.arm(checked, "alloc_fastpath", ops("nop"), action="smi")
    with pytest.raises(ValueError, match="other = None"):
        probes.arm(checked, "alloc_fastpath", ops("nop"), action="other_cpu")
    with pytest.raises(ShmallocError, match="Invalid argument"):
        probes.arm(checked, "alloc_fastpath", ops("nop"), nth=0)


def test_the_release_flavour_has_no_probes() -> None:
    with Arena.create(size=SIZE) as arena, Cpu(arena, 0) as cpu:
        with pytest.raises(Unsupported, match="flavour = 'release'"):
            probes.arm(cpu, "alloc_fastpath", ops("nop"))
        with pytest.raises(Unsupported, match="flavour = 'release'"):
            probes.disarm(cpu)


# --- verdicts -----------------------------------------------------------------------------------


def test_a_deadlock_in_a_handler_is_recorded(checked: Cpu) -> None:
    """The spinning kmalloc in an NMI, on a zone lock that the interrupted allocation holds."""
    probes.arm(
        checked,
        "zone_locked_bulk",
        ops(("pages_alloc", {"gfp": "GFP_KERNEL"})),
        action="nmi",
        design="kmalloc",
    )
    assert checked.alloc_pages(0) > 0  # the handler's deadlock is not the interrupted call's
    with pytest.raises(AllocationFailed, match="order_limit"):
        checked.alloc_pages(11)
    found = [violation for violation in checked.arena.violations() if violation.verdict == "deadlock"]
    assert len(found) == 1
    assert (found[0].checker, found[0].context, found[0].lock_class) == ("deadlock", "nmi", "zone")
    assert (found[0].cpu, found[0].owner_cpu, found[0].level) == (0, 0, 1)
    assert found[0].stack
    assert f"{found[0]}".startswith("deadlock: ")
    assert "zone at 0x" in str(found[0])


DIES = """
import os, signal, sys
from shmalloc import Arena, Cpu
cpu = Cpu(Arena.attach(sys.argv[1], flavour=sys.argv[2]), 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lock_whose_owner_died_is_an_exception(cpu: Cpu) -> None:
    arena = cpu.arena
    arguments = [sys.executable, "-P", "-c", DIES, arena.name, arena.flavour]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    arena.header.slab_mutex.word = 2  # CPU 1, task level
    with pytest.raises(DeadlockProved, match=r"dead_owner: .* held by CPU 1") as caught:
        cpu.kmem_cache_create("never", 64)
    violation = caught.value.violation
    assert arena.violations() == [violation]
    with pytest.raises(ShmallocError):
        cpu.kmem_cache_create("never", 64)
