# SPDX-License-Identifier: MIT
"""A run's page: what it says is what result.json says."""

from pathlib import Path

import running
from html_page import Page


def test_a_run_leaves_its_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = running.run("run", running.config(tmp_path), "--no-progress", "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = Page((out / "report.html").read_text(encoding="utf-8"))
    assert found.text(found.all("h1")[0]).startswith("small: passed verdict ok, 1 cell, ")
    assert not list(out.glob("*.part"))
