# SPDX-License-Identifier: MIT
"""A storm: a replay under timers of both kinds, whose handlers allocate and free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmalloc import ops

if TYPE_CHECKING:
    from rig import Rig

    from shmalloc.program import Line

SLOTS, OPS = 101, 1009
SIZES = (8, 64, 96, 1024, 2048, 8192, 192, 4096)
MOST_ROUNDS = 997  # of 20 ms: something is wrong if nothing has landed by then

HANDLER: list[Line] = [
    ("alloc", {"size": 64, "slot": 0, "flags": "same"}),
    ("alloc", {"size": 1024, "slot": 1, "flags": "shared"}),
    ("free", {"slot": 0}),
    ("pages_alloc", {"slot": 1}),
    ("free", {"slot": 2, "flags": "shared"}),
    ("free", {"slot": 1}),
    ("alloc", {"size": 96, "slot": 2, "flags": "shared"}),
]


def task_ops() -> list[Line]:
    """Allocations and frees of all sizes, each slot in its turn; and some of the shared slots."""
    lines: list[Line] = [
        ("alloc", {"size": SIZES[at * 7 % len(SIZES)], "slot": at * 5 % SLOTS, "gfp": "GFP_KERNEL"})
        if at % 3
        else ("free", {"slot": at * 11 % SLOTS})
        for at in range(OPS)
    ]
    return [
        *lines,
        ("free", {"slot": 1, "flags": "shared"}),
        ("alloc", {"slot": 2, "flags": "shared", "size": 64}),
    ]


def storm(rig: Rig, design: str, *, rounds: int = 1, rate_hz: float = 9000.0) -> dict[str, dict[str, int]]:
    """Go on until interrupts have landed in every kind of place, and for so many rounds at least.

    Returns: the interrupt counters, see Cpu.interrupts.
    """
    cpu, array, slots = rig.cpu, ops(*task_ops()), bytearray(8 * SLOTS)
    for kind, share, of in (("nmi", 3, "kmalloc_nolock"), ("irq", 2, design)):
        program = cpu.set_program(kind, ops(*HANDLER), per_interrupt=share, design=of)
        assert program is not None
        rig.programs.append(program)
        cpu.set_timer(kind, rate_hz, 0.5)
    for done in range(MOST_ROUNDS):
        result = cpu.replay(array, design=design, slots=slots, max_ops=20011, sample=61, pattern=True)
        landed = cpu.interrupts()
        everywhere = all(landed[kind][where] for kind in landed for where in ("in_allocator", "in_slow_path"))
        if everywhere and done >= rounds:
            break
    rig.programs.append(result.held)
    for kind in ("nmi", "irq"):
        cpu.set_timer(kind, 0)
        cpu.set_program(kind, None)
    return cpu.interrupts()
