# SPDX-License-Identifier: MIT
"""Allocation flags by name. Bits and combinations are those of core/gfp.h, through the compiled core."""

from enum import IntFlag
from typing import Any

from shmalloc import _binding

__all__ = ["Gfp", "format", "parse"]

_PREFIXES = ("GFP_", "__GFP_")
_ALL = "__GFP_ALL"


def _make() -> Any:
    lib = _binding.core().lib
    values = {name: int(getattr(lib, name)) for name in dir(lib) if name.startswith(_PREFIXES)}
    # Single bits first: an IntFlag wants them before the names of their combinations.
    return IntFlag("Gfp", dict(sorted(values.items(), key=lambda item: (item[1].bit_count(), item[1]))))


#: An IntFlag with the names of gfp.h: Gfp.GFP_KERNEL | Gfp.__GFP_ZERO
Gfp: Any = _make()

_BY_NAME: dict[str, int] = {name: int(flag) for name, flag in Gfp.__members__.items()}
# As the kernel's tables: combinations before bits, the GFP_ name before the __GFP_ name.
_BY_SIZE = sorted(
    ((value, name) for name, value in _BY_NAME.items() if name != _ALL),
    key=lambda item: (-item[0].bit_count(), item[1].startswith("__"), item[0]),
)


def parse(text: str) -> int:
    """Read flags as the kernel's traces write them.

    Args: text: names or numbers joined by `|`, such as `GFP_KERNEL|__GFP_ZERO`, `0xcc0`, `none`.
    Returns: the bits.
    Raises: ValueError, naming the unknown name and those that are allowed.
    """
    return _parse_all(text.split("|"), text)


def _parse_all(parts: list[str], text: str) -> int:
    flags = 0
    for part in (piece.strip() for piece in parts):
        if part in _BY_NAME:
            flags |= _BY_NAME[part]
        elif part != "none":
            flags |= _number(part, text)
    return flags


def _number(part: str, text: str) -> int:
    try:
        number = int(part, 0)
    except ValueError:
        names = ", ".join(_BY_NAME)
        raise ValueError(f"gfp flags {text!r}: no such flag {part!r}; allowed are {names}") from None
    if not 0 <= number <= 0xFFFFFFFF:
        raise ValueError(f"gfp flags {text!r}: {part} is not within 0..0xffffffff")
    return number


def format(flags: int) -> str:  # noqa: A001 - read as gfp.format
    """Write flags as the kernel's traces do: the largest combinations first, unknown bits in hex.

    Args: flags: the bits.
    Returns: a text that `parse` reads back to the same bits.
    """
    names: list[str] = []
    rest = int(flags)
    for value, name in _BY_SIZE:
        if rest & value == value:
            names.append(name)
            rest &= ~value
    if rest:
        names.append(f"{rest:#x}")
    return "|".join(names) or "none"
