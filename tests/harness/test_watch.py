# SPDX-License-Identifier: MIT
"""Stalls: measured in the CPU's own processor time."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from running import until

from harness.watch import Watch, cpu_seconds, doing
from shmalloc.arena import Arena

DEADLINE_S = 0.2


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena.create(size="4MiB", nr_cpus=2, pageblock_order=4) as made:
        yield made


@pytest.fixture
def spinning() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that uses processor time and does nothing."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield process
        process.kill()


def test_no_progress_in_processor_time_is_a_stall(arena: Arena, spinning: subprocess.Popen[bytes]) -> None:
    arena.region("cpus")["op_index"][1] = 23
    watch = Watch(arena, {1: spinning.pid}, DEADLINE_S)
    incident = until(lambda: watch.check(0.01, [1]), "the stall")
    assert incident.verdict == "stall"
    assert (incident.cpu, incident.context, incident.op_index) == (1, "task", 23)
    assert f"pid {spinning.pid}" in incident.text
    assert (cpu_seconds(spinning.pid) or 0) > DEADLINE_S


def test_progress_is_none(arena: Arena, spinning: subprocess.Popen[bytes]) -> None:
    watch = Watch(arena, {0: spinning.pid}, DEADLINE_S)
    done = arena.region("cpus")["ops_done"]

    def used_twice_the_deadline() -> bool:
        done[0] += 1
        assert watch.check(0.01, [0]) is None
        return (cpu_seconds(spinning.pid) or 0) > 2 * DEADLINE_S

    until(used_twice_the_deadline, "processor time")


def test_a_cpu_that_has_finished_may_rest(arena: Arena, spinning: subprocess.Popen[bytes]) -> None:
    watch = Watch(arena, {0: spinning.pid}, DEADLINE_S)
    until(lambda: (cpu_seconds(spinning.pid) or 0) > 2 * DEADLINE_S, "processor time")
    assert watch.check(1000.0, []) is None


def test_a_stopped_process_is_a_stall_too(arena: Arena, spinning: subprocess.Popen[bytes]) -> None:
    os.kill(spinning.pid, signal.SIGSTOP)
    until(lambda: os.waitpid(spinning.pid, os.WUNTRACED | os.WNOHANG)[0], "the stop")
    watch = Watch(arena, {0: spinning.pid}, DEADLINE_S)
    assert watch.check(1.0, [0]) is None
    assert watch.check(30.0, [0]) is None
    incident = watch.check(40.0, [0])
    assert incident is not None
    assert "stopped or blocked" in incident.text


def test_a_process_that_has_ended_is_somebody_elses_business(arena: Arena) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    watch = Watch(arena, {0: process.pid}, DEADLINE_S)
    assert watch.check(1.0, [0]) is None
    assert watch.check(1000.0, [0]) is None


def test_what_a_cpu_was_doing_names_the_lock_and_its_holder(arena: Arena) -> None:
    row = arena.region("cpus")[0]
    row["op_index"], row["level"] = 101, 1
    row["levels"]["ctx"][1] = 3
    row["irqs_disabled"] = 1
    zone = arena.header.regions[arena.core.lib.REGION_ZONES].offset
    row["waiting_for"] = zone + arena.core.ffi.offsetof("struct zone", "lock")
    arena.region("zones")["lock"]["word"][0] = 2
    state = doing(arena, 0)
    assert state.context == "nmi"
    assert state.op_index == 101
    assert "at op 101 in nmi context (level 1)" in state.text
    assert "zone at" in state.text
    assert "held by CPU 1" in state.text
    assert "with irqs off" in state.text


def test_nonsense_in_the_arena_is_no_crash(arena: Arena) -> None:
    row = arena.region("cpus")[0]
    row["level"], row["waiting_for"] = 0xFFFF, 2**55
    row["levels"]["ctx"][...] = 99
    assert "something at" in doing(arena, 0).text
