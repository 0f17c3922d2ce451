# SPDX-License-Identifier: MIT
"""The steps and quantities that there are, for `shmalloc designs --steps`."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from harness.script.keys import EXTRA, fields_of
from harness.script.registry import Quantity, Step, quantities, steps

_COMMON = frozenset(fields_of(Step))


def rows() -> list[list[str]]:
    """Return, for each step and then each quantity: name, keys with their defaults, first line of its docstring."""
    made = [[name, _keys(kind), _said(kind.__doc__)] for name, kind in sorted(steps().items())]
    read = sorted(quantities().items())
    return made + [
        [f"read {name}", _quantity_keys(each), _said(each.function.__doc__)] for name, each in read
    ]


def _said(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _keys(kind: type[Step]) -> str:
    own = {name: each for name, (each, _) in fields_of(kind).items() if name not in _COMMON and name != EXTRA}
    return ", ".join(_key(name, each.default, dataclasses.MISSING) for name, each in own.items())


def _quantity_keys(each: Quantity) -> str:
    found = inspect.signature(each.function).parameters
    empty = inspect.Parameter.empty
    return ", ".join(_key(name, found[own].default, empty) for name, own in each.parameters.items())


def _key(name: str, default: Any, none: Any) -> str:
    return name if default is none else f"{name} = {default!r}".replace("'", '"')
