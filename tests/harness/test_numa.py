"""Nodes in experiments: who names which node, what the arena counted, and the model of distance."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import running
from leases import lease

from harness import matrix, numa, numa_report, vocabulary
from harness.config import NumaModelSpec
from harness.workload import Nodes, Workload, WorkloadError, build, parse_workload
from harness.workload.nodes import remote_nodes
from shmalloc import Arena, Cpu, gfp, procfs

CONFIGS = Path(__file__).parents[2] / "configs" / "numa"
# two sockets of two nodes; CPU 2 is on node 1, the rest on the node of their number
SOCKETS = Nodes(((10, 12, 32, 32), (12, 10, 32, 32), (32, 32, 10, 12), (32, 32, 12, 10)), (0, 1, 1, 3))
THISNODE = gfp.parse("__GFP_THISNODE")


def made(cpus: int = 4, nodes: Nodes | int | None = SOCKETS, **spec: Any) -> Workload:
    keys = {"kind": "pair", "array_ops": 20_002, **spec}
    return build(parse_workload(keys), cpus=cpus, seed=23, base_dir=CONFIGS, nodes=nodes)


def named(workload: Workload, cpu: int) -> list[int]:
    return workload.ops[cpu]["node"][::2].tolist()  # of its allocations


@pytest.mark.parametrize(("choice", "of_cpu"), [("nearest", [1, 0, 0, 2]), ("farthest", [2, 2, 2, 0])])
def test_requests_name_the_nearest_or_farthest_other_node(choice: str, of_cpu: list[int]) -> None:
    workload = made(node_from=choice)
    assert [set(named(workload, cpu)) for cpu in range(4)] == [{node} for node in of_cpu]


def test_a_random_node_is_any_other_one_equally_often() -> None:
    counts = np.bincount(named(made(node_from="random"), 2), minlength=4)
    assert counts[1] == 0
    assert counts.sum() == 10_001
    assert (abs(counts[[0, 2, 3]] - 10_001 / 3) < 200).all()


@pytest.mark.parametrize(("rest", "other"), [("any", -1), ("local", 1)])
def test_a_share_names_it_and_the_rest_none_or_its_own(rest: str, other: int) -> None:
    counts = {
        node: named(made(node_from="nearest", node_share=0.25, node_rest=rest), 1).count(node)
        for node in range(-1, 4)
    }
    assert counts[0] + counts[other] == 10_001
    assert abs(counts[0] - 2500) < 150


def test_share_zero_and_one_are_exact() -> None:
    assert set(named(made(node_from="nearest", node_share=0.0), 0)) == {-1}
    assert set(named(made(node=3, node_share=0.0), 0)) == {-1}
    assert set(named(made(node=3, node_share=1.0), 0)) == {3}


def test_thisnode_marks_requests_that_name_a_node_only() -> None:
    ops = made(node=3, node_share=0.5, thisnode=True).ops[0][::2]
    assert ((ops["gfp"] & THISNODE != 0) == (ops["node"] == 3)).all()
    assert 0 < (ops["node"] == 3).sum() < 10_001


def test_naming_nodes_changes_nothing_else() -> None:
    plain, swept = made(kind="mix"), made(kind="mix", node_from="random", node_share=0.5)
    for column in ("code", "slot", "size", "gfp", "cache", "order"):
        assert all((a[column] == b[column]).all() for a, b in zip(plain.ops, swept.ops, strict=True))


def test_of_equally_far_nodes_it_is_the_next_one() -> None:
    flat = Nodes([[10 if a == b else 20 for b in range(4)] for a in range(4)], (0, 1, 2, 3))
    assert [remote_nodes("nearest", home, flat).tolist() for home in range(4)] == [[1], [2], [3], [0]]


@pytest.mark.parametrize(
    ("spec", "nodes", "said"),
    [
        ({"node_from": "nearest"}, 1, "arena.nodes of at least 2"),
        ({"node_from": "random", "node": 1}, 2, 'workload.node = 1: needs workload.node_from = "fixed"'),
        ({"node_share": 0.5}, 2, "workload.node_share = 0.5: no request names a node"),
        ({"thisnode": True}, 2, "workload.thisnode = true: no request names a node"),
        ({"node": 2}, 2, "the arena's nodes are 0..1"),
        ({"node_from": "nearest"}, None, "the nodes are not known"),
    ],
)
def test_contradictions_are_explained(spec: dict[str, Any], nodes: int | None, said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        made(nodes=nodes, **spec)


def test_the_model_is_distance_times_price() -> None:
    allocs = np.array([[7, 3], [0, 10]])  # by CPU and node
    distance = np.array([[10, 20], [32, 10]])
    found = numa.modelled_ns(allocs, distance, NumaModelSpec(access_ns=80.0, accesses=2))
    assert found == {"per_alloc": (17 * 160 + 3 * 320) / 20, "if_all_local": 160}
    assert numa.modelled_ns(allocs, distance, None) == {"per_alloc": None, "if_all_local": None}
    assert numa.modelled_ns(0 * allocs, distance, NumaModelSpec(access_ns=1.0))["per_alloc"] is None


def test_allocations_are_counted_by_the_node_of_their_memory() -> None:
    with (
        Arena.create(size="16MiB", nr_cpus=2, nr_nodes=2, cpu_node=[0, 1]) as arena,
        Cpu(arena, 0) as near,
    ):
        mine = [near.kmalloc(64, node=node) for node in (0, 0, 1, -1, 1)]
        mine.append(near.kmalloc(64, node=0))
        counters = near.counters()
        assert (counters["node_requests"], counters["node_elsewhere"]) == (5, 0)
        assert counters["alloc_node_mismatch"] == 2  # to node 1, and back to 0: without a node the slab stays
        assert arena.region("telemetry")["node_allocs"][0, :3].tolist() == [3, 3, 0]
        look = numa.Look.at(arena)
        assert (look.allocs.tolist(), look.home.tolist()) == ([[3, 3], [0, 0]], [0, 1])
        found = numa.measure(look, counters, NumaModelSpec(access_ns=10.0))
        assert found["allocs_from"] == {"node0": {"node0": 3, "node1": 3}, "node1": {"node0": 0, "node1": 0}}
        assert (found["remote_share"], found["elsewhere_share"]) == (0.5, 0.0)
        assert found["modelled_ns"]["per_alloc"] == 15.0
        for offset in mine:
            near.kfree(offset)


def test_an_arena_of_one_node_counts_no_nodes() -> None:
    with Arena.create(size="16MiB", nr_cpus=1) as arena, Cpu(arena, 0) as cpu:
        cpu.kfree(cpu.kmalloc(64, node=0))
        assert arena.region("telemetry")["node_allocs"].sum() == 0
        assert cpu.counters()["node_requests"] == 0


def test_memory_per_node_is_what_numastat_prints() -> None:
    with Arena.create(size="16MiB", nr_cpus=2, nr_nodes=2, cpu_node=[0, 1]) as arena, Cpu(arena, 0) as cpu:
        taken = [cpu.alloc_pages(3, node=1), cpu.kmalloc(4096, node=1)]
        memory = procfs.memory_per_node(arena)
        zones = arena.region("zones")
        assert [node["MemTotal"] for node in memory.values()] == (zones["managed_pages"][:2] * 4096).tolist()
        for node in memory.values():
            assert node["MemUsed"] == node["MemTotal"] - node["MemFree"]
            assert node["Slab"] == node["SReclaimable"] + node["SUnreclaim"]
        assert (memory["node0"]["Slab"], memory["node1"]["Slab"]) == (0, 32768)
        lines = procfs.numastat_memory(memory).splitlines()
        assert lines[0] == "Per-node system memory usage (in MBs):"
        assert lines[1].split() == ["Node", "0", "Node", "1", "Total"]
        rows = {line.split()[0]: [float(value) for value in line.split()[1:]] for line in lines[3:]}
        assert list(rows) == ["MemTotal", "MemFree", "MemUsed", "Slab", "SReclaimable", "SUnreclaim"]
        assert rows["Slab"] == [0.0, 0.03, 0.03]
        cpu.free_pages(taken[0], 3)
        cpu.kfree(taken[1])
        with pytest.raises(ValueError, match=r"node = 2: allowed is 0\.\.1"):
            procfs.node_memory(arena, 2)
        del zones


TWO_NODES = """
cpus = 2
ops = 20_000
design = ["kmalloc", "kmalloc_nolock"]
[arena]
size = "16MiB"
cpus = 2
nodes = 2
cpu_node = [0, 1]
[workload]
kind = "mix"
slots = 101
caches = 0
realloc_share = 0.0
node_from = "nearest"
node_rest = "local"
node_share = [0.0, 0.5, 1.0]
[numa_model]
access_ns = 80.0
"""


def test_a_run_says_where_memory_came_from(tmp_path: Path) -> None:
    path = running.config(tmp_path, TWO_NODES)
    run = running.results(path)
    for cell in run["cells"]:
        found, counters = cell["numa"], cell["counters"]
        assert sum(found["allocs"].values()) == cell["allocs"]
        assert counters["node_requests"] == cell["allocs"]
        pages = {
            key: sum(node[key] for node in found["events"].values()) for key in ("numa_hit", "local_node")
        }
        assert pages == {"numa_hit": counters["numa_hit"], "local_node": counters["numa_local"]}
        assert set(found["memory_per_node"]) == {"node0", "node1"}
        assert found["modelled_ns"]["per_alloc"] == pytest.approx(80 * (1 + found["remote_share"]), abs=0.01)
        strict = cell["design"] == "kmalloc"
        assert (counters["alloc_node_mismatch"] > 0) == (
            strict and cell["params"]["workload.node_share"] == 0.5
        )
    text = (tmp_path / "out/report.txt").read_text()
    assert "modelled ns are a model of distance" in text
    header = next(line.split() for line in text.splitlines() if "mismatch" in line and "foreign" in line)
    assert header[:7] == ["nodes", "hit", "miss", "foreign", "local", "other", "mismatch"]
    blocks = (tmp_path / "out/numastat.txt").read_text()
    assert blocks.count("Per-node system memory usage (in MBs):") == 6 == len(run["cells"])


def test_of_one_node_there_is_nothing_to_report(tmp_path: Path) -> None:
    run = running.results(running.config(tmp_path))
    assert list(numa_report.parts(run["cells"])) == []
    assert not (tmp_path / "out/numastat.txt").exists()
    assert set(running.only_cell(run)["numa"]["memory_per_node"]) == {"node0"}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_config_is_sound(path: Path) -> None:
    assert path.read_text().startswith("# Shows")
    cells = matrix.load(path, [], vocabulary.load()).cells
    assert all(cell.config.arena.size <= 48 << 20 and cell.config.must_happen for cell in cells)
    assert {cell.config.workload.node_share for cell in cells} >= {0.0, 0.5, 1.0}
    assert sum(cell.config.seconds for cell in cells) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_config_is_green(path: Path, tmp_path: Path) -> None:
    with lease(2):
        done = running.run("run", path, "--no-progress", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_numastat_m_shows_a_live_arena(tmp_path: Path) -> None:
    with Arena.create(size="16MiB", nr_cpus=2, nr_nodes=2, cpu_node=[0, 1]) as arena:
        plain = running.run("numastat", arena.name, cwd=tmp_path)
        memory = running.run("numastat", "-m", arena.name, cwd=tmp_path)
        assert (plain.returncode, memory.returncode) == (0, 0), memory.stderr
        assert plain.stdout.splitlines()[1].split() == ["numa_hit", "0", "0"]
        assert memory.stdout == procfs.numastat_memory(procfs.memory_per_node(arena))


def test_there_are_configs_for_1_2_4_and_8_nodes() -> None:
    names = {path.stem for path in CONFIGS.glob("*.toml")}
    assert names >= {"nodes1", "nodes2", "nodes4", "nodes8", "thisnode"}
    for nodes in (1, 2, 4, 8):
        cells = matrix.load(CONFIGS / f"nodes{nodes}.toml", [], vocabulary.load()).cells
        assert {cell.config.arena.nodes for cell in cells} == {nodes}
        assert cells[0].config.arena.distance is not None
