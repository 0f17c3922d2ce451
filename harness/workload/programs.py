# SPDX-License-Identifier: MIT
"""Programs for handlers: what an NMI or IRQ does when it comes, as a small op array of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.workload.maps import make_map_ops
from harness.workload.mix import random_lifetimes
from harness.workload.model import Program, Workload
from harness.workload.ops import OpArray, code_of, make_ops
from harness.workload.program_spec import (
    AbaProgram,
    AllocFreeProgram,
    AllocProgram,
    AnyProgram,
    BurstProgram,
    FreeProgram,
    MapProgram,
    MixProgram,
    PagesProgram,
    ProgramBase,
    SameProgram,
)
from harness.workload.sizes import draw_sizes
from harness.workload.strict import WorkloadError
from shmalloc import gfp as gfp_flags

__all__ = ["make_program"]

#: A program goes round after about so many objects, where their sizes or slots vary.
_VARIETY = 251
#: A `mix` runs so many ops per interrupt: no divisor of its length, so that it shifts against the task.
_MIX_STEP = 3
#: Share of a mix's ops that go to the slots shared with the task, if there are any.
_SHARED_SHARE = 0.5


@dataclass(frozen=True)
class _Shared:
    """The slots that a CPU's task and handlers share."""

    base: int
    slots: int


def make_program(spec: AnyProgram, cpu: int, workload: Workload, rng: np.random.Generator) -> Program:
    """Make the program of one CPU.

    Args: spec: of the program.  cpu: whose handler runs it.  workload: of the run.  rng: of this CPU.
    Raises: WorkloadError, if the program needs shared slots and the workload has none.
    """
    shared = _Shared(workload.handler_base[cpu], workload.handler_slots)
    if isinstance(spec, AllocProgram | FreeProgram) and not shared.slots:
        raise WorkloadError(
            f'program of kind "{spec.kind}" needs workload.shared_with_handlers of at least 1, which is 0'
        )
    if isinstance(spec, MapProgram):
        return _map(spec, workload, rng)
    make: Callable[[Any, _Shared, np.random.Generator], Program] = _MAKERS[type(spec)]
    program = make(spec, shared, rng)
    step = spec.per_interrupt or program.per_interrupt
    return Program(program.ops, program.private_slots, step if step < program.ops.size else 0)


def _sizes(size: int | str, count: int, rng: np.random.Generator) -> npt.NDArray[np.uint32]:
    """Draw sizes that every design can serve from a kmalloc cache, or repeat the given one."""
    if size == "kernel":
        return draw_sizes(rng, count)
    return np.full(count, size, dtype=np.uint32)


def _fill_allocs(ops: OpArray, where: Any, spec: ProgramBase) -> None:
    ops["gfp"][where] = gfp_flags.parse(spec.gfp)
    ops["node"][where] = spec.node


def _alloc_free(spec: AllocFreeProgram, shared: _Shared, rng: np.random.Generator) -> Program:
    objects = _VARIETY if spec.size == "kernel" else 1
    ops = make_ops(2 * objects, "OP_FREE")
    ops["code"][::2] = code_of("OP_ALLOC")
    ops["size"][::2] = _sizes(spec.size, objects, rng)
    _fill_allocs(ops, slice(0, None, 2), spec)
    return Program(ops, private_slots=1, per_interrupt=2)


def _alloc(spec: AllocProgram, shared: _Shared, rng: np.random.Generator) -> Program:
    ops = make_ops(shared.slots, "OP_ALLOC", flags=code_of("OPF_SHARED") | code_of("OPF_NOFREE"))
    ops["slot"] = shared.base + rng.permutation(shared.slots)
    ops["size"] = _sizes(spec.size, shared.slots, rng)
    _fill_allocs(ops, slice(None), spec)
    return Program(ops, private_slots=0, per_interrupt=spec.count)


def _free(spec: FreeProgram, shared: _Shared, rng: np.random.Generator) -> Program:
    ops = make_ops(shared.slots, "OP_FREE", flags=code_of("OPF_SHARED"))
    ops["slot"] = shared.base + rng.permutation(shared.slots)
    return Program(ops, private_slots=0, per_interrupt=spec.count)


def _same(spec: SameProgram, shared: _Shared, rng: np.random.Generator) -> Program:
    ops = make_ops(2, "OP_FREE")
    ops["code"][0] = code_of("OP_ALLOC")
    ops["flags"][0] = code_of("OPF_SAME")
    ops["size"][0] = 256  # if what was interrupted has no size
    _fill_allocs(ops, 0, spec)
    return Program(ops, private_slots=1, per_interrupt=0)


def _aba(spec: AbaProgram, shared: _Shared, rng: np.random.Generator) -> Program:
    """Slot 0 is freed at once; slots 1.. fill up by one an interrupt, and are then emptied by three."""
    ops = make_ops(4 * spec.count, "OP_FREE")
    taking = ops[: 3 * spec.count].reshape(spec.count, 3)
    taking["slot"][:, 1] = np.arange(1, spec.count + 1)
    for which in (0, 1):
        taking["code"][:, which] = code_of("OP_ALLOC")
        taking["flags"][:, which] = code_of("OPF_SAME")
        taking["size"][:, which] = 256  # if what was interrupted has no size
        _fill_allocs(taking, (slice(None), which), spec)
    ops["slot"][3 * spec.count :] = np.arange(1, spec.count + 1)
    return Program(ops, private_slots=spec.count + 1, per_interrupt=3)


def _pages(spec: PagesProgram, shared: _Shared, rng: np.random.Generator) -> Program:
    ops = make_ops(2, "OP_FREE")
    ops["code"][0] = code_of("OP_PAGES_ALLOC")
    ops["order"][0] = spec.order
    _fill_allocs(ops, 0, spec)
    return Program(ops, private_slots=1, per_interrupt=0)


def _burst(spec: BurstProgram, shared: _Shared, rng: np.random.Generator) -> Program:
    ops = make_ops(2 * spec.count, "OP_FREE", slot=np.tile(np.arange(spec.count), 2))
    ops["code"][: spec.count] = code_of("OP_ALLOC")
    ops["size"][: spec.count] = _sizes(spec.size, spec.count, rng)
    _fill_allocs(ops, slice(0, spec.count), spec)
    return Program(ops, private_slots=spec.count, per_interrupt=0)


def _map(spec: MapProgram, workload: Workload, rng: np.random.Generator) -> Program:
    if not workload.maps:
        raise WorkloadError('program of kind "map" needs a workload of kind "map"')
    ops = make_map_ops(workload.maps[0], 8 * _VARIETY, (spec.update, spec.delete), rng)
    return Program(ops, private_slots=0, per_interrupt=spec.per_interrupt or _MIX_STEP)


def _mix(spec: MixProgram, shared: _Shared, rng: np.random.Generator) -> Program:
    length = 8 * _VARIETY
    slot, is_alloc, _ = random_lifetimes(rng, length, spec.slots, skew=1.0)
    ops = make_ops(length, np.where(is_alloc, code_of("OP_ALLOC"), code_of("OP_FREE")), slot=slot)
    allocs = np.flatnonzero(is_alloc)
    ops["size"][allocs] = _sizes(spec.size, allocs.size, rng)
    ops["code"][allocs[rng.random(allocs.size) < spec.pages_share]] = code_of("OP_PAGES_ALLOC")
    _fill_allocs(ops, allocs, spec)
    if shared.slots:
        to_task = rng.random(length) < _SHARED_SHARE
        ops["slot"][to_task] = shared.base + rng.integers(0, shared.slots, size=int(to_task.sum()))
        ops["flags"][to_task] |= code_of("OPF_SHARED")
    return Program(ops, private_slots=spec.slots, per_interrupt=_MIX_STEP)


_MAKERS: dict[type, Callable[..., Program]] = {
    AllocFreeProgram: _alloc_free,
    AllocProgram: _alloc,
    FreeProgram: _free,
    SameProgram: _same,
    AbaProgram: _aba,
    PagesProgram: _pages,
    BurstProgram: _burst,
    MixProgram: _mix,
}
