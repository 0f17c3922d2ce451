# SPDX-License-Identifier: MIT
"""Op arrays without numpy."""

import subprocess
import sys
from array import array

import numpy as np
import pytest

from shmalloc import ops
from shmalloc._binding import core as load_core
from shmalloc.layout import dtype, enumeration
from shmalloc.program import OpArray, Program, op_codes


def test_ops_are_the_structures_of_the_header() -> None:
    made = np.frombuffer(
        ops(
            "nop",
            (
                "alloc",
                {"size": 64, "slot": 3, "gfp": "GFP_ATOMIC|__GFP_ZERO", "node": 1, "flags": "shared|nofree"},
            ),
            ("pages_alloc", {"order": 2, "gfp": 0x20}),
            ("cache_alloc", {"cache": 40000}),
        ),
        dtype("shm_op"),
    )
    codes = enumeration("shm_op_code")
    assert made["code"].tolist() == [
        codes[f"OP_{name}"] for name in ("NOP", "ALLOC", "PAGES_ALLOC", "CACHE_ALLOC")
    ]
    assert made["node"].tolist() == [-1, 1, -1, -1]
    assert made["size"].tolist() == [0, 64, 0, 0]
    assert made["slot"].tolist() == [0, 3, 0, 0]
    assert made["gfp"].tolist() == [0, 0x920, 0x20, 0]
    assert made["order"].tolist() == [0, 0, 2, 0]
    assert made["cache"].tolist() == [0, 0, 0, 40000]
    assert made["flags"].tolist() == [0, 5, 0, 0]


def test_every_code_has_a_name() -> None:
    expected = {
        name.removeprefix("OP_").lower() for name in enumeration("shm_op_code") if name.startswith("OP_")
    }
    assert set(op_codes(load_core())) == expected
    assert len(np.frombuffer(ops(*expected), dtype("shm_op"))) == len(expected)


def test_every_mistake_is_listed() -> None:
    with pytest.raises(ValueError) as caught:
        ops(
            "alocate",
            ("alloc", {"size": -1, "colour": 3}),
            ("alloc", {"gfp": "GFP_NONE", "flags": "private", "slot": "first"}),
            ("pages_alloc", {"order": 256}),
        )
    problems = str(caught.value).split("; op ")
    assert [problem.split(": ")[1].split(" = ")[0] for problem in ("op " + p for p in problems)] == [
        "code",
        "size",
        "colour",
        "gfp",
        "flags",
        "slot",
        "order",
    ]


def test_slots_are_counted_from_the_ops() -> None:
    made = ops(("alloc", {"slot": 22}), ("alloc", {"slot": 1000, "flags": "shared"}))
    assert len(OpArray(load_core(), made, None).slots) == 23
    assert len(OpArray(load_core(), ops("nop"), None).slots) == 1


def test_slots_may_be_the_callers() -> None:
    words = array("Q", [0, 7 | 3 << 56, 0])
    made = OpArray(load_core(), ops("nop"), words)
    assert made.held() == [7]
    words[2] = 64
    assert made.held() == [7, 64]


@pytest.mark.parametrize("slots", [-1, b"12345678", bytearray(7), bytearray(0)])
def test_bad_slots(slots: object) -> None:
    with pytest.raises(ValueError, match=r"slots = .*allowed is"):
        OpArray(load_core(), ops("nop"), slots)  # type: ignore[arg-type]


def test_memoryviews_will_do() -> None:
    words = array("Q", [0, 7, 0])
    made = OpArray(load_core(), memoryview(ops("nop", "nop")), memoryview(words))
    assert (made.nr_ops, made.held()) == (2, [7])
    made.slots[0] = 23
    assert list(words) == [23, 7, 0]
    with pytest.raises(ValueError, match="slots = a part of a buffer"):
        OpArray(load_core(), ops("nop"), memoryview(words)[1:])


GARBAGE = """
import gc
import subprocess
import sys
from array import array
from shmalloc import Arena, ops
from shmalloc._binding import core
from shmalloc.program import OpArray
gc.disable()
for made in (ops("nop"), bytearray(ops("nop")), memoryview(ops("nop"))):
    for slots in (2, array("Q", [0]), memoryview(bytearray(16))):
        cycle = [OpArray(core(), made, slots), made, slots]
        cycle.append(cycle)
arena = Arena.create(size="8MiB", nr_cpus=1)
arena.unlink()
cycle = [arena, arena.header, arena.buffer, arena.buffer[:4096], arena.region("pages")]
cycle += [arena.pointer("struct page", 4096), cycle]
del cycle, arena, made, slots
assert gc.collect() > 0
"""


def test_what_ends_in_garbage_ends_in_peace() -> None:
    subprocess.run([sys.executable, "-P", "-c", GARBAGE], check=True)


@pytest.mark.parametrize("length", [0, 1, 23, 25])
def test_bad_op_arrays(length: int) -> None:
    with pytest.raises(
        ValueError, match=rf"ops = {length} bytes: allowed is a whole number, at least one, of ops of 24"
    ):
        Program(load_core(), bytes(length))


def test_a_numpy_array_will_do() -> None:
    made = np.zeros(3, dtype("shm_op"))
    assert OpArray(load_core(), made, None).nr_ops == 3


def test_a_design_is_named() -> None:
    with pytest.raises(ValueError, match=r"design = 'slob': allowed are .*kmalloc_nolock"):
        Program(load_core(), ops("nop"), design="slob")
    with pytest.raises(ValueError, match=r"per_interrupt = -1"):
        Program(load_core(), ops("nop"), per_interrupt=-1)
