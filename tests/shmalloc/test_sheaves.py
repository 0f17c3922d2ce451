# SPDX-License-Identifier: MIT
"""Arenas of Linux 7.x: what the sheaves of a CPU and the barns of a node hold, and which calls reach them."""

import pytest
from rig import A_BYTES, PER_SLAB, Rig
from windows import SHEAF, SHEAVES

from shmalloc import AllocationFailed, Arena, Unsupported
from shmalloc.errors import GeometryError

CAPACITY = {8: 60, 128: 60, 192: 60, 256: 28, 512: 28, 1024: 12, 2048: 12, 4096: 4, 8192: 4}


def in_main(rig: Rig, size: int = A_BYTES, cpu: int = 0) -> int:
    return int(rig.sheaf(rig.sheaves(size, cpu).main).size)


def in_spare(rig: Rig) -> int:
    spare = rig.sheaves().spare
    return int(rig.sheaf(spare).size) if spare else -1


@pytest.mark.parametrize("size", CAPACITY)
def test_a_sheaf_fills_the_kmalloc_object_that_it_is(flavour: str, size: int) -> None:
    with Rig.create(flavour=flavour, **SHEAVES) as rig:
        cache = rig.arena.item("struct kmem_cache", "caches", rig.cache_index(size))
        assert cache.sheaf_capacity == CAPACITY[size]
        main = rig.sheaves(size).main
        assert rig.lib.shm_ksize(main) == 0  # nobody's object: the oracle does not know it
        own = rig.page_of(main).slab_cache - 1
        assert rig.arena.item("struct kmem_cache", "caches", own).object_size == 32 + 8 * CAPACITY[size]
        assert cache.cpu_partial_slabs == 0


@pytest.mark.parametrize(
    "keys",
    [
        {"nr_cpus": 64, "pageblock_order": 3},
        {"nr_cpus": 128, "pageblock_order": 5},
        {"nr_cpus": 2, "pageblock_order": 1},
        {"nr_cpus": 16, "nr_nodes": 4, "pageblock_order": 4},
    ],
)
def test_the_smallest_arena_has_room_for_the_main_sheaves(keys: dict[str, int]) -> None:
    with pytest.raises(GeometryError, match="allowed is at least") as refused:
        Arena.create(size="64KiB", kernel="7.0", **keys)
    least = str(refused.value).split("at least ")[1].split()[0]
    with Arena.create(size=int(least), kernel="7.0", **keys) as arena:
        assert arena.header.sheaves_ready


def test_an_unknown_kernel_is_answered_with_what_is_allowed() -> None:
    with pytest.raises(GeometryError, match=r"kernel = '5\.10': allowed are 6\.18, 7\.0"):
        Arena.create(size="4MiB", kernel="5.10")


def test_a_debug_cache_has_none() -> None:
    with Rig.create(slab_debug=0x1, **SHEAVES) as rig:
        rig.take(3)
        rig.alloc("kmalloc_nolock")
        assert rig.arena.item("struct kmem_cache", "caches", rig.cache_index()).sheaf_capacity == 0
        moved = rig.counters()
        assert moved["alloc_fastpath"] == moved["sheaf_refill"] == 0
        rig.settle()


def test_the_first_allocation_fills_a_sheaf_and_the_empty_one_becomes_the_spare(flavour: str) -> None:
    with Rig.create(flavour=flavour, **SHEAVES) as rig:
        before = rig.counters()
        rig.alloc()
        assert rig.telling(before)["sheaf_refill"] == SHEAF
        assert (in_main(rig), in_spare(rig)) == (SHEAF - 1, 0)
        rig.settle()


def test_a_sheaf_is_a_stack() -> None:
    with Rig.create(**SHEAVES) as rig:
        first, second = rig.take(2)
        rig.free(first), rig.free(second)
        assert rig.take(2) == [second, first]
        rig.settle()


def test_frees_fill_main_and_spare_and_then_the_barn() -> None:
    with Rig.create(**SHEAVES) as rig:
        taken = rig.take(16 * SHEAF)
        barn = rig.barn()
        for offset in taken:
            rig.free(offset)
        # two full ones on the CPU, ten in the barn; what is more has gone back to its slabs
        assert (in_main(rig), in_spare(rig), barn.nr_full) == (SHEAF, SHEAF, 10)
        moved = rig.counters()
        assert moved["barn_put"] == 10
        assert moved["barn_put_fail"] == 4
        assert moved["sheaf_flush"] == 4 * SHEAF
        assert rig.report().totals["cache.kmalloc-1k.objects_free_slab"] >= 4 * SHEAF
        rig.settle()


def test_cpus_of_a_node_share_its_barn() -> None:
    with Rig.create(**SHEAVES) as rig:
        for offset in rig.take(6 * SHEAF):
            rig.free(offset)
        full = rig.barn().nr_full
        assert full >= 2
        before = rig.counters()
        rig.alloc(cpu=1)
        assert rig.telling(before) == {"alloc_fastpath": 1, "barn_get": 1}
        assert rig.barn().nr_full == full - 1
        rig.settle()


def test_a_nolock_request_takes_what_there_is_and_refills_nothing() -> None:
    with Rig.create(**SHEAVES) as rig:
        before = rig.counters()
        rig.alloc("kmalloc_nolock")
        moved = rig.telling(before)
        assert (moved["alloc_slowpath"], moved["alloc_slab"], moved["barn_get_fail"]) == (1, 1, 1)
        assert "sheaf_refill" not in moved
        assert rig.cache_node().nr_partial == 1  # the slab's other objects
        rig.settle()


def test_an_object_of_another_node_bypasses_the_sheaves() -> None:
    with Rig.create(nr_nodes=2, **SHEAVES) as rig:
        far = rig.alloc(node=1)
        assert rig.counters()["alloc_node_mismatch"] == 1
        before = rig.counters()
        rig.free(far)
        assert rig.telling(before)["free_slowpath"] == 1
        rig.settle()


def test_a_request_for_the_own_node_is_served_by_its_sheaf() -> None:
    with Rig.create(nr_nodes=2, **SHEAVES) as rig:
        rig.alloc(node=0)
        before = rig.counters()
        rig.alloc(node=0)
        assert rig.telling(before) == {"alloc_fastpath": 1}
        rig.settle()


def test_a_nolock_free_that_cannot_use_a_sheaf_is_deferred() -> None:
    with Rig.create(nr_nodes=2, **SHEAVES) as rig:
        far = rig.alloc(node=1)
        before = rig.counters()
        rig.free(far, "kfree_nolock")
        rig.cpu.run_irq_work()
        moved = rig.telling(before)
        assert (moved["defer_free"], moved["free_slowpath"]) == (1, 1)
        rig.settle()


def test_any_nolock_failure_is_tried_again_in_the_next_bucket_once() -> None:
    with Rig.create(**SHEAVES) as rig:
        rig.take(PER_SLAB, 2048)  # so that B has something
        rig.exhaust(0)
        while True:  # what sheaves and slabs still have of A
            offset = rig.alloc("kmalloc_nolock")
            if rig.origin(offset) != "A":
                break
        assert rig.origin(offset) == "B"
        with pytest.raises(AllocationFailed, match="below_watermark"):
            list(iter(lambda: rig.alloc("kmalloc_nolock"), None))  # until it fails
        rig.settle()


def test_a_cache_gives_its_sheaves_back() -> None:
    with Rig.create(**SHEAVES) as rig:
        cache = rig.cpu.kmem_cache_create("named", 96)
        sheaves = rig.sheaves(cache=cache.index)
        assert sheaves.sheaf_alloc == len(rig.cpus)
        for offset in [cache.alloc() for _ in range(500)]:
            cache.free(offset)
        cache.destroy()
        rig.settle()


def test_kfree_rcu_fills_a_sheaf_that_comes_back_whole() -> None:
    with Rig.create(**SHEAVES) as rig:
        taken = rig.take(3 * SHEAF)
        before = rig.counters()
        for offset in taken[:SHEAF]:
            rig.held.pop(offset)
            rig.cpu.kfree_rcu(offset)
        assert rig.lib.shm_rcu_pending() == 1  # one callback for all of them
        assert rig.report().totals["kept_rcu_objects"] == 1
        full = rig.barn().nr_full
        rig.cpu.rcu_barrier()
        assert rig.barn().nr_full == full + 1
        moved = rig.telling(before)
        assert (moved["free_rcu_sheaf"], moved["barn_put"]) == (SHEAF, 1)
        assert "free_slowpath" not in moved
        rig.settle()


def test_kfree_rcu_nolock_with_irqs_off_leaves_the_full_sheaf_to_irq_work() -> None:
    with Rig.create(**SHEAVES) as rig:
        taken = rig.take(2 * SHEAF)
        rig.cpu.kfree_rcu(rig.held and taken[0]), rig.held.pop(taken[0])  # so that there is a sheaf
        rig.lib.shm_irq_save()
        for offset in taken[1:SHEAF]:
            rig.held.pop(offset)
            rig.cpu.kfree_rcu_nolock(offset)
        assert rig.lib.shm_rcu_pending() == 0
        assert rig.cpu_state().defer_rcu_sheaves.first
        rig.lib.shm_irq_restore(0)
        assert rig.lib.shm_rcu_pending() == 1
        rig.settle()


def test_kfree_rcu_nolock_of_a_remote_object_goes_by_its_head() -> None:
    with Rig.create(nr_nodes=2, **SHEAVES) as rig:
        far = rig.alloc(node=1)
        rig.held.pop(far)
        rig.lib.shm_irq_save()
        rig.cpu.kfree_rcu_nolock(far, 16)
        assert rig.cpu_state().defer_by_rcu.first == far + 16
        assert rig.report().totals["kept_by_rcu_objects"] == 1
        rig.lib.shm_irq_restore(0)
        assert rig.report().totals["kept_rcu_objects"] == 1
        rig.settle()


def test_kfree_rcu_nolock_is_of_7x() -> None:
    with Rig.create() as rig, pytest.raises(Unsupported, match=r'kernel = "7.0"'):
        rig.cpu.kfree_rcu_nolock(rig.alloc())


def test_a_flush_empties_every_cpu() -> None:
    with Rig.create(**SHEAVES) as rig:
        for cpu in (0, 1):
            rig.alloc(cpu=cpu)
        rig.cpu.flush_all()
        assert [in_main(rig, cpu=cpu) for cpu in (0, 1)] == [0, 0]
        assert rig.sheaves().spare == rig.sheaves(cpu=1).spare == 0
        rig.settle()
