# SPDX-License-Identifier: MIT
"""Being a CPU: allocating, freeing, views, interrupts, and refusals that say why."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from shmalloc import (
    AllocationFailed,
    Arena,
    BadFree,
    Cpu,
    CpuBusy,
    NotBound,
    ShmallocError,
    Unsupported,
    WrongThread,
    ops,
)
from shmalloc.audit import audit

SIZE = 8 << 20
ZERO_SIZE_PTR = 16


@pytest.fixture
def arena(flavour: str) -> Iterator[Arena]:
    with Arena.create(size=SIZE, nr_cpus=2, flavour=flavour) as made:
        yield made


@pytest.fixture
def cpu(arena: Arena) -> Iterator[Cpu]:
    with Cpu(arena, 0) as made:
        yield made


def clean(arena: Arena) -> bool:
    report = audit(arena)
    assert report.ok, report.problems
    return True


# --- the ten lines of the README ---------------------------------------------------------------

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


# --- allocating ---------------------------------------------------------------------------------

ALLOCATORS: dict[str, Callable[[Cpu, int], int]] = {
    "kmalloc": lambda cpu, size: cpu.kmalloc(size),
    "kmalloc_nolock": lambda cpu, size: cpu.kmalloc_nolock(size),
}


@pytest.mark.parametrize("name", ALLOCATORS)
def test_objects_do_not_overlap(cpu: Cpu, name: str) -> None:
    sizes = [1, 8, 9, 96, 97, 192, 193, 1024, 4097, 8192] * 23
    offsets = [ALLOCATORS[name](cpu, size) for size in sizes]
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        cpu.view(offset, size)[:] = bytes([number % 251]) * size
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        assert bytes(cpu.view(offset, size)) == bytes([number % 251]) * size
        cpu.kfree(offset)
    assert clean(cpu.arena)


def test_zeroed(cpu: Cpu) -> None:
    offset = cpu.kmalloc(96)
    cpu.view(offset)[:] = b"x" * 96
    cpu.kfree(offset)
    assert bytes(cpu.view(cpu.kmalloc(96, "GFP_KERNEL|__GFP_ZERO"))) == bytes(96)
    assert bytes(cpu.view(cpu.kmalloc_nolock(96, "__GFP_ZERO"))) == bytes(96)


def test_nothing_is_an_object_too(cpu: Cpu) -> None:
    for allocate in ALLOCATORS.values():
        assert allocate(cpu, 0) == ZERO_SIZE_PTR
    assert len(cpu.view(ZERO_SIZE_PTR)) == 0
    for free in (cpu.kfree, cpu.kfree_nolock):
        free(ZERO_SIZE_PTR)
        free(0)
    assert cpu.ksize(ZERO_SIZE_PTR) == 0


def test_large_objects_come_from_the_page_allocator(cpu: Cpu) -> None:
    offset = cpu.kmalloc(100_000)
    assert cpu.ksize(offset) == 32 * 4096
    cpu.view(offset, 100_000)[-1] = 1
    cpu.kfree(offset)
    assert clean(cpu.arena)


def test_kmalloc_nolock_has_a_size_limit(cpu: Cpu) -> None:
    cpu.kfree_nolock(cpu.kmalloc_nolock(8192))
    with pytest.raises(
        AllocationFailed, match=r"kmalloc_nolock\(8193, __GFP_ZERO, -1\): size_limit"
    ) as caught:
        cpu.kmalloc_nolock(8193, "__GFP_ZERO")
    assert caught.value.reason == cpu.last_reason == "size_limit"


def test_shortage_says_so_and_ends(cpu: Cpu) -> None:
    offsets: list[int] = []

    def exhaust() -> None:
        while True:
            offsets.append(cpu.kmalloc(1 << 20))

    with pytest.raises(AllocationFailed) as caught:
        exhaust()
    assert caught.value.reason == "below_watermark"
    assert isinstance(caught.value, MemoryError)
    assert len(offsets) > 2
    for offset in offsets:
        cpu.kfree(offset)
    cpu.kfree(cpu.kmalloc(1 << 20))
    assert clean(cpu.arena)


@pytest.mark.parametrize("size", [-1, 2**64])
def test_a_size_that_is_none(cpu: Cpu, size: int) -> None:
    with pytest.raises(ValueError, match=rf"kmalloc.*{size}"):
        cpu.kmalloc(size)
    with pytest.raises(AllocationFailed, match=r"order_limit|size_limit|below_watermark"):
        cpu.kmalloc(2**63)


@pytest.mark.parametrize("node", [-2, 1, 2**31 - 1])
def test_a_node_that_is_none(cpu: Cpu, node: int) -> None:
    with cpu.kmem_cache_create("noded", 64) as cache:
        calls: list[Callable[..., int]] = [cache.alloc, cache.alloc_nolock, cpu.design("kmalloc").pages_alloc]
        calls += [
            partial(call, 64) for call in (cpu.kmalloc, cpu.kmalloc_nolock, cpu.design("kmalloc").alloc)
        ]
        calls += [partial(call, 0) for call in (cpu.alloc_pages, cpu.alloc_pages_nolock)]
        for call in calls:
            with pytest.raises(ValueError, match=rf"node = {node}: allowed are -1 \(any\) to 0"):
                call(node=node)


def test_unknown_flags_are_named(cpu: Cpu) -> None:
    with pytest.raises(ValueError, match=r"no such flag 'GFP_KERNAL'"):
        cpu.kmalloc(8, "GFP_KERNAL")


def test_krealloc_keeps_the_contents(cpu: Cpu) -> None:
    offset = cpu.krealloc(0, 40)
    cpu.view(offset, 40)[:] = bytes(range(40))
    offset = cpu.krealloc(offset, 5000)
    assert bytes(cpu.view(offset, 40)) == bytes(range(40))
    offset = cpu.krealloc(offset, 10)
    assert bytes(cpu.view(offset, 10)) == bytes(range(10))
    assert cpu.krealloc(offset, 0) == ZERO_SIZE_PTR
    with pytest.raises(BadFree):
        cpu.krealloc(offset, 100)
    assert clean(cpu.arena)


@pytest.mark.parametrize(
    ("size", "room"), [(1, 8), (65, 96), (97, 128), (129, 192), (193, 256), (8192, 8192)]
)
def test_ksize(cpu: Cpu, size: int, room: int) -> None:
    assert cpu.ksize(cpu.kmalloc(size)) == room


# --- freeing what is none -----------------------------------------------------------------------

FREES_OF: dict[str, Callable[[Cpu, int], None]] = {
    "kfree": lambda cpu, offset: cpu.kfree(offset),
    "kfree_nolock": lambda cpu, offset: cpu.kfree_nolock(offset),
}


@pytest.mark.parametrize("name", FREES_OF)
@pytest.mark.parametrize(
    "offset", [1, 8, 17, 4096, SIZE - 4096, SIZE - 8, SIZE, SIZE + 64, 2**48, 2**63, 2**64 - 8, 2**64, -8]
)
def test_garbage_is_named(cpu: Cpu, name: str, offset: int) -> None:
    live = cpu.kmalloc(64)
    with pytest.raises(BadFree, match=rf"free of offset {offset:#x}: ") as caught:
        FREES_OF[name](cpu, offset)
    assert caught.value.offset == offset
    assert caught.value.why
    cpu.kfree(live)
    assert clean(cpu.arena)


@pytest.mark.parametrize("first", FREES_OF)
@pytest.mark.parametrize("second", FREES_OF)
@pytest.mark.parametrize("size", [8, 100, 8192])
def test_a_double_free_is_named(cpu: Cpu, first: str, second: str, size: int) -> None:
    offset = cpu.kmalloc(size)
    FREES_OF[first](cpu, offset)
    with pytest.raises(BadFree, match=r"not live: freed already|already freed"):
        FREES_OF[second](cpu, offset)
    offsets = {cpu.kmalloc(size) for _ in range(101)}
    assert len(offsets) == 101
    assert clean(cpu.arena)


@pytest.mark.parametrize("name", FREES_OF)
@pytest.mark.parametrize("size", [64, 100, 8192, 50_000])
@pytest.mark.parametrize("distance", [1, 7, 8, 16, 56])
def test_the_middle_of_an_object_is_named(cpu: Cpu, name: str, size: int, distance: int) -> None:
    offset = cpu.kmalloc(size)
    cpu.view(offset, size)[:] = b"\xa5" * size
    with pytest.raises(BadFree, match=rf"{distance} bytes into the live object at {offset:#x}"):
        FREES_OF[name](cpu, offset + distance)
    assert bytes(cpu.view(offset, size)) == b"\xa5" * size
    cpu.kfree(offset)
    assert clean(cpu.arena)


def test_the_middle_of_a_free_object_is_named(cpu: Cpu) -> None:
    offset = cpu.kmalloc(128)
    cpu.kfree(offset)
    with pytest.raises(
        BadFree, match=rf"24 bytes from the start of the free object of kmalloc-128 at {offset:#x}"
    ):
        cpu.kfree(offset + 24)


def test_pages_are_not_for_kfree_nor_objects_for_free_pages(cpu: Cpu) -> None:
    pages, small, large = cpu.alloc_pages(2), cpu.kmalloc(64), cpu.kmalloc(20_000)
    for free in FREES_OF.values():
        with pytest.raises(BadFree, match=r"pages that alloc_pages handed out"):
            free(cpu, pages)
    for free_pages in (cpu.free_pages, cpu.free_pages_nolock):
        with pytest.raises(BadFree, match=r"a block of order 2, not 1"):
            free_pages(pages, 1)
        with pytest.raises(BadFree, match=r"into the live object|order 2"):
            free_pages(pages + 4096, 0)
        with pytest.raises(BadFree, match=r"not the start of a page"):
            free_pages(pages + 8, 2)
        with pytest.raises(BadFree):
            free_pages(small & ~4095, 0)
        with pytest.raises(BadFree, match=r"a large kmalloc: kfree takes it"):
            free_pages(large, 3)
    cpu.free_pages(pages, 2)
    for free_pages in (cpu.free_pages, cpu.free_pages_nolock):
        with pytest.raises(BadFree):
            free_pages(pages, 2)
    cpu.kfree(small)
    cpu.kfree(large)
    assert clean(cpu.arena)


def test_another_cpus_free_is_noticed(arena: Arena) -> None:
    with Cpu(arena, 0) as first, Cpu(arena, 1) as second:
        offset = first.kmalloc(64)
        second.kfree(offset)
        with pytest.raises(BadFree):
            first.kfree(offset)
        assert clean(arena)


@pytest.mark.parametrize("name", FREES_OF)
def test_without_the_oracle_the_page_table_is_asked(flavour: str, name: str) -> None:
    with Arena.create(size=SIZE, oracle=False, flavour=flavour) as arena, Cpu(arena, 0) as cpu:
        offset, large, pages = cpu.kmalloc(64), cpu.kmalloc(20_000), cpu.alloc_pages(1)
        for bad in (1, 2**63, SIZE, offset + 8, offset + 1, large + 4096, pages, -8):
            with pytest.raises(BadFree):
                FREES_OF[name](cpu, bad)
        with pytest.raises(BadFree):
            cpu.free_pages(pages, 0)
        assert len(cpu.view(offset)) == 64
        cpu.free_pages(pages, 1)
        cpu.kfree(large)
        FREES_OF[name](cpu, offset)
        cpu.run_irq_work()
        assert clean(arena)


# --- views --------------------------------------------------------------------------------------


def test_a_view_is_the_memory_itself(cpu: Cpu) -> None:
    offset = cpu.kmalloc(100)
    assert len(cpu.view(offset)) == 104
    cpu.view(offset, 4)[:] = b"abcd"
    assert bytes(cpu.arena.buffer[offset : offset + 4]) == b"abcd"
    assert bytes(cpu.view(offset + 2, 2)) == b"cd"


def test_an_array_is_the_memory_itself(cpu: Cpu) -> None:
    offset = cpu.kmalloc(96)
    array = cpu.array(offset, (3, 4), "f8")
    array[:] = np.arange(12).reshape(3, 4)
    assert cpu.array(offset, 12, np.float64).tolist() == list(range(12))
    assert cpu.array(offset + 8, 2, "f8").tolist() == [1.0, 2.0]


def test_views_end_where_the_object_does(cpu: Cpu) -> None:
    offset = cpu.kmalloc(100)
    for at, size in ((offset, 105), (offset + 100, 5), (offset, -1), (offset, 2**63)):
        with pytest.raises(ShmallocError, match=r"view of"):
            cpu.view(at, size)
    with pytest.raises(ShmallocError, match=r"the object ends 104 bytes from there"):
        cpu.array(offset, 14, "f8")
    cpu.kfree(offset)
    for bad in (offset, 0, 17, SIZE, -4096, 2**64):
        with pytest.raises(ShmallocError, match=r"view"):
            cpu.view(bad)


def test_pages_can_be_viewed(cpu: Cpu) -> None:
    offset = cpu.alloc_pages(3)
    assert len(cpu.view(offset)) == 8 * 4096
    assert len(cpu.view(offset + 4096, 4096)) == 4096
    cpu.free_pages(offset, 3)


# --- pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", range(11))
def test_pages(cpu: Cpu, order: int) -> None:
    offset = cpu.alloc_pages(order)
    assert offset % 4096 == 0
    cpu.free_pages(offset, order)
    assert clean(cpu.arena)


@pytest.mark.parametrize("order", range(4))
def test_pages_nolock(cpu: Cpu, order: int) -> None:
    offset = cpu.alloc_pages_nolock(order)
    cpu.free_pages_nolock(offset, order)
    cpu.drain_pages()
    assert clean(cpu.arena)


def test_orders_have_limits(cpu: Cpu) -> None:
    with pytest.raises(AllocationFailed, match=r"order_limit"):
        cpu.alloc_pages(11)
    with pytest.raises(AllocationFailed, match=r"order_limit"):
        cpu.alloc_pages_nolock(5)


# --- who may call -------------------------------------------------------------------------------


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


# --- interrupts ---------------------------------------------------------------------------------


def test_an_nmi_runs_its_program(cpu: Cpu) -> None:
    program = cpu.set_program(
        "nmi", ops(("alloc", {"size": 64, "slot": 0}), ("alloc", {"size": 96, "slot": 1}))
    )
    assert program is not None
    assert program.held() == []
    cpu.interrupt("nmi")
    held = program.held()
    assert len(set(held)) == 2
    assert [cpu.ksize(offset) for offset in held] == [64, 96]
    assert cpu.interrupts()["nmi"]["sent"] == cpu.interrupts()["nmi"]["handled"] == 1
    assert cpu.contexts("kmalloc_nolock")["nmi"] == {"allocs": 2, "frees": 0, "failures": {}}
    cpu.set_program("nmi", None)
    cpu.interrupt("nmi")
    assert program.held() == held
    assert cpu.drain(program) == 2
    assert program.held() == []
    assert clean(cpu.arena)


def test_the_memory_of_a_program_is_kept(cpu: Cpu) -> None:
    for round_ in range(23):
        slots = bytearray(8)
        cpu.set_program("nmi", ops(("alloc", {"size": 8 + round_}), ("free", {})), slots=slots)
        del slots
        cpu.interrupt("nmi")
    assert cpu.contexts()["nmi"]["allocs"] == cpu.contexts()["nmi"]["frees"] == 23


def test_an_irq_waits_for_irqs_to_be_enabled(cpu: Cpu) -> None:
    program = cpu.set_program("irq", ops(("alloc", {"size": 64})), design="kmalloc")
    assert program is not None
    with cpu.irq_save():
        with cpu.irq_save():
            cpu.interrupt("irq")
        assert cpu.irq_pending()
        assert program.held() == []
    assert not cpu.irq_pending()
    assert len(program.held()) == 1
    assert cpu.interrupts()["irq"]["masked"] == 1
    cpu.drain(program)


def test_an_nmi_does_not_wait(cpu: Cpu) -> None:
    program = cpu.set_program("nmi", ops(("alloc", {"size": 64})))
    assert program is not None
    with cpu.irq_save():
        cpu.interrupt("nmi")
        assert len(program.held()) == 1
    cpu.drain(program)


def test_irqs_come_back_after_an_exception(cpu: Cpu) -> None:
    with pytest.raises(KeyError), cpu.irq_save():
        raise KeyError
    cpu.set_program("irq", ops(("alloc", {"size": 64}), "free"))
    cpu.interrupt("irq")
    assert cpu.interrupts()["irq"]["handled"] == 1


def test_softirq_context(cpu: Cpu) -> None:
    with cpu.bh_disable(), cpu.bh_disable():
        cpu.kfree(cpu.kmalloc(64))
    cpu.kfree(cpu.kmalloc(64))


def test_interrupts_can_come_from_elsewhere(arena: Arena, cpu: Cpu) -> None:
    cpu.set_program("nmi", ops(("alloc", {"size": 64}), "free"))
    with Arena.attach(arena.name, flavour=arena.flavour):
        arena.send_interrupt(0, "nmi")
    assert cpu.interrupts()["nmi"]["handled"] == 1
    with pytest.raises(ShmallocError, match=r"CPU 1 gets no nmi interrupt"):
        arena.send_interrupt(1, "nmi")
    with pytest.raises(ValueError, match=r"kind = 'smi': allowed are nmi, irq"):
        arena.send_interrupt(0, "smi")


def test_a_timer_interrupts(cpu: Cpu) -> None:
    cpu.set_program("nmi", ops(("alloc", {"size": 64}), "free"))
    cpu.set_timer("nmi", 1000.0, 0.5)
    while cpu.interrupts()["nmi"]["handled"] < 5:
        cpu.kfree(cpu.kmalloc(64))
    cpu.set_timer("nmi", 0)
    assert cpu.contexts()["nmi"]["allocs"] + sum(cpu.contexts()["nmi"]["failures"].values()) >= 5


# --- counters -----------------------------------------------------------------------------------


def test_counters_have_the_kernels_names(cpu: Cpu) -> None:
    before = cpu.counters()
    for offset in [cpu.kmalloc(64) for _ in range(101)]:
        cpu.kfree(offset)
    after = cpu.counters()
    grown = {name: after[name] - before[name] for name in after}
    assert grown["alloc_fastpath"] + grown["alloc_slowpath"] == 101
    assert grown["free_fastpath"] + grown["free_slowpath"] == 101
    assert grown["alloc_slab"] >= 1
    assert grown["numa_hit"] >= 1
    assert {"irq_work_runs", "pcp_refill", "cmpxchg_double_fail"} <= set(after)
    assert "pad" not in after


def test_the_reason_of_the_last_failure(cpu: Cpu) -> None:
    assert cpu.last_reason == "none"
    with pytest.raises(AllocationFailed):
        cpu.alloc_pages(11)
    assert cpu.last_reason == "order_limit"
