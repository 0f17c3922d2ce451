# SPDX-License-Identifier: MIT
"""Chains of inlined calls, compared with addr2line's and with the symbols."""

import shutil
import subprocess

import pytest

from harness.atlas.disassembly import disassembly
from harness.atlas.inlining import inlines
from shmalloc._binding import core

FUNCTIONS = ("kmalloc_nolock", "___slab_alloc", "rmqueue_pcplist", "__free_one_page", "bpf_alloc_first")


def addresses(name: str) -> list[int]:
    code = disassembly(core("release").path)
    function = next(one for one in code.functions if one.stem == name)
    return [one.address for one in code.body(function)]


def addr2line(wanted: list[int]) -> list[list[tuple[str, str, int]]]:
    """List (function, file, line) of each address, innermost first, as binutils see it."""
    if shutil.which("addr2line") is None:
        pytest.skip("addr2line (binutils) is not installed")
    command = ["addr2line", "-a", "-i", "-f", "-e", str(core("release").path), *map(hex, wanted)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: list[list[tuple[str, str, int]]] = []
    while lines:
        if lines[0].startswith("0x"):
            found.append([])
            del lines[0]
        else:
            file, _, line = lines[1].partition(" ")[0].rpartition("/")[2].partition(":")
            found[-1].append((lines[0], file, int(line)))
            del lines[:2]
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_chains_are_those_of_addr2line(name: str) -> None:
    table, wanted = inlines(core("release").path), addresses(name)
    theirs = addr2line(wanted)
    ours = [[(one.function, one.file, one.line) for one in table.at(address)] for address in wanted]
    for address, mine, chain in zip(wanted, ours, theirs, strict=True):
        # of a function with a part of its own binutils name the symbol
        assert mine == [(function.partition(".")[0], file, line) for function, file, line in chain], hex(
            address
        )
    assert max(map(len, ours)) > 2  # something was inlined into what was inlined


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_outermost_is_the_symbol(name: str) -> None:
    table = inlines(core("release").path)
    assert {table.at(address)[-1].function for address in addresses(name)} == {name}


def test_a_frame_names_the_file_that_defines_its_function() -> None:
    chains = [inlines(core("release").path).at(address) for address in addresses("kmalloc_nolock")]
    homes = {(one.function, one.home) for chain in chains for one in chain}
    assert {
        ("kmalloc_nolock", "slub_nolock.c"),
        ("cpu_slab_pop", "slab_fast.h"),
        ("this_cpu", "core.h"),
    } <= homes


def test_address_of_nothing_has_no_chain() -> None:
    assert inlines(core("release").path).at(0) == ()
