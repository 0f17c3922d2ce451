# SPDX-License-Identifier: MIT
"""Sizes that a kernel asks for.

The tables are counts of requested sizes in two recordings of Linux 6.18 (a git gc and log, and a run of a C
compiler), each scaled to the same weight, per 10,000 requests; sizes below 5 in 10,000 are left out. Requests
to kmalloc and to kmem_caches are apart, because they differ: paths and small structures there, fixed objects
here.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["CACHE_SIZES", "KMALLOC_SIZES", "LARGE_SIZES", "draw_sizes"]

KMALLOC_SIZES: dict[int, int] = {
    10: 5, 11: 209, 28: 105, 32: 23, 48: 433, 50: 545, 51: 549, 52: 40, 53: 190, 54: 234, 55: 293, 56: 444,
    57: 468, 58: 476, 59: 385, 60: 331, 61: 312, 62: 215, 63: 128, 64: 882, 65: 59, 66: 91, 67: 40, 68: 33,
    69: 53, 70: 65, 71: 118, 72: 192, 73: 110, 74: 105, 75: 66, 76: 80, 77: 38, 78: 31, 79: 17, 80: 31,
    81: 16, 82: 31, 83: 31, 84: 8, 85: 42, 86: 41, 87: 1418, 88: 74, 89: 39, 90: 21, 91: 20, 92: 27, 93: 24,
    94: 12, 96: 154, 97: 8, 98: 12, 99: 12, 108: 8, 112: 7, 176: 65, 288: 30, 408: 105, 504: 105, 640: 65,
    728: 58, 784: 47, 2048: 105, 4096: 5,
}  # fmt: skip

CACHE_SIZES: dict[int, int] = {
    24: 1200, 32: 13, 40: 16, 64: 444, 96: 161, 104: 335, 184: 1290, 192: 1281, 256: 1834, 576: 9, 704: 6,
    1120: 7, 1152: 6, 1568: 10, 2080: 6, 4096: 3362, 4240: 6,
}  # fmt: skip

#: kmalloc beyond the largest cache: served by whole pages. Neither recording holds one; a choice of ours.
LARGE_SIZES: dict[int, int] = {9000: 4, 12288: 2, 16384: 3, 32768: 1}

#: share of slab requests that went to kmalloc in the recordings, the rest to kmem_caches
_KMALLOC_SHARE = 0.075

Which = Literal["slab", "kmalloc", "cache", "large"]


def draw_sizes(rng: np.random.Generator, count: int, which: Which = "slab") -> npt.NDArray[np.uint32]:
    """Draw requested sizes in bytes.

    Args: rng: source of randomness.  count: how many.  which: "kmalloc", "cache", "slab" (both, in the
        recorded proportion) or "large".
    Returns: shape (count,), dtype uint32.
    """
    if which == "slab":
        sizes = draw_sizes(rng, count, "cache")
        small = rng.random(count) < _KMALLOC_SHARE
        sizes[small] = draw_sizes(rng, int(small.sum()), "kmalloc")
        return sizes
    table = {"kmalloc": KMALLOC_SIZES, "cache": CACHE_SIZES, "large": LARGE_SIZES}[which]
    values = np.fromiter(table.keys(), dtype=np.uint32, count=len(table))
    weights = np.fromiter(table.values(), dtype=np.float64, count=len(table))
    return rng.choice(values, size=count, p=weights / weights.sum())
