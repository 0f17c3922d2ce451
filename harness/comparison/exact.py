# SPDX-License-Identifier: MIT
"""Numbers that come out the same each time, of scripts and atlases: equal or not, without an interval, never marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.comparison.sides import Member

__all__ = ["is_measured", "rows"]

_PARTS = ("allocs", "frees", "failures", "counters", "atlas")
_TIMED = ("_s", "seconds", "_ns", "cycles", "_hz")  # ends of the names of what a clock has a part in


def is_measured(member: Member) -> bool:
    """Whether a cell's numbers differ from run to run."""
    return bool(member.result.run["config"].get("engine", "stress") == "stress")


def rows(a: Sequence[Member], b: Sequence[Member]) -> list[dict[str, Any]]:
    """List the numbers that are not the same on both sides; of measured cells there are none.

    Returns: key, a, b: null where a side does not have it, or its results do not agree.
    """
    if any(is_measured(member) for member in (*a, *b)):
        return []
    one, other = _agreed(a), _agreed(b)
    return [
        {"key": key, "a": one.get(key), "b": other.get(key)}
        for key in dict.fromkeys((*one, *other))
        if one.get(key) != other.get(key)
    ]


def _agreed(side: Sequence[Member]) -> dict[str, Any]:
    first, *rest = [dict(_numbers(member.cell)) for member in side]
    return {
        key: number if all(each.get(key) == number for each in rest) else None
        for key, number in first.items()
    }


def _numbers(cell: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for part in _PARTS:
        yield from _leaves(part, cell.get(part))


def _leaves(path: str, found: Any) -> Iterator[tuple[str, float]]:
    if isinstance(found, Mapping):
        for key, each in found.items():
            yield from _leaves(f"{path}.{key}", each)
    elif isinstance(found, int | float) and not isinstance(found, bool) and not path.endswith(_TIMED):
        yield path, found
