# SPDX-License-Identifier: MIT
"""One line on stderr that says what is being measured: rewritten on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Line"]

_EVERY_S = 0.2


class Line:
    """The line. Args: quiet: there is none."""

    def __init__(self, *, quiet: bool) -> None:
        self._on = not quiet and sys.stderr.isatty()
        self._last_s = 0.0

    def __call__(self, text: str) -> None:
        """Show what is going on now."""
        now_s = time.monotonic()
        if self._on and now_s - self._last_s >= _EVERY_S:
            self._last_s = now_s
            sys.stderr.write(f"\r\x1b[K{text[:100]}")
            sys.stderr.flush()

    def close(self, *_: Any) -> None:
        """Take it away."""
        if self._on:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
