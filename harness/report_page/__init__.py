# SPDX-License-Identifier: MIT
"""report.html: all that a run left, as one page; or several runs side by side.

A part of it is a module with a function ``sections(runs, designs)``, named in `PROVIDERS`, and imported when a
page is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.page import Loaded, Section, complete, document, element
from harness.report_page import expectations, top
from harness.writing import replace_text

__all__ = ["FILE", "PROVIDERS", "html", "index", "write", "write_index"]

FILE = "report.html"
# In the order of the page. Each has ``sections(runs, designs) -> list[Section]``: one run is a list of one, who has
# nothing to say returns [].  designs: all that exist, whose places decide their colours; empty = tables, no figures.
PROVIDERS = (
    "harness.comparison.section",
    "harness.report_page.cells",
    "harness.report_page.expectations",
    "harness.plots.sections",
    "harness.atlas.page",
    "harness.arena_map",
    "harness.report_page.script",
    "harness.report_page.interrupts",
    "harness.tracing.section",
    "harness.report_page.counters",
    "harness.report_page.violations",
    "harness.report_page.audits",
    "harness.report_page.setting",
)
Provider = Callable[[Sequence[Loaded], Sequence[str]], list[Section]]


def html(runs: Sequence[Loaded], designs: Sequence[str], folder: Path | None = None) -> str:
    """Make the page of a run, or of several.

    Args: designs: as providers get them.  folder: where the page will lie.
    """
    return _made(runs, designs, folder)[0]


def write(path: Path, runs: Sequence[Loaded], designs: Sequence[str]) -> list[str]:
    """Leave the page in a file, which no reader ever sees half of.

    Returns: what could not be made of these results, and why; the page says it, too.
    Raises: OSError.
    """
    text, problems = _made(runs, designs, path.parent)
    replace_text(path, text)
    return problems


def index(folder: Path, runs: Sequence[Mapping[str, Any]]) -> str:
    """Make a page of links to the pages of runs whose folders lie in one. Args: runs: each one's result.json."""
    loaded = [Loaded(folder / run["name"], run["name"], complete(run)) for run in runs]
    pages = [f"{each.label}/{FILE}" for each in loaded]
    parts = expectations.of_runs(loaded)
    made = [Section("expectations", "What was expected", parts)] if parts else []
    return document(top.title(loaded), top.side_by_side(loaded, pages), made)


def write_index(folder: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Leave the page of links in the folder of all these runs."""
    replace_text(folder / FILE, index(folder, runs))


def _made(runs: Sequence[Loaded], designs: Sequence[str], folder: Path | None) -> tuple[str, list[str]]:
    made: list[Section] = []
    problems: list[str] = []
    for name in PROVIDERS:
        try:
            provide: Provider = importlib.import_module(name).sections
            made += provide(runs, designs)
        except Exception as error:  # a result from elsewhere may be anything; the other sections are there
            problems.append(f"{name}: {type(error).__name__}: {error}")
            made.append(_unmade(name, problems[-1]))
    return document(top.title(runs), top.header(runs, folder), made), problems


def _unmade(name: str, problem: str) -> Section:
    short = name.removeprefix("harness.")
    return Section(
        f"unmade-{short}", f"Not made: {short}", element("p", f"could not be made: {problem}", class_="bad")
    )
