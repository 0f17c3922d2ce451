# SPDX-License-Identifier: MIT
"""Runs of each kind with their pages, and how the page of a run is read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import running
from html_page import Page

from harness import report_page, vocabulary
from harness.page import Loaded, complete

ROOT = Path(__file__).parents[1]
DESIGNS = list(vocabulary.load().designs)
STRESS = """
design = ["kmalloc", "kmalloc_nolock"]
cpus = 2
ops = 40_000
must_happen = ["interrupts.nmi.handled", "counters.alloc_slab > 7"]
[arena]
size = "16MiB"
[workload]
kind = "mix"
slots = 101
array_ops = 2003
[interrupts.nmi]
rate_hz = 2000.0
[faults.failslab]
probability = 23
[[expect]]
text = "slabs are made"
condition = "counters.alloc_slab > 0"
[[expect]]
kind = "claim"
text = "nothing is done"
condition = "allocs == 0 and failures.zone_busy == 0"
[[expect]]
text = "of nobody"
condition = "ops > 0"
cell = { cpus = 7 }
"""
FAILING = """
engine = "script"
[[step]]
do = "alloc"
size = 64
count = "got"
[[step]]
do = "read"
what = "zone.free_pages"
count = "free"
[[expect]]
text = "two"
condition = "counters.got == 2"
"""


@pytest.fixture(scope="module", name="folders")
def made_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run one of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    wanted = {
        "stress": (running.config(folder, STRESS, "stress"), 0),
        "script": (running.config(folder, FAILING, "script"), 1),
    }
    wanted["deadlock"] = (ROOT / "configs/slides/nmi_kmalloc.toml", 0)
    for name, (config, status) in wanted.items():
        done = running.run("run", config, "--no-progress", "--no-plots", "--out", folder / name, cwd=folder)
        assert done.returncode == status, done.stdout + done.stderr
        assert f"results in {folder / name}; report: {folder / name / 'report.html'}" in done.stdout
        assert done.stderr == ""
    return {name: folder / name for name in wanted}


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def run_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def html_of(run: dict[str, Any], designs: Sequence[str] = DESIGNS) -> str:
    return report_page.html([Loaded(Path("nowhere"), "x", complete(run))], designs)


def as_shown(value: float | None) -> Any:
    """Return what a number read from the page must be: counts are exact, measured values have four digits."""
    return pytest.approx(value, rel=5e-4) if isinstance(value, float) else value


def read_number(text: str) -> float:
    return float(text.replace(",", ""))


def columns(table: list[list[str]]) -> dict[str, dict[str, str]]:
    """Read a table as {row: {column: text}}."""
    head, *rows = table
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
