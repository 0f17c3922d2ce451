# SPDX-License-Identifier: MIT
"""The atlas on trial: each broken variant that an interrupt can set off is red at the right instructions, every time.

Its release-grade object is swept by one scenario that comes to the bug; on the correct core that one is silent.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from shmalloc import designs

NOLOCK = "kmalloc_nolock"

# argv: a broken variant, then designs and scenarios in turn
CHILD = r"""
import json, sys
from shmalloc import _binding
broken, *wanted = sys.argv[1:]
_binding.core("release", broken)  # before what asks for one
import numpy as np
from harness import vocabulary
from harness.atlas import scenario, stacks, sweeping
from harness.atlas.keys import MISSED

def swept(design, name):
    with sweeping.prepared(scenario.find(design, name), broken, vocabulary.load()) as task:
        every = np.arange(len(task.trace), dtype=np.uint32)
        kind = task.scenario.kind
        judged = task.judge.names(task.sweeper.sweep(task.built.call, task.trace, every, kind), (kind,))
        assert MISSED not in {each.name for each in judged}
        red = [[index, each.verdict, each.text] for index, each in enumerate(judged) if not each.is_ok]
        some = [index for index, _, _ in (red if len(red) < 100 else red[:: len(red) // 50])]
        calls = {index: stacks.at(task.image, task.trace, index) for index in some}
        there = {task.image.symbol_at(int(task.trace.rips[index]))[0] for index, _, _ in red}
        return len(judged), red, calls, sorted(there)

found = {}
for design, name in zip(wanted[::2], wanted[1::2]):
    points, red, calls, there = swept(design, name)
    found[name] = {"points": points, "red": red, "calls": calls, "in": there, "again": swept(design, name)[1]}
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Case:
    """A variant, and how it shows.

    Attributes: variant.  scenario: that meets the bug.  verdict: of the red points, all of them.  within: this function
        is in the call stack at each of them; "" = it is every instruction.  says: part of what is said of one.
        design: of the cell.  pieces: stretches of instructions, one after the other; 0 = as the compiler likes.
    """

    variant: str
    scenario: str
    verdict: str
    within: str
    says: str
    design: str = NOLOCK
    pieces: int = 1


CASES = (
    Case("no_tid", "alloc_fastpath@kmalloc/aba", "corruption", "cpu_slab_pop", "is owned, and is free"),
    Case("spin_in_nmi", "alloc_refill@kmalloc/alloc_same", "deadlock", "from_cpu_slab", "a local lock is taken again"),
    Case("spin_list_lock_nolock", "alloc_node_partial@kmalloc/alloc_same", "deadlock", "get_partial_node", "list_lock"),
    Case("k01", "pages_pcp@kmalloc/pages", "corruption", "", "has refcount 0"),
    Case("k05", "memcg_memalloc@kmalloc/alloc_same", "deadlock", "cgroup_file_notify", "kernfs_notify_lock", pieces=0),
    Case("k06", "free_fastpath@kmalloc/free_remote", "lost_memory", "", "wait on its deferred lists"),
    Case("k08", "alloc_node_partial@kmalloc_nolock/alloc_same", "lost_memory", "___slab_alloc", "is frozen", pieces=0),
    Case("k09", "alloc_constructed@kmalloc/free_remote", "corruption", "", "was written to while it was free"),
    Case("k10", "alloc_constructed@kmalloc/free_remote", "corruption", "", "was written to while it was free"),
    Case("k12", "free_debug@kmalloc/alloc_same", "corruption", "free_to_partial_list", "nr_slabs is 1, counted are 2"),
    Case("k13", "free_debug@kmalloc/alloc_same", "stall", "free_to_partial_list", "goes round and round"),
    Case("k15", "memcg_vector@kmalloc/burst", "corruption", "from_cpu_slab", "still charged to a memcg"),
    Case("k17", "mems_allowed@kmalloc/alloc_same", "deadlock", "set_mems_allowed", "has interrupted its writer"),
    Case("k18", "alloc_random_freelist@kmalloc/alloc_same", "deadlock", "get_random_u64", "a local lock"),
    Case("k19", "pages_free_debug_objects@kmalloc/pages", "deadlock", "debug_check_no_obj_freed", "obj_hash"),
    Case("k23", "pages_free_up@kmalloc/pages", "corruption", "free_to_pcp", "", pieces=0),
    Case("k24", "pages_drain_up@kmalloc/pages", "corruption", "free_pcppages_bulk", "", pieces=0),
    Case("k25", "memcg_obj_hit@kmalloc/alloc_same", "corruption", "", "slab_unreclaimable of node 0 is"),
    Case("k26", "memcg_shuffle@kmalloc/pages", "deadlock", "get_random_u64", "a local lock"),
    Case("k27", "memcg_create@kmalloc/alloc_same", "deadlock", "shm_memcg_create", "objcg_lock"),
    Case("k41", "free_full_overflow@kmalloc/alloc_same", "corruption", "put_cpu_partial", "is in two places"),
    Case("k42", "alloc_refill@kmalloc/free_own", "lost_memory", "from_cpu_slab", "neither free nor owned"),
    Case("k43", "free_fastpath_empty@kmalloc/alloc_same", "corruption", "cpu_slab_push", "the cpu freelist leads to"),
    Case("k49", "sheaf_alloc_refill@sheaves/burst", "lost_memory", "", "neither free nor owned", "sheaves"),
    Case("k50", "objpool_push@objpool/free_own", "lost_memory", "add_to_slot", "the ring of CPU 0", "objpool"),
    Case("double_free", "free_fastpath@kmalloc/free_remote", "corruption", "", "freelist is circular"),
    Case("extra_swap", "map_replace_beside@prealloc/map_update", "corruption", "htab_map_update", "owned", "prealloc"),
    Case("late_words", "memcg_named_vector@kmalloc/aba", "corruption", "alloc_slab_obj_exts", "names memcg"),
    Case("lost_page", "pages_split@kmalloc/pages", "lost_memory", "rmqueue_bulk", "are nowhere"),
    Case("shared_slot", "alloc_node_partial@kmalloc/alloc_same", "corruption", "", "already owned"),
    Case("trylock_leak", "pages_pcp@kmalloc/pages", "broken_rule", "shm_design_pages_alloc", "released", pieces=0),
)  # fmt: skip

#: Variants whose mistake shows in one function of the machine code, and nowhere else.
SHARP = {
    "k17": "shm_set_mems_allowed",
    "k18": "get_random_u64",
    "k19": "debug_check_no_obj_freed",
    "k41": "put_cpu_partial",
    "k43": "kmalloc_free_first_cpu_slabs",
    "no_tid": "kmalloc_alloc_first_cpu_slabs",
}


def swept(broken: str, *cases: Case) -> dict[str, Any]:
    """Sweep scenarios twice, in a process of its own, which loads the variant's object."""
    wanted = [word for case in cases for word in (case.design, case.scenario)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, broken, *wanted], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@cache
def of_the_correct_core() -> dict[str, Any]:
    return swept("none", *{case.scenario: case for case in CASES}.values())


def pieces(indices: list[int]) -> int:
    """Count the stretches of neighbours."""
    return sum(index - 1 not in indices for index in indices)


def functions(calls: list[str]) -> set[str]:
    """Name the functions of a call stack."""
    return {call.partition(" ")[0].partition("+")[0].partition(".")[0] for call in calls}


def test_every_variant_with_an_object_is_on_trial() -> None:
    assert {case.variant for case in CASES} == set(designs.release_variants())
    assert len({case.variant for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.variant)
def test_the_broken_variant_is_red_at_the_right_instructions(case: Case) -> None:
    found = swept(case.variant, case)[case.scenario]
    red = found["red"]
    assert red
    assert {verdict for _, verdict, _ in red} == {case.verdict}
    assert any(case.says in text for _, _, text in red)
    if case.within:
        assert len(red) < found["points"]
        assert all(case.within in functions(calls) for calls in found["calls"].values())
    else:
        assert len(red) == found["points"]
    if case.pieces:
        assert pieces([index for index, _, _ in red]) == case.pieces
    if case.variant in SHARP:
        assert found["in"] == [SHARP[case.variant]]
    assert found["again"] == red


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.variant)
def test_the_correct_core_is_silent(case: Case) -> None:
    found = of_the_correct_core()[case.scenario]
    assert found["points"] > 100
    assert found["red"] == found["again"] == []
