# SPDX-License-Identifier: MIT
"""Handlers hooked at named places inside the allocator: the checked flavour's third way in.

    with Cpu(arena, 0) as cpu:
        program = probes.arm(cpu, "pcp_locked", ops(("alloc", {"size": 64})), action="nmi")
        cpu.kmalloc(64)
        assert probes.fired(cpu) == 1

The sites are those of `shmalloc.designs.probe_sites`. They belong to the process, not to an arena.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmalloc import designs
from shmalloc.errors import Unsupported
from shmalloc.program import Program

if TYPE_CHECKING:
    from shmalloc.cpu import Cpu
    from shmalloc.program import BufferLike

ACTIONS = ("probe", "nmi", "irq", "other_cpu")


def arm(
    cpu: Cpu,
    site: str,
    ops: BufferLike,
    *,
    action: str = "probe",
    nth: int = 1,
    design: str = "kmalloc_nolock",
    slots: int | BufferLike | None = None,
    other: Cpu | None = None,
) -> Program:
    """Run a program once, when a site is next passed.

    Args:
        cpu: one of this process.
        site: name of the site.
        ops: what to do, see `shmalloc.ops`.
        action: ``"probe"`` (a kprobe: in the context of what it interrupts), ``"nmi"``, ``"irq"`` (pending if
            masked) or ``"other_cpu"`` (as another CPU of this process).
        nth: at which passage from now on; 1 = the next.
        design: that serves the ops.
        slots: private slots: how many, or a writable buffer of 64-bit words; None = those the ops name.
        other: the CPU that does it, for ``"other_cpu"``.

    Returns:
        The program; its slots hold what it has allocated and not freed, see `Cpu.drain`.

    Raises:
        Unsupported: the release flavour has no sites.
        ValueError: no such site or action.
    """
    if action not in ACTIONS:
        raise ValueError(f"action = {action!r}: allowed are {', '.join(ACTIONS)}")
    if (action == "other_cpu") != (other is not None):
        raise ValueError(f"other = {other!r}: allowed is a Cpu with action = 'other_cpu', and None otherwise")
    lib, core = cpu.arena.core.lib, cpu.arena.core
    program = Program(core, ops, design=design, slots=slots)
    program.check(cpu.arena)
    number = cpu.number if other is None else other.number
    code = getattr(lib, f"PROBE_{action.upper()}")
    _refuse_release(cpu)
    cpu.run(lib.shm_probe_arm, _site(site), code, nth, program.c, number)
    cpu.arena.bindings.probes[site] = program
    return program


def disarm(cpu: Cpu) -> None:
    """Disarm all sites, and count their passages from 0 again."""
    _refuse_release(cpu)
    cpu.run(cpu.arena.core.lib.shm_probe_disarm)
    cpu.arena.bindings.probes.clear()


def hits(cpu: Cpu, site: str) -> int:
    """Return how often a site was passed while any was armed, since the last `disarm`."""
    return int(cpu.arena.core.lib.shm_probe_hits(_site(site)))


def fired(cpu: Cpu) -> int:
    """Return how many programs have run at sites since the last `disarm`."""
    return int(cpu.arena.core.lib.shm_probe_fired())


def _site(name: str) -> int:
    sites = designs.probe_sites()
    if name not in sites:
        raise ValueError(f"site = {name!r}: allowed are {', '.join(sites)}")
    return sites.index(name)


def _refuse_release(cpu: Cpu) -> None:
    if cpu.arena.flavour != "checked":
        raise Unsupported(f"flavour = {cpu.arena.flavour!r}: probe sites are in the checked flavour only")
