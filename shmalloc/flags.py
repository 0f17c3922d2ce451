# SPDX-License-Identifier: MIT
"""Flags that callers may give as numbers or by their kernel names."""

import operator
from functools import cache

from shmalloc._binding import core as load_core


class _Named(int):
    """Flags that print as the text they came from."""

    text: str

    def __str__(self) -> str:
        return self.text


def gfp_flags(gfp: int | str) -> int:
    """Return allocation flags, given as bits or as ``"GFP_KERNEL|__GFP_ZERO"``.

    Raises: ValueError: they do not fit 32 bits, or a name is unknown.  TypeError: they are neither.
    """
    if isinstance(gfp, str):
        return _parsed(gfp)
    if not 0 <= operator.index(gfp) < 1 << 32:
        raise ValueError(f"gfp = {gfp}: allowed are 0 to {(1 << 32) - 1:#x}, or names of flags")
    return gfp


@cache
def _parsed(text: str) -> int:
    from shmalloc.gfp import parse

    flags = _Named(parse(text))
    flags.text = text
    return flags


@cache
def _slab_flags() -> dict[str, int]:
    lib = load_core().lib
    names = (name for name in dir(lib) if name.startswith("SLAB_") and isinstance(getattr(lib, name), int))
    return {name: int(getattr(lib, name)) for name in names}


def slab_flags(flags: int | str) -> int:
    """Return flags of a slab cache, given as bits or as ``"SLAB_POISON|SLAB_RED_ZONE"``.

    Raises:
        ValueError: naming those that are unknown.
    """
    if not isinstance(flags, str):
        return flags
    names = [part.strip() for part in flags.split("|") if part.strip()]
    unknown = [name for name in names if name not in _slab_flags()]
    if unknown:
        raise ValueError(
            f"flags = {flags!r}: unknown {', '.join(unknown)}; allowed are {', '.join(_slab_flags())}"
        )
    total = 0
    for name in names:
        total |= _slab_flags()[name]
    return total
