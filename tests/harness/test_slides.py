# SPDX-License-Identifier: MIT
"""Every config of the slides and of the hypotheses runs, and what it is a test of holds."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from running import run

ROOT = Path(__file__).resolve().parents[2] / "configs"
SLIDES = sorted((ROOT / "slides").glob("*.toml"))
HYPOTHESES = sorted((ROOT / "hypotheses").glob("*.toml"))
SHORT_S = 0.3  # stress configs run for so long here


def expectations(path: Path) -> list[dict[str, Any]]:
    return list(tomllib.loads(path.read_text()).get("expect", []))


def shortened(path: Path) -> list[str]:
    """Return overrides that make a stress config short; what must have happened in 3 s need not in 0.3 s."""
    config = tomllib.loads(path.read_text())
    if config.get("engine") == "script" or "duration_s" not in config:
        return []
    return ["--set", f"duration_s={SHORT_S}"]


@pytest.mark.parametrize("path", [*SLIDES, *HYPOTHESES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_runs(path: Path, tmp_path: Path) -> None:
    arguments = ("--no-progress", "--no-plots", "--out", tmp_path / "out", *shortened(path))
    done = run("run", path, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SLIDES, ids=lambda path: path.stem)
def test_slide_is_documented(path: Path) -> None:
    assert re.match(r"# .{20,}\n", path.read_text()), "begins with a line of comment that says what it shows"
    claims = [each for each in expectations(path) if each.get("kind") == "claim"]
    assert claims, "has an expectation that is a claim"
    assert all(each.get("text") for each in claims), "every claim has its text"
    assert f"`{path.stem}`" in (ROOT / "slides" / "README.md").read_text()


@pytest.mark.parametrize("path", HYPOTHESES, ids=lambda path: path.stem)
def test_hypothesis_is_documented(path: Path) -> None:
    text = (ROOT / "hypotheses" / "README.md").read_text()
    name = path.stem.removeprefix("k").split("_")[0]
    assert re.search(rf"^## K-{name}\b", text, re.MULTILINE), f"the README has a section ## K-{name}"
    assert expectations(path), "says what is expected"
