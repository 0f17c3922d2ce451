# SPDX-License-Identifier: MIT
"""A preallocated map beside its model: values, errors, and which element lies on which freelist."""

import numpy as np
import pytest
from models.pools import MapModel
from rig import Rig

from shmalloc import MapError
from shmalloc.maps import HashMap

CPUS, ENTRIES, KEYS, STEPS = 3, 11, 17, 1009


def freelists(rig: Rig, made: HashMap, first: int, size: int) -> list[list[int]]:
    """The elements on each CPU's freelist by number, the next to be popped last."""
    pool = rig.arena.item("struct shm_pool", "pools", 1 + made.index)
    found = []
    for cpu in range(CPUS):
        link = rig.arena.item("struct pcpu_freelist_head", "freelists", CPUS * (1 + made.index) + cpu).first
        found.append([])
        while link:
            found[-1].append((link - pool.link - first) // size)
            link = rig.arena.pointer("uint64_t", link)[0]
    return [each[::-1] for each in found]


def outcome(call: object, *arguments: object) -> str:
    try:
        call(*arguments)  # type: ignore[operator]
    except MapError as error:
        return error.name
    return ""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_map_and_model_agree_after_every_step(seed: int) -> None:
    rng = np.random.default_rng(seed)
    with Rig.create(cpus=CPUS) as rig:
        made = rig.cpu.map_create("prealloc", 4, 8, ENTRIES)
        model = MapModel(ENTRIES, CPUS)
        pool = rig.arena.item("struct shm_pool", "pools", 1 + made.index)
        first, size = int(pool.area.blocks[0].offset), int(pool.area.elem_size)
        errors = set()
        for step in range(STEPS):
            cpu, key = int(rng.integers(CPUS)), int(rng.integers(KEYS))
            mine = rig.cpus[cpu].map(made.index)
            if rng.random() < 0.6:
                flag = str(rng.choice(["any", "any", "noexist", "exist"]))
                got, wanted = outcome(mine.update, key, step, flag), model.update(cpu, key, step, flag)
            else:
                got, wanted = outcome(mine.delete, key), model.delete(cpu, key)
            assert got == wanted
            errors.add(got)
            assert freelists(rig, made, first, size) == model.free
            value = mine.lookup(key)
            assert (value and int.from_bytes(value, "little")) == model.values.get(key)
            assert len(made) == len(model.values)
        assert errors == {"", "E2BIG", "EEXIST", "ENOENT"}
        assert rig.counters()["freelist_steals"] == model.steals > 0
        heads = [
            rig.arena.item("struct pcpu_freelist_head", "freelists", CPUS * (1 + made.index) + cpu)
            for cpu in range(CPUS)
        ]
        assert [(int(head.extra) - first) // size for head in heads] == model.spare
        rig.assert_clean()
