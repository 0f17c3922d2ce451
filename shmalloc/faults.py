# SPDX-License-Identifier: MIT
"""Fault injection: when slab and page requests are made to fail.

The attributes are those that debugfs has for failslab and fail_page_alloc.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from shmalloc.errors import ShmallocError

if TYPE_CHECKING:
    from shmalloc.arena import Arena

BOOT_FORM = '"<interval>,<probability>,<space>,<times>", such as "1,10,0,-1"'
_KINDS = {"slab": "FAULT_SLAB", "pages": "FAULT_PAGES"}
_UINT, _INT = (1 << 32) - 1, (1 << 31) - 1
_RANGES = {
    "probability": (0, 100),
    "interval": (1, _UINT),
    "times": (-1, _INT),
    "space": (0, _INT),
    "min_order": (0, 10),
}


@dataclass(frozen=True)
class FaultAttr:
    """When a request is made to fail.

    Attributes:
        probability: in percent.
        interval: only every n-th request that comes so far.
        times: failures until it ends; -1 = no limit.
        space: bytes (slab) or pages that pass first.
        task_filter: only tasks that `Cpu.make_it_fail` marks.
        ignore_gfp_wait: leave requests that may block alone.
        ignore_gfp_highmem: pages: and those that may be highmem.
        min_order: pages: leave smaller ones alone.
        cache_filter: slab: only caches that are marked.
    """

    probability: int = 0
    interval: int = 1
    times: int = 1
    space: int = 0
    task_filter: bool = False
    ignore_gfp_wait: bool = True
    ignore_gfp_highmem: bool = True
    min_order: int = 1
    cache_filter: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"{name} = {value!r}: allowed is an integer from {low} to {high}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what the kernel takes at boot.

        Raises:
            ValueError: showing the accepted form.
        """
        parts = text.split(",")
        try:
            interval, probability, space, times = (int(part) for part in parts)
        except ValueError:
            raise ValueError(f"{text!r}: allowed is {BOOT_FORM}") from None
        try:
            return cls(probability, interval, times, space)
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}; the form is {BOOT_FORM}") from None


def names() -> tuple[str, ...]:
    """Return the names of the attributes."""
    return tuple(field.name for field in fields(FaultAttr))


def set_fault(arena: Arena, kind: str, attr: FaultAttr | str | None) -> None:
    """Configure faults of one kind, "slab" or "pages"; see `Arena.failslab`."""
    if isinstance(attr, str):
        attr = FaultAttr.parse(attr)
    arena.activate()
    core = arena.core
    values: dict[str, Any] = asdict(attr or FaultAttr())
    made = core.ffi.new("struct fault_attr *", {name: int(value) for name, value in values.items()})
    result = core.lib.shm_fault_set(getattr(core.lib, _KINDS[kind]), made)
    if result:
        raise ShmallocError(f"faults of {kind}: {os.strerror(-result)}")
