"""Plots: what is drawn are the numbers of the result, and nothing is drawn of nothing."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import running

from harness import plots, vocabulary
from harness.memory import MOST_SAMPLES, SAMPLE_PERIOD_S, Sample, Sampler
from harness.plots import figures, numa_figure, style
from harness.plots.grid import MOST_ROWS, Grid
from harness.results import blank_cell
from shmalloc import Arena

WORDS = vocabulary.load()
ORDER = list(WORDS.designs)
SVG = "{http://www.w3.org/2000/svg}"
_MIB = 1 << 20


def cell(design: str, served: int, failed: int = 0, **params: Any) -> dict[str, Any]:
    made = blank_cell(WORDS)
    made["id"] = ",".join(f"{key}={value}" for key, value in {"design": design, **params}.items())
    made["params"] = {"design": design, **params}
    made |= {"design": design, "ops": 2 * served, "throughput_ops_s": 1e6 * served, "allocs": served}
    made["failures"]["zone_busy"] = failed
    made["contexts"]["task"] |= {"allocs": served}
    made["contexts"]["task"]["failures"]["zone_busy"] = failed
    made["contexts"]["task"]["latency_ns"] = {"p50": 23.0, "p99": 101.0, "p999": 1009.0, "max": 2003.0}
    made["contexts"]["task"]["timed"] = served // 7
    made["memory"] |= {"peak_bytes": served * _MIB, "sample_period_s": SAMPLE_PERIOD_S}
    return made


def run(*cells: dict[str, Any]) -> dict[str, Any]:
    machine = {"cores_allowed": 2, "cpu_model": "a processor", "architecture": "x86_64"}
    return {"name": "many", "seed": 23, "machine": machine, "cells": list(cells)}


def samples(*used_mib: int) -> list[Sample]:
    return [Sample(round(at * 0.02, 4), mib * _MIB, at, 0, 0, 0) for at, mib in enumerate(used_mib)]


TWO = run(cell("kmalloc", 101), cell("kmalloc_nolock", 75, 25))
HELD = {made["id"]: samples(*held) for made, held in zip(TWO["cells"], [(0, 7, 3), (5, 5, 5)], strict=True)}


def texts(path: Path) -> set[str]:
    return {"".join(found.itertext()) for found in ET.parse(path).iter(f"{SVG}text")}


def gids(path: Path) -> set[str]:
    return {found.get("id", "") for found in ET.parse(path).iter(f"{SVG}g")}


def grid(made: dict[str, Any]) -> Grid:
    found = Grid.of(made["cells"], ORDER)
    assert found is not None
    return found


def artist(figure: Any, gid: str) -> Any:
    (found,) = figure.findobj(lambda each: each.get_gid() == gid)
    return found


def test_every_file_is_svg_and_names_every_design(tmp_path: Path) -> None:
    files = plots.draw(tmp_path, TWO, HELD, ORDER)
    names = {"success.svg", "throughput.svg", "latency.svg", "failures.svg", "memory.svg"}
    assert {path.name for path in files} == names == {path.name for path in (tmp_path / "plots").iterdir()}
    for path in files:
        root = ET.parse(path).getroot()
        assert root.tag == f"{SVG}svg"
        wanted = ["kmalloc_nolock"] if path.name == "failures.svg" else ["kmalloc", "kmalloc_nolock"]
        for design in wanted:
            assert any(text.split(" (")[0] == design for text in texts(path)), (path.name, design)
            assert any(gid.endswith(f":{design}") for gid in gids(path)), (path.name, design)
        assert any("seed 23" in text for text in texts(path))


def test_the_numbers_drawn_are_those_of_the_result() -> None:
    with style.drawing():
        shares = figures.success(grid(TWO))
        assert artist(shares, "success-task:kmalloc").get_width() == 100
        assert artist(shares, "success-task:kmalloc_nolock").get_width() == 75
        rates = figures.throughput(grid(TWO))
        assert artist(rates, "throughput:kmalloc").get_width() == pytest.approx(101)
        lost = figures.failures(grid(TWO))
        assert artist(lost, "failures-zone_busy:kmalloc_nolock").get_width() == 25
        times = figures.latency(grid(TWO))
        assert list(artist(times, "latency-task:kmalloc").get_xdata()) == [23, 101, 1009]
        held = figures.memory(grid(TWO), HELD)
        assert list(artist(held, "memory:kmalloc").get_ydata()) == [0, 7, 3]
        assert list(artist(held, "memory:kmalloc").get_xdata()) == [0, 0.02, 0.04]
        assert list(artist(held, "memory:kmalloc_nolock").get_ydata()) == [5, 5, 5]


def test_numbers_and_their_counts_are_written_beside_the_bars(tmp_path: Path) -> None:
    plots.draw(tmp_path, TWO, HELD, ORDER)
    assert {"100% of 101", "75.0% of 100"} <= texts(tmp_path / "plots/success.svg")
    assert "25 of 100" in texts(tmp_path / "plots/failures.svg")
    assert {"23 / 101 of 14", "23 / 101 of 10"} <= texts(tmp_path / "plots/latency.svg")
    assert "zone_busy" in texts(tmp_path / "plots/failures.svg")
    assert "pcp_busy" not in texts(tmp_path / "plots/failures.svg")
    assert any("at least 3 samples" in text for text in texts(tmp_path / "plots/memory.svg"))


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    first = plots.draw(tmp_path / "a", TWO, HELD, ORDER)
    second = plots.draw(tmp_path / "b", TWO, HELD, ORDER)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_number_that_is_swept_makes_lines() -> None:
    cells = [
        cell(design, served, 100 - served, **{"workload.remote": share})
        for design, step in (("kmalloc", 10), ("kmalloc_nolock", 20))
        for share, served in ((0.0, 100), (0.5, 100 - step), (1.0, 100 - 2 * step))
    ]
    swept = grid(run(*cells))
    assert swept.sweep == "workload.remote"
    with style.drawing():
        shares = figures.success(swept)
        line = artist(shares, "success-task:kmalloc_nolock")
        assert list(line.get_xdata()) == [0, 0.5, 1]
        assert list(line.get_ydata()) == [100, 80, 60]
        assert list(artist(figures.latency(swept), "latency-p99-task:kmalloc").get_ydata()) == [101] * 3
        held = figures.memory(swept, {each["id"]: samples(1, 2) for each in cells})
    assert [axes.get_title(loc="left") for axes in held.axes] == [
        "remote = 0.0",
        "remote = 0.5",
        "remote = 1.0",
    ]


def test_nodes_have_a_figure_in_which_what_is_modelled_says_so(tmp_path: Path) -> None:
    cells = [cell("kmalloc", 101), cell("kmalloc_nolock", 101)]
    for made, shares in zip(cells, ((0.49, 0.76, 0.0, 0.5), (0.0, 0.81, 0.25, 0.125)), strict=True):
        names = ("mismatch_share", "slow_path_share", "elsewhere_share", "remote_share")
        made["numa"] |= dict(zip(names, shares, strict=True)) | {"allocs": {"node0": 50, "node1": 51}}
        made["numa"]["modelled_ns"] = {"per_alloc": 80 * (1 + shares[3]), "if_all_local": 80.0}
    with style.drawing():
        figure = numa_figure.numa(grid(run(*cells)))
        for name, wanted in (("mismatch", 0), ("slow_path", 81), ("elsewhere", 25), ("remote", 12.5)):
            assert artist(figure, f"numa-{name}:kmalloc_nolock").get_width() == pytest.approx(wanted)
        assert artist(figure, "numa-modelled:kmalloc").get_width() == 120
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["", "", "", "", "MODELLED, not measured"]
    cells[0]["numa"]["modelled_ns"] = cells[1]["numa"]["modelled_ns"] = {
        "per_alloc": None,
        "if_all_local": None,
    }
    files = {path.name: path for path in plots.draw(tmp_path, run(*cells), {}, ORDER)}
    assert not any("model" in text.lower() for text in texts(files["numa.svg"]))
    assert not any("model" in text.lower() for text in texts(files["latency.svg"]))


def test_of_one_cell_only_what_needs_no_other_is_drawn(tmp_path: Path) -> None:
    lone = run(cell("kmalloc", 99, 1))
    files = plots.draw(tmp_path, lone, {lone["cells"][0]["id"]: samples(1, 2)}, ORDER)
    assert [path.name for path in files] == ["latency.svg", "failures.svg", "memory.svg"]


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    idle = run({**blank_cell(WORDS), "id": "script"})
    assert plots.draw(tmp_path, idle, {}, ORDER) == []
    assert not (tmp_path / "plots").exists()
    well = run(cell("kmalloc", 101), cell("kmalloc_nolock", 101))
    names = [path.name for path in plots.draw(tmp_path, well, {}, ORDER)]
    assert names == ["success.svg", "throughput.svg", "latency.svg"]


def test_what_a_figure_leaves_out_is_said(tmp_path: Path) -> None:
    many = run(*(cell("kmalloc", 101, 1, name=f"n{at}") for at in range(MOST_ROWS + 3)))
    held = {made["id"]: samples(1, 2) for made in many["cells"]}
    plots.draw(tmp_path, many, held, ORDER)
    for name in ("success", "throughput", "latency", "failures"):
        said = f"(first {MOST_ROWS} of {MOST_ROWS + 3} cells)"
        assert any(said in text for text in texts(tmp_path / f"plots/{name}.svg")), name
    assert any("panels)" in text for text in texts(tmp_path / "plots/memory.svg"))
    plots.draw(tmp_path, TWO, HELD, ORDER)
    assert not any("(first" in text for text in texts(tmp_path / "plots/success.svg"))


def test_a_design_keeps_its_colour_whatever_it_is_beside() -> None:
    alone = grid(run(cell("kmalloc_nolock", 7)))
    assert alone.rows[0].colour == grid(TWO).rows[1].colour == ORDER.index("kmalloc_nolock")


def test_a_run_leaves_its_plots_unless_told_not_to(tmp_path: Path) -> None:
    path = running.config(tmp_path, 'design = ["kmalloc", "kmalloc_nolock"]\n' + running.SMALL)
    done = running.run("run", path, "--no-progress", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"success.svg", "memory.svg"} <= {found.name for found in (tmp_path / "out/plots").iterdir()}
    done = running.run("run", path, "--no-plots", "--no-progress", "--out", tmp_path / "bare", cwd=tmp_path)
    assert done.returncode == 0
    assert not (tmp_path / "bare/plots").exists()


def test_nobody_imports_matplotlib_before_there_is_something_to_draw() -> None:
    code = "import sys, harness.cli, harness.cpu_process, harness.runs; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_samples_are_few_however_long_a_run_is() -> None:
    with Arena.create(size="16MiB") as arena:
        sampler = Sampler(arena)
        sampler.peak_bytes = 23 * _MIB
        for _ in range(5 * MOST_SAMPLES):
            sampler.tick(SAMPLE_PERIOD_S)
        assert MOST_SAMPLES // 2 < len(sampler.samples) <= MOST_SAMPLES
        assert sampler.period_s == 8 * SAMPLE_PERIOD_S
        assert sampler.peak_bytes == 23 * _MIB  # a look that was dropped since counts
        steps = [b.t_s - a.t_s for a, b in zip(sampler.samples, sampler.samples[1:], strict=False)]
        assert min(steps) == pytest.approx(sampler.period_s, abs=1e-3)
        del sampler
