# SPDX-License-Identifier: MIT
"""The engine `stress`: real processes, real signals, statistics.  It runs one cell."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import membind, numa, topology, verdicts
from harness.arena_map.recorder import Recorder
from harness.checks import geometry
from harness.config import Cell, Config
from harness.cpu_process import DRAINED, READY, REPLAYED, TORN_DOWN
from harness.expect import expected_verdict, must_happen
from harness.interruption import Interruption
from harness.memcgs import accounted, place
from harness.memory import Sample, Sampler
from harness.opsfile import OpsFile, relocate
from harness.problems import ConfigError, Problem
from harness.progress import Advance
from harness.results import Snapshot, blank_cell, measure
from harness.supervisor import Crew, Ended
from harness.topology import Placement, RealNode
from harness.traced import Traced
from harness.vocabulary import KINDS, OK, VACUOUS, Vocabulary
from harness.windows import Look, Windows, span_json
from harness.workload import Nodes, Program, Workload, WorkloadError, build, build_program

if TYPE_CHECKING:
    from shmalloc.arena import Arena
    from shmalloc.audit import AuditReport

OnSample = Callable[[Sample | Advance], None]
Pieces = dict[str, list[Any]]  # what engines collect of a run's cells for its documents


@dataclass(frozen=True)
class Job:
    """A cell and what it is run with.

    Attributes: cell.  base_dir: folder of the config.  vocabulary.  interruption: to be looked at.
        on_sample: is told how it goes.  real_nodes: of this machine.  pieces: where engines put what goes
        into documents of the whole run; "arrays" is a list of (NAME, arrays), left as arrays/NAME.npz.
        number: of the cell in its run, from 0.
    """

    cell: Cell
    base_dir: Path
    vocabulary: Vocabulary
    interruption: Interruption
    on_sample: OnSample = field(default=lambda _sample: None)
    real_nodes: Sequence[RealNode] = field(default_factory=topology.read)
    pieces: Pieces = field(default_factory=dict)
    number: int = 0

    @property
    def config(self) -> Config:
        """The cell's config."""
        return self.cell.config


@dataclass(frozen=True)
class Plan:
    """What the CPUs will do. Attributes: workload.  programs: kind -> one program per CPU."""

    workload: Workload
    programs: Mapping[str, tuple[Program, ...]]


@dataclass
class Findings:
    """What came of a run, piece by piece.

    Attributes: violations: of parent and audits.  snapshot: counts at the end of the replay.  audits: by
        when.  reports: of the CPUs.  sampler.  windows, start: JSON.  started: when, by the calendar's clock.
        nodes: of the arena, at the end of the replay.  placement: of its nodes on real ones.  recorder: of the
        arena map.  traced: its events.
    """

    violations: list[dict[str, Any]] = field(default_factory=list)
    snapshot: Snapshot | None = None
    audits: dict[str, AuditReport] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)
    sampler: Sampler | None = None
    windows: list[dict[str, Any]] = field(default_factory=list)
    start: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    nodes: numa.Look | None = None
    placement: Placement | None = None
    recorder: Recorder | None = None
    traced: Traced | None = None
    live_bytes: int = 0


def plan(config: Config, base_dir: Path) -> Plan:
    """Build the ops of all CPUs and handlers.

    Raises: ConfigError, if the workload cannot be built.
    """
    try:
        workload = build(
            config.workload, cpus=config.cpus, seed=config.seed, base_dir=base_dir, nodes=_nodes(config)
        )
        programs = {
            kind: tuple(
                build_program(
                    config.interrupt(kind).program, seed=config.seed + at, cpu=cpu, workload=workload
                )
                for cpu in range(config.cpus)
            )
            for at, kind in enumerate(KINDS)
            if config.source(kind) != "none"
        }
    except WorkloadError as error:
        raise ConfigError(config.name, [Problem("workload", None, str(error))]) from None
    return Plan(workload, programs)


def _nodes(config: Config) -> Nodes:
    """Return the arena's nodes, defaults filled in."""
    shape = geometry(config)
    return Nodes(shape.distances(), shape.nodes_of_cpus())


def run_cell(job: Job) -> tuple[dict[str, Any], list[Sample]]:
    """Run one cell from nothing to nothing: no process and no segment is left, whatever happens.

    Returns: the cell's JSON, and the samples.
    Raises: ConfigError, NoRoom, GeometryError: before anything has run.  Interrupted.
    """
    from shmalloc.arena import Arena

    config = job.config
    todo = plan(config, job.base_dir)
    shape = geometry(config, todo.workload.shared_slots, len(todo.workload.caches))
    found = Findings()
    with ExitStack() as stack:
        placement = topology.place(config, shape.nodes_of_cpus(), job.real_nodes, topology.allowed_cores())
        # a policy is for memory that is taken after it was set
        reserve = "sparse" if placement.is_bound else config.arena.reserve
        arena = stack.enter_context(
            Arena.create(shape, reserve=reserve, flavour=config.flavour, broken=config.broken)
        )
        found.placement = placement = membind.bind(arena, placement)
        if reserve != config.arena.reserve:
            arena.reserve()
        arena.activate()
        arena.header.lock_rules = int(config.has_lock_rules)
        arena.slab_errors.stop = config.arena.slab_errors == "stop"
        file = stack.enter_context(OpsFile())
        crew = stack.enter_context(Crew(arena, config.deadline_s, job.interruption))
        try:
            _start(crew, job, todo, arena, file, placement.cores)
            _live_through(crew, job, arena, found)
        except Ended as ended:
            crew.stop()
            if found.sampler is not None and found.snapshot is None:
                found.sampler.last()
            if found.recorder is not None:
                found.recorder.mark("end", at_rest=True)
            if found.traced is not None:
                found.traced.end()
            if ended.incident is not None:
                found.violations.append(verdicts.of_incident(ended.incident))
        found.violations[:0] = verdicts.of_core(arena)
        if found.snapshot is None:
            found.snapshot = Snapshot.of(arena)
        ops = int(arena.region("cpus")["ops_done"].sum())
        result = _result(job, todo, found, arena.size_bytes, ops)
        samples = found.sampler.samples if found.sampler else []
        if found.recorder is not None:
            result["map"] = found.recorder.leave(job.pieces, job.number)
        if found.traced is not None:
            result["trace"] = found.traced.leave(job.pieces, job.number)
        found.sampler = found.recorder = found.traced = None  # they look into the arena
    return result, samples


def _start(
    crew: Crew, job: Job, todo: Plan, arena: Arena, file: OpsFile, cores: Sequence[int | None]
) -> None:
    """Start all processes. Args: cores: of each CPU."""
    config = job.config
    for spec in _specs(job, todo, arena, file):
        crew.start_cpu(spec["cpu"], spec, (file.fd,), cores[spec["cpu"]])
        job.interruption.check()
    for at, kind in enumerate(KINDS):
        if config.source(kind) == "injector":
            spec = {
                "flavour": config.flavour,
                "cpus": config.cpus,
                "kind": kind,
                "rate_hz": config.interrupt(kind).rate_hz,
                "seed": config.seed + at,
            }
            crew.start_injector(kind, spec)


def _specs(job: Job, todo: Plan, arena: Arena, file: OpsFile) -> list[dict[str, Any]]:
    """Say to each CPU what it has to do."""
    config, workload, lib = job.config, todo.workload, arena.core.lib
    names = list(job.vocabulary.designs)
    first_cache = _first_cache(config, workload, arena)
    of_a_cache = (lib.OP_CACHE_ALLOC, lib.OP_SHRINK, lib.OP_BULK_ALLOC, lib.OP_BULK_FREE)
    codes = frozenset(map(int, of_a_cache))
    specs = []
    for cpu in range(config.cpus):
        programs = {
            kind: {
                "ops": file.add(accounted(relocate(made[cpu].ops, first_cache, codes), config, cpu)),
                "per_interrupt": made[cpu].per_interrupt,
                "slots": made[cpu].private_slots,
                "design": names.index(handler_design(config, kind, job.vocabulary)),
            }
            for kind, made in todo.programs.items()
        }
        specs.append(
            {
                "cpu": cpu,
                "flavour": config.flavour,
                "design": names.index(config.design),
                "ops_fd": file.fd,
                "ops": file.add(accounted(relocate(workload.ops[cpu], first_cache, codes), config, cpu)),
                "slots": workload.private_slots[cpu],
                "shared_slots": 0 if cpu else workload.shared_slots,
                "caches": []
                if cpu
                else [[c.name, c.size, c.align, c.flags, c.ctor] for c in workload.caches],
                "designs": [] if cpu else _designs_to_set_up(config, todo, job.vocabulary),
                "maps": []
                if cpu
                else [
                    [names.index(config.design), m.key_bytes, m.value_bytes, m.entries] for m in workload.maps
                ],
                "page_cache_pages": 0 if cpu else config.page_cache // lib.SHM_PAGE_SIZE,
                "memcg": place(config, cpu),
                "max_ops": config.ops_of(cpu),
                "seconds": config.seconds,
                "sample": config.sample,
                "pattern": config.has_pattern,
                "programs": programs,
                "nesting": config.interrupts.nmi.nesting,
                "timers": {
                    kind: [config.interrupt(kind).rate_hz, config.interrupt(kind).jitter]
                    for kind in KINDS
                    if config.source(kind) == "timer"
                },
            }
        )
    return specs


def _designs_to_set_up(config: Config, todo: Plan, vocabulary: Vocabulary) -> list[int]:
    """Return the numbers of the designs that tasks and handlers use."""
    used = {config.design, *(handler_design(config, kind, vocabulary) for kind in todo.programs)}
    return [number for number, name in enumerate(vocabulary.designs) if name in used]


def _first_cache(config: Config, workload: Workload, arena: Arena) -> int:
    """Return the index that the workload's first cache will have.

    Raises: ConfigError, if the table has no room for all of them.
    """
    there, wanted = int(arena.header.nr_caches), len(workload.caches)
    if there + wanted > int(arena.header.geometry.max_caches):
        allowed = f"allowed is at least {there + wanted}: {there} of kmalloc, {wanted} of the workload"
        raise ConfigError(config.name, [Problem("arena.max_caches", str(config.arena.max_caches), allowed)])
    return there


def handler_design(config: Config, kind: str, vocabulary: Vocabulary) -> str:
    """Return the design that handlers of a kind use."""
    return config.interrupt(kind).design or vocabulary.handler_design(config.design, kind)


def _live_through(crew: Crew, job: Job, arena: Arena, found: Findings) -> None:
    """Take all CPUs through the phases, and audit between them."""
    from shmalloc.audit import audit

    crew.wait_phase(READY)
    set_faults(arena, job.config)  # not before: what is set up for the run does not fail
    if job.config.has_kswapd:
        crew.start_kswapds(job.config.flavour)
    sampler = found.sampler = Sampler(arena)
    recorder = found.recorder = _recorder(arena, job.config)
    windows = Windows(arena, crew.cpu_pids, job.config.seconds, REPLAYED)

    def tick(elapsed_s: float) -> None:
        sample = sampler.tick(elapsed_s)
        if sample is not None:
            job.on_sample(sample)
        if recorder is not None:
            recorder.tick(elapsed_s)

    def replay_tick(elapsed_s: float) -> None:
        tick(elapsed_s)
        windows.tick(sampler.samples[-1].used_bytes)

    if job.config.trace.events:
        found.traced = Traced(arena, job.config)
        found.traced.begin()
    crew.open_phase(READY)
    try:
        crew.wait_phase(REPLAYED, replay_tick, ops=True)
    finally:
        found.windows, found.start = windows.as_json(job.vocabulary), windows.start_json(job.vocabulary)
    crew.end_injectors()
    crew.end_kswapds()
    if found.traced is not None:
        found.traced.end()
    sampler.last()
    if recorder is not None:
        recorder.mark("before the drain", at_rest=True)
    found.snapshot = Snapshot.of(arena)
    found.nodes = numa.Look.at(arena)
    report = audit(arena, expect_live=True)
    _note_audit(found, report, "before the drain")
    found.live_bytes = report.totals.get("live_bytes", 0)
    if not report.ok:
        return  # to free what is corrupt would prove nothing more
    crew.open_phase(REPLAYED)
    crew.wait_phase(DRAINED, tick)
    crew.open_phase(DRAINED)
    crew.wait_phase(TORN_DOWN, tick)
    sampler.last()
    if recorder is not None:
        recorder.mark("after the drain", at_rest=True)
    _note_audit(found, audit(arena, expect_live=False), "after the drain")
    crew.open_phase(TORN_DOWN)
    found.reports = crew.wait_exits()


def _recorder(arena: Arena, config: Config) -> Recorder | None:
    """Begin to record the arena map, where the config wants one."""
    if not config.map.moments:
        return None
    return Recorder(arena, config.seconds, config.map.moments, objects=config.map.objects)


def set_faults(arena: Arena, config: Config) -> None:
    """Have requests fail as the config says."""
    from shmalloc.faults import FaultAttr

    if config.faults.failslab is not None:
        arena.failslab(FaultAttr(**config.faults.failslab.model_dump()))
    if config.faults.fail_page_alloc is not None:
        arena.fail_page_alloc(FaultAttr(**config.faults.fail_page_alloc.model_dump()))


def _note_audit(found: Findings, report: AuditReport, when: str) -> None:
    found.audits[when] = report
    found.violations += verdicts.of_audit(report, when)


def _result(job: Job, todo: Plan, found: Findings, arena_bytes: int, ops: int) -> dict[str, Any]:
    """Put the cell's JSON together."""
    config, vocabulary = job.config, job.vocabulary
    assert found.snapshot is not None
    done = sum(report.get("done", 0) for report in found.reports) or ops
    elapsed = [report["elapsed"] for report in found.reports if "elapsed" in report]
    last_s = found.sampler.samples[-1].t_s if found.sampler else 0.0
    seconds = max(elapsed, default=last_s)
    cell = {
        **blank_cell(vocabulary),
        "id": job.cell.id,
        "params": dict(job.cell.params),
        "design": config.design,
        "expected": expected_verdict(config),
        "violations": found.violations,
        "seconds": round(seconds, 6),
        "cpus": config.cpus,
        "ops": done,
        **measure(found.snapshot, vocabulary),
        "processor_s": round(sum(report.get("used", 0.0) for report in found.reports), 6),
        "throughput_ops_s": round(done / seconds, 1) if seconds else 0.0,
        "memory": {
            "peak_bytes": found.sampler.peak_bytes if found.sampler else 0,
            "live_bytes": found.live_bytes,
            "arena_bytes": arena_bytes,
            "sample_period_s": found.sampler.period_s if found.sampler else 0.0,
            "samples": len(found.sampler.samples) if found.sampler else 0,
        },
        "windows": found.windows,
        "handlers": {kind: handler_design(config, kind, vocabulary) for kind in todo.programs},
        "latency_sample": config.sample,
        "workload": dict(todo.workload.notes),
        "audits": {when: audit_json(report) for when, report in found.audits.items()},
    }
    cell["repeats"] = [_repeat(job, found, cell)]
    cell["numa"] = _numa(config, found, cell["counters"])
    cell["must_happen"] = must_happen(config, cell)
    cell["verdict"] = cell["repeats"][0]["verdict"] = judged(cell, vocabulary)
    return cell


def _repeat(job: Job, found: Findings, cell: Mapping[str, Any]) -> dict[str, Any]:
    """Write what this one run measured, for comparisons: as a window, and what a run has as a whole."""
    assert found.snapshot is not None
    used = cell["processor_s"] if found.reports else None
    whole = Look.of(found.snapshot.telemetry, cell["seconds"], used, cell["ops"])
    return {
        "started": round(found.started, 3),
        "seed": job.config.seed,
        "verdict": OK,
        **span_json(whole.start(), whole, found.snapshot.tsc_hz, job.vocabulary),
        "throughput_ops_s": cell["throughput_ops_s"],
        "used_bytes": cell["memory"]["peak_bytes"],
        "start": {"contexts": found.start},
        "counters": {name: number for name, number in cell["counters"].items() if number},
    }


def _numa(config: Config, found: Findings, counters: Mapping[str, int]) -> dict[str, Any]:
    """Put together what there is about nodes; where distance is real, none is modelled."""
    assert found.placement is not None
    model = None if found.placement.is_bound else config.numa_model
    made = (
        numa.blank(config.arena.nodes) if found.nodes is None else numa.measure(found.nodes, counters, model)
    )
    return {**made, "placement": found.placement.as_json()}


def audit_json(report: AuditReport) -> dict[str, Any]:
    """Write an audit as JSON, without its problems, which are violations."""
    return {
        "ok": report.ok,
        "problems": len(report.problems),
        "notes": list(report.notes),
        "totals": {n: int(total) for n, total in report.totals.items() if not n.startswith("cache.")},
        "seconds": round(report.seconds, 4),
    }


def judged(cell: Mapping[str, Any], vocabulary: Vocabulary) -> str:
    """Judge: violations first; a run that did nothing, or not what it was for, proved nothing."""
    verdict = verdicts.judge(cell["violations"], vocabulary)
    if verdict == OK and (cell["ops"] == 0 or not all(entry["holds"] for entry in cell["must_happen"])):
        return VACUOUS
    return verdict
