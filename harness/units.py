# SPDX-License-Identifier: MIT
"""Numbers as people read them."""

from __future__ import annotations

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(number: float) -> str:
    """Write a count: exact below 10,000, then with three digits and k, M, G, T."""
    if abs(number) < 10_000:
        return f"{number:.0f}"
    for step, unit in _STEPS:
        if abs(number) >= step:
            scaled = number / step
            return f"{scaled:.{max(0, 3 - len(str(int(abs(scaled)))))}f}{unit}"
    return f"{number:.0f}"  # pragma: no cover


def nanoseconds(number: float | None) -> str:
    """Write a latency; of nothing it is a dash."""
    if number is None:
        return "-"
    if number < 10_000:
        return f"{number:.0f}"
    return f"{number / 1e3:.0f}us" if number < 10_000_000 else f"{number / 1e6:.0f}ms"


def seconds(number: float) -> str:
    """Write a duration."""
    if number < 60:
        return f"{number:.1f} s"
    minutes, rest = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
