# SPDX-License-Identifier: MIT
"""alloc_traces and free_traces: who allocated and freed what is live, a line for each caller and waste."""

import os
import re

from rig import Rig

from shmalloc import Arena, Cpu
from shmalloc.slab_traces import alloc_traces, free_traces, slab_errors

LINE = re.compile(
    r"^ {0,6}(\d+) ([\w.]+\+0x[0-9a-f]+|<not-available>)( waste=(\d+)/(\d+))? age=(\d+(?:/\d+/\d+)?) pid=(\S+)"
    r"( cpus=(\S+))?( nodes=(\S+))?$"
)
KEYS = {"size": "4MiB", "pageblock_order": 5}


def section(text: str, cache: str) -> list[str]:
    """Lines of one cache."""
    lines = text.splitlines()
    begin = lines.index(f"{cache}:") + 1
    end = next((at for at in range(begin, len(lines)) if lines[at].endswith(":")), len(lines))
    return lines[begin:end]


def test_locations(flavour: str) -> None:
    with (
        Arena.create(flavour=flavour, slab_debug="U,kmalloc-128", nr_cpus=1, **KEYS) as arena,
        Cpu(arena, 0, handlers=False) as cpu,
    ):
        taken = [cpu.kmalloc(100) for _ in range(23)] + [cpu.kmalloc(128)]
        cpu.kfree(taken.pop(20))
        (first, second) = section(alloc_traces(arena), "kmalloc-128")
        assert re.match(r" {5}22 kmalloc_guarded\+0x[0-9a-f]+ waste=616/28 age=", first)
        assert re.match(r" {6}1 kmalloc_guarded\+0x[0-9a-f]+ age=", second)
        assert f"pid={os.getpid()}" in first and "cpus" not in first and "nodes" not in first
        assert all(LINE.match(line) for line in (first, second))
        # nothing that is live had an owner before
        assert [line.split()[:2] for line in section(free_traces(arena), "kmalloc-128")] == [
            ["22", "<not-available>"],
            ["1", "<not-available>"],
        ]
        taken.append(cpu.kmalloc(100))  # the one that was freed
        lines = section(free_traces(arena), "kmalloc-128")
        assert sorted(line.split()[1].split("+")[0] for line in lines) == [
            "<not-available>",
            "<not-available>",
            "kfree_guarded",
        ]


def test_cpus_and_nodes() -> None:
    with Rig.create(cpus=4, nr_nodes=2, slab_debug="FZPU", freelist_hardened=True) as rig:
        for cpu in (0, 1, 3):
            rig.take(3, size=64, cpu=cpu)
        (line,) = section(alloc_traces(rig.arena), "kmalloc-64")
        match = LINE.match(line)
        assert match and (match[1], match[9], match[11]) == ("9", "0-1,3", "0-1")
        rig.replay(("alloc", {"size": 64, "slot": 0}), slots=bytearray(8))
        assert len(section(alloc_traces(rig.arena), "kmalloc-64")) == 2


def test_no_data() -> None:
    with Arena.create(slab_debug="U,kmalloc-64", **KEYS) as arena:
        assert section(alloc_traces(arena), "kmalloc-64") == ["No data"]
    with Arena.create(**KEYS) as arena:
        assert alloc_traces(arena) == free_traces(arena) == slab_errors(arena) == "No data\n"


def test_errors_as_text() -> None:
    with Arena.create(slab_debug="FZPU", **KEYS) as arena, Cpu(arena, 0, handlers=False) as cpu:
        arena.slab_errors.stop = False
        p = cpu.kmalloc(100)
        arena.buffer[p + 100] = 1
        for _ in range(23):
            cpu.cache("kmalloc-128").validate()
            arena.buffer[p + 100] = 1
        lines = slab_errors(arena).splitlines()
        assert lines[0] == (
            f"kmalloc-128: kmalloc red zone overwritten, 1 bytes from +100, 0x01 instead of 0xcc (object at {p:#x})"
        )
        assert len(lines) == 46
        assert cpu.counters()["slab_errors"] == arena.slab_errors.count == 46
