# SPDX-License-Identifier: MIT
"""The places above the slabs that keep objects or blocks of pages: one keeper each."""

from __future__ import annotations

from shmalloc.audit.bpf import keep_bpf
from shmalloc.audit.charges import keep_vectors
from shmalloc.audit.kept import Keeper
from shmalloc.audit.objpool import keep_rings
from shmalloc.audit.pools import keep_areas
from shmalloc.audit.rcu import keep_callbacks
from shmalloc.audit.sheaves import keep_sheaves

__all__ = ["KEEPERS"]

KEEPERS: tuple[Keeper, ...] = (
    keep_areas,
    keep_bpf,
    keep_vectors,
    keep_rings,
    keep_callbacks,
    keep_sheaves,
)
