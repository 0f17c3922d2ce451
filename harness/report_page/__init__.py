# SPDX-License-Identifier: MIT
"""report.html: all that a run left, as one page; or several runs side by side.

A part of it is a module with a function ``sections(runs, designs)``, named in `PROVIDERS`, and imported when a
page is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.page import Loaded, Section, document
from harness.report_page import top

__all__ = ["FILE", "PROVIDERS", "html", "write"]

FILE = "report.html"
# In the order of the page. Each has ``sections(runs, designs) -> list[Section]``: one run is a list of one, who has
# nothing to say returns [].  designs: all that exist, whose places decide their colours; empty = tables, no figures.
PROVIDERS = (
    "harness.report_page.cells",
    "harness.report_page.expectations",
    "harness.report_page.counters",
    "harness.report_page.violations",
    "harness.report_page.setting",
)
Provider = Callable[[Sequence[Loaded], Sequence[str]], list[Section]]


def html(runs: Sequence[Loaded], designs: Sequence[str]) -> str:
    """Make the page of a run, or of several. Args: designs: as providers get them."""
    made = [each for provide in _providers() for each in provide(runs, designs)]
    return document(top.title(runs), top.header(runs), made)


def write(path: Path, runs: Sequence[Loaded], designs: Sequence[str]) -> Path:
    """Leave the page in a file, which no reader ever sees half of. Returns: the file."""
    part = path.with_name(path.name + ".part")
    part.write_text(html(runs, designs), encoding="utf-8")
    part.replace(path)
    return path


def _providers() -> list[Provider]:
    return [importlib.import_module(name).sections for name in PROVIDERS]
