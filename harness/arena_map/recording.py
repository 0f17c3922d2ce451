# SPDX-License-Identifier: MIT
"""A recorded map as arrays: moments of planes, each as what differs from the one before.

The arrays of arrays/map-NNN.npz: `meta` (JSON); `kind`, `order`, `cpu`, `marks`, `cache`, `inuse`, `objects`: (moments,
cells), each row exclusive-ored with the one before; `types`: of pageblocks, the same; `counts`: pages, (moments,
kinds), and `zone_counts`: (moments, zones, kinds); `slab_pfn`, `slab_objects`: the slabs of all moments with objects,
`slab_at` where each moment's begin; `states`: of their objects, two a byte, `states_at` in objects.  `Recording`
undoes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shmalloc.pagemap import KINDS, OBJECT_STATES, PLANES, CacheRow, Frame, Kind, Objects, Planes

__all__ = [
    "SCHEMA",
    "Moment",
    "Recording",
    "encode",
    "pack_objects",
    "pack_states",
    "thinned",
    "unpack_states",
]

SCHEMA = "shmalloc-map/1"
MOST_CELLS = 1 << 18  # of one moment: a page each up to an arena of 1 GiB
MOST_OBJECTS = 24 << 20  # of all moments together

Array = NDArray[Any]


@dataclass(frozen=True)
class Moment:
    """What a moment was. Attributes: label: of the first and the last ones.  objects: None = not recorded."""

    label: str
    t_ms: float
    planes: Planes
    types: NDArray[np.uint8]
    objects: Objects | None


def encode(frame: Frame, caches: Mapping[int, CacheRow], moments: Sequence[Moment]) -> dict[str, Array]:
    """Make the arrays of a file."""
    group = 1
    while frame.nr_pages // group > MOST_CELLS:
        group *= 2
    with_objects = _choose(moments) if group == 1 else []
    meta = {
        "schema": SCHEMA,
        "frame": asdict(frame),
        "group": group,
        "kinds": [asdict(KINDS[kind]) for kind in Kind],
        "states": [asdict(naming) for naming in OBJECT_STATES.values()],
        "caches": {at: asdict(row) for at, row in caches.items()},
        "moments": [
            {"label": each.label, "t_ms": round(each.t_ms, 3), "objects": at in with_objects}
            for at, each in enumerate(moments)
        ],
    }
    planes: dict[str, Array] = {
        name: np.stack([_cells(each, name, group) for each in moments]) for name in PLANES
    }
    planes["types"] = np.stack([each.types for each in moments])
    for name in planes:
        planes[name][1:] ^= planes[name][:-1].copy()
    counts = np.stack([_counted(each.planes.kind) for each in moments])
    zones = [slice(zone.start, zone.start + zone.pages) for zone in frame.zones]
    by_zone = np.stack([[_counted(each.planes.kind[zone]) for zone in zones] for each in moments])
    return {
        "meta": np.array(json.dumps(meta)),
        "counts": counts,
        "zone_counts": by_zone,
        **planes,
        **pack_objects([each.objects if at in with_objects else None for at, each in enumerate(moments)]),
    }


def _counted(kinds: Array) -> Array:
    """Count the pages of each kind."""
    return np.bincount(kinds, minlength=len(Kind)).astype(np.int64)


def _cells(moment: Moment, name: str, group: int) -> Array:
    """Return a plane, or of each group of pages the kind that most of them are."""
    plane: Array = getattr(moment.planes, name)
    if group == 1:
        return plane
    if name == "order":
        return plane[::group].copy()  # for the shade of free pages
    return thinned(plane, group) if name == "kind" else np.zeros(-(-len(plane) // group), plane.dtype)


def thinned(kinds: NDArray[np.uint8], group: int) -> NDArray[np.uint8]:
    """Return the most frequent kind of each so many pages or cells."""
    cells = -(-len(kinds) // group)
    cell = np.arange(len(kinds)) // group
    votes = np.bincount(cell * len(Kind) + kinds, minlength=cells * len(Kind)).reshape(cells, len(Kind))
    found: NDArray[np.uint8] = votes.argmax(axis=1).astype(np.uint8)
    return found


def _choose(moments: Sequence[Moment]) -> list[int]:
    """Choose the moments whose objects are kept: all, or the named ones and as many others as there is room for."""
    sizes = {at: len(each.objects.state) for at, each in enumerate(moments) if each.objects is not None}
    step = 1
    while True:
        kept = [at for at in sizes if moments[at].label or at % step == 0]
        if sum(sizes[at] for at in kept) <= MOST_OBJECTS or step > len(moments):
            return kept
        step *= 2


def pack_objects(found: Sequence[Objects | None]) -> dict[str, Array]:
    """Make the arrays of the objects of moments; None = without."""
    slabs = np.cumsum([0, *(0 if each is None else len(each.pfn) for each in found)])
    states = np.cumsum([0, *(0 if each is None else len(each.state) for each in found)])
    there = [each for each in found if each is not None]
    return {
        "slab_pfn": np.concatenate([np.zeros(0, np.uint32), *(each.pfn.astype(np.uint32) for each in there)]),
        "slab_objects": np.concatenate(
            [np.zeros(0, np.uint16), *(np.diff(each.first).astype(np.uint16) for each in there)]
        ),
        "slab_at": slabs.astype(np.int64),
        "states": pack_states(np.concatenate([np.zeros(0, np.uint8), *(each.state for each in there)])),
        "states_at": states.astype(np.int64),
    }


def pack_states(states: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put two states into a byte, the first into its low half."""
    even = np.append(states, np.uint8(0)) if len(states) % 2 else states
    packed: NDArray[np.uint8] = (even[::2] | even[1::2] << 4).astype(np.uint8)
    return packed


def unpack_states(packed: NDArray[np.uint8], begin: int, end: int) -> NDArray[np.uint8]:
    """Return the states from one to another."""
    part = packed[begin // 2 : (end + 1) // 2]
    both = np.stack((part & 15, part >> 4), axis=1).ravel()
    return both[begin % 2 : begin % 2 + end - begin]


class Recording:
    """A recorded map, read again.

    Args: arrays: of a file, or of `encode`.
    Attributes: meta.  counts: pages of each kind, (moments, kinds).  zone_counts: (moments, zones, kinds).
    Raises: ValueError, if they are none of this version.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.meta: dict[str, Any] = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
        if self.meta.get("schema") != SCHEMA:
            raise ValueError(f"no recorded map of this version; allowed is {SCHEMA}")
        self._arrays = arrays
        self.counts: Array = arrays["counts"]
        self.zone_counts: Array = arrays["zone_counts"]

    def __len__(self) -> int:
        """Moments."""
        return len(self.counts)

    def plane(self, name: str) -> Array:
        """Return a plane at all moments, (moments, cells), or `types`."""
        found: Array = np.bitwise_xor.accumulate(self._arrays[name], axis=0)
        return found

    def objects(self, moment: int) -> Objects | None:
        """Return the objects of a moment; None, if they were not recorded."""
        if not self.meta["moments"][moment]["objects"]:
            return None
        begin, end = (int(at) for at in self._arrays["slab_at"][moment : moment + 2])
        pfn = self._arrays["slab_pfn"][begin:end].astype(np.int64)
        first = np.concatenate(([0], np.cumsum(self._arrays["slab_objects"][begin:end].astype(np.int64))))
        span = (int(at) for at in self._arrays["states_at"][moment : moment + 2])
        return Objects(pfn, first, unpack_states(self._arrays["states"], *span))
