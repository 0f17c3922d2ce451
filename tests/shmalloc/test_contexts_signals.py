# SPDX-License-Identifier: MIT
"""Which thread is the CPU, what its signals and timers do before, during and after that, and a storm of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from peer import Peer, until
from rig import Rig
from storm import storm
from windows import NOLOCK, SPINNING

from shmalloc import Arena, Cpu, ShmallocError, ops

ALLOC_FREE = ("alloc", {"size": 64}), "free"
IRQ_SIGNAL, NMI_SIGNAL = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture
def rig(flavour: str) -> Iterator[Rig]:
    with Rig.create(flavour=flavour) as made:
        yield made


# --- who is the CPU ------------------------------------------------------------------------------------------


@pytest.fixture
def bystander() -> Iterator[threading.Thread]:
    """A thread that waits."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield thread
    end.set()
    thread.join()


@pytest.mark.parametrize(("kind", "number"), [("nmi", NMI_SIGNAL), ("irq", IRQ_SIGNAL)])
def test_a_signal_on_another_thread_is_no_interrupt(
    rig: Rig, bystander: threading.Thread, kind: str, number: signal.Signals
) -> None:
    rig.cpu.set_program(kind, ops(*ALLOC_FREE))
    assert bystander.ident is not None
    assert rig.lib.shm_signal_of(getattr(rig.lib, f"KIND_{kind.upper()}")) == number
    for _ in range(23):
        signal.pthread_kill(bystander.ident, number)
    rig.cpu.interrupt(kind)
    assert rig.cpu.interrupts()[kind]["handled"] == 1
    assert rig.allocs() == {kind: 1}
    assert bystander.is_alive()


@pytest.mark.parametrize("number", [NMI_SIGNAL, IRQ_SIGNAL])
def test_a_process_directed_signal_that_another_thread_takes(
    rig: Rig, bystander: threading.Thread, number: signal.Signals
) -> None:
    for kind in ("nmi", "irq"):
        rig.cpu.set_program(kind, ops(*ALLOC_FREE))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        os.kill(os.getpid(), number)  # another thread has to take it
        until(lambda: number not in signal.sigpending(), "another thread has taken the signal")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert rig.allocs() == {}


def test_another_threads_calls_are_refused_by_the_core(rig: Rig) -> None:
    offset, lib = rig.alloc(), rig.lib
    results: list[int] = []

    def stranger() -> None:
        results.extend(
            (lib.shm_kmalloc(64, 0), lib.shm_kmalloc_nolock(64, 0, -1), lib.shm_alloc_pages(0, -1, 0))
        )
        results.extend((lib.shm_kfree(offset), lib.shm_kfree_nolock(offset), lib.shm_drain_pages()))
        results.extend(
            (lib.shm_irq_save(), lib.shm_bh_disable(), lib.shm_irq_restore(0), lib.shm_run_irq_work())
        )
        results.extend((lib.shm_flush_all(0), lib.shm_set_timer(0, 100.0, 0.0), lib.shm_thread_ok()))

    thread = threading.Thread(target=stranger)
    thread.start()
    thread.join()
    assert results == [0, 0, 0, *[-1] * 9, 0]  # EPERM
    assert rig.lib.shm_thread_ok() == 1
    rig.settle()


FORKS = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
from rig import Rig
with Rig.create(flavour=sys.argv[1]) as rig:
    offset = rig.alloc()
    child = os.fork()
    if child == 0:
        lib = rig.lib
        assert lib.shm_cpu_current() == -1
        assert lib.shm_kmalloc(64, 0) == 0
        assert lib.shm_kfree(offset) == -1
        assert lib.shm_thread_ok() == 0
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)  # the handlers are still there, and see that this is no CPU
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert rig.cpu.interrupts() == {kind: dict.fromkeys(rig.cpu.interrupts()["nmi"], 0) for kind in ("nmi", "irq")}
    rig.cpu.interrupt("nmi")
    assert rig.cpu.interrupts()["nmi"]["handled"] == 1
    rig.settle()
"""


def test_fork_leaves_the_child_unbound(flavour: str) -> None:
    arguments = [sys.executable, "-P", "-c", FORKS, flavour, *filter(None, sys.path)]
    subprocess.run(arguments, check=True)


# --- timers and handlers ------------------------------------------------------------------------------------------


def timers() -> int:
    """How many POSIX timers this process has."""
    return sum(line.startswith("ID:") for line in Path("/proc/self/timers").read_text().splitlines())


@pytest.mark.parametrize("kind", ["nmi", "irq"])
def test_a_timer_ends_with_the_binding(flavour: str, kind: str) -> None:
    before = timers()
    with Rig.create(flavour=flavour) as rig:
        rig.cpu.set_program(kind, ops(*ALLOC_FREE))
        rig.cpu.set_timer(kind, 2000.0, 0.5)
        assert timers() == before + 1
        while rig.cpu.interrupts()[kind]["handled"] < 5:
            rig.replay(*ALLOC_FREE, max_ops=1000)
        assert rig.cpu_state().timer_ticks[getattr(rig.lib, f"KIND_{kind.upper()}")] >= 5
    assert timers() == before


def test_a_rate_of_zero_takes_a_timer_away(rig: Rig) -> None:
    before = timers()
    for kind in ("nmi", "irq"):
        rig.cpu.set_timer(kind, 1000.0)
    assert timers() == before + 2
    rig.cpu.set_timer("nmi", 500.0)
    assert timers() == before + 2
    for kind in ("nmi", "irq"):
        rig.cpu.set_timer(kind, 0)
    assert timers() == before


@pytest.mark.parametrize(("rate_hz", "jitter"), [(-1.0, 0.0), (2e6, 0.0), (100.0, -0.1), (100.0, 1.1)])
def test_a_timer_that_cannot_be_is_refused(rig: Rig, rate_hz: float, jitter: float) -> None:
    before = timers()
    with pytest.raises(ShmallocError):
        rig.cpu.set_timer("nmi", rate_hz, jitter)
    assert timers() == before


def test_a_signal_after_the_binding_does_no_harm(flavour: str) -> None:
    with Rig.create(flavour=flavour):
        pass
    for number in (IRQ_SIGNAL, NMI_SIGNAL):
        signal.pthread_kill(threading.get_ident(), number)  # by default it would end the process


def test_a_handler_of_before_is_back_after(flavour: str) -> None:
    got: list[int] = []
    old = signal.signal(IRQ_SIGNAL, lambda number, _: got.append(number))
    try:
        with Rig.create(flavour=flavour) as rig:
            rig.cpu.interrupt("irq")
            assert got == []
        signal.raise_signal(IRQ_SIGNAL)
        assert got == [IRQ_SIGNAL]
    finally:
        signal.signal(IRQ_SIGNAL, old)


def test_a_cpu_without_handlers_gets_no_signal(flavour: str) -> None:
    """It would be the end of its process."""
    with Arena.create(size="4MiB", nr_cpus=2, pageblock_order=5, flavour=flavour) as arena:
        with Cpu(arena, 1, handlers=False), pytest.raises(ShmallocError, match=r"CPU 1"):
            arena.send_interrupt(1, "nmi")
        with pytest.raises(ShmallocError, match=r"CPU 0"):
            arena.send_interrupt(0, "irq")


# --- a storm of real signals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", [SPINNING, NOLOCK])
def test_a_storm(rig: Rig, design: str) -> None:
    """As long as it takes for interrupts to have landed in every kind of place; then everything adds up."""
    landed = storm(rig, design)
    for kind in ("nmi", "irq"):
        assert landed[kind]["handled"] <= landed[kind]["sent"]
        assert landed[kind]["in_allocator"] >= landed[kind]["in_slow_path"] > 0
    assert rig.allocs().keys() == {"task", "irq", "nmi"}
    assert sum(rig.cpu.contexts()["nmi"]["failures"].values()) < rig.allocs()["nmi"]
    rig.settle()


@pytest.mark.slow
@pytest.mark.parametrize("design", [SPINNING, NOLOCK])
def test_a_long_storm_on_three_processes(flavour: str, design: str) -> None:
    """Each frees what the others have allocated; in the checked flavour the lock rules watch."""
    with Rig.create(cpus=3, bind=1, size="16MiB", flavour=flavour) as rig, ExitStack() as stack:
        peers = [stack.enter_context(Peer(rig.arena, number)) for number in (1, 2)]
        for peer in peers:
            peer.begin("storm", design, rounds=101)
        storm(rig, design, rounds=101)
        for peer in peers:
            assert peer.result()["nmi"]["in_slow_path"] > 0
            assert peer.do("drain_programs") is None
        rig.settle()
