# SPDX-License-Identifier: MIT
"""What each kind of workload and program is for, counted."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workload_model

from harness.workload import Workload, WorkloadError, build, build_program, parse_program, parse_workload
from harness.workload.sizes import CACHE_SIZES, KMALLOC_SIZES, draw_sizes
from shmalloc import gfp, layout

HERE = Path(__file__).parent
TRACE = HERE.parents[1] / "configs" / "traces" / "git.npz"


def made(cpus: int = 1, **spec: Any) -> Workload:
    return build(parse_workload(spec), cpus=cpus, seed=23, base_dir=HERE)


def count(workload: Workload, cpu: int = 0) -> Counter[str]:
    return Counter(workload_model.names_of(workload.ops[cpu]))


def test_pair_allocates_and_frees_in_turn() -> None:
    workload = made(kind="pair", size=101, array_ops=46)
    assert workload_model.names_of(workload.ops[0]) == ["OP_ALLOC", "OP_FREE"] * 23
    assert set(workload.ops[0]["size"][::2]) == {101}
    machine = workload_model.replay_in_turn(workload, rounds=1)
    assert (len(machine.freed), machine.skipped, machine.live()) == (23, 0, [])


@pytest.mark.parametrize("order", ["lifo", "fifo"])
def test_batch_frees_in_the_order_asked_for(order: str) -> None:
    ops = made(kind="batch", count=23, order=order, array_ops=46).ops[0]
    assert ops["slot"][:23].tolist() == list(range(23))
    expected = list(range(23)) if order == "fifo" else list(range(23))[::-1]
    assert ops["slot"][23:].tolist() == expected


def test_burst_takes_one_size_at_a_time_and_gives_all_back() -> None:
    workload = made(kind="burst", count=101, array_ops=20 * 202)
    bursts = workload.ops[0]["size"].reshape(20, 2, 101)[:, 0]
    assert (bursts == bursts[:, :1]).all()
    assert len(set(bursts[:, 0].tolist())) > 3
    machine = workload_model.replay_in_turn(workload, rounds=1)
    assert (len(machine.freed), machine.skipped, machine.live()) == (20 * 101, 0, [])


def test_a_wave_rises_to_its_slots_and_falls_to_its_share_of_them() -> None:
    ops = made(kind="wave", slots=101, low=0.2, waves=3, array_ops=6_007).ops[0]
    live, levels = set[int](), []
    for code, slot in zip(workload_model.names_of(ops), ops["slot"].tolist(), strict=True):
        assert (code == "OP_FREE") <= (slot in live)
        live = live - {slot} if code == "OP_FREE" else live | {slot}
        levels.append(len(live))
    assert max(levels) == 101
    assert levels[-1] == min(levels[200:]) == 20
    crests = [at for at in range(1, len(levels)) if levels[at] == 101 > levels[at - 1]]
    assert len(crests) == 3
    assert count(made(kind="wave", slots=101, low=0.2, waves=3, array_ops=6_007))["OP_FREE"] == 3 * 81


@pytest.mark.parametrize("cpus", [2, 3, 16])
def test_what_one_cpu_produces_the_next_one_frees(cpus: int) -> None:
    workload = made(cpus, kind="producer_consumer", slots=23, count=7, array_ops=230)
    machine = workload_model.replay_in_turn(workload)
    assert len(machine.freed) > 100 * cpus
    assert {(freer - thing.maker) % cpus for freer, thing in machine.freed} == {1}


def test_remote_objects_are_freed_by_the_next_cpu() -> None:
    workload = made(3, kind="mix", remote=0.3, remote_slots=5000, array_ops=3000, realloc_share=0.0)
    machine = workload_model.replay_in_turn(workload, rounds=1)
    distance = Counter((freer - thing.maker) % 3 for freer, thing in machine.freed)
    assert distance[2] == 0
    assert 0.2 < distance[1] / len(machine.freed) < 0.4


def test_mix_holds_to_its_shares() -> None:
    workload = made(
        kind="mix", array_ops=50_000, slots=101, cache_share=0.4, pages_share=0.2, large_share=0.1
    )
    counts = count(workload)
    allocs = sum(counts[name] for name in workload_model.ALLOCS)
    ops = workload.ops[0]
    large = int((ops["size"][ops["code"] == layout.constants()["OP_ALLOC"]] > 8192).sum())
    assert counts["OP_CACHE_ALLOC"] / allocs == pytest.approx(0.4, abs=0.02)
    assert counts["OP_PAGES_ALLOC"] / allocs == pytest.approx(0.2, abs=0.02)
    assert large / allocs == pytest.approx(0.1, abs=0.02)
    assert 0.45 < allocs / (allocs + counts["OP_FREE"]) < 0.55


def test_mix_has_caches_with_and_without_constructor_and_typesafe() -> None:
    caches = made(kind="mix", caches=8).caches
    typesafe = layout.constants()["SLAB_TYPESAFE_BY_RCU"]
    assert {(cache.ctor, cache.flags) for cache in caches} == {(0, 0), (1, 0), (0, typesafe), (1, typesafe)}
    assert len({cache.name for cache in caches}) == 8


def test_mix_zeroes_a_share() -> None:
    ops = made(kind="mix", array_ops=20_000, zero_share=0.25).ops[0]
    allocs = np.isin(ops["code"], [layout.constants()[name] for name in workload_model.ALLOCS])
    zeroed = ops["gfp"][allocs] & gfp.parse("__GFP_ZERO") != 0
    assert zeroed.mean() == pytest.approx(0.25, abs=0.02)


def test_self_interrupts_come_after_so_many_ops() -> None:
    workload = made(kind="pair", array_ops=2020, nmi_every=101)
    assert count(workload)["OP_NMI"] == 20
    at = np.flatnonzero(workload.ops[0]["code"] == layout.constants()["OP_NMI"])
    assert set(np.diff(at)) == {102}


def test_page_cache_is_read_after_so_many_ops_but_in_no_window() -> None:
    window = {"every": 101, "length": 50}
    workload = made(kind="batch", page_cache_every=23, page_cache_pages=7, irq_off=window, array_ops=4096)
    ops, names = workload.ops[0], workload_model.names_of(workload.ops[0])
    assert set(ops["size"][[name == "OP_PAGE_CACHE" for name in names]].tolist()) == {7}
    depth, reads = 0, 0
    for name in names:
        depth += (name == "OP_IRQ_OFF") - (name == "OP_IRQ_ON")
        reads += name == "OP_PAGE_CACHE"
        assert not (name == "OP_PAGE_CACHE" and depth)
    assert reads == 4096 // 23


def test_window_covers_its_share_of_the_ops() -> None:
    names = workload_model.names_of(
        made(kind="pair", array_ops=2300, irq_off={"every": 23, "length": 7}).ops[0]
    )
    assert names.count("OP_IRQ_OFF") == names.count("OP_IRQ_ON") == 100
    first = names.index("OP_IRQ_OFF")
    assert (first, names.index("OP_IRQ_ON")) == (16, 24)


def test_task_works_on_the_slots_of_its_handlers() -> None:
    workload = made(2, kind="mix", array_ops=10_000, shared_with_handlers=23, handler_share=0.2)
    ops = workload.ops[1]
    shared = ops[ops["flags"] & layout.constants()["OPF_SHARED"] != 0]
    assert shared.size / ops.size == pytest.approx(0.2, abs=0.01)
    base = workload.handler_base[1]
    assert set(shared["slot"].tolist()) == set(range(base, base + 23))
    assert set(workload_model.names_of(shared)) == {"OP_ALLOC", "OP_FREE"}


@pytest.mark.parametrize("nodes", [1, 2])
def test_node_that_the_arena_has_not_is_refused(nodes: int) -> None:
    spec = parse_workload({"kind": "pair", "node": 1})
    if nodes == 2:
        built = build(spec, cpus=1, seed=1, base_dir=HERE, nodes=nodes)
        assert 1 in built.ops[0]["node"]
        return
    with pytest.raises(WorkloadError, match=r"workload\.node = 1"):
        build(spec, cpus=1, seed=1, base_dir=HERE, nodes=nodes)


@pytest.mark.parametrize(("which", "kind"), [("kmalloc", 0), ("cache", 1)])
def test_sizes_are_those_of_a_recorded_kernel(which: Any, kind: int) -> None:
    recorded = np.load(TRACE, allow_pickle=False)
    asked = recorded["size_req"][(recorded["op"] == 0) & (recorded["kind"] == kind)]
    drawn = draw_sizes(np.random.default_rng(1), 20_000, which)
    assert set(drawn.tolist()) <= set(KMALLOC_SIZES if which == "kmalloc" else CACHE_SIZES)
    for quantile in (0.1, 0.25, 0.9):
        assert np.quantile(drawn, quantile) == pytest.approx(np.quantile(asked, quantile), rel=0.25)


def program(spec: Any, shared: int = 0) -> Any:
    workload = made(2, kind="pair", shared_with_handlers=shared)
    return build_program(parse_program(spec), seed=1, cpu=1, workload=workload)


def test_program_that_shares_slots_is_refused_without_any() -> None:
    for kind in ("alloc", "free"):
        with pytest.raises(WorkloadError, match="shared_with_handlers"):
            program(kind)


@pytest.mark.parametrize("kind", ["alloc_free", "same", "pages", "burst"])
def test_program_gives_back_what_it_took_within_one_interrupt(kind: str) -> None:
    made_program = program({"kind": kind, **({"size": "kernel"} if kind == "alloc_free" else {})})
    step = made_program.per_interrupt or made_program.ops.size
    machine = workload_model.Machine([made_program.private_slots], 0, handler=True)
    for start in range(0, made_program.ops.size, step):
        for op in workload_model.ops_of(made_program.ops[start : start + step]):
            machine.step(0, op)
        assert machine.live() == []
    assert machine.skipped == 0
    assert len(machine.freed) == made_program.ops.size // 2


def test_handlers_free_what_the_task_allocated_and_the_other_way_round() -> None:
    alloc, free = program("alloc", shared=23), program("free", shared=23)
    assert set(workload_model.names_of(alloc.ops)) == {"OP_ALLOC"}
    assert set(workload_model.names_of(free.ops)) == {"OP_FREE"}
    assert sorted(alloc.ops["slot"]) == sorted(free.ops["slot"]) == list(range(23, 46))
    assert (alloc.ops["flags"] & layout.constants()["OPF_NOFREE"] != 0).all()


def test_same_takes_size_and_cache_of_what_it_interrupted() -> None:
    ops = program("same").ops
    assert ops["flags"].tolist() == [layout.constants()["OPF_SAME"], 0]


def test_aba_leaves_the_first_object_on_top_and_keeps_the_second() -> None:
    made_program = program({"kind": "aba", "count": 23})
    machine = workload_model.Machine([made_program.private_slots], 0, handler=True)
    for interrupt in range(23):
        for op in workload_model.ops_of(made_program.ops[3 * interrupt : 3 * interrupt + 3]):
            machine.step(0, op)
        assert len(machine.live()) == interrupt + 1
    for op in workload_model.ops_of(made_program.ops[3 * 23 :]):
        machine.step(0, op)
    assert machine.live() == []
    assert machine.skipped == 0
    assert len(machine.freed) == 2 * 23


def test_per_interrupt_is_what_the_spec_says() -> None:
    assert program({"kind": "mix", "per_interrupt": 7}).per_interrupt == 7
    assert program({"kind": "burst", "count": 5}).per_interrupt == 0
    assert program({"kind": "alloc", "count": 5}, shared=23).per_interrupt == 5
