# SPDX-License-Identifier: MIT
"""How large slabs and slots are, from the rules."""

from __future__ import annotations

from dataclasses import dataclass, field

PAGE = 4096
WORD = 8
TRACK = 32
CACHE_LINE = 64
MAX_OBJECTS = 32767  # of a slab: fifteen bits of its counters


@dataclass(frozen=True)
class Rules:
    """What decides slab orders.

    Attributes: nr_cpus: possible.  slab_*: as on the kernel's command line; slab_min_objects 0 = by CPUs.
    """

    nr_cpus: int
    slab_min_order: int = 0
    slab_max_order: int = 3
    slab_min_objects: int = 0


@dataclass(frozen=True)
class Sizing:
    """A slab of a cache, and how many of them are kept where."""

    order: int
    objects: int
    cpu_partial_slabs: int
    min_partial: int


@dataclass(frozen=True)
class Wish:
    """What a cache is created with; flags are names."""

    object_size: int
    align: int = 0
    flags: frozenset[str] = field(default_factory=frozenset)
    ctor: bool = False


@dataclass(frozen=True)
class Layout:
    """A slot: its size, alignment, where the metadata and the free pointer are, what is left of the object."""

    size: int
    align: int
    inuse: int
    offset: int
    red_left_pad: int


def get_order(size: int) -> int:
    """Return the smallest order whose block holds so many bytes."""
    return next(order for order in range(64) if PAGE << order >= size)


def calculate_order(size: int, rules: Rules) -> int:
    """Choose the order of a slab of objects of one size."""
    objects = rules.slab_min_objects or 4 * (rules.nr_cpus.bit_length() + 1)
    objects = min(objects, max((PAGE << rules.slab_max_order) // size, 1))
    first = max(rules.slab_min_order, get_order(objects * size))
    if (PAGE << first) // size > MAX_OBJECTS:
        return get_order(size * MAX_OBJECTS) - 1
    for waste in (16, 8, 4, 2):
        for order in range(first, rules.slab_max_order + 1):
            if (PAGE << order) % size * waste <= PAGE << order:
                return order
    return get_order(size)


def calculate_sizing(size: int, rules: Rules, *, debug: bool = False) -> Sizing:
    """Size the slabs of a cache.

    Args: size: of a slot.  debug: whether it is a debug cache: CPUs keep no slabs of those.
    """
    order = calculate_order(size, rules)
    objects = (PAGE << order) // size
    kept = 0 if debug else next(n for low, n in ((PAGE, 6), (1024, 24), (256, 52), (0, 120)) if size >= low)
    min_partial = min(max((size.bit_length() - 1) // 2, 5), 10)
    return Sizing(order, objects, -(-2 * kept // objects), min_partial)


def calculate_layout(wish: Wish) -> Layout:
    """Lay out a slot."""
    flags, size = wish.flags, _up(wish.object_size, WORD)
    align = _up(max(wish.align, _line(wish) if "SLAB_HWCACHE_ALIGN" in flags else 0, WORD), WORD)
    kmalloc, red = "SLAB_KMALLOC" in flags, "SLAB_RED_ZONE" in flags
    tracked = "SLAB_STORE_USER" in flags
    if red and size == wish.object_size:
        size += WORD
    inuse, offset = size, wish.object_size // 2 // WORD * WORD
    outside = {"SLAB_TYPESAFE_BY_RCU", "SLAB_POISON"} & flags or wish.ctor
    if outside or (red and (wish.object_size < WORD or (tracked and kmalloc))):
        offset = size
        size += WORD
    size += 2 * TRACK * tracked + 4 * (tracked and kmalloc)
    pad = _up(WORD, align) if red else 0
    size += WORD * red + pad
    return Layout(_up(size, align), align, inuse, offset, pad)


def _line(wish: Wish) -> int:
    line = CACHE_LINE
    while wish.object_size <= line // 2:
        line //= 2
    return line


def _up(value: int, to: int) -> int:
    return -(-value // to) * to


KMALLOC_SIZES = (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)


def kmalloc_size(size: int) -> int:
    """Return the size class that serves a request of 1 to 8192 bytes."""
    return next(limit for limit in KMALLOC_SIZES if limit >= size)


def kmalloc_type(gfp_names: set[str]) -> str:
    """Return the prefix of the caches that serve a request."""
    for flag, prefix in (
        ("__GFP_DMA", "dma-kmalloc-"),
        ("__GFP_RECLAIMABLE", "kmalloc-rcl-"),
        ("__GFP_ACCOUNT", "kmalloc-cg-"),
    ):
        if flag in gfp_names:
            return prefix
    return "kmalloc-"


def kmalloc_name(prefix: str, size: int) -> str:
    """Name a kmalloc cache."""
    return f"{prefix}{size // 1024}k" if size >= 1024 else f"{prefix}{size}"
