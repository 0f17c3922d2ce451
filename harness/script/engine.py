# SPDX-License-Identifier: MIT
"""The parent's side of the engine `script`: it runs one cell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness import numa, verdicts
from harness.arena_map.recorder import Recorder
from harness.checks import geometry
from harness.expect import expected_verdict, must_happen
from harness.memory import SAMPLE_PERIOD_S, Sample, Sampler
from harness.problems import ConfigError, Problem
from harness.results import Snapshot, blank_cell, measure
from harness.script.check import facts
from harness.script.compiling import filled_in
from harness.stress import Job, audit_json, judged
from harness.supervisor import Crew, Ended
from harness.topology import Placement
from harness.traced import Traced

if TYPE_CHECKING:
    from harness.config import Config
    from harness.vocabulary import Vocabulary
    from shmalloc.arena import Arena
    from shmalloc.audit import AuditReport

_CPU_OF_THE_PROCESS = 0  # the CPU whose heartbeat and phases are the script's


@dataclass
class Findings:
    """What came of a script. Attributes: as for a stress run; recorder: if a step asks; report: of the process."""

    sampler: Sampler
    violations: list[dict[str, Any]] = field(default_factory=list)
    snapshot: Snapshot | None = None
    nodes: numa.Look | None = None
    audits: dict[str, AuditReport] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    recorder: Recorder | None = None
    traced: Traced | None = None
    live_bytes: int = 0

    def mark(self, label: str) -> None:
        """Take a moment of the arena map, if there is one."""
        if self.recorder is not None:
            self.recorder.mark(label, at_rest=True)


def run_cell(job: Job) -> tuple[dict[str, Any], list[Sample]]:
    """Run one cell from nothing to nothing: no process and no segment is left, whatever happens.

    Returns: the cell's JSON, and the samples.
    Raises: ConfigError: a step asks for what there is not.  NoRoom, GeometryError.  Interrupted.
    """
    from shmalloc.arena import Arena

    config = job.config
    with ExitStack() as stack:
        arena = stack.enter_context(
            Arena.create(
                geometry(config), reserve=config.arena.reserve, flavour=config.flavour, broken=config.broken
            )
        )
        arena.activate()
        arena.header.lock_rules = int(config.has_lock_rules)
        arena.slab_errors.stop = config.arena.slab_errors == "stop"
        found = Findings(Sampler(arena))
        if any(table.get("do") == "pagemap" for table in config.step):
            found.recorder = Recorder(arena, 0.0, 0, objects=config.map.objects)
        crew = stack.enter_context(Crew(arena, config.deadline_s, job.interruption))
        try:
            _start(crew, job)
            _live_through(crew, config, arena, found)
        except Ended as ended:
            crew.stop()
            found.report = crew.report_of_first()
            _refuse_impossible(config, found.report)
            found.sampler.last()
            found.mark("end")
            if found.traced is not None:
                found.traced.end()
            if ended.incident is not None:
                found.violations.append(verdicts.of_incident(ended.incident))
        found.violations[:0] = verdicts.of_core(arena)
        if found.snapshot is None:
            found.snapshot = Snapshot.of(arena)
        steps = int(arena.region("cpus")["ops_done"][_CPU_OF_THE_PROCESS])
        result = _result(job, found, arena.size_bytes, steps)
        if found.recorder is not None:
            result["map"] = found.recorder.leave(job.pieces, job.number)
        if found.traced is not None:
            result["trace"] = found.traced.leave(job.pieces, job.number)
        samples = found.sampler.samples
        del found.sampler, found.recorder, found.traced  # they look into the arena
    return result, samples


def _start(crew: Crew, job: Job) -> None:
    config = job.config
    spec = {
        "flavour": config.flavour,
        "cpus": config.cpus,
        "design": config.design,
        "handler_design": job.vocabulary.handler_design(config.design, "nmi"),
        "steps": config.step,
        "let": config.let,
        "used_designs": used_designs(config, job.vocabulary),
    }
    cores = sorted(os.sched_getaffinity(0))
    crew.start_cpu(
        _CPU_OF_THE_PROCESS, spec, (), cores[0], module="harness.script.process", role="the script"
    )


def used_designs(config: Config, vocabulary: Vocabulary) -> list[str]:
    """List the designs that a script uses, in the order of the registry: each is set up before its first step."""
    handlers = vocabulary.handler_design(config.design, "nmi")
    used = {config.design, handlers, *_designs_of(filled_in(config.step, config.let))}
    return [name for name in vocabulary.designs if name in used]


def _designs_of(tables: Any) -> Iterator[str]:
    for table in tables:
        yield table.get("design", "")
        yield from _designs_of(table.get("steps", ()))


def _live_through(crew: Crew, config: Config, arena: Arena, found: Findings) -> None:
    """Take the process through its phases: ready, one for each look that a step asks for, replayed, drained."""
    asked = [at for at, table in enumerate(config.step) for _ in range(_looks(table, config))]

    def tick(elapsed_s: float) -> None:
        found.sampler.tick(elapsed_s)
        if found.recorder is not None:
            found.recorder.tick(elapsed_s)

    for phase, at in enumerate([None, *asked], start=1):
        crew.wait_phase(phase, tick, ops=phase > 1)
        if at is None and config.trace.events:
            found.traced = Traced(arena, config)
            found.traced.begin()
        if at is not None and config.step[at]["do"] == "pagemap":
            found.mark(config.step[at].get("label") or f"at step {at}")
        elif at is not None:
            _audit(found, arena, f"at step {at}", expect_live=True)
        crew.open_phase(phase)
    replayed = len(asked) + 2
    crew.wait_phase(replayed, tick, ops=True)
    if found.traced is not None:
        found.traced.end()
    found.sampler.last()
    found.mark("before the drain")
    found.snapshot = Snapshot.of(arena)
    found.nodes = numa.Look.at(arena)
    report = _audit(found, arena, "before the drain", expect_live=True)
    found.live_bytes = report.totals.get("live_bytes", 0)
    if not report.ok:
        crew.stop()
        found.report = crew.report_of_first()
        return  # to free what is corrupt would prove nothing more
    crew.open_phase(replayed)
    crew.wait_phase(replayed + 1)
    found.mark("after the drain")
    _audit(found, arena, "after the drain", expect_live=False)
    crew.open_phase(replayed + 1)
    (found.report,) = crew.wait_exits()


def _looks(table: Any, config: Config) -> int:
    """Say how often a step has the parent look at the arena."""
    if table.get("do") not in ("audit", "pagemap"):
        return 0
    repeat = table.get("repeat", 1)
    return int(config.let[repeat[1:]] if isinstance(repeat, str) else repeat)


def _audit(found: Findings, arena: Arena, when: str, *, expect_live: bool) -> AuditReport:
    from shmalloc.audit import audit

    report = audit(arena, expect_live=expect_live)
    found.audits[when] = report
    found.violations += verdicts.of_audit(report, when)
    return report


def _refuse_impossible(config: Config, report: dict[str, Any]) -> None:
    """Raise ConfigError if a step asked for what there is not."""
    if wrong := report.get("wrong"):
        problem = Problem(f"step[{wrong['step']}]", f'do = "{wrong["do"]}"', wrong["text"])
        raise ConfigError(config.name, [problem])


def _result(job: Job, found: Findings, arena_bytes: int, steps: int) -> dict[str, Any]:
    """Put the cell's JSON together."""
    config, vocabulary = job.config, job.vocabulary
    assert found.snapshot is not None
    seconds = found.sampler.samples[-1].t_s if found.sampler.samples else 0.0
    measured = measure(found.snapshot, vocabulary)
    stored = {**dict.fromkeys(sorted(facts(config)), 0), **found.report.get("counters", {})}
    cell = {
        **blank_cell(vocabulary),
        "id": job.cell.id,
        "params": dict(job.cell.params),
        "design": config.design,
        "expected": expected_verdict(config),
        "violations": found.violations,
        "seconds": round(seconds, 6),
        "cpus": config.cpus,
        "ops": steps,
        **measured,
        "counters": {**measured["counters"], **stored},
        "memory": {
            "peak_bytes": found.sampler.peak_bytes,
            "live_bytes": found.live_bytes,
            "arena_bytes": arena_bytes,
            "sample_period_s": SAMPLE_PERIOD_S,
            "samples": len(found.sampler.samples),
        },
        "handlers": {},
        "latency_sample": 0,
        "workload": {"kind": "script", "steps": len(config.step)},
        "audits": {when: audit_json(report) for when, report in found.audits.items()},
        "facts": stored,
        "steps": found.report.get("steps", []),
        "interleaving": found.report.get("interleaving", []),
    }
    looked = found.nodes
    made = numa.blank(config.arena.nodes) if looked is None else numa.measure(looked, cell["counters"], None)
    cell["numa"] = {**made, "placement": Placement((), (None,), "left alone: a script").as_json()}
    cell["must_happen"] = must_happen(config, cell)
    cell["verdict"] = judged(cell, vocabulary)
    return cell
