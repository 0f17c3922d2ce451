# SPDX-License-Identifier: MIT
"""The arena map of a run: moments recorded while it runs, and a page that shows them."""

from __future__ import annotations

from harness.arena_map.recording import Recording

__all__ = ["Recording"]
