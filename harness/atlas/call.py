# SPDX-License-Identifier: MIT
"""A call into the core, as data: what a sweep repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shmalloc._binding import Core


@dataclass(frozen=True)
class Call:
    """One call of an exported function of the core.

    Attributes: function: its name.  args: up to six integers or addresses.
    """

    function: str
    args: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.args))})"

    def run(self, core: Core) -> int:
        """Make it, once. Returns: what the function does."""
        ffi, function = core.ffi, getattr(core.lib, self.function)
        types = ffi.typeof(function).args
        arguments = (
            ffi.cast(kind, value) if kind.kind == "pointer" else value
            for kind, value in zip(types, self.args, strict=True)
        )
        return int(function(*arguments))
