# SPDX-License-Identifier: MIT
"""The way to the calls that are compiled against Python itself, `shmalloc._fast`.

What they do not do themselves (another CPU than the current one, an error) the Python function does that each
stands for: see shmalloc/pyface/method.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from shmalloc._binding import fast as load_fast
from shmalloc.errors import ShmallocError
from shmalloc.flags import gfp_flags

if TYPE_CHECKING:
    from shmalloc._fast import (
        Block,
        Caller,
        Calls,
        Window,
        array_look,
        method,
        run,
        set_up,
        set_up_arrays,
    )
else:
    _fast = load_fast()
    Block, Caller, Calls, Window = _fast.Block, _fast.Caller, _fast.Calls, _fast.Window
    method, run, set_up, set_up_arrays = _fast.method, _fast.run, _fast.set_up, _fast.set_up_arrays
    array_look = _fast.array_look

__all__ = ["Block", "Caller", "Calls", "Window", "array_look", "fast", "run", "set_up_arrays"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

set_up(gfp_flags, ShmallocError)


def fast(kind: str) -> Callable[[_Function], _Function]:
    """Have a method's common case done in C.

    Args: kind: of call, as in shmalloc/pyface; the function has that kind's parameters.
    """

    def decorate(function: _Function) -> _Function:
        made: Any = method(kind, function)
        return made  # type: ignore[no-any-return]  # signature and documentation are the function's

    return decorate
