# SPDX-License-Identifier: MIT
"""Sweeps of scenarios on a core with a known bug, each in a process of its own: a process loads one core."""

import json
import subprocess
import sys
from functools import cache

CHILD = r"""
import json, sys
from shmalloc import _binding
broken, *wanted = sys.argv[1:]
_binding.core("release", broken)
from harness import vocabulary
from harness.atlas import scenario, sweeping

def red(design, name):
    with sweeping.prepared(scenario.find(design, name), broken, vocabulary.load()) as task:
        found = sweeping.sweep(task, lambda points: None, with_accesses=False)["red"]
        name_of = lambda address: task.image.symbol_at(task.image.base + address)[0]
        verdicts = [kind["verdict"] for kind in found["kinds"]]
        return sorted((at, name_of(address), verdicts[kind]) for at, address, _, kind in found["points"])

print(json.dumps([red(*each.split()) for each in wanted]))
"""


@cache
def swept(broken: str, *wanted: str) -> list[list[tuple[int, str, str]]]:
    """Sweep scenarios, in a process of their own. Returns: for each its red points."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, broken, *wanted], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[list[tuple[int, str, str]]] = json.loads(done.stdout)
    return found
