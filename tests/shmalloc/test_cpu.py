# SPDX-License-Identifier: MIT
"""Being a CPU: objects that go from process to process, and who may call."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from auditing import clean

from shmalloc import (
    Arena,
    BadFree,
    Cpu,
    CpuBusy,
    NotBound,
    Unsupported,
    WrongThread,
    ops,
)

FREES = """
import sys
from shmalloc import Arena, Cpu
with Arena.attach(sys.argv[1], flavour=sys.argv[3]) as arena, Cpu(arena, 1) as cpu:
    offset = int(sys.argv[2])
    assert bytes(cpu.view(offset, 5)) == b"hello"
    cpu.view(offset)[:5] = b"HELLO"
    cpu.kfree(offset)
"""


def test_an_object_goes_to_another_process_that_frees_it(arena: Arena, cpu: Cpu) -> None:
    offset = cpu.kmalloc_nolock(100)
    view = cpu.view(offset)
    view[:5] = b"hello"
    arguments = [sys.executable, "-P", "-c", FREES, arena.name, str(offset), arena.flavour]
    subprocess.run(arguments, check=True)
    with pytest.raises(BadFree):
        cpu.kfree(offset)
    assert clean(arena)


def test_a_cpu_needs_no_block(arena: Arena) -> None:
    offset = Cpu(arena, 0).kmalloc(100)
    Cpu(arena, 1).kfree(offset)
    with Cpu(arena, 0), Cpu(arena, 1):
        pass
    assert clean(arena)


def test_a_cpu_is_somebodys(arena: Arena, cpu: Cpu) -> None:
    with pytest.raises(CpuBusy, match=rf"CPU 0 of {arena.name} is process {os.getpid()}"):
        Cpu(arena, 0)


@pytest.mark.parametrize("number", [-1, 2, 128])
def test_there_is_no_such_cpu(arena: Arena, number: int) -> None:
    with pytest.raises(NotBound, match=rf"cpu = {number}: allowed are 0 to 1"):
        Cpu(arena, number)


def test_a_closed_cpu_says_so(arena: Arena) -> None:
    cpu = Cpu(arena, 0)
    offset = cpu.kmalloc(8)
    cpu.close()
    cpu.close()
    for use in (
        lambda: cpu.kmalloc(8),
        lambda: cpu.kfree(offset),
        lambda: cpu.run_irq_work(),
        cpu.irq_save().__enter__,
    ):
        with pytest.raises(NotBound, match=r"CPU 0 of .* is closed"):
            use()
    assert "closed" in repr(cpu)


def in_thread(call: Callable[[], object]) -> BaseException | None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, name="stranger")
    thread.start()
    thread.join()
    return caught[0] if caught else None


def test_another_thread_is_refused_by_name(arena: Arena, cpu: Cpu) -> None:
    offset = cpu.kmalloc(64)
    main = rf"thread MainThread \(tid {threading.get_native_id()}\)"
    calls: list[Callable[[], object]] = [
        lambda: cpu.kmalloc(8),
        lambda: cpu.kmalloc_nolock(8),
        lambda: cpu.kfree(offset),
        lambda: cpu.kfree_nolock(offset),
        lambda: cpu.ksize(offset),
        lambda: cpu.krealloc(offset, 100),
        lambda: cpu.alloc_pages(0),
        lambda: cpu.kmem_cache_create("stranger", 64),
        lambda: cpu.irq_save().__enter__(),
        lambda: cpu.set_program("nmi", ops("nop")),
        cpu.run_irq_work,
        cpu.drain_pages,
        cpu.close,
    ]
    for call in calls:
        error = in_thread(call)
        assert isinstance(error, WrongThread)
        assert re.fullmatch(rf"CPU 0 is {main}; .* from thread stranger \(tid \d+\)", str(error))
    assert isinstance(in_thread(lambda: Cpu(arena, 1)), WrongThread)
    cpu.kfree(offset)
    assert clean(arena)


FORKS = """
import os, sys
from shmalloc import Arena, Cpu, NotBound
with Arena.create(size="8MiB", nr_cpus=2, flavour=sys.argv[1]) as arena, Cpu(arena, 0) as cpu:
    offset = cpu.kmalloc(64)
    child = os.fork()
    if child == 0:
        for call in (lambda: cpu.kmalloc(8), lambda: cpu.kfree(offset), cpu.run_irq_work):
            try:
                call()
                os._exit(1)
            except NotBound as error:
                assert f"is process {os.getppid()}; this is process {os.getpid()}" in str(error), error
        with Cpu(arena, 1) as other:
            other.kfree(offset)
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    cpu.kfree(cpu.kmalloc(8))
    assert arena.region("cpus")["state"].tolist() == [1, 0]
"""


def test_a_forked_child_is_no_cpu(flavour: str) -> None:
    subprocess.run([sys.executable, "-P", "-c", FORKS, flavour], check=True)


DIES = """
import os, signal, sys
from shmalloc import Arena, Cpu
cpu = Cpu(Arena.attach(sys.argv[1], flavour=sys.argv[2]), 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_slot_of_a_dead_process_can_be_stolen(arena: Arena) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", DIES, arena.name, arena.flavour], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(CpuBusy, match=r"CPU 1 of .* was process \d+, which died as it; steal=True"):
        Cpu(arena, 1)
    with Cpu(arena, 1, steal=True) as cpu:
        cpu.kfree(cpu.kmalloc(64))


LEAVES = """
import sys
from shmalloc import Arena, Cpu
cpu = Cpu(Arena.attach(sys.argv[1], flavour=sys.argv[2]), 1)
"""


def test_a_process_that_ends_gives_its_cpu_back(arena: Arena) -> None:
    subprocess.run([sys.executable, "-P", "-c", LEAVES, arena.name, arena.flavour], check=True)
    with Cpu(arena, 1):
        pass


def test_pinned_while_it_is_a_cpu(arena: Arena) -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with Cpu(arena, 0, pin=core):
        assert os.sched_getaffinity(0) == {core}
        assert arena.region("cpus")["core"][0] == core
    assert os.sched_getaffinity(0) == before
    with pytest.raises(Unsupported, match=r"pin = 4095: allowed cores are"):
        Cpu(arena, 0, pin=4095)
    with pytest.raises(NotBound):
        Cpu(arena, 9, pin=core)
    assert os.sched_getaffinity(0) == before


def test_one_thread_can_be_several_cpus(arena: Arena) -> None:
    with Cpu(arena, 0) as first, Cpu(arena, 1) as second:
        for _ in range(23):
            second.kfree(first.kmalloc(64))
            first.kfree(second.kmalloc_nolock(64))
        assert first.counters()["alloc_fastpath"] + first.counters()["alloc_slowpath"] >= 23
        assert second.counters()["alloc_fastpath"] + second.counters()["alloc_slowpath"] >= 23
