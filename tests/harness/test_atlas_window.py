# SPDX-License-Identifier: MIT
"""A fast path without a transaction id goes wrong at exactly the boundaries that the disassembly says."""

import json
import subprocess
import sys
from functools import cache

import pytest

TASKS = ("kmalloc", "kmalloc_nolock", "try_kmalloc")
FREELISTS = ("plain", "hardened")

CHILD = r"""
import json, sys
import numpy as np
from harness.atlas.accesses import aba_window
from harness.atlas.image import CoreImage
from harness.atlas.sweeper import Call, Sweeper
from shmalloc import Arena, Cpu, designs, ops

def sweep(task, freelist):
    keys = dict(size="4MiB", nr_cpus=2, max_memcgs=0, freelist_hardened=freelist == "hardened")
    with Arena.create(broken=broken, **keys) as arena, Cpu(arena, 0, handlers=True) as cpu:
        held = cpu.design("kmalloc").alloc(64)
        aba = ops(("alloc", {"size": 64, "slot": 0}), ("alloc", {"size": 64, "slot": 1}), ("free", {"slot": 0}))
        slots = cpu.set_program("nmi", aba, slots=4, design="kmalloc_nolock").slots
        image, classes = CoreImage.of(arena.core), np.zeros(arena.size_bytes // 4, dtype=np.uint8)
        with Sweeper(arena, image, classes=classes, watched=[slots]) as sweeper:
            sweeper.snapshot()
            call = Call("shm_design_alloc", (designs.index(task), 64, 0, -1))
            trace = sweeper.record(call)
            red = []
            for row in sweeper.sweep(call, trace, np.arange(len(trace))):
                sweeper.load_state(int(row["state"]))
                for _ in range(2):  # one of them is what the handler still has
                    cpu.design("kmalloc").alloc(64)
                if arena.violations():
                    red.append(int(row["index"]))
                sweeper.restore()
            return {"red": red, "window": aba_window(image, trace, arena.base).tolist()}

broken, *wanted = sys.argv[1:]
print(json.dumps({name: sweep(*name.split()) for name in wanted}))
"""


@cache
def swept(broken: str) -> dict[str, dict[str, list[int]]]:
    """Sweep allocations with the handler that makes the first object come back; in a process of its own."""
    wanted = [f"{task} {freelist}" for task in TASKS for freelist in FREELISTS]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, broken, *wanted], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, list[int]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("freelist", FREELISTS)
@pytest.mark.parametrize("task", TASKS)
def test_without_a_tid_the_window_is_red_and_nothing_else(task: str, freelist: str) -> None:
    found = swept("no_tid")[f"{task} {freelist}"]
    assert found["red"] == found["window"]
    assert len(found["window"]) > 1


@pytest.mark.parametrize("freelist", FREELISTS)
@pytest.mark.parametrize("task", TASKS)
def test_with_a_tid_the_same_window_is_harmless(task: str, freelist: str) -> None:
    found = swept("none")[f"{task} {freelist}"]
    assert found["red"] == [] and len(found["window"]) > 1
