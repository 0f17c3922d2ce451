# SPDX-License-Identifier: MIT
"""Workloads: op arrays for the CPUs of a run and programs for its handlers, from a spec and a seed.

The same spec, seed and number of CPUs give the same arrays, always. Imports numpy: not for CPU processes.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.workload.decorate import decorate, share_remotely
from harness.workload.generate import generate
from harness.workload.maps import workload_maps
from harness.workload.mix import mix_caches
from harness.workload.model import CacheSpec, Notes, Part, Place, Program, Workload
from harness.workload.nodes import Nodes, name_nodes, node_problems
from harness.workload.program_spec import AnyProgram
from harness.workload.programs import make_program
from harness.workload.spec import (
    AnyWorkload,
    GeneratedSpec,
    LocalSpec,
    MapSpec,
    MixSpec,
    ProducerConsumerSpec,
    ProgramSpec,
    TraceSpec,
    WorkloadError,
    WorkloadSpec,
    parse_program,
    parse_workload,
    sharing_problems,
)
from harness.workload.trace import TraceWorkload, generate_trace

__all__ = [
    "CacheSpec",
    "Nodes",
    "Program",
    "ProgramSpec",
    "Workload",
    "WorkloadError",
    "WorkloadSpec",
    "build",
    "build_program",
    "parse_program",
    "parse_workload",
    "sharing_problems",
]

#: Streams of random numbers, so that a CPU's array does not depend on how many CPUs there are.
_STREAM_BARE, _STREAM_REMOTE, _STREAM_DECORATE, _STREAM_PROGRAM, _STREAM_NODES = range(5)


def _rng(seed: int, stream: int, cpu: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, stream, cpu]))


def build(
    spec: AnyWorkload, *, cpus: int, seed: int, base_dir: Path, nodes: int | Nodes | None = None
) -> Workload:
    """Make the op arrays of a run.

    Args: spec: config table `workload`.  cpus: processes of the run.  seed: not negative.  base_dir: folder
        that the file names in the spec are relative to.  nodes: of the arena, if known, or just how many: a
        recorded trace's nodes are mapped onto them by modulo.
    Returns: a Workload with one array per CPU.
    Raises: WorkloadError, if it cannot be made: too few CPUs or nodes, or an unusable trace.
    """
    number = len(nodes.distance) if isinstance(nodes, Nodes) else nodes
    _check(spec, cpus, number)
    trace = generate_trace(spec, cpus, base_dir) if isinstance(spec, TraceSpec) else None
    places = _places(spec, cpus, trace.shared_slots if trace else 0)
    parts = []
    for place in places:
        part = trace.parts[place.cpu] if trace else _bare(spec, place, seed)
        if isinstance(spec, GeneratedSpec):
            known = nodes if isinstance(nodes, Nodes) else None
            part = name_nodes(part, spec, place, known, _rng(seed, _STREAM_NODES, place.cpu))
        part = decorate(part, spec, place, _rng(seed, _STREAM_DECORATE, place.cpu))
        parts.append(_fit_nodes(part, number))
    return Workload(
        ops=tuple(part.ops for part in parts),
        private_slots=tuple(part.private_slots for part in parts),
        shared_slots=_shared_slots(spec, cpus, trace),
        caches=trace.caches if trace else mix_caches(spec) if isinstance(spec, MixSpec) else (),
        handler_slots=spec.shared_with_handlers,
        handler_base=tuple(place.handler_base for place in places),
        notes=_notes(spec, parts, trace),
        maps=workload_maps(spec) if isinstance(spec, MapSpec) else (),
    )


def build_program(spec: AnyProgram, *, seed: int, cpu: int, workload: Workload) -> Program:
    """Make the program of one CPU's handler.

    Args: spec: `interrupts.{nmi,irq}.program`.  seed: of the run; give each interrupt kind its own.  cpu:
        number of the CPU.  workload: of the run, for the slots that its tasks share with handlers.
    Raises: WorkloadError, if the program needs shared slots and the workload has none.
    """
    return make_program(spec, cpu, workload, _rng(seed, _STREAM_PROGRAM, cpu))


def _check(spec: AnyWorkload, cpus: int, nodes: int | None) -> None:
    if cpus < 1:
        raise WorkloadError(f"cpus = {cpus}: a workload needs at least 1")
    if not isinstance(spec, GeneratedSpec):
        return
    if isinstance(spec, ProducerConsumerSpec) and cpus < 2:
        raise WorkloadError(f'workload.kind = "producer_consumer" with cpus = {cpus}: it needs at least 2')
    if isinstance(spec, LocalSpec) and spec.remote and cpus < 2:
        raise WorkloadError(f"workload.remote = {spec.remote} with cpus = {cpus}: it needs at least 2")
    if problems := node_problems(spec, nodes):
        raise WorkloadError("; ".join(problems))


def _own_slots(spec: AnyWorkload) -> int:
    """Shared slots per CPU for objects that the next CPU frees."""
    if isinstance(spec, ProducerConsumerSpec):
        return spec.slots
    return spec.remote_slots if isinstance(spec, LocalSpec) and spec.remote else 0


def _places(spec: AnyWorkload, cpus: int, trace_slots: int) -> list[Place]:
    """Lay out the shared slots: those of the trace, then each CPU's, those for its handlers last."""
    own = _own_slots(spec)
    stride = own + spec.shared_with_handlers
    bases = [trace_slots + cpu * stride for cpu in range(cpus)]
    return [
        Place(cpu, cpus, base, previous_base=bases[cpu - 1], handler_base=base + own)
        for cpu, base in enumerate(bases)
    ]


def _shared_slots(spec: AnyWorkload, cpus: int, trace: TraceWorkload | None) -> int:
    return (trace.shared_slots if trace else 0) + cpus * (_own_slots(spec) + spec.shared_with_handlers)


def _bare(spec: AnyWorkload, place: Place, seed: int) -> Part:
    part = generate(spec, place, _rng(seed, _STREAM_BARE, place.cpu))
    if isinstance(spec, LocalSpec):
        part = share_remotely(part, spec, place, _rng(seed, _STREAM_REMOTE, place.cpu))
    return part


def _fit_nodes(part: Part, nodes: int | None) -> Part:
    """Map recorded nodes that the arena does not have."""
    foreign = part.ops["node"] >= (128 if nodes is None else nodes)
    if not foreign.any() or nodes is None:
        return part
    ops = part.ops.copy()
    ops["node"][foreign] %= nodes
    return replace(part, ops=ops, notes={**part.notes, "remapped_nodes": int(foreign.sum())})


def _notes(spec: AnyWorkload, parts: list[Part], trace: TraceWorkload | None) -> Notes:
    """Sum the parts' notes."""
    notes: Notes = {"kind": spec.kind, "array_ops": sum(part.ops.size for part in parts)}
    for part in parts:
        for key, value in part.notes.items():
            total = notes.get(key, 0)
            notes[key] = total + value if isinstance(total, int) and isinstance(value, int) else value
    return notes | (trace.notes if trace else {})
