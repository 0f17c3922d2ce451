# SPDX-License-Identifier: MIT
"""Known bugs above the slabs that an NMI sets off: red in the functions that have them, and nowhere without them."""

import json
import subprocess
import sys
from functools import cache

import pytest

# variant, design, scenario, verdict, a function that is red
BUGS = (
    ("extra_swap", "prealloc", "map_replace_beside@prealloc/map_update", "corruption", "update"),
    ("k05", "kmalloc_nolock", "memcg_memalloc@kmalloc/alloc_same", "deadlock", "cgroup_file_notify"),
    ("k15", "kmalloc_nolock", "memcg_vector@kmalloc/burst", "corruption", "from_cpu_slab"),
    ("k25", "kmalloc_nolock", "memcg_obj_hit@kmalloc/free_remote", "corruption", "consume_obj_stock"),
    ("k26", "kmalloc_nolock", "memcg_shuffle@kmalloc/pages", "deadlock", "get_random_u64"),
    ("k27", "kmalloc_nolock", "memcg_create@kmalloc/alloc_same", "deadlock", "shm_memcg_create"),
    ("k49", "sheaves", "sheaf_alloc_new_slabs@sheaves/burst", "lost_memory", "alloc_from_new_slab"),
    ("k50", "objpool", "objpool_push@objpool/free_own", "lost_memory", "objpool_push"),
)
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
        name_of = lambda each: task.image.symbol_at(task.image.base + each["address"])[0]
        return sorted((each["index"], name_of(each), each["verdict"]) for each in found)

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


@pytest.mark.parametrize(("broken", "design", "name", "verdict", "function"), BUGS)
def test_red_where_the_bug_is_every_time(
    broken: str, design: str, name: str, verdict: str, function: str
) -> None:
    first, second = swept(broken, f"{design} {name}", f"{design} {name}")
    assert first == second
    assert {each[2] for each in first} == {verdict}
    assert function in {each[1] for each in first}


def test_without_the_bugs_the_same_scenarios_are_green() -> None:
    wanted = [f"{design} {name}" for _, design, name, _, _ in BUGS]
    assert dict(zip(wanted, swept("none", *wanted), strict=True)) == {each: [] for each in wanted}
