# SPDX-License-Identifier: MIT
"""What differs between two sides before anything is measured: config, build, machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.comparison.sides import Member

__all__ = ["ABSENT", "differences", "of", "setting"]

_OF_THE_MOMENT = {
    f"machine.{key}"
    for key in ("load_1min", "warnings", "arena_nodes", "worth", "steal_ticks", "core", "pairs")
}
ABSENT = "not there"


def differences(a: Sequence[Member], b: Sequence[Member]) -> list[dict[str, Any]]:
    """List what the two sides do not have alike.

    Returns: key, and the values on both sides as texts; a key that varies has all values of its side's cells.
    """
    return of(
        [pair for member in a for pair in _flat(member)], [pair for member in b for pair in _flat(member)]
    )


def of(a: Iterable[tuple[str, Any]], b: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """List the keys whose values are not the same. Args: a, b: keys and values; a key may come several times."""
    one, other = _values(a), _values(b)
    found = []
    for key in dict.fromkeys((*one, *other)):
        left, right = one.get(key, [ABSENT]), other.get(key, [ABSENT])
        if sorted(left) != sorted(right):
            found.append({"key": key, "a": left, "b": right})
    return found


def _values(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[str]]:
    """Return key -> the different values that it has."""
    found: dict[str, dict[str, None]] = {}
    for key, value in pairs:
        found.setdefault(key, {})[json.dumps(value, sort_keys=True, default=str)] = None
    return {key: list(values) for key, values in found.items()}


def _flat(member: Member) -> Iterator[tuple[str, Any]]:
    run, params = member.result.run, member.cell["params"]
    yield "name", run["name"]
    for path, value in _leaves(run["config"], ""):
        if path not in params and path != "name":
            yield path, value
    yield from params.items()
    yield from setting(run)


def setting(run: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a result says of its build and its machine, but for what is of the moment."""
    for part in ("build", "machine"):
        for path, value in _leaves(run[part], part):
            if path not in _OF_THE_MOMENT:
                yield path, value


def _leaves(data: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        path = f"{before}.{key}" if before else str(key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        else:
            yield path, value
