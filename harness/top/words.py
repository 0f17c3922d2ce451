# SPDX-License-Identifier: MIT
"""Numbers and names as they stand in the tables of `top` and `stat`."""

from __future__ import annotations

from harness import units


def clean(text: str) -> str:
    """Return a name with a question mark for whatever a terminal might take for something else."""
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)


def count(number: float | None) -> str:
    """Write a count, or a dash for none."""
    return "-" if number is None else units.count(number)


def rate(number: float | None) -> str:
    """Write a rate a second: below 10 with a decimal, so that what is rare is not nothing."""
    if number is None:
        return "-"
    return f"{number:.1f}" if 0 < number < 9.95 else units.count(number)


def share(part: float | None) -> str:
    """Write a share in percent."""
    return "-" if part is None else f"{100 * part:.1f}"


def kib(number: float) -> str:
    """Write bytes in KiB, as slabtop writes the size of an object."""
    return f"{number / 1024:.2f}K"


def of(part: int, whole: int) -> float | None:
    """Return a share, or None of nothing."""
    return part / whole if whole else None
