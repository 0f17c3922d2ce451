# SPDX-License-Identifier: MIT
"""numpy dtypes of the arena's structures, made from the offsets that the C compiler decided.

Imports numpy: not for CPU processes.
"""

from functools import cache
from typing import Any

import numpy as np

from shmalloc import _binding

__all__ = ["constants", "dtype", "enumeration"]

_FLOATS: dict[str, np.dtype[Any]] = {"float": np.dtype(np.float32), "double": np.dtype(np.float64)}


@cache
def dtype(struct_name: str) -> np.dtype[Any]:
    """Return the dtype of one structure of the core's headers.

    Nested structures are nested dtypes, arrays are subarrays, char arrays byte strings, pointers
    64-bit integers. Padding is kept, so that an array of the dtype is laid out as in C.

    Args: struct_name: without the word struct: "page", "shm_cpu".
    Raises: ValueError, if there is no such structure.
    """
    ffi = _binding.core().ffi
    try:
        ctype = ffi.typeof(f"struct {struct_name}")
        fields = ctype.fields
    except ffi.error as error:
        raise ValueError(f"struct {struct_name}: the core's headers have none of that name") from error
    if fields is None:
        raise ValueError(f"struct {struct_name}: the core's headers do not define it")
    return np.dtype(
        {
            "names": [name for name, _ in fields],
            "formats": [_format(ffi, field.type) for _, field in fields],
            "offsets": [field.offset for _, field in fields],
            "itemsize": ffi.sizeof(ctype),
        }
    )


def _format(ffi: Any, ctype: Any) -> np.dtype[Any]:
    match ctype.kind:
        case "struct":
            return dtype(ctype.cname.removeprefix("struct "))
        case "array" if ctype.item.cname == "char":
            return np.dtype(f"S{ctype.length}")
        case "array":
            item = _format(ffi, ctype.item)
            array: np.dtype[Any] = np.dtype((item.base, (ctype.length, *item.shape)))
            return array
        case "pointer":
            return np.dtype(np.uint64)
        case "primitive" if ctype.cname == "char":
            return np.dtype("S1")
        case "primitive" if ctype.cname in _FLOATS:
            return _FLOATS[ctype.cname]
        case "primitive" | "enum":
            signed = int(ffi.cast(ctype, -1)) < 0
            return np.dtype(f"{'i' if signed else 'u'}{ffi.sizeof(ctype)}")
    raise TypeError(f"no dtype for the C type {ctype.cname}")


@cache
def constants() -> dict[str, int]:
    """Map every constant of the core's headers, macros and enumerators, to its value."""
    lib = _binding.core().lib
    values = ((name, getattr(lib, name)) for name in dir(lib))
    return {name: value for name, value in values if isinstance(value, int)}


@cache
def enumeration(enum_name: str) -> dict[str, int]:
    """Map the enumerators of one enumeration to their values, in order of the values.

    Args: enum_name: without the word enum: "shm_ctx".
    Raises: ValueError, if there is no such enumeration.
    """
    ffi = _binding.core().ffi
    try:
        relements = ffi.typeof(f"enum {enum_name}").relements
    except ffi.error as error:
        raise ValueError(f"enum {enum_name}: the core's headers have none of that name") from error
    return dict(sorted(relements.items(), key=lambda item: item[1]))
