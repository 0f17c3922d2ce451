# SPDX-License-Identifier: MIT
"""Allocation flags: what they allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.script.registry import quantity

if TYPE_CHECKING:
    from harness.script.scene import Scene


@quantity("gfp.allow_spinning")
def allow_spinning(_scene: Scene, *, gfp: str) -> int:
    """1 if a request with these flags may wait for locks: gfpflags_allow_spinning."""
    from shmalloc.gfp import parse

    return int(bool(parse(gfp) & parse("__GFP_DIRECT_RECLAIM|__GFP_KSWAPD_RECLAIM")))
