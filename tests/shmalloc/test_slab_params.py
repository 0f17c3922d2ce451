# SPDX-License-Identifier: MIT
"""slab_debug=: which caches get which flags, and what is answered to syntax that nobody can mean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.sizing import KMALLOC_SIZES, kmalloc_name
from models.slab_params import LETTER_FLAGS, flags_for

from shmalloc import Arena, Cpu, GeometryError, slab_debug

NAMES = [kmalloc_name("kmalloc-", size) for size in KMALLOC_SIZES]
OWN = ["task_struct", "task", "mine"]
KEYS: dict[str, Any] = {"size": "4MiB", "pageblock_order": 5, "reserve": "sparse"}


def flags_of(arena: Arena) -> dict[str, set[str]]:
    """Debug flags of each cache."""
    lib, ffi = arena.core.lib, arena.core.ffi
    rows = [arena.item("struct kmem_cache", "caches", at) for at in range(arena.header.nr_caches)]
    return {
        ffi.string(row.name).decode(): {
            flag for flag in LETTER_FLAGS.values() if row.flags & getattr(lib, flag)
        }
        for row in rows
    }


def found(parameter: str | bool) -> dict[str, set[str]]:
    """Flags of the kmalloc caches and of some made later, with a parameter."""
    with Arena.create(**KEYS, slab_debug=parameter) as arena:
        with Cpu(arena, 0, handlers=False) as cpu:
            for name in OWN:
                cpu.kmem_cache_create(name, 40)
        return flags_of(arena)


@pytest.mark.parametrize(
    "parameter",
    [
        "",
        "FZPU",
        "fz",
        "-",
        "T",
        "A,kmalloc-*",
        ",mine",
        "FZ,kmalloc-64",
        "FZ,kmalloc-6*",
        "F;P,task",
        "P,task;F",
        "FZ,kmalloc-64,kmalloc-1k;U,task*;T",
        "-,kmalloc-*;FZPU",
        ";;F;",
    ],
)
def test_each_cache_gets_the_flags_of_its_list(parameter: str) -> None:
    flags = found(parameter)
    for name in [*NAMES, *OWN]:
        assert flags[name] == flags_for(parameter, name), name


def test_alone_it_is_all_checks_for_all() -> None:
    fzpu = {LETTER_FLAGS[letter] for letter in "FZPU"}
    assert set(map(frozenset, found(True).values())) == {frozenset(fzpu)}
    assert set(map(frozenset, found(False).values())) == {frozenset()}


def test_a_cache_may_ask_to_be_left_alone() -> None:
    with Arena.create(**KEYS, slab_debug="FZPU") as arena, Cpu(arena, 0, handlers=False) as cpu:
        cpu.kmem_cache_create("left-alone", 40, flags="SLAB_NO_USER_FLAGS|SLAB_POISON")
        assert flags_of(arena)["left-alone"] == {"SLAB_POISON"}


def test_o_leaves_out_what_would_take_larger_slabs() -> None:
    """A slot of 1 KiB fits a page with its metadata, those of 2 and 4 KiB do not."""
    flags = found("FZPUO")
    assert flags["kmalloc-64"] == flags["kmalloc-1k"] == {LETTER_FLAGS[letter] for letter in "FZPU"}
    assert flags["kmalloc-2k"] == flags["kmalloc-4k"] == {"SLAB_CONSISTENCY_CHECKS"}
    with Arena.create(**KEYS, slab_debug="FZPUO") as arena:
        row = arena.item("struct kmem_cache", "caches", int(arena.header.kmalloc_caches[0][12]))
        assert (row.object_size, row.size) == (4096, 4096)


PARAMETERS = st.lists(
    st.tuples(
        st.lists(st.sampled_from("FZPUTA"), unique=True).map("".join),
        st.lists(st.sampled_from([*NAMES, *OWN, "kmalloc-*", "ta*", "*", "none"]), unique=True, max_size=3),
    ).map(lambda block: ",".join([block[0], *block[1]])),
    max_size=4,
).map(";".join)


@given(parameter=PARAMETERS)
@settings(max_examples=50)
def test_any_parameter(parameter: str) -> None:
    if slab_debug.problems(parameter, 255):
        with pytest.raises(GeometryError, match=r"slab_debug = "):
            Arena.create(**KEYS, slab_debug=parameter)
        return
    flags = found(parameter)
    for name in [*NAMES, *OWN]:
        assert flags[name] == flags_for(parameter, name), name


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ("FX", "unknown letter 'X'"),
        ("FF", "letter 'F' twice"),
        ("F-", "'-' (none) together with others in 'F-'"),
        ("F;P", "'F' and 'P' are both for all caches in no list: one such block"),
        ("F,a;P,a", "'a' stands in 2 lists, and the first one wins"),
        ("F,", "an empty name between the commas"),
        ("F,a,,b", "an empty name between the commas"),
        ("F,a*b", "'a*b': a * is allowed at the end only"),
        ("F,a b", "'a b': names have no blanks"),
        ("O,a", "'O' is for all caches, and cannot have a list: 'a'"),
        ("F," + "a" * 254, "256 bytes: allowed are 255"),
    ],
)
def test_what_nobody_can_mean_is_explained(parameter: str, says: str) -> None:
    with pytest.raises(GeometryError) as caught:
        Arena.create(**KEYS, slab_debug=parameter)
    (problem,) = caught.value.problems
    assert problem.startswith(f"slab_debug = {parameter!r}: {says}; accepted is LETTERS")
