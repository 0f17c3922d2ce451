# SPDX-License-Identifier: MIT
"""A call into the core, as data: what a sweep repeats."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One call of an exported function of the core.

    Attributes: function: its name.  args: up to six integers or addresses.
    """

    function: str
    args: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.args))})"
