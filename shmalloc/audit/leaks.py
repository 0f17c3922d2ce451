# SPDX-License-Identifier: MIT
"""Slabs that are lost by design: of caches destroyed with objects in them, and those that failed a check."""

from __future__ import annotations

import numpy as np

from shmalloc.audit.holders import DISABLED, Holders
from shmalloc.audit.objects import FreeObjects
from shmalloc.audit.report import LOST_MEMORY, Findings
from shmalloc.audit.slabs import Slabs
from shmalloc.audit.view import View, constant

__all__ = ["name_lost_slabs"]


def name_lost_slabs(
    view: View, slabs: Slabs, holders: Holders, free: FreeObjects, findings: Findings
) -> None:
    """Report the slabs of leaked caches, and note those that a debug check has put out of use."""
    leaked = view.caches["state"][slabs.cache] == constant("CACHE_LEAKED")
    live = slabs.objects - free.free()
    findings.totals["slabs_leaked"] = int(leaked.sum())
    findings.add_each(
        LOST_MEMORY,
        np.flatnonzero(leaked),
        lambda i: (
            slabs.describe(view, i),
            f"its cache was destroyed while {live[i]} of its {slabs.objects[i]} objects were in use",
        ),
        "slabs of caches that were destroyed too early",
    )
    for i in np.flatnonzero(holders.holder == DISABLED).tolist():
        findings.notes.append(
            f"{slabs.describe(view, i)}: out of use with its {slabs.objects[i]} objects since a check failed"
        )
