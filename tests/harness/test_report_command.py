# SPDX-License-Identifier: MIT
"""`shmalloc report`: which file it writes, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import running
from html_page import Page

CELL: dict[str, Any] = {
    "id": "kmalloc",
    "params": {},
    "design": "kmalloc",
    "verdict": "ok",
    "expected": "ok",
    "violations": [],
    "seconds": 1.5,
    "cpus": 2,
    "ops": 23,
    "allocs": 12,
    "frees": 11,
    "failures": {},
    "counters": {"alloc_slab": 7},
    "facts": {"got": 7},
}
#: As the first version left it: most of what there is today is missing.
RUN: dict[str, Any] = {
    "schema": "shmalloc-result/1",
    "name": "old",
    "verdict": "ok",
    "seed": 1,
    "cells": [CELL],
}


def leave(folder: Path) -> Path:
    """Leave the folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(RUN))
    return folder


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_a_result_of_the_first_version_has_a_page(tmp_path: Path) -> None:
    done = running.run("report", leave(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = page_of(tmp_path)
    assert found.text(found.all("h1")[0]) == "old: passed verdict ok, 1 cell, 1.5 s"
    head, row = found.tables("cells")[0]
    assert dict(zip(head, row, strict=True))["ops"] == "23"
    assert "this version left no command" in found.text(found.all("header")[0])


def test_the_same_config_twice_is_told_apart_by_folder(tmp_path: Path) -> None:
    for name in ("one/a", "one/b", "two/a"):
        leave(tmp_path / name)
    assert running.run("report", "one/a", "one/b", cwd=tmp_path).returncode == 0
    found = page_of(tmp_path)
    assert found.text(found.all("title")[0]) == "a | b"
    assert "Config, machine and build of all runs are the same." in (tmp_path / "report.html").read_text()
    done = running.run("report", "one", "two/a/result.json", "--out", "x.html", cwd=tmp_path)
    assert done.stdout == "report of 3 runs: x.html\n"
    found = Page((tmp_path / "x.html").read_text())
    assert found.text(found.all("title")[0]) == "one/a | one/b | two/a"


def test_an_old_run_gets_its_page(tmp_path: Path) -> None:
    folder = leave(tmp_path / "old")
    (folder / "report.html").write_text("stale")
    done = running.run("report", "old", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "report of old: old/report.html\n", "")
    assert page_of(folder).text(page_of(folder).all("h1")[0]).startswith("old: passed")
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "result.json"]
    done = running.run("report", "old", "--out", "elsewhere.html", cwd=tmp_path)
    assert done.stdout == "report of old: elsewhere.html\n"
    found = Page((tmp_path / "elsewhere.html").read_text())
    assert "results in old" in found.text(found.all("header")[0]), "nothing lies beside that page"
    assert "result.json" not in {attributes.get("href") for _, attributes in found.elements}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["none"], "DIR = 'none': no such folder; allowed is the folder of a run"),
        (["empty"], "DIR = 'empty': no result.json; allowed is the folder of a run"),
        (["file"], "DIR = 'file': not a folder"),
        (["half"], "half/result.json: the file: no result: "),
        (["other"], "other/result.json: schema: no result of this version; allowed is shmalloc-result/1"),
        (["nan"], "nan/result.json: the file: no result: NaN is no number of JSON"),
        (["deep"], "deep/result.json: the file: no result: maximum recursion depth exceeded"),
        (["x" * 5000], "...: cannot be read: File name too long"),
        (["good", "good/"], "DIR = 'good': the same run twice"),
        (["good", "good/result.json"], "DIR = 'good': the same run twice"),
        (["good", "none", "empty"], "DIR = 'empty'"),
        (
            ["good", "--out", "none/x.html"],
            "--out = 'none/x.html': cannot be written: No such file or directory",
        ),
        (["good", "--out", "empty"], "--out = 'empty': a folder; allowed is a file"),
        (["good", "--out", "file/x.html"], "--out = 'file/x.html': cannot be written: Not a directory"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, given: list[str], said: str) -> None:
    for name, text in (("empty", None), ("half", '{"schema"'), ("other", '{"schema": "x"}'), ("good", None)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "result.json").write_text(text)
    for name, text in (("nan", '{"schema": NaN}'), ("deep", "[" * 100_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
    leave(tmp_path / "good")
    (tmp_path / "file").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    done = running.run("report", *given, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left, not even half a page"


def test_half_a_surrogate_pair_is_no_obstacle(tmp_path: Path) -> None:
    text = json.dumps({**RUN, "name": "half \ud800 a pair"})
    (tmp_path / "result.json").write_text(text)
    done = running.run_apart("report", ".", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = page_of(tmp_path)
    assert found.text(found.all("title")[0]) == "half ? a pair"


def test_all_folders_that_are_no_results_are_named(tmp_path: Path) -> None:
    done = running.run("report", "one", "two", cwd=tmp_path)
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [" DIR = 'one'", " DIR = 'two'"]


def test_the_page_of_a_script_needs_no_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; from harness import cli; status = cli.main(['report', sys.argv[1], '--out', 'x.html']);"
    )
    code += "assert status == 0 and 'matplotlib' not in sys.modules, sorted(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(leave(tmp_path / "old"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
