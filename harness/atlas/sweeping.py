# SPDX-License-Identifier: MIT
"""One scenario, in the process that sweeps it: record, check the path, inject everywhere, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.atlas import accesses, certificate, classes, levels, traces
from harness.atlas.image import CoreImage
from harness.atlas.judging import Judge, Judgement, tally
from harness.atlas.keys import LEVEL_SHIFT, MISSED
from harness.atlas.scenario import ScenarioError, holds
from harness.atlas.sweeper import LeftCore, Sweeper

if TYPE_CHECKING:
    from harness.atlas.scenario import Built, Scenario
    from harness.vocabulary import Vocabulary
    from shmalloc._binding import Core

Tell = Callable[[int], None]  # that so many points are done
_PIECE = 4096  # points of one call of the sweeper, so that progress shows


@dataclass
class Sweep:
    """A scenario ready to be swept, and what its operation does when nobody interrupts it.

    Attributes: built.  image: of the core.  sweeper: its snapshot is the start state.  trace: of the operation.
        judge.  path: counter -> condition, growth, whether it holds.
    """

    scenario: Scenario
    built: Built
    image: CoreImage
    sweeper: Sweeper
    trace: Any
    judge: Judge
    path: dict[str, dict[str, Any]] = field(default_factory=dict)

    def relative(self, trace: Any) -> np.ndarray[Any, Any]:
        """Return a trace's addresses, from the core's load address."""
        return np.asarray(trace.rips, dtype=np.int64) - self.image.base


@cache
def _image(core: Core) -> CoreImage:
    """Read the loaded core once."""
    return CoreImage.of(core)


@contextmanager
def prepared(
    scenario: Scenario, broken: str, vocabulary: Vocabulary, kind: str | None = None, times: int = 1
) -> Iterator[Sweep]:
    """Build a scenario, check that it takes its path, and record it.

    Args: kind, times: of the interrupts that come in one run; None = the scenario's.
    Raises: ScenarioError.  CannotRun.
    """
    with scenario.build(broken=broken, kind=kind, times=times) as built:
        built.arena.unlink()  # whatever happens now, nothing is left in /dev/shm
        image = _image(built.arena.core)
        with Sweeper(built.arena, image, classes=classes.classes(built), watched=built.watched) as sweeper:
            sweeper.snapshot()
            try:
                trace = sweeper.record(built.call)
                traces.check_trace(trace, image)
            except (LeftCore, traces.TraceError) as error:
                raise ScenarioError(f"{scenario.name}: {error}") from None
            path = _path(built, _executed(image, trace), sweeper, must=broken == "none")
            judge = Judge(built, sweeper, vocabulary)
            yield Sweep(scenario, built, image, sweeper, trace, judge, path)


def _path(built: Built, executed: set[str], sweeper: Sweeper, *, must: bool) -> dict[str, dict[str, Any]]:
    """Run the operation once, alone, and see which path it took.

    Args: executed: functions.  must: it has to be the path that the scenario is about; a broken core may take another.
    Raises: ScenarioError: it was not.
    """
    before = built.counters()
    sweeper.run_and_keep(built.call)
    after = built.counters()
    sweeper.restore()
    if must:
        built.check_path(before, after, executed)
    return {
        name: {
            "condition": condition,
            "measured": after[name] - before[name],
            "holds": holds(condition, after[name] - before[name]),
        }
        for name, condition in built.operation.path.items()
    }


def _executed(image: CoreImage, trace: Any) -> set[str]:
    """Name the functions that a trace ran through."""
    found = (image.symbol_at(int(rip)) for rip in np.unique(trace.rips))
    return {symbol[0] for symbol in found if symbol is not None}


def sweep(task: Sweep, tell: Tell, *, with_accesses: bool) -> dict[str, Any]:
    """Inject before every instruction of the operation.

    Returns: the scenario's report; `instructions` maps each address to its outcomes.
    """
    begin = time.perf_counter()
    kind, length = task.scenario.kind, len(task.trace)
    pieces, sweep_s = [], 0.0
    for first in range(0, length, _PIECE):
        indices = np.arange(first, min(first + _PIECE, length), dtype=np.uint32)
        started = time.process_time()
        pieces.append(task.sweeper.sweep(task.built.call, task.trace, indices, kind))
        sweep_s += time.process_time() - started
        tell(len(indices))
    rows = np.concatenate(pieces)
    judged = task.judge.names(rows, (kind,))
    addresses = task.relative(task.trace)
    names = [each.name for each in judged]
    report = {
        **describe(task.scenario),
        "points": length,
        "covered": length - names.count(MISSED),
        "instructions": len(np.unique(addresses)),
        "states": len(np.unique(rows["state"][rows["end"] == 0])),
        "outcomes": tally(judged),
        "operation_outcomes": _operation_outcomes(judged),
        "path": task.path,
        "sweep_seconds": round(sweep_s, 6),
        "counts": counts(task, addresses, names),
        "red": _red(addresses, judged),
        "certificate": certificate.of_scenario(task.scenario.name, addresses, names),
    }
    if with_accesses:
        report["accesses"] = _accesses(task, rows, judged)
    report["seconds"] = round(time.perf_counter() - begin, 6)
    return report


def describe(scenario: Scenario) -> dict[str, Any]:
    """Name a scenario and its parts."""
    return {
        "name": scenario.name,
        "operation": scenario.operation.name,
        "task_design": scenario.task_design,
        "handler": scenario.handler.name,
        "handler_design": scenario.handler_design,
        "kind": scenario.kind,
    }


def counts(task: Sweep, addresses: np.ndarray[Any, Any], names: list[str]) -> dict[str, dict[str, int]]:
    """Count the outcomes at each instruction, apart for each level that it ran on."""
    found: dict[str, dict[str, int]] = {}
    keys = addresses + (levels.of_trace(task.image, task.trace).astype(np.int64) << LEVEL_SHIFT)
    for key, name in zip(keys.tolist(), names, strict=True):
        here = found.setdefault(str(key), {})
        here[name] = here.get(name, 0) + 1
    return found


def _operation_outcomes(judged: list[Judgement]) -> dict[str, int]:
    """Count what the interrupted operation got, where nothing was wrong."""
    found: dict[str, int] = {}
    for each in judged:
        if each.is_ok:
            found[each.operation] = found.get(each.operation, 0) + 1
    return dict(sorted(found.items()))


def occurrences(addresses: np.ndarray[Any, Any]) -> list[int]:
    """Number each point by how often its instruction has come so far, from 1."""
    seen: dict[int, int] = {}
    found = []
    for address in addresses.tolist():
        seen[address] = seen.get(address, 0) + 1
        found.append(seen[address])
    return found


def _red(addresses: np.ndarray[Any, Any], judged: list[Judgement]) -> dict[str, Any]:
    """List every point whose outcome is not ok: there may be very many, of few kinds.

    Returns: kinds: verdict, text, operation, handler; points: [index, address, occurrence, number of its kind].
    """
    kinds: dict[Judgement, int] = {}
    numbers = occurrences(addresses)
    points = [
        [index, int(addresses[index]), numbers[index], kinds.setdefault(each, len(kinds))]
        for index, each in enumerate(judged)
        if not each.is_ok and each.name != MISSED
    ]
    shown = ("verdict", "text", "operation", "handler")
    return {"kinds": [{key: getattr(each, key) for key in shown} for each in kinds], "points": points}


def _accesses(task: Sweep, rows: Any, judged: list[Judgement]) -> dict[str, Any]:
    """Compare all points with those before accesses to shared memory only, and the last one, behind all of them."""
    chosen = sorted({*shared(task, task.trace), len(judged) - 1})
    every = {(each.name, each.operation) for each in judged}
    some = {(judged[at].name, judged[at].operation) for at in chosen}
    states = rows["state"].tolist()
    every_state, some_states = set(states), {states[at] for at in chosen}
    return {
        "points": len(chosen),
        "outcomes_equal": every == some,
        "states_equal": every_state == some_states,
        "only_instructions": sorted(f"{name} (operation: {operation})" for name, operation in every - some),
        "only_accesses": sorted(f"{name} (operation: {operation})" for name, operation in some - every),
    }


def shared(task: Sweep, trace: Any) -> list[int]:
    """List the points of a trace that are accesses to shared memory."""
    arena = task.built.arena
    found = accesses.shared(task.image, trace, arena.base, arena.base + arena.size_bytes)
    return [int(index) for index in np.unique(found["index"])]


def compare(task: Sweep, certified: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is not as a certificate says. Args: certified: indices to run, all outcomes, digest."""
    names, addresses = certificate.outcomes(certified), task.relative(task.trace)
    if len(names) != len(addresses):
        yield {"index": None, "certified": f"{len(names)} points", "measured": f"{len(addresses)} points"}
        return
    digest = certificate.digest(addresses, names)
    if digest != certified["digest"]:
        yield {"index": None, "certified": f"digest {certified['digest']}", "measured": f"digest {digest}"}
    kind = task.scenario.kind
    rows = task.sweeper.sweep(task.built.call, task.trace, certified["indices"], kind)
    for index, judged in zip(certified["indices"], task.judge.names(rows, (kind,)), strict=True):
        if judged.name != names[index]:
            yield {"index": index, "certified": names[index], "measured": judged.name}
