# SPDX-License-Identifier: MIT
"""Every fact is what its config says, and is documented."""

import re
import tomllib
from pathlib import Path

import pytest
from models.pages import PageAllocator, PageGeometry, Request
from running import results, run

ROOT = Path(__file__).resolve().parents[2]
FACTS = sorted((ROOT / "configs" / "facts").glob("*.toml"))
README = (ROOT / "configs" / "facts" / "README.md").read_text()


@pytest.mark.parametrize("path", FACTS, ids=lambda path: path.stem)
def test_fact(path: Path, tmp_path: Path) -> None:
    done = run("run", path, "--no-progress", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FACTS, ids=lambda path: path.stem)
def test_is_documented(path: Path) -> None:
    text = path.read_text()
    assert re.match(r"# .{20,}\n", text), "begins with a line of comment that states the rule"
    config = tomllib.loads(text)
    tests = [each for each in config["expect"] if each.get("kind", "test") == "test"]
    named = {name for each in tests for name in re.findall(r"counters\.(\w+)", each.get("condition", ""))}
    assert named, "names a counter in an expectation that is a test"
    assert f"`{path.stem}`" in README, "has a row in the README"


def test_nolock_until_null_is_what_the_model_of_the_page_allocator_says(tmp_path: Path) -> None:
    path = tmp_path / "fact.toml"
    path.write_text((ROOT / "configs" / "facts" / "nolock_until_null.toml").read_text())
    for cell in results(path)["cells"]:
        pages = cell["facts"]["free_at_first"]
        zones = ((0, 0, 1000, 0),)
        model = PageAllocator(PageGeometry(pages, 5, zones, ((10,),), (0,) * 4))
        successes = 0
        while model.allocate(0, Request(0, nolock=True)) is not None:
            successes += 1
        assert cell["facts"]["pages_until_null"] == successes
        assert cell["facts"]["wmark_min"] == model.zones[0].marks.marks[0]
