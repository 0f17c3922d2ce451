# SPDX-License-Identifier: MIT
"""Recorded traces: every event is honoured as stated, and no file is believed before it is checked."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workload_model
from hypothesis import given
from hypothesis import strategies as st

from harness.workload import Workload, WorkloadError, build, parse_workload
from shmalloc import gfp, layout

GIT = Path(__file__).parents[2] / "configs" / "traces" / "git.npz"
PAGE = 4096
INTEGERS = [
    "op",
    "kind",
    "size_req",
    "size_alloc",
    "gfp_flags",
    "node",
    "cpu",
    "slot",
    "ctx",
    "cache",
    "match",
]
KERNEL = 0xCC0


def event(**columns: Any) -> dict[str, int]:
    """Describe one event; by default an allocation of 64 bytes by kmalloc on CPU 0."""
    base = dict.fromkeys(INTEGERS, 0) | {"size_req": 64, "size_alloc": 64, "gfp_flags": KERNEL}
    return base | {"node": -1, "match": -1} | columns


def free(match: int, events: list[dict[str, int]], **columns: Any) -> dict[str, int]:
    """Describe the free of an earlier event's object."""
    origin = events[match]
    same = {name: origin[name] for name in ("kind", "size_req", "size_alloc", "slot", "cpu", "cache")}
    return event(op=1, gfp_flags=0, match=match, **(same | columns))


def arrays(events: list[dict[str, int]], names: tuple[str, ...] = ("", "dentry", "filp")) -> dict[str, Any]:
    table: dict[str, Any] = {name: np.array([e[name] for e in events], dtype=np.int64) for name in INTEGERS}
    return table | {"cache_names": np.array(names)}


def write(folder: Path, table: dict[str, Any]) -> str:
    np.savez(folder / "t.npz", **table)
    return "t.npz"


def made(folder: Path, events: list[dict[str, int]], cpus: int = 1, **spec: Any) -> Workload:
    return from_file(folder, write(folder, arrays(events)), cpus, **spec)


def from_file(folder: Path, file: str, cpus: int = 1, **spec: Any) -> Workload:
    return build(
        parse_workload({"kind": "trace", "file": file, **spec}), cpus=cpus, seed=1, base_dir=folder, nodes=1
    )


@st.composite
def recordings(draw: st.DrawFn) -> list[dict[str, int]]:
    """Draw a trace as the recorder makes them: frees may be unseen, or lack their allocation."""
    events: list[dict[str, int]] = []
    live: dict[int, int] = {}
    for _ in range(draw(st.integers(1, 60))):
        slot, cpu = draw(st.integers(0, 6)), draw(st.sampled_from([0, 1, 5]))
        context = draw(st.sampled_from([0, 0, 0, 1, 9, 16, 17, 64, 128]))
        if slot in live and draw(st.booleans()):
            kind = draw(st.sampled_from([events[live[slot]]["kind"], 0]))
            events.append(free(live.pop(slot), events, cpu=cpu, ctx=context, kind=kind))
        elif draw(st.integers(0, 9)) == 0:
            events.append(event(op=1, gfp_flags=0, slot=-1, cpu=cpu, ctx=context))
        elif slot not in live and draw(st.integers(0, 4)) == 0:
            events.append(event(op=1, gfp_flags=0, slot=slot, cpu=cpu, ctx=context))
        else:
            live[slot] = len(events)
            kind = draw(st.integers(0, 2))
            size = PAGE << draw(st.integers(0, 3)) if kind == 2 else draw(st.integers(1, 5000))
            events.append(
                event(kind=kind, slot=slot, cpu=cpu, ctx=context, size_req=size, size_alloc=size)
                | {"cache": draw(st.integers(1, 2)) if kind == 1 else 0}
            )
    return events


@given(events=recordings(), cpus=st.integers(1, 3))
def test_replayed_in_the_recorded_order_the_same_objects_live(
    events: list[dict[str, int]], cpus: int, tmp_path: Path
) -> None:
    workload = made(tmp_path, events, cpus)
    replayable = [i for i, e in enumerate(events) if e["op"] == 0 or e["match"] >= 0]
    dense = {cpu: number for number, cpu in enumerate(sorted({e["cpu"] for e in events}))}
    recorded = min(cpus, len(dense))
    machine = workload_model.machine_of(workload)
    ops = [iter(workload_model.ops_of(array)) for array in workload.ops]
    live: dict[int, int] = {}
    for index in replayable:
        cpu = dense[events[index]["cpu"]] % recorded
        _step_to_next_object(machine, cpu, ops[cpu])
        if events[index]["op"] == 0:
            live[events[index]["slot"]] = index
        else:
            del live[events[index]["slot"]]
        sorts = Counter(workload_model.ALLOCS[events[i]["kind"]] for i in live.values())
        assert Counter(thing.sort for thing in machine.live()) == sorts
    assert machine.skipped == 0


def _step_to_next_object(machine: Any, cpu: int, ops: Iterator[Any]) -> None:
    """Do a CPU's ops up to and with the next one that is no window's."""
    for op in ops:
        machine.step(cpu, op)
        if workload_model.name_of(op) in (*workload_model.ALLOCS, "OP_FREE"):
            return
    raise AssertionError("the array ends too early")


@given(events=recordings(), cpus=st.integers(1, 16))
def test_any_number_of_cpus_replays_the_whole_trace(
    events: list[dict[str, int]], cpus: int, tmp_path: Path
) -> None:
    workload = made(tmp_path, events, cpus)
    workload_model.replay_in_turn(workload)
    instances = -(-cpus // len({e["cpu"] for e in events}))
    counts = Counter(name for ops in workload.ops for name in workload_model.names_of(ops))
    for kind, name in enumerate(workload_model.ALLOCS):
        assert counts[name] == instances * sum(e["op"] == 0 and e["kind"] == kind for e in events)
    assert counts["OP_FREE"] == instances * sum(e["op"] == 1 and e["match"] >= 0 for e in events)


@given(events=recordings())
def test_contexts_become_windows(events: list[dict[str, int]], tmp_path: Path) -> None:
    workload = made(tmp_path, events)
    replayable = iter([e for e in events if e["op"] == 0 or e["match"] >= 0])
    machine = workload_model.machine_of(workload)
    for op in workload_model.ops_of(workload.ops[0]):
        machine.step(0, op)
        if workload_model.name_of(op) in (*workload_model.ALLOCS, "OP_FREE"):
            context = next(replayable)["ctx"]
            assert machine.irqs_off.get(0, False) == bool(context & (1 | 8 | 64))
            assert machine.bhs_off.get(0, False) == bool(context & (16 | 128))


def test_object_freed_on_another_cpu_is_in_a_shared_slot_and_others_are_not(tmp_path: Path) -> None:
    events = [event(slot=0), event(slot=1, cpu=1)]
    events += [free(0, events, cpu=1), free(1, events)]
    workload = made(tmp_path, events, cpus=2)
    shared = [(ops["flags"] & layout.constants()["OPF_SHARED"]).tolist() for ops in workload.ops]
    assert shared == [[1], [0, 1, 0]]
    assert workload.shared_slots == 1
    assert workload.notes["cross_cpu_frees"] == 1


def test_instances_of_a_trace_share_nothing(tmp_path: Path) -> None:
    events = [event(slot=0), event(slot=1, cpu=1)]
    events += [free(0, events, cpu=1)]
    workload = made(tmp_path, events, cpus=4)
    assert workload.shared_slots == 2
    shared = [set(ops["slot"][ops["flags"] == 1].tolist()) for ops in workload.ops]
    assert shared[0] == shared[1] != shared[2] == shared[3]


def test_what_cannot_be_replayed_is_dropped_and_counted(tmp_path: Path) -> None:
    events = [
        event(slot=0, gfp_flags=KERNEL | 0x8000000),
        event(slot=0),  # of a live slot: a free was not seen
        event(op=1, slot=-1),
        event(op=1, slot=4),
        event(slot=-1),  # failed
        event(slot=-1, size_req=0, size_alloc=0),  # kmalloc(0)
        event(kind=1, cache=0, slot=2),
    ]
    workload = made(tmp_path, events)
    expected = {
        "events": 7,
        "dropped_null_frees": 1,
        "dropped_unmatched_frees": 1,
        "dropped_failed_allocs": 1,
        "unseen_frees": 1,
        "gfp_bits_dropped": 1,
        "cache_allocs_by_kmalloc": 1,
        "kmalloc_allocs": 3,
    }
    assert {key: workload.notes[key] for key in expected} == expected
    ops = workload.ops[0]
    assert set(ops["gfp"].tolist()) == {KERNEL}
    assert ops["size"].tolist() == [64, 64, 0, 64]
    assert ops["slot"][0] == ops["slot"][1]


def test_gfp_bits_keep_their_meaning() -> None:
    recorded = np.load(GIT, allow_pickle=False)
    raw = set(recorded["gfp_flags"][recorded["op"] == 0].tolist())
    workload = from_file(GIT.parent, GIT.name)
    allocs = np.isin(workload.ops[0]["code"], [layout.constants()[name] for name in workload_model.ALLOCS])
    assert set(workload.ops[0]["gfp"][allocs].tolist()) == raw
    assert workload.notes["gfp_bits_dropped"] == 0
    assert gfp.parse("GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP") in raw


def test_caches_have_the_recorded_names_and_the_largest_size(tmp_path: Path) -> None:
    names = ("", "dentry", "kmalloc-64", "a name", "x" * 60, "x" * 61)
    events = [event(kind=1, cache=i % 6, slot=i, size_alloc=64 + 8 * i) for i in range(1, 12)]
    workload = from_file(tmp_path, write(tmp_path, arrays(events, names)))
    assert [cache.size for cache in workload.caches] == [120, 128, 136, 144, 152]
    assert [cache.name for cache in workload.caches[:3]] == ["dentry", "trace-kmalloc-64", "a_name"]
    limit = layout.constants()["SHM_CACHE_NAME"]
    assert len({cache.name for cache in workload.caches}) == 5
    assert all(0 < len(cache.name) < limit for cache in workload.caches)


def test_recorded_node_that_the_arena_has_not_is_mapped(tmp_path: Path) -> None:
    workload = made(tmp_path, [event(slot=0, node=3)])
    assert workload.ops[0]["node"].tolist() == [0]
    assert workload.notes["remapped_nodes"] == 1


def test_handlers_and_self_interrupts_are_laid_over_a_trace() -> None:
    workload = from_file(GIT.parent, GIT.name, cpus=2, events=1000, shared_with_handlers=5, nmi_every=101)
    machine = workload_model.replay_in_turn(workload)
    assert machine.freed
    assert "OP_NMI" in workload_model.names_of(workload.ops[0])
    assert workload.shared_slots >= 10


def test_git_trace_is_replayed_whole() -> None:
    workload = from_file(GIT.parent, GIT.name, cpus=2)
    expected = {
        "events": 77_542,
        "kmalloc_allocs": 3_283,
        "cache_allocs": 27_819,
        "page_allocs": 4_110,
        "frees": 27_831,
        "unseen_frees": 5_191,
        "dropped_null_frees": 6_107,
        "dropped_unmatched_frees": 8_392,
        "cross_cpu_frees": 29,
        "irq_off_ops": 29,
        "recorded_cpus": 2,
        "caches": 31,
    }
    assert {key: workload.notes[key] for key in expected} == expected
    assert GIT.stat().st_size < 1 << 20


def drop(name: str) -> Any:
    return lambda table: table.pop(name)


def put(name: str, value: Any) -> Any:
    return lambda table: table.update({name: value})


def change(name: str, index: int, value: int) -> Any:
    return lambda table: table[name].__setitem__(index, value)


BAD = [
    (drop("match"), "array match is missing"),
    (drop("cache_names"), "array cache_names is missing"),
    (put("size_req", np.ones(3)), "array size_req has dtype float64"),
    (put("cpu", np.zeros(3, dtype=bool)), "array cpu has dtype bool"),
    (put("cpu", np.zeros(2, dtype=np.int64)), "array cpu has 2 entries"),
    (put("slot", np.zeros((3, 1), dtype=np.int64)), "array slot has 2 dimensions"),
    (put("cache_names", np.arange(3)), "array cache_names has dtype int64"),
    (put("cache_names", np.array([""], dtype=object)), "cannot be read"),
    (put("op", np.array([0, object(), 1], dtype=object)), "cannot be read"),
    (change("op", 0, 2), "array op holds 0..2"),
    (change("kind", 0, 3), "array kind holds"),
    (change("size_req", 0, -1), "array size_req holds -1"),
    (change("slot", 0, -2), "array slot holds -2"),
    (change("cache", 1, 9), "cache beyond"),
    (change("match", 2, 2), "no earlier event"),
    (change("match", 2, 1), "another slot"),
    (change("op", 0, 1), "match is no allocation"),
    (change("kind", 1, 2), "no power of two"),
]


@pytest.mark.parametrize(("spoil", "text"), BAD, ids=[text for _, text in BAD])
def test_spoilt_trace_is_refused(tmp_path: Path, spoil: Any, text: str) -> None:
    events = [event(slot=0), event(slot=1)]
    table = arrays([*events, free(0, events)])
    assert from_file(tmp_path, write(tmp_path, table)).notes["frees"] == 1
    spoil(table)
    with pytest.raises(WorkloadError, match=text) as caught:
        from_file(tmp_path, write(tmp_path, table))
    assert "t.npz" in str(caught.value)


def test_every_fault_of_a_trace_is_listed(tmp_path: Path) -> None:
    table = arrays([event()])
    del table["op"], table["ctx"]
    with pytest.raises(WorkloadError, match=r"array op is missing; array ctx is missing"):
        from_file(tmp_path, write(tmp_path, table))


def test_allocation_that_is_freed_twice_is_refused(tmp_path: Path) -> None:
    events = [event(slot=0)]
    with pytest.raises(WorkloadError, match="more than one free"):
        made(tmp_path, [*events, free(0, events), free(0, events)])


def test_trace_without_events_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="no events"):
        made(tmp_path, [])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no .npz file"),
        (b"hello", "no .npz file"),
        (None, "cannot be read: No such file"),
    ],
)
def test_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes | None, text: str) -> None:
    if content is not None:
        (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(WorkloadError, match=text):
        from_file(tmp_path, "t.npz")


def test_damaged_file_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    whole = GIT.read_bytes()
    for cut in (100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "t.npz").write_bytes(whole[:cut])
        with pytest.raises(WorkloadError, match=r"t\.npz"):
            from_file(tmp_path, "t.npz")
    middle = len(whole) // 2
    (tmp_path / "t.npz").write_bytes(whole[:middle] + b"damage" * 10 + whole[middle + 60 :])
    with pytest.raises(WorkloadError, match=r"t\.npz"):
        from_file(tmp_path, "t.npz")


def test_only_idle_cpus_are_given_nothing_but_a_delay(tmp_path: Path) -> None:
    workload = made(tmp_path, [event(slot=0), event(op=1, slot=3, cpu=1)], cpus=2)
    assert workload_model.names_of(workload.ops[1]) == ["OP_DELAY"]
    assert workload.notes["idle"] == 1
