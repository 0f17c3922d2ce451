# SPDX-License-Identifier: MIT
"""`shmalloc pagemap`: the counts and the page of a live arena."""

import json
from pathlib import Path

import pytest
from html_page import Page

from harness import cli
from shmalloc import Arena, Cpu
from shmalloc.audit import audit


def test_counts_as_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    with Arena.create(size="8MiB", nr_nodes=2, pageblock_order=5) as arena, Cpu(arena, 0) as cpu:
        taken = [cpu.kmalloc(64) for _ in range(101)]
        cpu.alloc_pages(3)
        assert cli.main(["pagemap", arena.name, "--json"]) == 0
        found, said = json.loads(capsys.readouterr().out), audit(arena).totals
        assert found["pages"]["free"] == said["pages_free"]
        assert found["pages"]["pages"] == 8
        assert found["objects"]["live"] == len(taken)
        assert len(found["zones"]) == 2
        for kind, pages in found["pages"].items():
            assert sum(zone[kind] for zone in found["zones"].values()) == pages or kind == "hole"
        assert cli.main(["pagemap", arena.name]) == 0
        printed = capsys.readouterr().out
    assert "pages handed out" in printed and f"{said['pages_free']:,}" in printed


@pytest.mark.parametrize(("watch", "moments"), [([], 1), (["--watch", "0.2"], 2)])
def test_a_page_of_a_live_arena(tmp_path: Path, watch: list[str], moments: int) -> None:
    path = tmp_path / "map.html"
    with Arena.create(size="8MiB") as arena, Cpu(arena, 0) as cpu:
        cpu.kmalloc(64)
        assert cli.main(["pagemap", arena.name, "--out", str(path), *watch]) == 0
    page = Page(path.read_text())
    (table,) = page.tables("map-table-0")
    assert len(table) - 1 >= moments
    assert page.json("map-data")["maps"][0]["moments"][0]["label"] == ("start" if watch else "now")
    assert [each.name for each in tmp_path.iterdir()] == ["map.html"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--watch", "0", "--out", "a.html"], "--watch = 0: allowed is more than 0"),
        (["--watch", "5"], "--watch = 5: needs --out"),
        (["--out", "/nowhere/map.html"], "--out = '/nowhere/map.html': there is no such folder"),
        (["--out", "/"], "--out = '/': is a folder"),
    ],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    with Arena.create(size="4MiB", pageblock_order=4) as arena:
        assert cli.main(["pagemap", arena.name, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and said in captured.err


def test_no_such_arena(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pagemap", "shmalloc-0-nothing"]) == 1
    assert "shmalloc-0-nothing" in capsys.readouterr().err
