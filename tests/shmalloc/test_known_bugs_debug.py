# SPDX-License-Identifier: MIT
"""Bugs that slab debugging, hardening and keyed patterns are there to find; see also test_broken.py."""

from __future__ import annotations

from contextlib import suppress

import pytest
from controls import Control, assert_caught, assert_silent, name_of
from rig import A_BYTES, Rig
from windows import cpu_slab, debug_partial

from shmalloc import ShmallocError, ops

FZPU = {"slab_debug": "FZPU"}


def two_deferred_frees(rig: Rig) -> None:
    """With irqs off both wait; the link of one of them is the address of the other's free pointer."""
    state = debug_partial(rig)
    assert rig.lib.shm_irq_save() == 0
    for offset in state.elsewhere[:2]:
        rig.free(offset, "kfree_nolock")
    rig.irqs_on()


def deferred_free_of_a_debug_cache(rig: Rig) -> None:
    rig.free(debug_partial(rig).elsewhere[0], "kfree_nolock")


def deferred_free(rig: Rig) -> None:
    rig.free(cpu_slab(rig).elsewhere[0], "kfree_nolock")


def freed_and_taken_again(rig: Rig) -> None:
    first, second = rig.take(2)
    rig.free(first)
    rig.free(second)
    rig.take(2)


def zeroed_and_freed(rig: Rig) -> None:
    offset = rig.cpu.kmalloc(100, "GFP_KERNEL|__GFP_ZERO")
    rig.cpu.kfree(offset)


def zeroed_neighbour(rig: Rig) -> None:
    """Three objects in a row; the middle one goes and comes back zeroed while its neighbours carry patterns."""
    alloc = ("alloc", {"size": A_BYTES, "gfp": "GFP_KERNEL"})
    lines = [(alloc[0], {**alloc[1], "slot": slot}) for slot in range(3)]
    lines += [("free", {"slot": 1}), ("alloc", {"size": A_BYTES, "gfp": "GFP_KERNEL|__GFP_ZERO", "slot": 1})]
    lines += [("free", {"slot": slot}) for slot in range(3)]
    rig.cpu.replay(ops(*lines), design="kmalloc", pattern=True)


def cache_destroyed_under_a_deferred_free(rig: Rig) -> None:
    cache = rig.cpu.kmem_cache_create("short-lived", 64)
    per_slab = cache.info().objects
    taken = [cache.alloc() for _ in range(per_slab + 1)]
    assert rig.lib.shm_irq_save() == 0
    for offset in taken:
        cache.free_nolock(offset)
    with suppress(ShmallocError):  # the broken core says that a slab leaked
        cache.destroy()
    rig.irqs_on()


CONTROLS = (
    Control("k10", "slab", "corruption", two_deferred_frees, "freepointer corrupt", FZPU),
    Control("double_free", "slab", "corruption", deferred_free_of_a_debug_cache, "object already free", FZPU),
    Control(
        "double_free", "hardening", "corruption", deferred_free, "first of its", {"freelist_hardened": True}
    ),
    Control(
        "write_after_free", "poison", "corruption", freed_and_taken_again, "byte 0 is 0x0, not 0x6b", FZPU
    ),
    Control("zero_overrun", "red_zone", "corruption", zeroed_and_freed, "byte 100 is 0x0, not 0xcc", FZPU),
    Control("zero_overrun", "pattern", "corruption", zeroed_neighbour, "written to by somebody else"),
    Control(
        "no_free_barrier",
        "api",
        "broken_rule",
        cache_destroyed_under_a_deferred_free,
        "destroyed while it had objects",
    ),
)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_broken_variant_is_caught(control: Control) -> None:
    assert_caught(control)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_correct_core_is_silent(control: Control) -> None:
    assert_silent(control)
