# SPDX-License-Identifier: MIT
"""What each kind of page looks like: a colour for light and one for dark grounds, and a pattern.

Two kinds differ in pattern, or in colours that are far apart to every kind of colour vision (a test measures it).
Free pages are a ramp of greys, order 0 the strongest.
"""

from __future__ import annotations

from dataclasses import dataclass

from shmalloc.pagemap import Kind, State

__all__ = ["LOOKS", "PATTERNS", "RAMP", "STATE_LOOKS", "Appearance", "css"]

PATTERNS = ("plain", "slash", "backslash", "cross", "dot", "dash", "bar")


@dataclass(frozen=True)
class Appearance:
    """Attributes: light, dark: colours.  pattern: one of PATTERNS, drawn over the colour where there is room."""

    light: str
    dark: str
    pattern: str = "plain"


RAMP = Appearance("#f1f3f5", "#22282f")  # free, of the largest order
LOOKS: dict[Kind, Appearance] = {
    Kind.HOLE: Appearance("#ffffff", "#14181d", "dot"),
    Kind.TRANSIT: Appearance("#1b1f24", "#f2f2f2", "slash"),
    Kind.FREE: Appearance("#bcc3ca", "#5a646f"),
    Kind.RESERVE: Appearance("#d3a0be", "#6f4a60", "slash"),
    Kind.PCP: Appearance("#56b4e9", "#8fd0f5", "dot"),
    Kind.PARKED: Appearance("#d55e00", "#f0803c", "cross"),
    Kind.PAGE_CACHE: Appearance("#d6c99a", "#77693a", "dash"),
    Kind.SLAB_CPU: Appearance("#e69f00", "#ffc94d"),
    Kind.SLAB_CPU_PARTIAL: Appearance("#f6d591", "#a37a1e", "slash"),
    Kind.SLAB_PARTIAL: Appearance("#7fb3dc", "#2d6f9f", "backslash"),
    Kind.SLAB_FULL: Appearance("#0072b2", "#4aa3df"),
    Kind.SLAB_DEFERRED: Appearance("#ee9b66", "#b0521a", "dot"),
    Kind.SLAB_RCU: Appearance("#ee9b66", "#b0521a", "backslash"),
    Kind.SLAB_MOVING: Appearance("#5d6670", "#c3ccd5", "cross"),
    Kind.SLAB_DISABLED: Appearance("#1b1f24", "#f2f2f2", "cross"),
    Kind.LARGE: Appearance("#006b4c", "#2fc498", "dash"),
    Kind.POOL: Appearance("#8cd3b9", "#1d6b52", "bar"),
    Kind.PAGES: Appearance("#b3568f", "#dd9bc0", "bar"),
}
STATE_LOOKS: dict[State, Appearance] = {
    State.LIVE: Appearance("#0072b2", "#4aa3df"),
    State.ON_SLAB: Appearance("#f1f3f5", "#2a3139"),
    State.ON_CPU: Appearance("#f6d591", "#a37a1e", "slash"),
    State.IN_SHEAF: Appearance("#f6d591", "#a37a1e", "dot"),
    State.DEFERRED: Appearance("#ee9b66", "#b0521a", "cross"),
    State.KEPT: Appearance("#8cd3b9", "#1d6b52", "bar"),
    State.FREE: Appearance("#cdd3d9", "#454e58", "dash"),
}


def css() -> str:
    """Return the style sheet's variables: --map-kN, --map-ramp and --map-sN, light and dark."""
    light, dark = (
        "".join(
            [
                *(f"--map-k{int(kind)}:{getattr(look, ground)};" for kind, look in LOOKS.items()),
                *(f"--map-s{int(state)}:{getattr(look, ground)};" for state, look in STATE_LOOKS.items()),
                f"--map-ramp:{getattr(RAMP, ground)};",
            ]
        )
        for ground in ("light", "dark")
    )
    fills = "".join(f".map-k{int(kind)}{{fill:var(--map-k{int(kind)})}}" for kind in LOOKS)
    fills += "".join(f".map-s{int(state)}{{--fill:var(--map-s{int(state)})}}" for state in STATE_LOOKS)
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{fills}\n"
