# SPDX-License-Identifier: MIT
"""The kind `map`: what is drawn, what is refused, and that it runs green on every design."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from running import config, results, run

from harness.workload import WorkloadError, build, build_program, parse_program, parse_workload
from harness.workload.maps import draw_keys
from harness.workload.model import HashMapSpec
from harness.workload.ops import code_of
from harness.workload.spec import MapSpec

CONFIGS = Path(__file__).parents[2] / "configs"
NO_NMI = {"no_prealloc", "kmalloc"}  # they spin
RUN = """
flavour = "checked"
cpus = 2
ops = 40_000
[arena]
size = "16MiB"
[workload]
kind = "map"
entries = 128
nmi_every = {every}
irq_every = 101
[interrupts.nmi]
program = "map"
[interrupts.irq]
program = "map"
"""


def spec(**keys: object) -> MapSpec:
    made = parse_workload({"kind": "map", **keys})
    assert isinstance(made, MapSpec)
    return made


def test_shares_and_keys() -> None:
    made = build(spec(array_ops=10_000, entries=100), cpus=2, seed=1, base_dir=Path())
    ops = made.ops[1]
    shares = [(ops["code"] == code_of(f"OP_MAP_{name}")).mean() for name in ("UPDATE", "DELETE", "LOOKUP")]
    assert shares == pytest.approx([0.4, 0.2, 0.4], abs=0.03)
    assert set(ops["slot"].tolist()) == set(range(75))  # 50 of 100 in use, 2 of 3 keys are there
    assert made.maps == (HashMapSpec(key_bytes=4, value_bytes=64, entries=100, keys=75),)
    assert not (ops["slot"] == made.ops[0]["slot"]).all()


@pytest.mark.parametrize(
    ("keys", "space"),
    [({"update": 1.0, "delete": 0.0}, 512), ({"update": 0.0, "delete": 0.5}, 512), ({"occupancy": 3}, 4608)],
)
def test_key_space(keys: dict[str, float], space: int) -> None:
    assert spec(**{key: float(value) for key, value in keys.items()}).key_space == space


def test_skewed_keys_follow_zipfs_law() -> None:
    keys = draw_keys(HashMapSpec(4, 8, 100, 100, zipf=1.0), 200_000, np.random.default_rng(1))
    counts = np.bincount(keys, minlength=100)
    assert len(counts) == 100
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)


def test_shares_beyond_1_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"update \+ delete = 1.1 must be at most 1"):
        spec(update=0.9, delete=0.2)


def test_a_program_needs_a_map() -> None:
    workload = build(parse_workload({"kind": "pair"}), cpus=1, seed=1, base_dir=Path())
    with pytest.raises(WorkloadError, match='needs a workload of kind "map"'):
        build_program(parse_program("map"), seed=1, cpu=0, workload=workload)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('nmi = { rate_hz = 1, program = "map" }', 'interrupts.nmi.program: kind "map" needs workload.kind'),
        ("nmi = { rate_hz = 1 }\n[pool]\nentries = 1_000_000", "pool.entries = 1000000: allowed are at most"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = config(tmp_path, f'design = "prealloc"\n[workload]\nkind = "pair"\n[interrupts]\n{text}\n')
    done = run("run", path, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_map_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = config(tmp_path, '[workload]\nkind = "map"\nentries = 1_000_000\n')
    done = run("run", path, cwd=tmp_path)
    assert done.returncode == 2
    assert "workload.entries = 1000000: a map of" in done.stderr


@pytest.mark.parametrize("design", ["prealloc", "bpf_mem_alloc", "kmalloc_nolock", "no_prealloc", "kmalloc"])
def test_runs_green(tmp_path: Path, design: str) -> None:
    text = f'design = "{design}"\n' + RUN.format(every=0 if design in NO_NMI else 23)
    cell = results(config(tmp_path, text))["cells"][0]
    assert cell["verdict"] == "ok", cell["violations"]
    assert cell["counters"]["map_lookups"] > 10_000
    assert cell["contexts"]["irq"]["allocs"] > 100
    assert (cell["contexts"]["nmi"]["allocs"] > 100) == (design not in NO_NMI)
    assert cell["allocs"] >= cell["frees"]
    assert cell["audits"]["before the drain"]["totals"]["map_elements"] > 0
    assert cell["audits"]["after the drain"]["totals"]["maps"] == 0


def test_an_overfull_map_says_so(tmp_path: Path) -> None:
    text = 'design = "prealloc"\n' + RUN.format(every=0) + "[expect]\n"
    text = text.replace("[expect]\n", "").replace("entries = 128", "entries = 128\noccupancy = 2.0")
    cell = results(config(tmp_path, text))["cells"][0]
    assert cell["counters"]["map_e2big"] == cell["failures"]["freelist_empty"] > 100
    assert cell["verdict"] == "ok"


def test_the_config_is_green(tmp_path: Path) -> None:
    path = tmp_path / "maps.toml"
    path.symlink_to(CONFIGS / "maps.toml")
    found = results(path, "--set", "duration_s=0.3", "--set", "must_happen=[]")
    assert {cell["verdict"] for cell in found["cells"]} == {"ok"}
    assert all(cell["counters"]["map_lookups"] > 1000 for cell in found["cells"])
