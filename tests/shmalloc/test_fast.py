# SPDX-License-Identifier: MIT
"""Methods whose common case is compiled: they are what their Python functions are, quicker."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from auditing import clean
from elftools.elf.elffile import ELFFile
from growing import blocks_left

from shmalloc import (
    AllocationFailed,
    Arena,
    BadFree,
    Cpu,
    DeadlockProved,
    NotBound,
    ShmallocError,
    _binding,
    ops,
)
from shmalloc.cache import KmemCache
from shmalloc.design_calls import DesignCalls
from shmalloc.fast import fast
from shmalloc.gfp import Gfp

COMPILED = [
    Cpu.kmalloc,
    Cpu.kmalloc_nolock,
    Cpu.kfree,
    Cpu.kfree_nolock,
    KmemCache.alloc,
    KmemCache.alloc_nolock,
    KmemCache.free,
    DesignCalls.alloc,
    DesignCalls.free,
    Cpu.view,
    Cpu.array,
    Cpu.block,
    Cpu.own,
    Cpu.empty,
    Cpu.give,
    Cpu.take,
    Cpu.kmalloc_bulk,
    Cpu.kmalloc_nolock_bulk,
    Cpu.kfree_bulk,
    Cpu.kfree_nolock_bulk,
]


@pytest.mark.parametrize("method", COMPILED, ids=lambda method: method.__qualname__)
def test_it_is_documented_as_the_function_is(method: Any) -> None:
    function = method.__wrapped__
    assert inspect.isfunction(function)
    assert not inspect.isfunction(method)
    assert inspect.getdoc(method) == inspect.getdoc(function)
    assert inspect.signature(method) == inspect.signature(function)
    assert (method.__name__, method.__module__) == (function.__name__, function.__module__)


def slowly(method: Any) -> Any:
    """What is called when it is not the common case."""
    return method.__func__.__wrapped__.__get__(method.__self__)


def outcome(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)


class Index:
    """An integer to whom asks for one."""

    def __index__(self) -> int:
        return 64

    __int__ = __index__

    def __repr__(self) -> str:  # the name of a test, and the same in every worker
        return "Index()"


REQUESTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((64, 0, -1, 0), {}),
    ((64,), {"size": 64}),
    ((64,), {"bytes": 64}),
    ((-1,), {}),
    ((2**64,), {}),
    ((2**70,), {}),
    ((2**63,), {}),
    ((9000, "__GFP_ZERO"), {}),
    (("64",), {}),
    ((64.0,), {}),
    ((None,), {}),
    ((64, "GFP_KERNAL"), {}),
    ((64, -1), {}),
    ((64, 2**32), {}),
    ((64, None), {}),
    ((64, 0, 1), {}),
    ((64, 0, -2), {}),
    ((64, 0, 2**31), {}),
    ((64, 0, 2**70), {}),
    ((64, 0, None), {}),
]


@pytest.mark.parametrize(("args", "kwargs"), REQUESTS, ids=repr)
def test_a_bad_request_is_refused_as_the_function_does(
    cpu: Cpu, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    cache = cpu.cache("kmalloc-64")
    methods = [cpu.kmalloc_nolock, cpu.design("kmalloc_nolock").alloc]
    if args and type(args[0]) is int and args[0] == 64 and not kwargs:
        methods.append(cache.alloc_nolock)
    for method in methods:
        given = args[1:] if method == cache.alloc_nolock else args
        fast_one = outcome(method, *given, **kwargs)
        assert fast_one == outcome(slowly(method), *given, **kwargs)
        assert isinstance(fast_one, tuple)


@pytest.mark.parametrize("offset", [1, 4096, 2**48, 2**63, 2**64, -8, None, "0", 8.0])
def test_a_bad_offset_is_refused_as_the_function_does(cpu: Cpu, offset: Any) -> None:
    cache = cpu.cache("kmalloc-64")
    for method in (cpu.kfree, cpu.kfree_nolock, cache.free, cpu.design("kmalloc").free):
        fast_one = outcome(method, offset)
        assert isinstance(fast_one, tuple)
        assert fast_one == outcome(slowly(method), offset)


GOOD: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((64,), {}),
    ((), {"size": 64}),
    ((64,), {"node": 0}),
    ((64,), {"gfp": "GFP_ATOMIC|__GFP_ZERO", "node": -1}),
    ((64, "GFP_KERNEL", -1), {}),
    ((64, 0xCC0), {}),
    ((64, Gfp.GFP_ATOMIC), {}),
    ((True,), {}),
    ((Index(),), {}),
]


@pytest.mark.parametrize(("args", "kwargs"), GOOD, ids=repr)
def test_a_request_may_be_written_in_many_ways(
    cpu: Cpu, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    for method in (cpu.kmalloc, slowly(cpu.kmalloc)):
        offset = method(*args, **kwargs)
        assert type(offset) is int
        assert cpu.ksize(offset) in (8, 64)
        cpu.kfree(offset=offset)
    assert clean(cpu.arena)


def test_each_call_is_counted_once(cpu: Cpu) -> None:
    """Above all one that fails: why it did is asked for without trying again."""
    design, before = cpu.design("kmalloc_nolock"), cpu.contexts("kmalloc_nolock")["task"]
    for _ in range(23):
        with pytest.raises(AllocationFailed, match=r"^kmalloc_nolock\(8193, 0, -1\): size_limit$"):
            cpu.kmalloc_nolock(8193)
        with pytest.raises(
            AllocationFailed, match=rf"^design_alloc\({design._index}, 8193, GFP_ATOMIC, -1\): size"
        ):
            design.alloc(8193)
        cpu.kfree_nolock(cpu.kmalloc_nolock(8192))
    after = cpu.contexts("kmalloc_nolock")["task"]
    assert after["failures"] == {"size_limit": 46}
    assert after["allocs"] - before["allocs"] == after["frees"] - before["frees"] == 23


def test_a_cache_that_is_gone_and_another_ones_object(cpu: Cpu) -> None:
    cache, other = cpu.kmem_cache_create("gone", 64), cpu.kmem_cache_create("other", 64)
    stranger = other.alloc()
    with pytest.raises(BadFree, match="in a slab of other, not of gone"):
        cache.free(stranger)
    other.free(stranger)
    cache.destroy()
    other.destroy()
    for call in (cache.alloc, cache.alloc_nolock):
        with pytest.raises(ShmallocError, match="there is no such cache any more"):
            call()


def test_called_on_the_class_and_on_something_else(cpu: Cpu) -> None:
    offset = Cpu.kmalloc(cpu, 64)
    Cpu.kfree(cpu, offset)
    with pytest.raises(AttributeError):
        Cpu.kmalloc(object(), 64)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Cpu.kmalloc()  # type: ignore[call-arg]
    unbound = Cpu.__new__(Cpu)
    with pytest.raises(AttributeError, match="_calls"):
        unbound.kmalloc(64)


def test_the_function_must_have_the_parameters() -> None:
    with pytest.raises(TypeError, match="kmalloc: the function's parameter 2 is not gfp"):
        fast("kmalloc")(lambda self, size, flags, node: 0)
    with pytest.raises(TypeError, match="kmalloc: the function's parameter 3 is not node"):
        fast("kmalloc")(lambda self, size, gfp: 0)
    with pytest.raises(ValueError, match="kind = 'valloc'"):
        fast("valloc")(lambda self: 0)


def test_a_core_that_is_not_loaded(tmp_path: Any) -> None:
    module = _binding.fast()
    with pytest.raises(ImportError, match=r"absent.so is not loaded in this process"):
        module.Core(str(tmp_path / "absent.so"))
    with pytest.raises(ImportError, match="the core has no shm_"):
        module.Core(module.__file__)


def test_an_arena_that_is_closed(flavour: str) -> None:
    arena = Arena.create(size="8MiB", flavour=flavour)
    cpu = Cpu(arena, 0)
    offset = cpu.kmalloc(64)
    arena.close()
    arena.unlink()
    for call in (
        cpu.kmalloc,
        cpu.kfree,
        cpu.block,
        cpu.own,
        cpu.take,
        cpu.design("kmalloc").alloc,
    ):
        with pytest.raises(NotBound, match="is closed"):
            call(offset)
    with pytest.raises(NotBound, match="is closed"):
        cpu.empty(3)


def test_it_takes_nothing_of_a_core_from_outside() -> None:
    """There is one core in a process, and this module is told which: it has none, and links with none."""
    with open(_binding.fast().__file__ or "", "rb") as file:
        symbols = list(ELFFile(file).get_section_by_name(".dynsym").iter_symbols())
    outside = {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF"}
    assert not [symbol.name for symbol in symbols if symbol.name.startswith("shm_")]
    libc = {
        "dlopen",
        "dlsym",
        "dlclose",
        "memcpy",
        "memset",
        "strchr",
        "strcmp",
        "strpbrk",
        "__register_atfork",
    }
    start_files = {
        "",
        "__cxa_finalize",
        "__gmon_start__",
        "_ITM_deregisterTMCloneTable",
        "_ITM_registerTMCloneTable",
    }
    assert {name for name in outside if not re.match(r"_?Py[A-Z_]", name)} <= libc | start_files


@pytest.mark.parametrize("kernel", ["6.18", "7.0"])
def test_interrupts_land_in_it(flavour: str, kernel: str) -> None:
    """NMIs and IRQs that allocate, in the middle of Python's calls: nothing is lost, and Python is none the wiser."""
    with Arena.create(size="8MiB", flavour=flavour, kernel=kernel) as arena, Cpu(arena, 0) as cpu:
        sizes = [64, 1024, 8] * 101
        for kind, design in (("nmi", "kmalloc_nolock"), ("irq", "kmalloc")):
            cpu.set_program(kind, ops(("alloc", {"size": 64, "gfp": "GFP_ATOMIC"}), "free"), design=design)
            cpu.set_timer(kind, 4001, 0.5)
        while min(cpu.interrupts()[kind]["handled"] for kind in ("nmi", "irq")) < 211:
            for _ in range(101):
                cpu.kfree(cpu.kmalloc(64))
                cpu.block(1024)
                cpu.take(cpu.give(cpu.empty(100))).sum()
            cpu.kfree_nolock_bulk(cpu.kmalloc_bulk(sizes))
            with pytest.raises(BadFree):
                cpu.kfree(12345)
        for kind in ("nmi", "irq"):
            cpu.set_timer(kind, 0)
            cpu.set_program(kind, None)
        assert not arena.violations()
        assert clean(arena)


DIES = """
import os, signal, sys
from shmalloc import Arena, Cpu
cpu = Cpu(Arena.attach(sys.argv[1], flavour=sys.argv[2]), 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_wait_that_cannot_end_is_an_exception(cpu: Cpu) -> None:
    arena = cpu.arena
    subprocess.run([sys.executable, "-P", "-c", DIES, arena.name, arena.flavour], check=False)
    for index in range(arena.header.nr_zones):
        arena.item("struct zone", "zones", index).lock.word = 2  # CPU 1, task level
    with pytest.raises(DeadlockProved, match=r"dead_owner: .* held by CPU 1"):
        cpu.kmalloc(1 << 20)
    with pytest.raises(ShmallocError):
        cpu.kmalloc_bulk([1 << 20])


def test_nothing_leaks(cpu: Cpu) -> None:
    """Neither a reference nor memory, of calls that succeed and of calls that fail."""
    text = "GFP_KERNEL|__GFP_NOWARN"
    references = sys.getrefcount(text)

    def good() -> None:
        cpu.kfree(cpu.kmalloc(64))
        cpu.kfree(cpu.kmalloc(64, gfp=text, node=-1))
        cache.free(cache.alloc(text))
        design.free(design.alloc(64, text))

    cache, design = cpu.cache("kmalloc-64"), cpu.design("kmalloc_nolock")
    assert blocks_left(good, 5003) < 101

    def bad() -> None:
        for call, argument in (
            (cpu.kmalloc_nolock, 8193),
            (cpu.kfree, 8),
            (cpu.kmalloc, -1),
            (cache.free, 8),
        ):
            outcome(call, argument)

    assert blocks_left(bad, 211) < 101
    assert sys.getrefcount(text) - references <= 3  # tables of flags, here and there, and the name of one


FORKS = """
import os, sys
from shmalloc import Arena, Cpu, NotBound
with Arena.create(size="8MiB", nr_cpus=2, flavour=sys.argv[1]) as arena, Cpu(arena, 0) as cpu:
    cache, block = cpu.kmem_cache_create("forked", 64), cpu.block(64)
    offset, kept = cpu.kmalloc(64), cpu.block(64)
    child = os.fork()
    if child == 0:
        calls = (lambda: cpu.kmalloc(8), lambda: cpu.kfree(offset), cache.alloc, lambda: cpu.block(8), block.free,
                 lambda: cpu.kfree_bulk([offset]), lambda: cpu.own(offset), lambda: cpu.kmalloc_bulk([8]))
        for call in calls:
            try:
                call()
                os._exit(1)
            except NotBound as error:
                assert f"is process {os.getppid()}; this is process {os.getpid()}" in str(error), error
        with Cpu(arena, 1) as other:
            del block  # the parent's: it is not freed here, though this process is a CPU now
            other.kfree(offset)
        del kept
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    block.free()
    kept.free()
    assert cpu.contexts()["task"]["allocs"] == 3
"""


def test_a_forked_child_is_no_cpu_and_frees_nothing(flavour: str) -> None:
    subprocess.run([sys.executable, "-P", "-W", "error", "-c", FORKS, flavour], check=True)
