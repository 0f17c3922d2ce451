# SPDX-License-Identifier: MIT
"""Writing TOML: what `shmalloc show` prints can be run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def value(data: Any) -> str:
    """Write a value on one line. TOML has no null: such keys are left out of tables."""
    if isinstance(data, Mapping):
        return "{" + ", ".join(f"{key} = {value(part)}" for key, part in _given(data)) + "}"
    if isinstance(data, list):
        return "[" + ", ".join(map(value, data)) + "]"
    return json.dumps(data, ensure_ascii=False)


def dumps(data: Mapping[str, Any]) -> str:
    """Write a document: plain keys first, then a table for each mapping, lists of tables last."""
    return "\n".join(_lines(data, ())) + "\n"


def _given(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, part) for key, part in data.items() if part is not None)


def _is_tables(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and all(isinstance(part, Mapping) for part in data)


def _lines(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    given = dict(_given(data))
    for key, part in given.items():
        if not isinstance(part, Mapping) and not (_is_tables(part) and not path):
            yield f"{key} = {value(part)}"
    for key, part in given.items():
        if isinstance(part, Mapping):
            inner = (*path, key)
            yield ""
            yield f"[{'.'.join(inner)}]"
            yield from _lines(part, inner)
    for key, part in given.items():
        if _is_tables(part) and not path:
            for entry in part:
                yield ""
                yield f"[[{key}]]"
                yield from (f"{name} = {value(each)}" for name, each in _given(entry))
