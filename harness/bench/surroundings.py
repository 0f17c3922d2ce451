# SPDX-License-Identifier: MIT
"""Where numbers come from: the cores that are used, what may disturb them, and so what they are worth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.bench.measure import line_of, ops_file
from harness.bench.own import EMPTY
from harness.bench.rows import Row
from harness.bench.runner import Failed, Runner
from harness.bench.subjects import Subject
from harness.machine import machine

__all__ = ["Cores", "allowed_pairs", "choose", "describe", "steal_ticks", "worth"]

_CPU = Path("/sys/devices/system/cpu")
_MOST_PAIRS = 15
_LINE_TRIES = 3
_DROPPED = 0.1  # share of samples from which on it is worth a word


@dataclass(frozen=True)
class Cores:
    """The cores that are measured on.

    Attributes: one: of rows with one side.  pairs: of rows with two, nearest first, at most two; empty: this
        process has one core only.  lines_ns: of each pair, how long a cache line took.
    """

    one: int
    pairs: tuple[tuple[int, int], ...]
    lines_ns: tuple[float, ...]


def choose(empty: Subject, line_row: Row) -> Cores:
    """Choose cores of those that this process may use: the last one, and with it the nearest and the farthest.

    Args: empty: the subject that allocates nothing.  line_row: a row with two sides.
    """
    allowed = sorted(os.sched_getaffinity(0))
    one = allowed[-1]
    others = [core for core in allowed if core != one]
    others = [core for core in others if core not in _siblings(one)] or others
    step = max(1, len(others) // _MOST_PAIRS)
    lines = {}
    for other in others[::step]:
        with suppress(Failed):
            lines[(other, one)] = _line_ns(empty, line_row, (other, one))
    if not lines:
        return Cores(one, (), ())
    near, far = min(lines, key=lines.__getitem__), max(lines, key=lines.__getitem__)
    pairs = (near,) if line_of(lines[near]) == line_of(lines[far]) else (near, far)
    return Cores(one, pairs, tuple(lines[pair] for pair in pairs))


def _line_ns(empty: Subject, row: Row, pair: tuple[int, int]) -> float:
    assert empty.name == EMPTY
    with ops_file(row) as ops, Runner(empty, row, pair, ops) as runner:
        runner.ready()
        return min(runner.run(1, 20).line_ns for _ in range(_LINE_TRIES))


def _siblings(core: int) -> set[int]:
    """Return the cores that are threads of the same one."""
    found: set[int] = set()
    text = _read(_CPU / f"cpu{core}/topology/thread_siblings_list") or ""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        with suppress(ValueError):
            found.update(range(int(first), int(last or first) + 1))
    return found


def steal_ticks() -> int:
    """Return the ticks that the hypervisor has given to others, since boot, of all cores."""
    text = _read(Path("/proc/stat")) or ""
    fields = text.partition("\n")[0].split()
    return int(fields[8]) if len(fields) > 8 and fields[0] == "cpu" else 0


def describe(cores: Cores, steal: int) -> dict[str, Any]:
    """Describe the machine for results. Args: steal: ticks that were stolen while it was measured."""
    model = machine()
    model |= {
        "core": cores.one,
        "pairs": [
            {"cores": list(pair), "line_ns": round(ns, 1), "line": line_of(ns)}
            for pair, ns in zip(cores.pairs, cores.lines_ns, strict=True)
        ],
        "steal_ticks": steal,
        "governor": _read(_CPU / f"cpu{cores.one}/cpufreq/scaling_governor"),
        "boost": _boost(),
        "hypervisor": "hypervisor" in (_flags() or ""),
        "transparent_hugepages": _chosen(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
    }
    return model


def worth(model: dict[str, Any], taken: int, dropped: int, peers: int) -> list[str]:
    """Say what the numbers are worth, a sentence for each thing that is in their way.

    Args: model: the machine as described.  taken, dropped: samples, and those in which the core was not ours.
        peers: that were measured.
    """
    said = []
    if model["cores_allowed"] < 2:
        said.append(
            "one core: the rows with two CPUs are not measured, and the parent shares the core it measures on"
        )
    if not peers:
        said.append("no peer: nothing is compared with what a user would pick instead")
    if model["governor"] not in (None, "performance"):
        said.append(
            f"frequency scaling ({model['governor']}): the clock may change between samples; trust ratios, not ns"
        )
    if model["boost"]:
        said.append("boost is on: the clock depends on heat and on the other cores; trust ratios, not ns")
    if model["governor"] is None and model["hypervisor"]:
        said.append("a virtual machine that does not tell its clock: trust ratios, not ns")
    if model["steal_ticks"]:
        said.append(
            f"{model['steal_ticks']} ticks were given to other machines; bursts in which that happened were dropped"
        )
    if taken and dropped > _DROPPED * taken:
        said.append(
            f"{dropped / taken:.0%} of the samples were dropped: others had the core; more --samples help"
        )
    return [*said, *model["warnings"]]


def _boost() -> bool | None:
    text = _read(_CPU / "cpufreq/boost")
    if text is None:
        turbo = _read(_CPU / "intel_pstate/no_turbo")
        return None if turbo is None else turbo == "0"
    return text == "1"


def _flags() -> str | None:
    text = _read(Path("/proc/cpuinfo")) or ""
    return next((line for line in text.splitlines() if line.startswith("flags")), None)


def _chosen(path: Path) -> str | None:
    text = _read(path) or ""
    return text.partition("[")[2].partition("]")[0] or None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def allowed_pairs(cores: Cores, row: Row) -> Sequence[tuple[int, ...]]:
    """Return the cores that a row is measured on, one round on each."""
    if row.sides == 1:
        return [(cores.one,)]
    return cores.pairs if row.lines else cores.pairs[:1]
