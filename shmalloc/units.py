# SPDX-License-Identifier: MIT
"""Sizes in bytes, written and read the way people do: ``64MiB``."""

import re

_FACTORS = {
    "": 1,
    "B": 1,
    "K": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
    "T": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(I?)(B?)\s*", re.IGNORECASE)


def parse_bytes(text: int | str) -> int:
    """Read a size: a number of bytes, or a text such as ``"64MiB"``, ``"64M"``, ``"1.5 GiB"``, ``"4096"``.

    ``K M G T``, with or without ``iB``, are powers of 1024, as the kernel's own parameters are;
    ``KB MB GB TB`` are powers of 1000.

    Args:
        text: the size; an int is taken as it is.

    Returns:
        The size in bytes.

    Raises:
        ValueError: not a size, negative, or not a whole number of bytes.
    """
    if isinstance(text, bool) or not isinstance(text, int | str):
        raise ValueError(f"{text!r} is not a size: a number of bytes or a text such as '64MiB' is allowed")
    if isinstance(text, int):
        if text < 0:
            raise ValueError(f"{text} is not a size: it is negative")
        return text
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size: a number with K, M, G, T, KiB, MiB, GiB, TiB or nothing")
    number, prefix, binary, byte = match.groups()
    if binary and not prefix:
        raise ValueError(f"{text!r} is not a size: 'i' needs one of K, M, G, T before it")
    factor = _FACTORS[prefix.upper() if binary or not prefix else (prefix + byte).upper()]
    whole, _, fraction = number.partition(".")
    scaled = int(whole + fraction) * factor
    if scaled % 10 ** len(fraction):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return scaled // int(10 ** len(fraction))


def format_bytes(size_bytes: int) -> str:
    """Write a size for people: exact where a unit divides it, else with one decimal.

    Args:
        size_bytes: the size; negative sizes keep their sign.

    Returns:
        For example ``"64 MiB"``, ``"1.5 GiB"``, ``"100 B"``.
    """
    sign, size = ("-", -size_bytes) if size_bytes < 0 else ("", size_bytes)
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift:
            whole, rest = divmod(size, 1 << shift)
            return f"{sign}{whole} {unit}" if rest == 0 else f"{sign}{size / (1 << shift):.1f} {unit}"
    return f"{sign}{size} B"
