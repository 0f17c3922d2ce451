# SPDX-License-Identifier: MIT
"""The browser's fixtures on trial: they fail what is wrong with a page, and leave nothing behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browser
import leaks
import psutil
import pytest

_CONFTEST = "from browser import browser, browser_page, needs_browser, open_page\n"
_LIMIT_S = 60.0  # of waiting; reached only if something is broken


def _pytest(folder: Path, text: str, **variables: str) -> subprocess.Popen[str]:
    (folder / "conftest.py").write_text(_CONFTEST)
    (folder / "test_it.py").write_text(text)
    path = str(Path(browser.__file__).parent)
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(folder),
            str(folder),
        ],
        env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": "", **variables},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _said(folder: Path, text: str, **variables: str) -> str:
    with _pytest(folder, text, **variables) as process:
        return process.communicate(timeout=_LIMIT_S)[0]


_WRONG = {
    "<script>console.error('very wrong')</script>": "console: very wrong",
    "<script>throw new Error('thrown')</script>": "error in a script: thrown",
    "<script>Promise.reject(new Error('later'))</script>": "error in a script: later",
    "<img src='http://127.0.0.1:9/x.png'>": "asked for http://127.0.0.1:9/x.png",
    "<img src='missing.png'>": "ERR_FILE_NOT_FOUND",
}


@pytest.mark.usefixtures("browser_page")  # skip where there is none
def test_what_is_wrong_with_a_page_fails_its_test(tmp_path: Path) -> None:
    text = ""
    for number, page in enumerate(["<p>", *_WRONG]):
        path = tmp_path / f"{number}.html"
        path.write_text(f"<!doctype html><title>x</title>{page}")
        text += f"def test_{number}(open_page):\n"
        text += f"    open_page({str(path)!r}).wait_for_load_state('networkidle')\n"
    said = _said(tmp_path, text)
    assert f"{len(_WRONG)} errors" in said and "ERROR test_it.py::test_0" not in said, said
    for number, why in enumerate(_WRONG.values(), 1):
        (line,) = [line for line in said.splitlines() if line.startswith(f"ERROR test_it.py::test_{number}")]
        assert why in said.split(f"ERROR at teardown of test_{number} _")[1].split("ERROR at teardown")[0], (
            line
        )


@pytest.mark.usefixtures("browser_page")
def test_a_test_that_is_killed_leaves_no_browser(tmp_path: Path) -> None:
    text = "def test_it(browser_page):\n    open('up', 'w').close()\n    browser_page.wait_for_timeout(600_000)\n"
    before = leaks.children()
    with _pytest(tmp_path, text) as process:
        deadline = time.monotonic() + _LIMIT_S
        while not (tmp_path / "up").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        found = psutil.Process(process.pid).children(recursive=True)
        assert any("--headless" in " ".join(each.cmdline()) for each in found)
        process.kill()
    while set(leaks.children()) - set(before):
        assert time.monotonic() < deadline + _LIMIT_S, leaks.children()
        time.sleep(0.01)
    while left := [each for each in found if _lives(each)]:  # orphans, which others reap
        assert time.monotonic() < deadline + _LIMIT_S, left
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_without_a_browser_tests_are_skipped_and_one_that_is_named_must_be_there(tmp_path: Path) -> None:
    text = "def test_it(browser_page):\n    pass\n"
    said = _said(tmp_path, text, PATH=str(tmp_path), SHMALLOC_BROWSER="")
    assert "1 skipped" in said
    said = _said(tmp_path, text, SHMALLOC_BROWSER="/no/such/browser")
    assert "1 error" in said and "SHMALLOC_BROWSER = '/no/such/browser'" in said
    said = _said(tmp_path, text, SHMALLOC_BROWSER=sys.executable)
    assert "1 error" in said and "does not start" in said


def test_what_sticks_out_is_seen(open_page: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        "<!doctype html><p id=wide style='width:500px'>x</p><div style='overflow-x:auto'><p style='width:700px'>y"
    )
    assert browser.too_wide(open_page(path, width=400)) == ["p#wide. to 508 of 400"]
    assert browser.too_wide(open_page(path, width=600)) == []


def test_paper_is_counted(open_page: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><p>1</p><p style='break-before:page'>2</p><p style='break-before:page'>3")
    assert browser.sheets(browser.printed(open_page(path))) == 3


def test_pixels_are_those_of_the_page(open_page: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        "<!doctype html><body style='margin:0;background:#123456'><p id=p style='background:#fff;margin:9px'>&nbsp;"
    )
    page = open_page(path, width=300, height=200, scale=2)
    seen = browser.pixels(page)
    assert seen.shape == (400, 600, 3) and tuple(seen[0, 0]) == (0x12, 0x34, 0x56)
    assert tuple(browser.pixels(page.locator("#p"))[4, 4]) == (255, 255, 255)
