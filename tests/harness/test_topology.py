"""Real nodes: reading them, deciding what goes where, and binding; with machines that are made up."""

import ctypes
import errno
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import running

from harness import matrix, membind, stress, topology, vocabulary
from harness.config import Config
from harness.interruption import Interruption
from harness.topology import Placement, RealNode
from shmalloc import Arena, NoRoom, room

WORDS = vocabulary.load()
TWO = (
    RealNode(0, frozenset({0, 1, 2}), 8 << 30, (10, 21)),
    RealNode(3, frozenset({4, 5}), 8 << 30, (21, 10)),
)
ALL = frozenset(range(8))


def sysfs(folder: Path, nodes: dict[int, tuple[str, int, str]], has_memory: str) -> Path:
    for number, (cores, memory_kb, distance) in nodes.items():
        node = folder / f"node{number}"
        node.mkdir()
        (node / "cpulist").write_text(f"{cores}\n")
        (node / "distance").write_text(f"{distance}\n")
        (node / "meminfo").write_text(
            f"\nNode {number} MemTotal:       {memory_kb} kB\nNode {number} MemFree: 1 kB\n"
        )
    (folder / "has_memory").write_text(f"{has_memory}\n")
    return folder


def config(**keys: Any) -> Config:
    arena = {"size": "16MiB", "nodes": keys.pop("nodes", 2), **keys.pop("arena", {})}
    return Config.model_validate({"name": "x", "cpus": 4, "arena": arena, **keys}, context=WORDS)


def placed(
    made: Config,
    nodes: Sequence[RealNode] = TWO,
    cpu_node: Sequence[int] = (0, 1, 0, 1),
    allowed: frozenset[int] = ALL,
) -> Placement:
    return topology.place(made, cpu_node, nodes, allowed)


def test_lists_of_the_kernel_are_read() -> None:
    assert topology.parse_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert topology.parse_list("\n") == frozenset()


def test_nodes_with_memory_are_read(tmp_path: Path) -> None:
    folder = sysfs(
        tmp_path, {0: ("0-1", 1024, "10 17 28"), 1: ("2-3", 0, "17 10 28"), 2: ("", 2048, "28 28 10")}, "0,2"
    )
    assert topology.read(folder) == (
        RealNode(0, frozenset({0, 1}), 1 << 20, (10, 17, 28)),
        RealNode(2, frozenset(), 2 << 20, (28, 28, 10)),
    )


def test_where_the_kernel_tells_no_nodes_there_are_none(tmp_path: Path) -> None:
    assert topology.read(tmp_path) == ()
    sysfs(tmp_path, {}, "0-1")
    assert topology.read(tmp_path) == ()


def test_arena_nodes_go_to_real_ones_and_cpus_to_their_cores() -> None:
    found = placed(config())
    assert (found.real_nodes, found.cores) == ((0, 3), (0, 4, 1, 5))
    assert found.why == "bound: node 0 on 0, node 1 on 3"
    assert found.as_json()["real_nodes"] == {"node0": 0, "node1": 3}


def test_more_arena_nodes_than_real_ones_share() -> None:
    found = placed(config(nodes=4), cpu_node=(0, 1, 2, 3))
    assert (found.real_nodes, found.cores) == ((0, 3, 0, 3), (0, 4, 1, 5))
    assert "some share a real node" in found.why


def test_cores_are_taken_in_turn_and_only_allowed_ones() -> None:
    found = placed(config(), allowed=frozenset({2, 5, 6}))
    assert found.cores == (2, 5, 2, 5)


@pytest.mark.parametrize(
    ("keys", "nodes", "said"),
    [
        ({"nodes": 1}, TWO, "the arena has one node"),
        ({"arena": {"real_nodes": "ignore"}}, TWO, 'real_nodes = "ignore"'),
        ({}, TWO[:1], "this machine has one node"),
        ({}, (), "this machine has one node"),
        ({"pin": "exclusive", "cpus": 6, "arena": {"cpus": 6}}, TWO, "fewer cores than CPUs"),
    ],
)
def test_what_is_left_alone_says_why(keys: dict[str, Any], nodes: Sequence[RealNode], said: str) -> None:
    found = placed(config(**keys), nodes, (0, 1, 0, 1, 1, 1))
    assert not found.is_bound
    assert said in found.why
    assert found.cores[:3] == (0, 1, 2)


def test_a_node_none_of_whose_cores_is_allowed_is_none() -> None:
    found = placed(config(), allowed=frozenset({0, 1}))
    assert "2 nodes, cores of 1 allowed" in found.why


def test_unpinned_cpus_stay_so() -> None:
    assert placed(config(pin="none")).cores == (None,) * 4
    assert placed(config(pin="none", nodes=1)).cores == (None,) * 4


def test_each_nodes_page_frames_are_bound_and_nothing_else() -> None:
    with Arena.create(size="16MiB", nr_cpus=2, nr_nodes=2, reserve="sparse") as arena:
        calls: list[tuple[int, int, int]] = []
        wanted = Placement((0, 3), (0, 4), "bound")
        assert membind.bind(arena, wanted, lambda *call: calls.append(call)) is wanted
        memory = arena.region("memory")
        begin = memory.ctypes.data
        near, far = (arena.region("zones")["managed_pages"][:2] * 4096).tolist()
        assert calls == [(begin, near, 0), (begin + near, far, 3)]
        assert begin + near + far <= begin + memory.nbytes
        assert all(address % mmap.PAGESIZE == 0 for address, _, _ in calls)
        del memory


def test_a_kernel_that_refuses_is_believed_and_named() -> None:
    def refuse(address: int, length: int, node: int) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    with Arena.create(size="16MiB", nr_cpus=2, nr_nodes=2, reserve="sparse") as arena:
        found = membind.bind(arena, Placement((0, 3), (0, 4), "bound"), refuse)
    assert (found.is_bound, found.cores, found.why) == (False, (0, 4), "left alone: Operation not permitted")


def test_what_is_left_alone_is_not_touched() -> None:
    def never(address: int, length: int, node: int) -> None:
        raise AssertionError

    with Arena.create(size="16MiB", nr_cpus=2, nr_nodes=2, reserve="sparse") as arena:
        alone = Placement((), (0, 1), "left alone")
        assert membind.bind(arena, alone, never) is alone


def test_the_call_binds_memory_that_is_taken_later() -> None:
    """get_mempolicy says of the range what mbind was told: node 0, which every machine has."""
    with Arena.create(size="16MiB", nr_cpus=1, reserve="sparse") as arena:
        ((offset, length),) = membind.ranges(arena)
        try:
            membind.mbind(arena.base + offset, length, 0)
        except OSError as error:
            pytest.skip(f"this kernel or its sandbox allows no mbind: {error}")
        mode, mask = ctypes.c_int(-1), (ctypes.c_ulong * 16)()
        libc = ctypes.CDLL(None, use_errno=True)
        get_mempolicy, of_address = 239, 2
        arguments = (ctypes.addressof(mode), ctypes.addressof(mask), 1024, arena.base + offset, of_address)
        assert libc.syscall(get_mempolicy, *(ctypes.c_ulong(a) for a in arguments)) == 0
        assert (mode.value, mask[0]) == (2, 1)


def test_a_node_that_is_not_there_is_refused() -> None:
    with Arena.create(size="16MiB", nr_cpus=1, reserve="sparse") as arena:
        ((offset, length),) = membind.ranges(arena)
        with pytest.raises(OSError, match="mbind to node 700"):
            membind.mbind(arena.base + offset, length, 700)


def test_a_sparse_arena_takes_its_memory_when_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with Arena.create(size="16MiB", nr_cpus=1, reserve="sparse") as arena:
        path = Path("/dev/shm") / arena.name.strip("/")
        assert path.stat().st_blocks * 512 < 8 << 20
        arena.reserve()
        assert path.stat().st_blocks * 512 == 16 << 20
        monkeypatch.setattr(room, "shortages", lambda *_: [1])
        with pytest.raises(NoRoom):
            arena.reserve()


def test_a_cell_runs_on_the_nodes_that_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of two nodes that are made up: both are the one that every machine has."""
    text = running.SMALL.replace('size = "16MiB"', 'size = "16MiB"\ncpus = 2\nnodes = 2\ncpu_node = [0, 1]')
    experiment = matrix.load(running.config(tmp_path, text), ["numa_model.access_ns=80.0"], WORDS)
    cores = sorted(topology.allowed_cores())
    nodes = tuple(
        RealNode(number, frozenset({core}), 1, (10, 21)) for number, core in ((0, cores[-1]), (3, cores[0]))
    )
    calls: list[tuple[int, int, int]] = []
    real_bind = membind.bind
    monkeypatch.setattr(membind, "bind", lambda *both: real_bind(*both, lambda *call: calls.append(call)))
    with Interruption() as interruption:
        job = stress.Job(experiment.cells[0], tmp_path, WORDS, interruption, real_nodes=nodes)
        cell, _ = stress.run_cell(job)
    assert cell["verdict"] == "ok"
    assert cell["numa"]["placement"] == {
        "bound": True,
        "real_nodes": {"node0": 0, "node1": 3},
        "cores": [cores[-1], cores[0]],
        "why": "bound: node 0 on 0, node 1 on 3",
    }
    assert [node for _, _, node in calls] == [0, 3]
    assert cell["numa"]["modelled_ns"]["per_alloc"] is None  # where distance is real, none is modelled


def test_a_result_says_what_became_of_its_nodes(tmp_path: Path) -> None:
    text = running.SMALL.replace('size = "16MiB"', 'size = "16MiB"\nnodes = 2')
    run = running.results(running.config(tmp_path, text))
    (said,) = run["machine"]["arena_nodes"]
    placement = running.only_cell(run)["numa"]["placement"]
    assert placement["why"] == said
    assert placement["bound"] == said.startswith("bound")
    assert len(run["machine"]["nodes"]) == len(topology.read())
    assert said in (tmp_path / "out/report.txt").read_text().replace("\n", " ")
