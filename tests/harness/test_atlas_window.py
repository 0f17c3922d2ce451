# SPDX-License-Identifier: MIT
"""A fast path without a transaction id goes wrong at exactly the boundaries that the disassembly says."""

import json
import subprocess
import sys

import pytest

CHILD = r"""
import json, sys
import numpy as np
from harness.atlas.accesses import aba_window
from harness.atlas.image import CoreImage
from harness.atlas.sweeper import Call, Sweeper
from shmalloc import Arena, Cpu, designs, ops

broken, task, hardened = sys.argv[1:]
arena = Arena.create(size="4MiB", nr_cpus=2, max_memcgs=0, broken=broken, freelist_hardened=hardened == "hardened")
with arena, Cpu(arena, 0, handlers=True) as cpu:
    held = cpu.design("kmalloc").alloc(64)
    aba = ops(("alloc", {"size": 64, "slot": 0}), ("alloc", {"size": 64, "slot": 1}), ("free", {"slot": 0}))
    slots = cpu.set_program("nmi", aba, slots=4, design="kmalloc_nolock").slots
    image, classes = CoreImage.of(arena.core), np.zeros(arena.size_bytes // 4, dtype=np.uint8)
    with Sweeper(arena, image, classes=classes, watched=[slots]) as sweeper:
        sweeper.snapshot()
        call = Call("shm_design_alloc", (designs.index(task), 64, 0, -1))
        trace = sweeper.record(call)
        rows = sweeper.sweep(call, trace, np.arange(len(trace)))
        red = []
        for row in rows:
            sweeper.load_state(int(row["state"]))
            for _ in range(2):  # one of them is what the handler still has
                cpu.design("kmalloc").alloc(64)
            if arena.violations():
                red.append(int(row["index"]))
            sweeper.restore()
        print(json.dumps({"red": red, "window": aba_window(image, trace, arena.base).tolist(), "steps": len(trace)}))
"""


def swept(broken: str, task: str, hardened: str = "plain") -> dict[str, list[int]]:
    """Sweep an allocation with the handler that makes the first object come back; in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, broken, task, hardened], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("hardened", ["plain", "hardened"])
@pytest.mark.parametrize("task", ["kmalloc", "kmalloc_nolock", "try_kmalloc"])
def test_without_a_tid_the_window_is_red_and_nothing_else(task: str, hardened: str) -> None:
    found = swept("no_tid", task, hardened)
    assert found["red"] == found["window"]
    assert len(found["window"]) > 1


@pytest.mark.parametrize("task", ["kmalloc", "kmalloc_nolock", "try_kmalloc"])
def test_with_a_tid_the_same_window_is_harmless(task: str) -> None:
    found = swept("none", task)
    assert found["red"] == [] and len(found["window"]) > 1
