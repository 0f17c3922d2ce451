# SPDX-License-Identifier: MIT
"""The configs that come with the project are sound, and every kind of workload and program runs green."""

from pathlib import Path

import pytest
from leases import lease
from running import config, results, run

from harness import matrix, vocabulary
from harness.matrix import Experiment

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = (
    "quickstart",
    "storm",
    "oversubscribed",
    "irq_off",
    "near_oom",
    "trace",
    "producer_consumer",
    "soak",
    "designs",
    "slab_debug",
    "reclaim",
    "faults",
)
# their scenarios bring arenas and interrupts of their own
ATLASES = (
    "atlas",
    "atlas_broken",
    "atlas_broken_pools",
    "atlas_irq",
    "atlas_quick",
)
OTHER_DESIGNS = ("maps", "sheaves", "memcg")  # not about kmalloc and kmalloc_nolock
GROUND = """
cpus = 2
ops = 40_000
design = ["kmalloc", "kmalloc_nolock"]
[arena]
size = "16MiB"
max_caches = 128
"""
KINDS = ("pair", "batch", "mix", "burst", "wave", "producer_consumer")
PROGRAMS = ("alloc_free", "alloc", "free", "same", "aba", "pages", "burst", "mix")


def loaded(name: str) -> Experiment:
    return matrix.load(CONFIGS / f"{name}.toml", [], vocabulary.load())


@pytest.mark.parametrize("name", NAMES + OTHER_DESIGNS + ATLASES)
def test_config_says_what_it_shows_and_what_must_happen(name: str) -> None:
    text = (CONFIGS / f"{name}.toml").read_text()
    first, second = text.splitlines()[:2]
    assert first.startswith("# ")
    assert not second.startswith("#")
    experiment = loaded(name)
    if name in NAMES:
        assert {cell.config.design for cell in experiment.cells} >= {"kmalloc", "kmalloc_nolock"}
    for cell in experiment.cells:
        assert cell.config.must_happen
        assert cell.config.arena.size <= 48 << 20
        assert cell.config.oracle


def test_every_config_is_looked_at() -> None:
    assert {path.stem for path in CONFIGS.glob("*.toml")} == {*NAMES, *OTHER_DESIGNS, *ATLASES, "broken"}


def test_every_broken_variant_of_the_config_is_expected_to_be_caught() -> None:
    cells = loaded("broken").cells
    expected = {spec.cell["broken"]: spec.verdict for spec in cells[0].config.expect}
    assert expected.keys() == {cell.config.broken for cell in cells} - {"none"}
    assert "ok" not in expected.values()


@pytest.mark.slow
def test_every_broken_variant_of_the_config_is_caught(tmp_path: Path) -> None:
    done = run("run", CONFIGS / "broken.toml", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_what_the_names_promise_is_what_the_configs_do() -> None:
    assert sum(cell.config.seconds for cell in loaded("quickstart").cells) <= 5
    assert all(cell.config.cpus == 16 for cell in loaded("oversubscribed").cells)
    assert all(cell.config.workload.kind == "trace" for cell in loaded("trace").cells)
    assert sum(cell.config.seconds for cell in loaded("soak").cells) == 600


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_green(tmp_path: Path, kind: str) -> None:
    text = f'{GROUND}[workload]\nkind = "{kind}"\nshared_with_handlers = 23\nnmi_every = 101\n'
    for cell in results(config(tmp_path, text))["cells"]:
        assert cell["verdict"] == "ok"
        assert cell["allocs"] > 1000
        assert cell["contexts"]["nmi"]["allocs"] > 100


def test_recorded_trace_runs_green_with_all_three_kinds_of_event(tmp_path: Path) -> None:
    text = f'{GROUND}[workload]\nkind = "trace"\nfile = "{CONFIGS}/traces/git.npz"\n'
    for cell in results(config(tmp_path, text), "--set", "ops=200_000")["cells"]:
        assert cell["verdict"] == "ok"
        assert cell["contexts"]["softirq"]["frees"] > 0
        assert cell["counters"]["pgalloc"] > 1000
        assert cell["workload"]["caches"] == 31
        totals = cell["audits"]["before the drain"]["totals"]
        assert totals["objects_live"] > 0
        assert totals["pages_allocated"] > 0


def test_every_program_runs_green_in_nmi_and_irq(tmp_path: Path) -> None:
    text = f'{GROUND}[workload]\nkind = "mix"\nshared_with_handlers = 23\nnmi_every = 23\nirq_every = 101\n'
    names = ", ".join(f'"{name}"' for name in PROGRAMS)
    text += f"[interrupts.nmi]\nprogram = [{names}]\n"
    found = results(config(tmp_path, text), "--set", 'design="kmalloc_nolock"')
    assert [cell["verdict"] for cell in found["cells"]] == ["ok"] * len(PROGRAMS)
    for cell in found["cells"]:
        nmi = cell["contexts"]["nmi"]
        assert (nmi["frees"] > 100) == (cell["params"]["interrupts.nmi.program"] != "alloc")
        assert (nmi["allocs"] > 100) == (cell["params"]["interrupts.nmi.program"] != "free")
        assert cell["contexts"]["irq"]["allocs"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES + OTHER_DESIGNS if name != "soak"])
def test_config_is_green(name: str, tmp_path: Path) -> None:
    with lease(2):
        found = results(_linked(tmp_path, name))
    assert {cell["verdict"] for cell in found["cells"]} == {"ok"}


@pytest.mark.slow
def test_first_seconds_of_the_soak_lose_nothing(tmp_path: Path) -> None:
    with lease(2):
        found = results(_linked(tmp_path, "soak"), "--set", "duration_s=10", "--set", "must_happen=[]")
    assert {cell["verdict"] for cell in found["cells"]} == {"ok"}


def _linked(folder: Path, name: str) -> Path:
    """Make the configs' folder appear in the test's own, where results go."""
    (folder / "traces").symlink_to(CONFIGS / "traces")
    path = folder / f"{name}.toml"
    path.symlink_to(CONFIGS / f"{name}.toml")
    return path
