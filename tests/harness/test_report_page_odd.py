# SPDX-License-Identifier: MIT
"""A run's page, whatever is in the run, and whatever is missing."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from report_runs import DESIGNS, html_of, made_folders, run_of  # noqa: F401

from harness import report_page
from harness.page import load

HOSTILE = "</script><!--\"'&<img src=x onerror=alert(1)>\u2028,="


def _hostile(value: Any, keep: tuple[str, ...] = ()) -> Any:
    """Make every text and every key of free choice hostile; `keep`: keys whose values are closed lists."""
    if isinstance(value, str):
        return f"{value}{HOSTILE}"
    if isinstance(value, list):
        return [_hostile(each, keep) for each in value]
    if isinstance(value, dict):
        return {
            key if key in keep else f"{key}{HOSTILE}": each
            if key in ("kind", "engine")
            else _hostile(each, keep)
            for key, each in value.items()
        }
    return value


@pytest.mark.parametrize("name", ["stress", "script", "deadlock"])
def test_hostile_texts_stay_texts(folders: dict[str, Path], name: str) -> None:
    run = run_of(folders[name])
    known = {key for cell in run["cells"] for key in cell} | set(run)
    known |= {
        "text",
        "measured",
        "holds",
        "condition",
        "said",
        "totals",
        "notes",
        "stack",
        "symbol",
        "steps",
        "warnings",
    }
    known |= {
        "latency_ns",
        "failures",
        "faults",
        "arena",
        "design",
        "cpus",
        "do",
        "reasons",
        "result",
        "checker",
        "id",
    }
    poisoned = _hostile(run, tuple(known - {"name"} | {"kind", "engine", "name"}))
    html = html_of(poisoned)
    found = Page(html)
    assert "could not be made" not in html
    assert not found.all("img") and "<!--" not in html
    assert len(found.all("script")) == len(Page(html_of(run)).all("script"))
    assert f"{run['cells'][0]['id']}{HOSTILE}" in [
        found.text(at) for at in found.inside(found.find("cells"), "td")
    ]
    assert HOSTILE in found.text(found.find("counters"))
    assert html.count(HOSTILE) == 0


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every key; of a list, its first entry's."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield (*path, key)
            yield from _paths(part, (*path, key))
    elif isinstance(value, list) and value:
        yield from _paths(value[0], (*path, 0))


@pytest.mark.parametrize("name", ["stress", "deadlock"])
def test_a_key_that_an_older_version_did_not_write_is_not_missed(folders: dict[str, Path], name: str) -> None:
    run = run_of(folders[name])
    run["cells"] = run["cells"][:1]
    counters = run["cells"][0]["counters"]
    run["cells"][0]["counters"] = {key: counters[key] for key in list(counters)[:3]}
    paths = [path for path in _paths(run) if path != ("cells", 0, "id") and "totals" not in path[:-1]]
    assert len(paths) > 100
    for path in paths:
        older = copy.deepcopy(run)
        at: Any = older
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]
        html = html_of(older, ())  # figures have a test of their own: they take their time
        assert "could not be made" not in html, (path, re.findall("could not be made[^<]*", html))


def test_a_run_without_cells_has_a_page() -> None:
    found = Page(html_of({"schema": "shmalloc-result/1", "name": "empty", "cells": []}))
    assert "0 cells" in found.text(found.all("h1")[0])


def test_a_section_that_cannot_be_made_is_told_and_the_others_are_there(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        report_page,
        "PROVIDERS",
        ("harness.report_page.cells", "harness.no_such", "harness.report_page.counters"),
    )
    problems = report_page.write(tmp_path / "x.html", [load(folders["stress"])], DESIGNS)
    assert problems == ["harness.no_such: ModuleNotFoundError: No module named 'harness.no_such'"]
    found = Page((tmp_path / "x.html").read_text())
    assert [found.text(at) for at in found.all("h2")] == [
        "Cells",
        "Allocations by context",
        "Not made: no_such",
        "Counters",
    ]


def test_what_cannot_be_put_in_place_is_not_left(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OSError, match="No space"):
        report_page.write(tmp_path / "x.html", [load(folders["script"])], DESIGNS)
    assert not list(tmp_path.iterdir())
