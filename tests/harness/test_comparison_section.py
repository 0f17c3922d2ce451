# SPDX-License-Identifier: MIT
"""Runs side by side on a page: compared with the first, in the words of the table."""

from pathlib import Path

from comparing import cell, leave, result, span
from html_page import Page

from harness.comparison.section import sections
from harness.page import document, element, load


def page(*folders: Path) -> Page:
    runs = [load(folder, folder.name) for folder in folders]
    return Page(document("compared", element("h1", "compared"), sections(runs, [])))


def folder(at: Path, rate: float, **more: object) -> Path:
    spans = [span(rate)] * 8
    return leave(at, result([cell([spans[0]], spans)], **more))


def test_one_run_is_compared_with_nothing(tmp_path: Path) -> None:
    assert sections([load(folder(tmp_path / "one", 1e6))], []) == []


def test_each_run_is_compared_with_the_first(tmp_path: Path) -> None:
    found = page(
        folder(tmp_path / "first", 1e6),
        folder(tmp_path / "same", 1e6),
        folder(tmp_path / "slow", 1e4, build={"id": "<bb>"}),
    )
    titles = [found.text(at) for at in found.all("h3")]
    assert titles == ["A: first, B: same", "A: first, B: slow"]
    same, differences, slow = found.tables("compared")
    assert {line[1] for line in same[1:]} == {""}
    assert differences[1:] == [["build.id", "aa", "<bb>"]]
    marked = {line[0]: line[1] for line in slow[1:] if line[1]}
    assert marked == {"ops/s": "worse", "ops per processor second": "worse"}
    assert ["ops/s", "worse", "1.00M [577k .. 1.73M]", "10.0k [5774 .. 17.3k]", "-99.0%"] in slow


def test_scripts_are_numbers_that_are_equal_or_not(tmp_path: Path) -> None:
    config = {"engine": "script"}
    folders = [
        leave(tmp_path / name, result([cell([], counters={"got": got})], config=config))
        for name, got in (("one", 23), ("two", 23), ("three", 24))
    ]
    found = page(*folders)
    (table,) = found.tables("compared")
    assert table[1:] == [["counters.got", "23", "24"]]
    assert "kmalloc: all numbers are equal" in [found.text(at) for at in found.all("p")]
