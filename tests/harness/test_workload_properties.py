# SPDX-License-Identifier: MIT
"""What must be true of every workload, whatever its spec: checked op by op by a replay in plain Python."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import workload_model
from hypothesis import given
from hypothesis import strategies as st

from harness.workload import Workload, WorkloadError, build, build_program, parse_program, parse_workload

HERE = Path(__file__).parent
SEED = 101

windows = st.one_of(
    st.none(),
    st.integers(2, 40).flatmap(
        lambda every: st.fixed_dictionaries({"every": st.just(every), "length": st.integers(1, every - 1)})
    ),
)
common = {
    "array_ops": st.integers(2, 120),
    "irq_off": windows,
    "bh_off": windows,
    "nmi_every": st.sampled_from([0, 1, 7, 1000]),
    "irq_every": st.sampled_from([0, 5]),
    "shared_with_handlers": st.integers(0, 5),
    "handler_share": st.sampled_from([0.01, 0.1, 0.9]),
}
local = {"remote": st.sampled_from([0.0, 0.3, 1.0]), "remote_slots": st.integers(1, 9)}
sizes = st.one_of(st.just("kernel"), st.integers(1, 9000))
shares = st.sampled_from([0.0, 0.1, 0.3])
specs = st.one_of(
    st.fixed_dictionaries({"kind": st.just("pair"), "size": sizes, **common, **local}),
    st.fixed_dictionaries(
        {
            "kind": st.just("batch"),
            "size": sizes,
            "count": st.integers(1, 200),
            "order": st.sampled_from(["lifo", "fifo"]),
            **common,
            **local,
        }
    ),
    st.fixed_dictionaries(
        {"kind": st.just("burst"), "size": sizes, "count": st.integers(1, 200), **common, **local}
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("wave"),
            "size": sizes,
            "slots": st.integers(1, 60),
            "low": st.sampled_from([0.0, 0.3, 1.0]),
            "waves": st.integers(1, 5),
            **common,
            **local,
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("producer_consumer"),
            "slots": st.integers(1, 50),
            "count": st.integers(1, 60),
            **common,
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("mix"),
            "size": sizes,
            "slots": st.integers(1, 60),
            "caches": st.integers(0, 12),
            "cache_share": shares,
            "large_share": shares,
            "pages_share": shares,
            "realloc_share": st.sampled_from([0.0, 0.5, 1.0]),
            "zero_share": shares,
            "shrink_every": st.sampled_from([0, 1, 10]),
            **common,
            **local,
        }
    ),
)


def made(spec: dict[str, Any], cpus: int, seed: int = SEED) -> Workload:
    return build(parse_workload(spec), cpus=cpus, seed=seed, base_dir=HERE)


def digest(workload: Workload) -> str:
    whole = hashlib.sha256()
    for ops in workload.ops:
        whole.update(ops.tobytes())
    return whole.hexdigest()


def needs_two_cpus(spec: dict[str, Any]) -> bool:
    return spec["kind"] == "producer_consumer" or bool(spec.get("remote"))


@given(spec=specs, cpus=st.integers(1, 16))
def test_replay_stays_in_range_and_windows_are_balanced(spec: dict[str, Any], cpus: int) -> None:
    if cpus == 1 and needs_two_cpus(spec):
        with pytest.raises(WorkloadError, match="at least 2"):
            made(spec, cpus)
        return
    workload = made(spec, cpus)
    assert len(workload.ops) == len(workload.private_slots) == len(workload.handler_base) == cpus
    assert all(ops.size for ops in workload.ops)
    workload_model.replay_in_turn(workload)


@given(spec=specs, cpus=st.integers(2, 5))
def test_same_spec_and_seed_give_the_same_arrays(spec: dict[str, Any], cpus: int) -> None:
    assert digest(made(spec, cpus)) == digest(made(spec, cpus))


@given(spec=specs, cpus=st.integers(2, 5))
def test_array_of_a_cpu_does_not_depend_on_how_many_there_are(spec: dict[str, Any], cpus: int) -> None:
    few, many = made(spec, cpus), made(spec, cpus + 1)
    first = 1 if needs_two_cpus(spec) else 0  # CPU 0 frees what the last one allocated
    for cpu in range(first, cpus):
        assert few.ops[cpu].tobytes() == many.ops[cpu].tobytes()


@given(spec=specs)
def test_cpus_share_no_slots_with_each_others_handlers(spec: dict[str, Any]) -> None:
    workload = made(spec, 3)
    ranges = [range(base, base + workload.handler_slots) for base in workload.handler_base]
    for cpu, ops in enumerate(workload.ops):
        shared = set(ops["slot"][ops["flags"] & 1 != 0].tolist())
        for other, slots in enumerate(ranges):
            assert cpu == other or not shared & set(slots)
    assert len(set().union(*ranges)) == 3 * workload.handler_slots


@given(spec=specs, every=st.integers(2, 30))
def test_nothing_waits_in_a_window(spec: dict[str, Any], every: int) -> None:
    workload = made({**spec, "irq_off": {"every": every, "length": every - 1}, "shared_with_handlers": 3}, 2)
    inside = 0
    for op in workload_model.ops_of(workload.ops[1]):
        name = workload_model.name_of(op)
        inside += {"OP_IRQ_OFF": 1, "OP_IRQ_ON": -1}.get(name, 0)
        if inside and name in (*workload_model.ALLOCS, "OP_REALLOC"):
            assert not workload_model.may_wait(op.gfp)
    assert "OP_IRQ_OFF" in workload_model.names_of(workload.ops[1])


@pytest.mark.parametrize("kind", ["mix", "burst"])
def test_seed_and_cpu_change_what_is_drawn(kind: str) -> None:
    one, other = made({"kind": kind}, 2, seed=1), made({"kind": kind}, 2, seed=2)
    assert digest(one) != digest(other)
    assert one.ops[0].tobytes() != one.ops[1].tobytes()


programs = st.one_of(
    st.fixed_dictionaries({"kind": st.just("alloc_free"), "size": sizes}),
    st.fixed_dictionaries({"kind": st.just("alloc"), "size": sizes, "count": st.integers(1, 9)}),
    st.fixed_dictionaries({"kind": st.just("free"), "count": st.integers(1, 9)}),
    st.fixed_dictionaries({"kind": st.just("same")}),
    st.fixed_dictionaries({"kind": st.just("aba"), "count": st.integers(1, 50)}),
    st.fixed_dictionaries({"kind": st.just("pages"), "order": st.integers(0, 10)}),
    st.fixed_dictionaries({"kind": st.just("burst"), "size": sizes, "count": st.integers(1, 50)}),
    st.fixed_dictionaries({"kind": st.just("mix"), "slots": st.integers(1, 40), "pages_share": shares}),
)


@given(spec=programs, shared=st.integers(1, 20), cpu=st.integers(0, 2))
def test_program_stays_in_range_of_its_cpu(spec: dict[str, Any], shared: int, cpu: int) -> None:
    workload = made({"kind": "pair", "array_ops": 10, "shared_with_handlers": shared}, 3)
    program = build_program(parse_program(spec), seed=SEED, cpu=cpu, workload=workload)
    again = build_program(parse_program(spec), seed=SEED, cpu=cpu, workload=workload)
    assert program.ops.tobytes() == again.ops.tobytes()
    assert 0 <= program.per_interrupt < program.ops.size
    base = workload.handler_base[cpu]
    machine = workload_model.Machine([program.private_slots], workload.shared_slots, handler=True)
    for op in workload_model.ops_of(program.ops):
        machine.step(0, op)
        if op.flags & 1:
            assert base <= op.slot < base + shared
    machine.assert_balanced()
