# SPDX-License-Identifier: MIT
"""What the checkers found: where, by whom, and the call stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.page import Loaded, Markup, Section, element, join, named_cells

__all__ = ["sections"]


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Tell every violation."""
    told = [_violation(found, name) for _, cell, name in named_cells(runs) for found in cell["violations"]]
    return [Section("violations", "Violations", join(told))] if told else []


def _violation(found: Mapping[str, Any], name: str) -> Markup:
    stack = "\n".join(f"level {frame['level']}  {frame['symbol']}" for frame in found.get("stack", ()))
    what = element("b", found["verdict"], class_="bad")
    return element(
        "div",
        element("p", f"{name}: ", what, f" by {found['checker']}: {found['text']}"),
        element("pre", stack) if stack else None,
    )
