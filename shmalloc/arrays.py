# SPDX-License-Identifier: MIT
"""Arrays in an arena: their types by name, and what is no array that could lie there.

numpy is imported when the first array is made: CPU processes that make none do without its threads.
"""

from __future__ import annotations

import ast
import operator
from functools import cache
from typing import TYPE_CHECKING, Any

from shmalloc.errors import ShmallocError
from shmalloc.fast import Block, array_look, set_up_arrays
from shmalloc.objects import why_not_live

if TYPE_CHECKING:
    import numpy as np

    from shmalloc.arena import Arena
    from shmalloc.fast import Window

MOST_AXES = 32
_MOST_NAME_BYTES = 4096
_WORD = 2**64


@cache
def set_up() -> None:
    """Hand over to the compiled side what it needs of numpy."""
    import numpy as np

    set_up_arrays(np.ndarray, np.dtype(np.uint64), _written, _read)


# --- types --------------------------------------------------------------------------------------


def shareable(dtype: Any) -> np.dtype[Any]:
    """Return a type of which there can be arrays in an arena.

    Raises:
        ValueError: it holds references to Python objects, or its description is too long.
        TypeError: it is no type.
    """
    import numpy as np

    kind: np.dtype[Any] = np.dtype(dtype)
    if kind.hasobject:
        raise ValueError(f"dtype = {kind!r}: allowed are types without Python objects")
    if len(_name(kind)) > _MOST_NAME_BYTES:
        raise ValueError(
            f"dtype of {len(kind.names or ())} fields: its description is too long for an array's head"
        )
    return kind


def _name(kind: np.dtype[Any]) -> bytes:
    if kind.names is None and kind.subdtype is None:
        return kind.str.encode()
    import numpy as np

    return repr(np.lib.format.dtype_to_descr(kind)).encode()


def _written(dtype: Any) -> tuple[np.dtype[Any], bytes, int]:
    kind = shareable(dtype)
    if _kind_of(_name(kind)) != kind:
        raise ValueError(f"dtype = {kind!r}: allowed are types that numpy's own files can hold")
    return kind, _name(kind), kind.itemsize


def _kind_of(name: bytes) -> np.dtype[Any]:
    import numpy as np

    text = name.decode()
    description: Any = ast.literal_eval(text) if text.startswith(("[", "(", "{")) else text
    return np.lib.format.descr_to_dtype(description)


def _read(name: bytes) -> tuple[np.dtype[Any], int]:
    """Return the type that an array's head names; it may hold anything."""
    try:
        kind = _kind_of(name)
    except (ValueError, TypeError, SyntaxError, LookupError, MemoryError, RecursionError):
        kind = None
    if kind is None or kind.hasobject:
        raise ShmallocError(f"an array's head names its type {name[:80]!r}: its head is damaged")
    return kind, kind.itemsize


def array_at(arena: Arena, offset: int) -> np.ndarray[Any, Any]:
    """Look at an array; see `Arena.at`."""
    set_up()
    found: np.ndarray[Any, Any] | None = array_look(
        arena.core.functions, arena.window, arena.has_oracle, operator.index(offset)
    )
    if found is None:
        raise ShmallocError(f"array at {offset:#x}: {why_not_live(arena, offset)}")
    return found


# --- arguments ----------------------------------------------------------------------------------


def number(name: str, value: Any, least: int | None = 0) -> int:
    """Return an integer that the core can take, or any for least = None.

    Raises:
        ValueError: it is out of range.
        TypeError: it is none.
    """
    found = operator.index(value)
    if least is not None and not least <= found < _WORD:
        raise ValueError(f"{name} = {found}: allowed are {least} to {_WORD - 1}")
    return found


def axes(shape: Any) -> tuple[int, ...]:
    """Return a shape as a tuple.

    Raises:
        ValueError: an axis is negative, or there are too many.
    """
    found = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if len(found) > MOST_AXES:
        raise ValueError(f"shape of {len(found)} axes: allowed are at most {MOST_AXES}")
    whole = tuple(number(f"shape[{at}]", axis) for at, axis in enumerate(found))
    items = 1
    for axis in whole:
        items *= max(axis, 1)  # an empty array's other axes are believed, too
    if items >= 2**46:
        raise ValueError(f"shape = {whole}: allowed are less than {2**46} items, more than any arena holds")
    return whole


def numbers(name: str, values: Any) -> np.ndarray[Any, Any]:
    """Return integers as an array that the compiled calls can read.

    Raises:
        ValueError: naming the first that is negative or no integer; or there is another number of axes than one.
    """
    import numpy as np

    if isinstance(values, (str, bytes)):
        raise ValueError(f"{name} = {values[:20]!r}: allowed are arrays and sequences of integers")
    found = np.asarray(values)
    if found.ndim != 1:
        raise ValueError(f"{name} has {found.ndim} axes: allowed is 1")
    if not found.size:
        return np.zeros(0, np.uint64)
    if found.dtype.kind not in "ui":
        at = next((at for at, value in enumerate(values) if not isinstance(value, int)), 0)
        if found.dtype.kind not in "OfU" or not isinstance(values[at], int):
            raise ValueError(f"{name}[{at}] = {values[at]!r}: allowed are integers")
        return np.array([number(f"{name}[{at}]", value) for at, value in enumerate(values)], np.uint64)
    if found.dtype.kind == "i" and (negative := np.flatnonzero(found < 0)).size:
        raise ValueError(f"{name}[{negative[0]}] = {found[negative[0]]}: allowed are 0 to {_WORD - 1}")
    return np.ascontiguousarray(found, np.uint64)


def refuse_target(name: str, target: Any, count: int, item_bytes: int) -> None:
    """Refuse what results cannot be put into.

    Raises:
        ValueError: it is no writable, contiguous buffer of so many integers of this size.
    """
    if target is None:
        return
    wanted = f"allowed is a writable, contiguous buffer of {count} integers of {8 * item_bytes} bits"
    try:
        view = memoryview(target)
    except TypeError:
        raise ValueError(f"{name} = {type(target).__name__}: {wanted}") from None
    formats = "LQlq" if item_bytes == 8 else "Bb?c"
    plain = view.ndim == 1 and view.itemsize == item_bytes and view.format.lstrip("<=@") in tuple(formats)
    if view.readonly or not view.contiguous or not plain or len(view) != count:
        raise ValueError(
            f"{name}: {'readonly, ' if view.readonly else ''}{view.shape} of format {view.format!r}: {wanted}"
        )


def refuse_foreign(array: object, window: Window) -> None:
    """Refuse what cannot be given.

    Raises:
        ShmallocError: saying what it is instead of an array as `Cpu.empty` makes it.
    """
    import numpy as np

    base: Any = getattr(array, "base", None)
    if not isinstance(array, np.ndarray):
        what = f"a {type(array).__name__}"
    elif isinstance(base, Block) and base.owned:
        if base.window is window:
            return
        what = "an array of another arena"
    elif isinstance(base, Block):
        what = "an array that is another's, or was given away"
    else:
        while isinstance(base, np.ndarray):
            base = base.base
        what = "a view of such an array" if isinstance(base, Block) else "an array that is not in an arena"
    raise ShmallocError(f"give of {what}: allowed is an array as Cpu.empty, zeros or take has returned it")
