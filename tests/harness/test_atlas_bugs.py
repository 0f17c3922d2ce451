# SPDX-License-Identifier: MIT
"""Known bugs of the slab and page allocators that an NMI sets off: red in the functions that have them."""

import pytest
from swept import swept

NOLOCK = "kmalloc_nolock"

# variant, scenario, verdict, a function that is red
BUGS = (
    ("double_free", "alloc_fastpath@kmalloc/free_remote", "corruption", "kmalloc_node"),
    ("k01", "pages_pcp@kmalloc/pages", "corruption", "rmqueue_pcplist"),
    ("k06", "alloc_fastpath@kmalloc/free_remote", "lost_memory", "kmalloc_node"),
    ("k08", "alloc_new_slab@kmalloc_nolock/alloc_same", "lost_memory", "new_slab"),
    ("k09", "free_constructed@kmalloc/free_remote", "corruption", "__slab_free"),
    ("k10", "free_constructed@kmalloc/free_remote", "corruption", "__slab_free"),
    ("k12", "alloc_debug_new_slab@kmalloc/alloc_same", "corruption", "alloc_single_from_new_slab"),
    ("k13", "alloc_debug_new_slab@kmalloc/alloc_same", "stall", "alloc_single_from_new_slab"),
    ("k23", "pages_drain_up@kmalloc/pages", "corruption", "free_pcppages_bulk"),
    ("k24", "pages_drain_up@kmalloc/pages", "corruption", "free_pcppages_bulk"),
    ("k42", "alloc_refill@kmalloc/free_own", "lost_memory", "from_cpu_slab"),
    ("lost_page", "pages_free_overflow@kmalloc/pages", "lost_memory", "free_pcppages_bulk"),
    ("shared_slot", "alloc_node_partial@kmalloc/alloc_same", "corruption", "install_slab"),
    ("spin_in_nmi", "alloc_refill@kmalloc/alloc_same", "deadlock", "from_cpu_slab"),
    ("spin_list_lock_nolock", "alloc_node_partial@kmalloc/alloc_same", "deadlock", "get_partial_node"),
    ("trylock_leak", "alloc_new_slab@kmalloc/alloc_same", "broken_rule", "new_slab"),
)

# ... and no other function is, nor with another verdict
SHARP = (
    ("k17", "mems_allowed@kmalloc/alloc_same", "deadlock", "shm_set_mems_allowed"),
    ("k18", "alloc_random_freelist@kmalloc/alloc_same", "deadlock", "get_random_u64"),
    ("k19", "pages_free_debug_objects@kmalloc/pages", "deadlock", "debug_check_no_obj_freed"),
    ("k41", "free_full_overflow@kmalloc/alloc_same", "corruption", "put_cpu_partial"),
    ("k43", "free_fastpath_empty@kmalloc/alloc_same", "corruption", "kfree"),
    ("no_tid", "alloc_fastpath@kmalloc/aba", "corruption", "kmalloc_cache"),
)


@pytest.mark.parametrize(
    ("broken", "name", "verdict", "function"),
    [*SHARP, *(pytest.param(*each, marks=pytest.mark.slow, id=each[0]) for each in BUGS)],
)
def test_red_where_the_bug_is_every_time(broken: str, name: str, verdict: str, function: str) -> None:
    first, second = swept(broken, f"{NOLOCK} {name}", f"{NOLOCK} {name}")
    assert first == second
    assert verdict in {each[2] for each in first}
    assert function in {each[1] for each in first}


@pytest.mark.parametrize(("broken", "name", "verdict", "function"), SHARP)
def test_red_nowhere_else(broken: str, name: str, verdict: str, function: str) -> None:
    found, _ = swept(broken, f"{NOLOCK} {name}", f"{NOLOCK} {name}")
    assert {(each[1], each[2]) for each in found} == {(function, verdict)}
    assert len(found) < 30


def test_without_the_bugs_the_same_scenarios_are_green() -> None:
    wanted = [f"{NOLOCK} {name}" for name in dict.fromkeys(name for _, name, _, _ in BUGS + SHARP)]
    assert dict(zip(wanted, swept("none", *wanted), strict=True)) == {each: [] for each in wanted}
