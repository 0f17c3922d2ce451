# SPDX-License-Identifier: MIT
"""Known bugs above the slabs that an NMI sets off: red in the functions that have them, and nowhere without them."""

import pytest
from swept import swept

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
