# SPDX-License-Identifier: MIT
"""What of a recording goes into a page: as many moments as a file of a few megabytes has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.arena_map.recording import Recording, pack_objects
from shmalloc.audit.view import MIGRATETYPE_NAMES, zone_type
from shmalloc.pagemap import Objects, Zone

__all__ = ["MOST_CELLS", "MOST_OBJECTS", "Shown", "choose", "show"]

MOST_CELLS = 4 << 20  # pages times moments, of a whole page
MOST_OBJECTS = 12 << 20
_WORDS, _BYTES = ("cache", "inuse", "objects"), ("kind", "order", "cpu", "marks")

Array = NDArray[Any]


@dataclass(frozen=True)
class Shown:
    """A recording as a page carries it.

    Attributes: meta: JSON.  planes, objects: bytes, as map.js reads them.  moments: those that are there.
    """

    meta: dict[str, Any]
    planes: bytes
    objects: bytes
    moments: list[int]


def choose(labels: Sequence[str], most: int) -> list[int]:
    """Choose moments: all named ones, and others evenly, so many in all."""
    named = [at for at, label in enumerate(labels) if label]
    others = [at for at, label in enumerate(labels) if not label]
    room = max(0, most - len(named))
    if len(others) > room:
        others = [others[at * len(others) // room] for at in range(room)]
    return sorted(named + others)


def show(found: Recording, cells: int, objects: int) -> Shown:
    """Prepare a recording. Args: cells, objects: that there is room for, all moments together."""
    meta = found.meta
    kinds = found.plane("kind")
    moments = choose([each["label"] for each in meta["moments"]], max(3, cells // kinds.shape[1]))
    bodies, shown = _objects(found, moments, objects)
    planes = [_changes(found.plane(name)[moments], "<u2") for name in _WORDS]
    planes += [_changes(found.plane(name)[moments], "u1") for name in (*_BYTES, "types")]
    frame = meta["frame"]
    return Shown(
        {
            **{key: frame[key] for key in ("nr_pages", "pageblock_order", "cpus", "sheaves", "oracle")},
            "zones": [
                {"name": name, "start": zone.start, "pages": zone.pages} for name, zone in named_zones(meta)
            ],
            "group": meta["group"],
            "cells": kinds.shape[1],
            "types": list(MIGRATETYPE_NAMES),
            "caches": meta["caches"],
            "moments": [
                {**{key: meta["moments"][at][key] for key in ("label", "t_ms")}, "objects": at in shown}
                for at in moments
            ],
            "counts": found.counts[moments].tolist(),
            "recorded": len(found),
        },
        b"".join(planes),
        bodies,
        moments,
    )


def named_zones(meta: dict[str, Any]) -> list[tuple[str, Zone]]:
    """Name the zones of a recording."""
    zones = [Zone(**zone) for zone in meta["frame"]["zones"]]
    return [(f"node {zone.node} {zone_type(zone.type)}", zone) for zone in zones]


def _changes(plane: Array, dtype: str) -> bytes:
    changed = plane.copy()
    changed[1:] ^= plane[:-1]
    return changed.astype(dtype).tobytes()


def _objects(found: Recording, moments: Sequence[int], most: int) -> tuple[bytes, set[int]]:
    """Pack the objects of as many moments as there is room for, the named ones first.

    The bytes: number of slabs and of objects of all moments; for each moment where its slabs and its objects begin,
    and one more of both (uint32); page frame of each slab (uint32); objects of each (uint16, to a multiple of 4
    bytes); states, two a byte.
    """
    order = sorted(moments, key=lambda at: not found.meta["moments"][at]["label"])
    shown: dict[int, Objects] = {}
    for at in order:
        objects = found.objects(at)
        if objects is not None and len(objects.state) <= most:
            shown[at], most = objects, most - len(objects.state)
    packed = pack_objects([shown.get(at) for at in moments])
    slabs, states = packed["slab_at"], packed["states_at"]
    head = np.concatenate(([slabs[-1], states[-1]], slabs, states, packed["slab_pfn"])).astype("<u4")
    sizes = packed["slab_objects"].astype("<u2")
    padding = bytes(2 * (len(sizes) % 2))
    return head.tobytes() + sizes.tobytes() + padding + packed["states"].tobytes(), set(shown)
