# SPDX-License-Identifier: MIT
"""The arena map of a run: moments recorded while it runs, and a page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.page import Loaded, Section

__all__ = ["sections"]


def sections(runs: Sequence[Loaded], designs: Sequence[str]) -> list[Section]:
    """Show the map of every cell that has one."""
    from harness.arena_map.section import sections as made

    return made(runs, designs)
