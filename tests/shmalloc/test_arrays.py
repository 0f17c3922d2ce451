# SPDX-License-Identifier: MIT
"""numpy arrays in an arena, which other processes get by an offset."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from auditing import clean
from growing import blocks_left

from shmalloc import AllocationFailed, Arena, BadFree, Cpu, ShmallocError

HEAD = 64


def live(cpu: Cpu) -> int:
    counts = cpu.contexts()["task"]
    return int(counts["allocs"] - counts["frees"])


@pytest.mark.parametrize("shape", [0, 1, 23, (), (3,), (3, 4), (2, 0, 5), (1,) * 32, [2, 3]])
@pytest.mark.parametrize("dtype", ["f8", np.float32, np.dtype("i2"), "?", "c16", "S5", "U7", "M8[ns]", ">u4"])
def test_any_shape_and_type(cpu: Cpu, shape: Any, dtype: Any) -> None:
    for make in (cpu.empty, cpu.zeros):
        array = make(shape, dtype)
        like = np.empty(shape, dtype)
        assert (array.shape, array.dtype, array.nbytes) == (like.shape, like.dtype, like.nbytes)
        assert array.flags.writeable and array.flags.c_contiguous and not array.flags.owndata
        array[...] = np.zeros(1, dtype)[0]
        taken = cpu.take(cpu.give(array))
        assert (taken.shape, taken.dtype) == (like.shape, like.dtype)
        assert (taken == array).all()
        del array, taken
    assert live(cpu) == 0


def test_records_and_alignment(cpu: Cpu) -> None:
    kinds = [
        np.dtype([("a", "u1"), ("b", "f8", (2, 3))]),
        np.dtype([("a", "u1"), ("b", "<i4")], align=True),
        np.dtype([("n", [("x", "f4"), ("y", "f4")]), ("t", "S11")]),
        np.dtype([("a_field_with_a_name_that_is_quite_long", "f8"), ("another_of_these", "f8")]),
    ]
    for kind in kinds:
        array = cpu.zeros(5, kind)
        array[kind.names[0]] = 1
        taken = cpu.take(cpu.give(array))
        assert taken.dtype == kind
        assert (taken == array).all()


def test_the_numbers_begin_on_a_cache_line(cpu: Cpu) -> None:
    arrays = [cpu.empty(64 * items - 8) for items in (1, 2, 4, 8, 16)]
    assert all(array.__array_interface__["data"][0] % 64 == 0 for array in arrays)


def test_zeros_are(cpu: Cpu) -> None:
    cpu.empty(100).fill(7)
    assert not cpu.zeros(100).any()


def test_it_is_freed_with_the_last_array(cpu: Cpu) -> None:
    array = cpu.empty((4, 4))
    corner = array[1:3, 1:3].T
    del array
    assert live(cpu) == 1
    corner[:] = 1
    del corner
    assert live(cpu) == 0
    assert clean(cpu.arena)


TAKES = """
import sys
from shmalloc import Arena, Cpu
with Arena.attach(sys.argv[1], flavour=sys.argv[3]) as arena:
    offset = int(sys.argv[2])
    seen = arena.at(offset)
    assert (seen.shape, seen.dtype.str, seen.sum()) == ((3, 4), "<f4", 66), seen
    seen[0, 0] = 1000
    del seen
    with Cpu(arena, 1) as cpu:
        taken = cpu.take(offset)
        assert taken.sum() == 1066
        del taken
"""


def test_another_process_takes_it(arena: Arena, cpu: Cpu) -> None:
    array = cpu.empty((3, 4), "f4")
    array[:] = np.arange(12).reshape(3, 4)
    offset = cpu.give(array)
    arguments = [sys.executable, "-P", "-W", "error", "-c", TAKES, arena.name, str(offset), arena.flavour]
    subprocess.run(arguments, check=True)
    with pytest.raises(BadFree):
        cpu.take(offset)
    with pytest.raises(ShmallocError, match=r"array at 0x.* not live"):
        arena.at(offset)
    del array
    assert clean(arena)


def test_looking_does_not_take(cpu: Cpu) -> None:
    offset = cpu.give(cpu.zeros(5))
    seen = cpu.arena.at(offset)
    seen[2] = 3
    with pytest.raises(ShmallocError, match="give of an array that is another's"):
        cpu.give(seen)
    del seen
    taken = cpu.take(offset)
    assert taken.tolist() == [0, 0, 3, 0, 0]
    for use in (taken.base.free, taken.base.give):
        with pytest.raises(ShmallocError, match="this block is an array's"):
            use()


def test_what_cannot_be_given(cpu: Cpu) -> None:
    array = cpu.zeros(10)
    for thing, what in (
        (array[1:], "a view of such an array"),
        (np.zeros(3), "an array that is not in an arena"),
        (np.frombuffer(cpu.block(64)), "an array that is not in an arena"),
        ([1, 2], "give of a list"),
        (cpu.block(64), "give of a .*Block"),
    ):
        with pytest.raises(ShmallocError, match=what):
            cpu.give(thing)  # type: ignore[arg-type]
    offset = cpu.give(array)
    with pytest.raises(ShmallocError, match="given away"):
        cpu.give(array)
    cpu.kfree(offset)


@pytest.mark.parametrize("dtype", ["O", [("a", "O")], "nothing", 3.5])
def test_types_that_are_none(cpu: Cpu, dtype: Any) -> None:
    for make in (cpu.empty, cpu.zeros):
        with pytest.raises((ValueError, TypeError)):
            make(3, dtype)
    assert live(cpu) == 0


@pytest.mark.parametrize("shape", [-1, (3, -1), 2**63, (2**32, 2**32), (2**64, 0), (1,) * 33, "3", 2.5, None])
def test_shapes_that_are_none(cpu: Cpu, shape: Any) -> None:
    with pytest.raises((ValueError, TypeError, AllocationFailed)):
        cpu.empty(shape)
    assert live(cpu) == 0


def test_shortage_says_so(cpu: Cpu) -> None:
    with pytest.raises(AllocationFailed, match=r"kmalloc_node\(8000064, GFP_KERNEL, -1\): size_limit"):
        cpu.empty(1_000_000)
    with pytest.raises(ValueError, match="no such flag"):
        cpu.empty(3, gfp="GFP_KERNAL")
    with pytest.raises(ValueError, match="node = 7"):
        cpu.empty(3, node=7)


def test_what_is_no_array(cpu: Cpu) -> None:
    offset = cpu.kmalloc(256)
    cpu.view(offset)[:] = bytes(256)
    with pytest.raises(
        ShmallocError, match=rf"offset {offset:#x}: no array: the object was not made by Cpu.empty"
    ):
        cpu.take(offset)
    with pytest.raises(ShmallocError, match="no array"):
        cpu.take(cpu.kmalloc(1))
    for bad in (0, 16, offset + 8, -8, 2**64, 1):
        with pytest.raises(BadFree):
            cpu.take(bad)
        with pytest.raises(ShmallocError):
            cpu.arena.at(bad)
    with pytest.raises(TypeError):
        cpu.take("x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at", "damage", "why"),
    [
        (0, b"\0\0\0\0", "was not made by"),
        (4, b"\xff\xff", "its head is damaged"),
        (6, b"\xff\xff", "its head is damaged"),
        (6, b"\x20\x00", "its head is damaged|larger than"),
        (8, b"\xff\xff\xff\xff\xff\xff\xff\x7f", "larger than the object"),
        (8, b"\x0b", "larger than the object"),
        (16, b"|O8", "head is damaged"),
        (16, b"[[[", "head is damaged"),
        (16, b"<f9", "head is damaged"),
        (16, b"\xff\xfe\xfd", "head is damaged"),
    ],
)
def test_a_head_is_believed_as_far_as_the_object_reaches(cpu: Cpu, at: int, damage: bytes, why: str) -> None:
    array = cpu.zeros(10)
    offset = cpu.give(array)
    cpu.view(offset, HEAD)[at : at + len(damage)] = damage
    for look in (cpu.take, cpu.arena.at):
        with pytest.raises(ShmallocError, match=why):
            look(offset)
    cpu.kfree(offset)
    del array
    assert clean(cpu.arena)


def test_it_keeps_the_mapping() -> None:
    arena = Arena.create(size="8MiB")
    cpu = Cpu(arena, 0)
    array = cpu.zeros(10)
    with pytest.raises(ShmallocError, match="views of this arena are still in use"):
        arena.close()
    seen = arena.at(array.base.offset)
    with pytest.warns(ResourceWarning):
        del array
    with pytest.raises(ShmallocError, match="views of this arena are still in use"):
        arena.close()
    del seen
    arena.close()
    arena.unlink()


def test_nothing_leaks(cpu: Cpu) -> None:
    def use() -> None:
        array = cpu.empty((5, 3), "f4")
        array = cpu.take(cpu.give(array))
        cpu.give(array)
        cpu.kfree(array.base is None or (cpu.arena.at.__self__ and offset_of(array)))

    def offset_of(array: Any) -> int:
        return int(array.__array_interface__["data"][0]) - cpu.arena.base - HEAD

    use()
    calls, kind = cpu._calls, np.dtype("f4")
    references, of_kind = sys.getrefcount(calls), sys.getrefcount(kind)
    assert blocks_left(use, 5003) < 101
    assert sys.getrefcount(calls) == references
    assert sys.getrefcount(kind) - of_kind < 101  # numpy's own tables hold some
    assert live(cpu) == 0
