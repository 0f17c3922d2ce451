# SPDX-License-Identifier: MIT
"""Runs side by side in a real browser: the comparison is there without scripts, on a desk and on a telephone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import browser, open_page, too_wide
from comparing import cell, leave, result, span

from harness.comparison.section import sections
from harness.page import document, element, load

__all__ = ["browser", "open_page"]  # fixtures


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    folders = []
    for name, rate in (("first", 1e6), ("a-run-with-a-long-name-" * 4, 1e3)):
        spans = [span(rate, interrupts={"nmi": 997, "irq": 101})] * 8
        build = {"id": name, "compiler": "12.2.0"}
        made = result([cell([spans[0]], spans, {"design": d}) for d in ("kmalloc", "sheaves")], build=build)
        folders.append(leave(tmp_path / name, made))
    runs = [load(folder, folder.name) for folder in folders]
    path = tmp_path / "page.html"
    path.write_text(document("compared", element("h1", "compared"), sections(runs, [])), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_the_comparison_is_read_without_scripts(
    open_page: Callable[..., Any], page_file: Path, width: int, dark: bool
) -> None:
    page = open_page(page_file, width=width, dark=dark, script=False)
    marks = page.locator("#compared span.bad")
    assert marks.all_inner_texts() == ["worse"] * 4
    assert all(mark.is_visible() for mark in marks.all())
    assert page.get_by_text("what differs: 1").is_visible()
    assert page.get_by_text("every window of one side is more than").is_visible()


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out(open_page: Callable[..., Any], page_file: Path, width: int) -> None:
    assert too_wide(open_page(page_file, width=width)) == []
