# SPDX-License-Identifier: MIT
"""The config table `memcg`: which memcgs there are, who runs where, and which requests are charged."""

from __future__ import annotations

import numpy as np
import pytest

from harness import memcgs, vocabulary
from harness.config import Config, MemcgSpec
from harness.workload.ops import make_ops
from shmalloc import Arena, Cpu
from shmalloc.gfp import parse
from shmalloc.memcg_stat import memcg


def config(**keys: object) -> Config:
    return Config.model_validate(
        {"name": "some", "cpus": 5, "memcg": {"max": "8MiB", **keys}}, context=vocabulary.load()
    )


def test_groups_are_chains_below_the_top_one() -> None:
    made = config(groups=2, depth=2, high="1MiB")
    assert memcgs.tree(made) == [
        ("run", 0, 8 << 20, 1 << 20),
        ("g0", 1, -1, -1),
        ("g0.1", 2, -1, -1),
        ("g1", 1, -1, -1),
        ("g1.1", 4, -1, -1),
    ]
    places = [memcgs.place(made, cpu) for cpu in range(5)]
    assert [place["enter"] for place in places] == [3, 5, 3, 5, 3]
    assert [len(place["create"]) for place in places] == [5, 0, 0, 0, 0]


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (1.0, 1000, 1000), (0.5, 400, 600)])
def test_a_share_of_the_requests_asks_to_be_charged(share: float, low: int, high: int) -> None:
    ops = make_ops(2000, np.where(np.arange(2000) % 2, 1, 4))  # OP_ALLOC, OP_FREE
    made = memcgs.accounted(ops, config(account=share), 0)
    charged = made["gfp"] & parse("__GFP_ACCOUNT") != 0
    assert low <= charged.sum() <= high
    assert not charged[made["code"] == 4].any()


def test_without_the_table_nothing_is_charged() -> None:
    plain = Config.model_validate({"name": "some"}, context=vocabulary.load())
    ops = make_ops(3, "OP_ALLOC")
    assert memcgs.accounted(ops, plain, 0) is ops
    assert memcgs.place(plain, 0) == {"create": [], "enter": 0, "interrupts": 0}


def test_the_view_shows_the_tree_and_the_stocks() -> None:
    with (
        Arena.create(size="8MiB", nr_cpus=1, pageblock_order=5) as arena,
        Cpu(arena, 0, handlers=False) as cpu,
    ):
        assert memcg(arena) == "no memcg\n"
        top = cpu.memcg_create("top", max_bytes=1 << 20)
        cpu.memcg_enter(cpu.memcg_create("below", top))
        cpu.kmalloc(100, "GFP_KERNEL|__GFP_ACCOUNT")
        text = memcg(arena)
    assert text.index("/top\n") < text.index("/top/below\n")
    assert "  memory.current 262144\n" in text
    assert "  memory.max 1048576\n" in text
    assert "cpu 0 stock pages below=63 bytes below=3960\n" in text
    assert text.count("  kernel 4096\n") == 2, "memory.stat of the one above counts what is below"


def test_the_table_of_memcgs_holds_the_largest_tree() -> None:
    most = MemcgSpec.model_validate({"groups": 5, "depth": 3})
    assert 1 + most.groups * most.depth == 16
