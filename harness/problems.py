# SPDX-License-Identifier: MIT
"""Mistakes in a config: each with its path, the value and what is allowed, and all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_SHOWN_CHARS = 80


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes: path: of the key, dotted.  value: what is there, as text; None = nothing.  allowed: what
        may be there.
    """

    path: str
    value: str | None
    allowed: str

    def __str__(self) -> str:
        where = self.path or "the file"
        return f"{where}: {self.allowed}" if self.value is None else f"{where} = {self.value}: {self.allowed}"


class ConfigError(Exception):
    """A config that cannot be run.

    Attributes: source: the file.  problems: every mistake found.
    """

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = list(dict.fromkeys(problems))
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


class CannotRun(Exception):
    """This machine cannot do what the config asks for."""


def shown(value: object) -> str:
    """Write a value as it would stand in the file, shortened."""
    text = "true" if value is True else "false" if value is False else repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


def one_of(names: Iterable[str]) -> str:
    """Say that one of some names is allowed."""
    return f"allowed is one of {', '.join(names)}"


def unknown(what: str, name: str, names: Sequence[str]) -> str:
    """Say that a name is unknown, what may have been meant, and which there are."""
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown {what}{hint}; {one_of(names)}"


def dig(data: Any, path: Sequence[str | int]) -> Any:
    """Return the value at a path, or None if there is none."""
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def dotted(path: Sequence[str | int]) -> str:
    """Write a path: ``interrupts.nmi.rate_hz``, ``expect[0].text``."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text
