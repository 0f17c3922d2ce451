# SPDX-License-Identifier: MIT
"""What each kind of page looks like: a colour for light and one for dark grounds, and a pattern.

Two kinds differ in pattern, or in colours that are far apart to every kind of colour vision (a test measures it).
Free pages are a ramp of greys, order 0 the strongest.
"""

from __future__ import annotations

from dataclasses import dataclass

from shmalloc.pagemap import Kind, State

__all__ = ["LOOKS", "PATTERNS", "RAMP", "STATE_LOOKS", "Appearance", "css"]

PATTERNS = ("plain", "slash", "backslash", "cross", "dot", "dash", "bar", "plus")


@dataclass(frozen=True)
class Appearance:
    """Attributes: light, dark: colours.  pattern: one of PATTERNS, drawn over the colour where there is room."""

    light: str
    dark: str
    pattern: str = "plain"


RAMP = Appearance("#f1f3f5", "#22282f")  # free, of the largest order
LOOKS: dict[Kind, Appearance] = {
    Kind.HOLE: Appearance("#ffffff", "#14181d", "slash"),
    Kind.TRANSIT: Appearance("#1b1f24", "#f2f2f2", "slash"),
    Kind.FREE: Appearance("#bcc3ca", "#5a646f"),
    Kind.RESERVE: Appearance("#d3a0be", "#6f4a60", "dot"),
    Kind.PCP: Appearance("#f0e442", "#efe24a", "dot"),
    Kind.PARKED: Appearance("#d55e00", "#f0803c", "cross"),
    Kind.PAGE_CACHE: Appearance("#a8946a", "#8f8250", "dash"),
    Kind.SLAB_CPU: Appearance("#e69f00", "#e08a1e"),
    Kind.SLAB_CPU_PARTIAL: Appearance("#f5c98b", "#8a5a14", "slash"),
    Kind.SLAB_PARTIAL: Appearance("#7aaede", "#275f8c", "backslash"),
    Kind.SLAB_FULL: Appearance("#0063a8", "#3f93d6"),
    Kind.SLAB_DEFERRED: Appearance("#ee9b66", "#b0521a", "cross"),
    Kind.SLAB_RCU: Appearance("#ee9b66", "#b0521a", "backslash"),
    Kind.SLAB_MOVING: Appearance("#5d6670", "#c3ccd5", "cross"),
    Kind.SLAB_DISABLED: Appearance("#1b1f24", "#f2f2f2", "cross"),
    Kind.LARGE: Appearance("#005c40", "#1c9c76", "plus"),
    Kind.POOL: Appearance("#55b797", "#14503d", "plus"),
    Kind.PAGES: Appearance("#cc79a7", "#e6a8cb", "bar"),
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
