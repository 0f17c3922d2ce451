# SPDX-License-Identifier: MIT
"""What `shmalloc maps` shows."""

from rig import Rig

from shmalloc.pools import maps


def test_an_arena_without_any() -> None:
    with Rig.create() as rig:
        text = maps(rig.arena)
    assert [line.split()[0] for line in text.splitlines() if line] == ["map", "pool"]


def test_maps_freelists_and_rings() -> None:
    with Rig.create(cpus=3, bind=2, pool_size=64, pool_entries=23) as rig:
        for name in ("prealloc", "objpool"):
            rig.cpu.design(name).setup()
        made = rig.cpu.map_create("prealloc", 4, 8, 100)
        rig.cpu.map_create("kmalloc", 8, 16, 7)
        for key in range(11):
            made.update(key, key)
        rig.cpu.design("objpool").alloc(8)
        rows = [line.split() for line in maps(rig.arena).splitlines()]
    assert ["0", "prealloc", "100", "11", "128", "4", "8", "64"] in rows
    assert ["1", "kmalloc", "7", "0", "8", "8", "16", "72"] in rows
    assert ["prealloc", "23", "64", "1", "23", "0", "8", "8", "7"] in rows
    assert ["map", "0", "103", "64", "2", "89", "3", "23", "33", "33"] in rows
    assert ["objpool", "23", "64", "3", "22", "-", "7", "8", "7;", "rings", "of", "32"] in rows


def test_many_cpus_are_cut() -> None:
    with Rig.create(cpus=32, bind=1, pool_size=64, pool_entries=64) as rig:
        rig.cpu.design("prealloc").setup()
        assert " 2 2 2 ... (32 CPUs)" in maps(rig.arena)


def test_an_objpool_that_was_taken_down() -> None:
    with Rig.create(pool_size=64, pool_entries=23) as rig:
        design = rig.cpu.design("objpool")
        design.setup()
        late = design.alloc(8)
        design.teardown()
        assert "taken down, 1 still out" in maps(rig.arena)
        design.free(late)
        assert "objpool" not in maps(rig.arena)
