# SPDX-License-Identifier: MIT
"""Many sizes by one call, many offsets by one call."""

import contextlib
import subprocess
import sys
import threading
from array import array
from typing import Any

import numpy as np
import pytest
from auditing import clean
from growing import blocks_left

from shmalloc import AllocationFailed, BadFree, Cpu, ShmallocError, WrongThread

ALLOCATES = ["kmalloc_bulk", "kmalloc_nolock_bulk"]
FREES = ["kfree_bulk", "kfree_nolock_bulk"]
SIZES = [1, 8, 96, 97, 192, 1024, 4097, 8192, 0] * 23


def counts(cpu: Cpu) -> tuple[int, int, dict[str, int]]:
    task = cpu.contexts()["task"]
    return task["allocs"], task["frees"], task["failures"]


@pytest.mark.parametrize("allocate", ALLOCATES)
@pytest.mark.parametrize("free", FREES)
def test_each_size_gets_its_object(cpu: Cpu, allocate: str, free: str) -> None:
    offsets = getattr(cpu, allocate)(np.array(SIZES))
    assert offsets.dtype == np.uint64
    for number, (offset, size) in enumerate(zip(offsets.tolist(), SIZES, strict=True)):
        cpu.view(offset, size)[:] = bytes([number % 251]) * size
    for number, (offset, size) in enumerate(zip(offsets.tolist(), SIZES, strict=True)):
        assert bytes(cpu.view(offset, size)) == bytes([number % 251]) * size
    assert (offsets == 16).sum() == 23  # ZERO_SIZE_PTR
    getattr(cpu, free)(offsets)
    assert clean(cpu.arena)


@pytest.mark.parametrize(
    "sizes",
    [
        [64, 100],
        (64, 100),
        range(64, 101, 36),
        array("Q", [64, 100]),
        array("l", [64, 100]),
        array("i", [64, 100]),
        np.array([64, 100], np.uint16),
        np.array([64, 1, 100, 1], np.int64)[::2],
        memoryview(np.array([64, 100], np.uint64)),
    ],
    ids=lambda sizes: type(sizes).__name__,
)
def test_sizes_come_in_many_forms(cpu: Cpu, sizes: Any) -> None:
    offsets = cpu.kmalloc_bulk(sizes)
    assert [cpu.ksize(int(offset)) for offset in offsets] == [64, 104] or cpu.ksize(int(offsets[1])) == 128
    cpu.kfree_bulk(offsets.tolist())
    assert clean(cpu.arena)


def test_the_last_first(cpu: Cpu) -> None:
    """A view of offsets is as good, and is not copied: freed in its order, last in first out of the slab."""
    offsets = cpu.kmalloc_bulk([64] * 5)
    cpu.kfree_bulk(offsets[::-1])
    assert cpu.kmalloc_bulk([64] * 5).tolist() == offsets.tolist()
    cpu.kfree_bulk(offsets[1::2])
    cpu.kfree_bulk(offsets[::2])
    assert clean(cpu.arena)


def test_nothing_is_an_array_too(cpu: Cpu) -> None:
    assert cpu.kmalloc_bulk([]).tolist() == []
    assert cpu.kmalloc_bulk(np.zeros(0, np.uint64)).tolist() == []
    cpu.kfree_bulk([])
    cpu.kfree_bulk([0, 16, 0])
    assert counts(cpu)[:2] == (0, 0)


def test_results_go_where_they_are_wanted(cpu: Cpu) -> None:
    for out in (
        np.zeros(3, np.uint64),
        np.zeros(3, np.int64),
        array("Q", [0] * 3),
        memoryview(cpu.empty(3, "u8")),
    ):
        assert cpu.kmalloc_bulk([64, 64, 64], out=out) is out
        assert len(set(out)) == 3
        cpu.kfree_bulk(out)
    assert clean(cpu.arena)


def read_only(count: int) -> Any:
    made = np.zeros(count, np.uint64)
    made.flags.writeable = False
    return made


@pytest.mark.parametrize("name", ["out", "reasons"])
def test_where_results_cannot_go(cpu: Cpu, name: str) -> None:
    bits = 64 if name == "out" else 8
    bad = [np.zeros(2, "u8"), np.zeros(3, "f8"), np.zeros(3, "u4"), np.zeros((3, 1), "u8"), np.zeros(6, "u8")[::2],
           read_only(3), bytes(3), [0, 0, 0], 3]  # fmt: skip
    for target in bad:
        with pytest.raises(
            ValueError, match=rf"{name}.*: allowed is a writable, .* buffer of 3 integers of {bits} bits"
        ):
            cpu.kmalloc_bulk([64, 64, 64], **{name: target})
    assert counts(cpu) == (0, 0, {})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([64, -1], r"\[1\] = -1: allowed are 0 to"),
        (np.array([64, 64, -8]), r"\[2\] = -8: allowed are 0 to"),
        ([64, 2**64], r"\[1\] = 18446744073709551616: allowed are 0 to"),
        ([64, 2.5], r"\[1\] = 2.5: allowed are integers"),
        ([64, None], r"\[1\] = None: allowed are integers"),
        (np.array([1.0]), r"\[0\] = .*1.0.*: allowed are integers"),
        ([[64, 64]], "has 2 axes: allowed is 1"),
        (64, "has 0 axes: allowed is 1"),
        ("64", "'64': allowed are arrays"),
    ],
    ids=repr,
)
def test_arrays_that_are_none(cpu: Cpu, values: Any, why: str) -> None:
    for name, call in (("sizes", cpu.kmalloc_bulk), ("offsets", cpu.kfree_bulk)):
        with pytest.raises(ValueError, match=f"{name}.*{why}"):
            call(values)
    assert counts(cpu) == (0, 0, {})


def test_bad_flags_and_nodes(cpu: Cpu) -> None:
    with pytest.raises(ValueError, match="no such flag"):
        cpu.kmalloc_bulk([64], "GFP_KERNAL")
    with pytest.raises(ValueError, match="node = 5: allowed are -1"):
        cpu.kmalloc_bulk([64], node=5)
    with pytest.raises(TypeError):
        cpu.kmalloc_bulk([64], "GFP_KERNEL", -1, np.zeros(1, "u8"))  # type: ignore[misc]
    offsets = cpu.kmalloc_bulk([64, 64], "GFP_ATOMIC|__GFP_ZERO", 0)
    assert not any(bytes(cpu.view(offset)) != bytes(64) for offset in offsets.tolist())
    cpu.kfree_bulk(offsets)


def test_all_or_none(cpu: Cpu) -> None:
    out = np.full(4, 7, np.uint64)
    with pytest.raises(
        AllocationFailed, match=r"^kmalloc_nolock_bulk: sizes\[2\] = 8193: size_limit$"
    ) as caught:
        cpu.kmalloc_nolock_bulk([64, 64, 8193, 64], out=out)
    assert caught.value.reason == "size_limit"
    assert out[:3].tolist() == [0, 0, 0]
    assert counts(cpu) == (2, 2, {"size_limit": 1})
    assert clean(cpu.arena)


def test_what_can_be_had(cpu: Cpu) -> None:
    reasons = bytearray(b"x" * 5)
    offsets = cpu.kmalloc_nolock_bulk([64, 8193, 64, 9000, 64], reasons=reasons)
    names = cpu.arena.core.names("reason")
    assert [names[reason] for reason in reasons] == ["none", "size_limit", "none", "size_limit", "none"]
    assert [bool(offset) for offset in offsets] == [True, False, True, False, True]
    cpu.kfree_bulk(offsets)  # NULL is a no-op
    assert clean(cpu.arena)


def test_shortage_in_the_middle(cpu: Cpu) -> None:
    sizes, reasons = np.full(23, 1 << 20), np.zeros(23, np.uint8)
    with pytest.raises(AllocationFailed, match=r"kmalloc_bulk: sizes\[\d\] = 1048576: below_watermark"):
        cpu.kmalloc_bulk(sizes)
    offsets = cpu.kmalloc_bulk(sizes, reasons=reasons)
    got = int((offsets != 0).sum())
    assert 2 < got < 8
    assert {cpu.arena.core.names("reason")[reason] for reason in reasons[offsets == 0]} == {"below_watermark"}
    cpu.kfree_bulk(offsets)
    assert clean(cpu.arena)


@pytest.mark.parametrize("free", FREES)
def test_a_free_ends_at_what_is_none(cpu: Cpu, free: str) -> None:
    offsets = cpu.kmalloc_bulk([64] * 5)
    twice = offsets.copy()
    twice[3] = twice[1]
    with pytest.raises(BadFree, match=r"offsets\[3\], behind 3 that are free now: .*freed already") as caught:
        getattr(cpu, free)(twice)
    assert caught.value.offset == twice[3]
    assert counts(cpu)[:2] == (5, 3)
    cpu.kfree_bulk(offsets[3:])
    with pytest.raises(BadFree, match=r"offsets\[0\]"):
        cpu.kfree_bulk([12345])
    assert clean(cpu.arena)


@pytest.mark.parametrize("count", [3, 5003])
def test_another_thread_is_refused(cpu: Cpu, count: int) -> None:
    offsets = cpu.kmalloc_bulk([8] * count)
    errors: list[type[BaseException]] = []

    def use() -> None:
        for call, argument in ((cpu.kmalloc_bulk, [8] * count), (cpu.kfree_bulk, offsets)):
            try:
                call(argument)
            except ShmallocError as error:
                errors.append(type(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert errors == [WrongThread] * 2
    cpu.kfree_bulk(offsets)
    assert clean(cpu.arena)


def test_other_threads_run_meanwhile(cpu: Cpu) -> None:
    """The GIL is released for many: nothing else here would give it up in less than a minute."""
    sizes, ran, may_run = np.full(20_011, 8, np.uint64), threading.Event(), threading.Lock()
    may_run.acquire()

    def run() -> None:
        with may_run:
            ran.set()

    thread = threading.Thread(target=run)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        may_run.release()
        for _ in range(1009):
            cpu.kfree_bulk(cpu.kmalloc_bulk(sizes))
            if ran.is_set():
                break
        assert ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()


FORKS = """
import os, sys
import numpy as np
from shmalloc import Arena, Cpu
with Arena.create(size="8MiB", nr_cpus=2, flavour=sys.argv[1]) as arena, Cpu(arena, 0) as cpu:
    offsets = cpu.kmalloc_bulk(np.full(101, 64))
    child = os.fork()
    if child == 0:
        with Cpu(arena, 1) as other:
            other.kfree_bulk(offsets)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert cpu.contexts()["task"]["allocs"] == 101
"""


def test_another_process_frees_them(flavour: str) -> None:
    subprocess.run([sys.executable, "-P", "-c", FORKS, flavour], check=True)


def test_the_other_cpu_of_a_thread(cpu: Cpu) -> None:
    with Cpu(cpu.arena, 1) as other:
        for _ in range(23):
            other.kfree_bulk(cpu.kmalloc_bulk([8, 4096] * 23))
        assert counts(cpu)[0] == counts(other)[1] == 23 * 46


def test_nothing_leaks(cpu: Cpu) -> None:
    sizes, out, reasons = np.full(23, 64, np.uint64), np.zeros(23, np.uint64), np.zeros(23, np.uint8)
    large = np.full(23, 9000, np.uint64)
    references = [sys.getrefcount(thing) for thing in (sizes, out, reasons, large)]

    def use() -> None:
        cpu.kfree_bulk(cpu.kmalloc_bulk(sizes))
        cpu.kfree_bulk(cpu.kmalloc_bulk(sizes, out=out, reasons=reasons))
        cpu.kmalloc_nolock_bulk(large, out=out, reasons=reasons)
        for bad in (large, [64, 9000]):
            with contextlib.suppress(AllocationFailed):
                cpu.kmalloc_nolock_bulk(bad)

    assert blocks_left(use, 211) < 101
    assert [sys.getrefcount(thing) for thing in (sizes, out, reasons, large)] == references
    out.resize(24)  # nobody holds a buffer of it any more


def test_what_is_written_is_not_what_is_read(cpu: Cpu) -> None:
    sizes = np.full(9, 64, np.uint64)
    for sizes_in, keys in (
        (sizes, {"out": sizes}),
        (sizes[:-1], {"out": sizes[1:]}),
        (sizes[::-1][1:], {"out": sizes[1:]}),
        (sizes, {"reasons": sizes.view(np.uint8)[:9]}),
    ):
        with pytest.raises(ValueError, match="allowed are arrays that share no memory"):
            cpu.kmalloc_bulk(sizes_in, **keys)
    assert (sizes == 64).all()
    apart = np.zeros(18, np.uint64)
    cpu.kfree_bulk(cpu.kmalloc_bulk(apart[9:] + 64, out=apart[:9]))
