# SPDX-License-Identifier: MIT
"""Files of which no reader ever sees half, and that leave nothing behind where they cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replace_text", "replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside a file to write to, which then takes the file's place; where that fails, it goes."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str) -> None:
    """Write a text file. JSON may have half a surrogate pair: it becomes a question mark."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")
