# SPDX-License-Identifier: MIT
"""The allocators in plain Python, written from the kernel's rules and not from the core: what the core is held to.

Nothing here looks into an arena, except `page_state` and `slab_state`, which read what the core has made of
it into the same plain values, so that a test is ``assert state_of(arena) == state_of(model)``.
"""
