# SPDX-License-Identifier: MIT
"""`shmalloc bench growth`: what it measures is there, what it calls growth is growth, and bad input is named."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from running import run

from harness.bench.growth import AXES, Apart, trends
from harness.bench.growth_report import text


def growth(folder: Path, *arguments: object) -> dict[str, Any]:
    done = run("bench", "growth", "--json", "--no-progress", "--out", folder / "out", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def record(value: int, median: float, spread: float = 0.01, unit: str = "ms") -> dict[str, Any]:
    return {
        "axis": "size",
        "value": value,
        "what": "it",
        "unit": unit,
        "median": median,
        "low": median * (1 - spread),
        "high": median * (1 + spread),
        "samples": 9,
    }


@pytest.mark.parametrize(
    ("power", "name"), [(0.0, "flat"), (0.5, "sublinear"), (1.0, "linear"), (1.5, "superlinear")]
)
def test_growth_is_named_by_its_power(power: float, name: str) -> None:
    (trend,) = trends([record(value, 3.0 * value**power) for value in (10, 100, 1000, 10_000)])
    assert trend.growth == name
    assert trend.exponent == pytest.approx(power, abs=0.01)
    assert trend.ratio == pytest.approx(1000**power, rel=0.01)


def test_what_the_intervals_do_not_tell_apart_is_flat() -> None:
    (trend,) = trends([record(value, 3.0 * value**0.3, spread=0.9) for value in (10, 100, 1000)])
    assert trend.growth == "flat"


def test_rates_and_counts_have_no_trend_nor_has_a_single_value() -> None:
    assert not list(trends([record(1, 1.0, unit="M/s"), record(10, 1.0, unit="per M ops")]))
    assert not list(trends([record(1, 1.0)]))


@pytest.mark.parametrize(
    ("axis", "whats"),
    [
        (
            "size",
            {"create, 6.18", "attach", "first allocation, kmalloc", "pair, sheaves", "audit", "slabinfo"},
        ),
        ("objects", {"pair, kmalloc_nolock", "audit, with oracle", "objects audited in a second"}),
        ("caches", {"pair, kmalloc", "slabinfo"}),
        ("processes", {"start, meet, end"}),
    ],
)
def test_an_axis_has_its_records(tmp_path: Path, axis: str, whats: set[str]) -> None:
    result = growth(tmp_path, "--axes", axis, "--rounds", 1, "--values", 2)
    assert whats <= {each["what"] for each in result["growth"]}
    for each in result["growth"]:
        assert list(each) == ["axis", "value", "what", "unit", "median", "low", "high", "samples"]
        assert each["axis"] == axis
        assert each["median"] >= 0
        assert each["samples"] >= 1
    assert len({each["value"] for each in result["growth"]}) == 2
    out = tmp_path / "out"
    assert json.loads((out / "growth.json").read_text()) == result
    assert (out / "growth.svg").stat().st_size > 1000
    page = Page((out / "report.html").read_text())
    assert len(page.all("svg", role="img")) == len({each["unit"] for each in result["growth"]})
    (behind,) = page.tables(f"figure-growth-{axis}")
    assert len(behind) == 1 + len(result["growth"])
    assert whats <= {row[0] for row in behind}
    assert (out / "report.txt").read_text() == text(result)


def test_cpus_have_the_counters_of_contention_beside(tmp_path: Path) -> None:
    result = growth(tmp_path, "--axes", "cpus", "--rounds", 1, "--values", 2, "--no-plot")
    found = {(each["what"], each["value"]): each["median"] for each in result["growth"]}
    assert found["op, kmalloc", 1] > 0
    assert found["waits, kmalloc", 1] == 0  # there is nobody to wait for
    assert {"yields, sheaves, yields off", "longest wait, kmalloc", "zone_busy, kmalloc_nolock"} <= {
        what for what, _ in found
    }
    assert not (tmp_path / "out" / "growth.svg").exists()


def test_yields_that_are_switched_off_are_so_in_all_that_is_started() -> None:
    code = (
        "import os, subprocess, sys; from harness.bench.growth_apart import switch_yields_off as off; off()\n"
        "os.sched_yield()\n"
        "subprocess.run(['grep', '^Seccomp:', '/proc/self/status'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Seccomp:", "2"]


def test_a_cell_that_cannot_run_is_said_and_leaves_no_process(capfd: pytest.CaptureFixture[str]) -> None:
    with Apart() as apart, pytest.raises(RuntimeError, match="has ended"):
        apart.run({"name": "wrong", "design": "none such"})
    assert "none such" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--axes", "size,time"), "--axes = 'time': allowed are size, objects, caches, cpus, processes"),
        (("--axes", ""), "--axes"),
        (("--rounds", 0), "--rounds = 0: allowed is 1..1000"),
        (("--values", -1), "--values = -1"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, arguments: tuple[object, ...], named: str) -> None:
    done = run("bench", "growth", "--out", tmp_path / "out", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_axes_are_those_of_the_command() -> None:
    from harness.bench import growth_commands

    assert growth_commands._AXES == AXES
