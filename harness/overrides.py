# SPDX-License-Identifier: MIT
"""`--set a.b=c`: TOML on the command line, over what the file says."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Any

from harness.problems import ConfigError, Problem, shown

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_BARE = re.compile(r"[\w./:+ -]+")  # a word that TOML would want in quotes: kmalloc, 64MiB, a path


def parse(text: str) -> tuple[tuple[str, ...], Any]:
    """Read one override.

    Args: text: ``a.b=c``; c is a TOML value, or a bare word, which is a string.
    Returns: the path and the value.
    Raises: ValueError, saying what is allowed.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not _KEY.fullmatch(key) or not value:
        raise ValueError("allowed is KEY=VALUE, such as interrupts.nmi.rate_hz=1000 or cpus=[2,4]")
    return tuple(key.split(".")), _value(value)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"] if "\n" not in text else _refuse(text)
    except tomllib.TOMLDecodeError:
        return text if _BARE.fullmatch(text) else _refuse(text)


def _refuse(text: str) -> Any:
    raise ValueError(
        f'{text!r} is no TOML value: a number, true, false, a "text", a [list] or a {{table}} is'
    )


def apply(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of a config with overrides laid over it, the last one winning.

    Raises: ConfigError, with all that are malformed.
    """
    result, problems = data, []
    for text in overrides:
        try:
            path, value = parse(text)
        except ValueError as error:
            problems.append(Problem("--set", shown(text), str(error)))
            continue
        try:
            result = put(result, path, value)
        except ValueError as error:
            problems.append(Problem("--set", shown(text), str(error)))
    if problems:
        raise ConfigError("command line", problems)
    return result


def put(data: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a copy of nested tables with one value put in; tables on the way are made.

    Raises: ValueError, if something on the way is no table.
    """
    key, *rest = path
    if not rest:
        return {**data, key: value}
    inner = data.get(key, {})
    if not isinstance(inner, dict):
        if rest == ["kind"] and isinstance(inner, str):
            inner = {}
        else:
            raise ValueError(
                f"{key} is {shown(inner)} in the file, not a table with the key {'.'.join(rest)}"
            )
    return {**data, key: put(inner, tuple(rest), value)}
