# SPDX-License-Identifier: MIT
"""The table of levels is of this core, and places what it should."""

from collections import Counter

import pytest

from harness.atlas.disassembly import disassembly
from harness.atlas.functions import annotated
from harness.atlas.image import CoreImage
from harness.atlas.inlining import inlines
from harness.atlas.levels import HELPERS, LEVELS, SLIDES, TABLE, level_of
from shmalloc._binding import core

ENTRIES = [
    (level.name, file, name)
    for level in TABLE
    for file, names in level.functions.items()
    for name in names.split()
]
# the talk's stack, from its slides; ___slab_alloc is what does the work of __slab_alloc
TALK = (
    "kmalloc",
    "slab_alloc_node",
    "cmpxchg16",
    "___slab_alloc",
    "new_slab",
    "alloc_pages",
    "rmqueue_pcplist",
    "__rmqueue",
    "wakeup_kswapd",
)


@pytest.fixture(scope="module")
def image() -> CoreImage:
    return CoreImage.of(core("release"))


def levels_of(image: CoreImage, function: str) -> Counter[str]:
    code = disassembly(image.path)
    (found,) = [one for one in code.functions if one.stem == function]
    return Counter(level_of(image, one.address) for one in code.body(found))


def test_every_name_is_a_function_of_the_core(image: CoreImage) -> None:
    known = inlines(image.path).functions()
    files = {file for file, _ in known}
    stale = [
        (level, file, name)
        for level, file, name in ENTRIES
        if (name == "*" and file not in files) or (name != "*" and (file, name) not in known)
    ]
    assert stale == []


def test_no_function_is_on_two_levels() -> None:
    assert [
        entry for entry, times in Counter((file, name) for _, file, name in ENTRIES).items() if times > 1
    ] == []


def test_the_talks_stack() -> None:
    assert SLIDES == TALK
    assert len(set(LEVELS)) == len(LEVELS)
    assert [level for level in LEVELS if level in SLIDES] == list(TALK)


def test_fast_path_is_three_levels(image: CoreImage) -> None:
    found = levels_of(image, "kmalloc_nolock")
    assert {"kmalloc", "slab_alloc_node", "cmpxchg16"} <= found.keys()
    assert HELPERS not in found  # what is inlined belongs to what it is inlined in


@pytest.mark.parametrize(
    ("function", "level"),
    [
        ("___slab_alloc", "___slab_alloc"),
        ("get_partial_node", "get_partial"),
        ("rmqueue_bulk", "rmqueue_bulk"),
        ("__rmqueue_smallest", "__rmqueue"),
        ("__free_one_page", "__free_one_page"),
        ("zero_bytes", HELPERS),
        ("oracle_own", "(call)"),
    ],
)
def test_functions_that_were_not_inlined(image: CoreImage, function: str, level: str) -> None:
    assert levels_of(image, function).most_common(1)[0][0] == level


def test_map_of_the_machine_code(image: CoreImage) -> None:
    function = next(one for one in disassembly(image.path).functions if one.name == "kmalloc_nolock")
    body = disassembly(image.path).body(function)
    (found,) = annotated(image, {body[3].address: {"ok": 5, "deferred": 2}})
    assert (found["name"], found["file"], found["start"]) == (
        "kmalloc_nolock",
        "slub_nolock.c",
        function.start,
    )
    assert [row["address"] for row in found["instructions"]] == [one.address for one in body]
    assert sum(row["points"] for row in found["instructions"]) == found["instructions"][3]["points"] == 7
    exchange = next(row for row in found["instructions"] if "cmpxchg16b" in row["text"])
    assert exchange["inlined"][0] == "alloc_or_busy" and exchange["inlined"][-2:] == [
        "cpu_slab_cmpxchg",
        "this_cpu_cmpxchg_double",
    ]
    assert (exchange["level"], exchange["file"]) == ("cmpxchg16", "atomic.h")
