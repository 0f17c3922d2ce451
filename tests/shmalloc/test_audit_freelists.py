# SPDX-License-Identifier: MIT
"""Freelists are followed in step, or one by one where there are few: both see the same."""

import random

import numpy as np
import pytest

from shmalloc import Arena, Cpu
from shmalloc.audit import audit, objects

SIZES = (8, 64, 96, 1024)


@pytest.mark.parametrize("hardened", [False, True])
def test_both_ways_see_the_same(hardened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Arena.create(size="4MiB", nr_cpus=2, pageblock_order=5, freelist_hardened=hardened) as arena,
        Cpu(arena, 0) as cpu,
    ):
        dice = random.Random(23)
        held = [cpu.kmalloc(size) for size in SIZES * 23]
        for offset in dice.sample(held, 53):
            cpu.kfree(offset)
        words = np.frombuffer(arena.buffer, np.uint64)
        start = words.copy()
        slabs = [int(row) for row in arena.region("cache_cpus")["freelist"][0] if row]

        def seen(few: int) -> tuple[str, list[str], dict[str, int]]:
            monkeypatch.setattr(objects, "_FEW_LISTS", few)
            report = audit(arena)
            return report.verdict, sorted(map(str, report.problems)), report.totals

        verdicts = set()
        for _ in range(53):
            words[:] = start
            for _ in range(2):  # a link somewhere goes astray, or back
                at = dice.choice(slabs) // 4096 * 512 + dice.randrange(512)
                words[at] = dice.choice([int(words[at]) ^ 8, int(words[at]) ^ 64, dice.choice(held)])
            one_by_one, in_step = seen(1 << 20), seen(0)
            assert one_by_one == in_step
            verdicts.add(one_by_one[0])
        words[:] = start
        assert len(verdicts) > 1
        assert seen(0) == seen(1 << 20)
        assert seen(0)[0] == "ok"
