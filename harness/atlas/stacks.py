# SPDX-License-Identifier: MIT
"""The call stack at a step of a trace, inlined calls included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.atlas.disassembly import disassembly
from harness.atlas.inlining import inlines
from harness.atlas.traces import Image, Steps, Traced

__all__ = ["at", "lines"]


def at(image: Image, trace: Traced, step: int) -> list[str]:
    """Write the call stack at a step, innermost first, as ``function+0xoff (file:line)``.

    An inlined call has no address of its own: it says ``[inlined]``. A caller's offset is that of the
    instruction that the call returns to, as in the kernel's stacks.
    """
    steps = Steps.of(image, trace)
    found = list(lines(image, steps[step].address))
    for caller in steps.callers(step):
        found += lines(image, steps[caller].address, returns_to=steps[caller].next)
    return found


def lines(image: Image, address: int, *, returns_to: int | None = None) -> Iterator[str]:
    """Write one instruction's part of a stack.

    Args: address: relative to the load address.  returns_to: of a call, the address behind it.
    """
    path = Path(image.path)
    function = disassembly(path).function_at(address)
    offset = (address if returns_to is None else returns_to) - (function.start if function else 0)
    frames = inlines(path).at(address)
    if not frames:
        yield f"{address:#x}"
    for number, frame in enumerate(frames):
        where = f" ({frame.file}:{frame.line})" if frame.line else ""
        if number + 1 < len(frames):
            yield f"{frame.function} [inlined]{where}"
        else:
            yield f"{frame.function}+{offset:#x}{where}"
