# SPDX-License-Identifier: MIT
"""How cost grows: with arenas, live objects, caches, CPUs, processes. Behind `shmalloc bench growth`.

Rounds go over all values of all axes, so that what disturbs the machine for a while disturbs all of them.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench import growth_axes
from harness.bench.growth_apart import NO_YIELD
from harness.bench.growth_axes import Samples
from harness.estimates import Estimate, differ, estimate
from harness.machine import build, machine
from shmalloc import room
from shmalloc.units import format_bytes

__all__ = ["AXES", "SCHEMA", "Trend", "Wanted", "grow", "trends"]

SCHEMA = "shmalloc-growth-1"

_ROOT = Path(__file__).resolve().parent.parent.parent
_MIB = 1 << 20
_LEAVE_BYTES = 256 * _MIB  # of shared memory, at least, beside what the largest value takes
_CELL_S = 0.15
_CONTENDED_S = 0.4  # long enough that owners of locks are preempted in every sample
_DESIGNS = ("kmalloc", "kmalloc_nolock", "sheaves", "bpf_mem_alloc")
_CONTENDED = {"kind": "batch", "size": 512, "count": 256}
_ALONE = {"kind": "pair", "size": 64}
_GROWTHS = ((0.1, "flat"), (0.85, "sublinear"), (1.15, "linear"))  # by the exponent, up to the first number

Told = Callable[[str], None]


@dataclass(frozen=True)
class Axis:
    """What is varied. Attributes: name.  unit: of its values.  values: in order.  of: takes one round of a value."""

    name: str
    unit: str
    values: tuple[int, ...]
    of: Callable[[int], Samples]


@dataclass(frozen=True)
class Wanted:
    """How much is wanted. Attributes: axes: names.  rounds.  values: at most so many of each axis, the smallest."""

    axes: Sequence[str]
    rounds: int = 6
    values: int = 99


class Apart:
    """Processes that run cells; see growth_apart."""

    def __init__(self) -> None:
        self._started: dict[bool, subprocess.Popen[str]] = {}

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started.values():
            process.communicate()  # the end of its input is its end
        self._started.clear()

    def run(self, raw: Mapping[str, Any], *, yields: bool = True) -> dict[str, Any]:
        """Run a cell. Args: raw: its config.  yields: whether sched_yield does anything."""
        if yields not in self._started:
            self._started[yields] = _start(yields=yields)
        process = self._started[yields]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(raw) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that runs cells has ended: {process.wait()}")
        found: dict[str, Any] = json.loads(answer)
        return found


def _start(*, yields: bool) -> subprocess.Popen[str]:
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(_ROOT), *([inherited] if inherited else [])])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "harness.bench.growth_apart", *([] if yields else [NO_YIELD])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    )


def _cell(design: str, cpus: int, workload: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
    return {
        "name": "growth",
        "design": design,
        "cpus": cpus,
        "oracle": False,
        "sample": 0,
        "workload": dict(workload),
        **({} if "ops" in keys else {"duration_s": _CELL_S}),
        **keys,
    }


def _of_cpus(apart: Apart, tsc_hz: float, cpus: int) -> Samples:
    """Run so many CPUs on the cores there are: each on slabs of its own, and all on the lists of one node."""
    samples: Samples = defaultdict(list)
    for design in _DESIGNS:
        found = apart.run(_cell(design, cpus, _ALONE))
        samples[f"op, {design}", "ns"].append(found["processor_s"] * 1e9 / found["ops"])
    for design, yields in (("kmalloc", True), ("kmalloc", False), ("sheaves", True), ("sheaves", False)):
        found = apart.run(_cell(design, cpus, _CONTENDED, duration_s=_CONTENDED_S), yields=yields)
        told = f"{design}{'' if yields else ', yields off'}"
        counters, ops = found["counters"], found["ops"] / 1e6
        us = 1e6 / tsc_hz
        samples[f"contended op, {told}", "ns"].append(found["processor_s"] * 1e3 / ops)
        samples[f"waits, {told}", "per M ops"].append(counters["lock_waits"] / ops)
        samples[f"yields, {told}", "per M ops"].append(counters["lock_yields"] / ops)
        samples[f"longest wait, {told}", "us"].append(counters["lock_wait_max_cycles"] * us)
    found = apart.run(_cell("kmalloc_nolock", cpus, _CONTENDED))
    for reason, number in found["reasons"].items():
        if reason.endswith("_busy"):
            samples[f"{reason}, kmalloc_nolock", "per M ops"].append(number / (found["ops"] / 1e6))
    return samples


def _of_processes(apart: Apart, processes: int) -> Samples:
    """Start so many CPU processes, have them meet, do next to nothing, meet again, and reap them."""
    samples: Samples = defaultdict(list)
    found = apart.run(_cell("kmalloc", processes, _ALONE, ops=1000 * processes))
    samples["start, meet, end", "s"].append(found["whole_s"])
    samples["of that audits", "s"].append(found["audit_s"])
    return samples


def _axes(apart: Apart) -> list[Axis]:
    least = growth_axes.caches_at_first()
    tsc_hz = growth_axes.tsc_hz()
    return [
        Axis("size", "bytes", tuple(_MIB << at for at in (4, 6, 8, 10, 12, 14)), growth_axes.of_sizes),
        Axis("objects", "objects", tuple(10**at for at in (3, 4, 5, 6, 7)), growth_axes.of_objects),
        Axis("caches", "caches", (least, 100, 300, 1000), growth_axes.of_caches),
        Axis("cpus", "processes", (1, 2, 4, 8, 16), lambda cpus: _of_cpus(apart, tsc_hz, cpus)),
        Axis("processes", "processes", (2, 8, 32, 64), lambda number: _of_processes(apart, number)),
    ]


AXES = ("size", "objects", "caches", "cpus", "processes")


def grow(wanted: Wanted, told: Told) -> dict[str, Any]:
    """Measure. Args: told: is told what is going on, and may raise to end it.  Returns: the result, JSON."""
    samples: dict[tuple[str, int], Samples] = {}
    remarks: list[str] = []
    growth_axes.warm_up()
    with Apart() as apart:
        axes = [axis for axis in _axes(apart) if axis.name in wanted.axes]
        for number in range(wanted.rounds):
            for axis in axes:
                for value in axis.values[: wanted.values]:
                    told(f"round {number + 1} of {wanted.rounds}: {axis.name} {value}")
                    if why := _no_room(axis, value):
                        remarks += [why] if not number else []
                        continue
                    mine = samples.setdefault((axis.name, value), defaultdict(list))
                    for key, found in axis.of(value).items():
                        mine[key] += found
    growth = list(_records(axes, samples))
    return {
        "schema": SCHEMA,
        "name": "growth",
        "oracle": False,
        "machine": machine(),
        "build": build(["release"]),
        "rounds": wanted.rounds,
        "axes": {axis.name: axis.unit for axis in axes},
        "growth": growth,
        "trends": [asdict(trend) for trend in trends(growth)],
        "remarks": remarks,
    }


def _no_room(axis: Axis, value: int) -> str | None:
    """Say why a value cannot be measured here; None = it can."""
    takes = {"size": value // 128, "objects": value * growth_axes.OBJECT_BYTES * 2}.get(axis.name, 64 * _MIB)
    short = room.shortages(takes + _LEAVE_BYTES, room.limits())
    if not short:
        return None
    left = ", ".join(f"{limit.source} has {format_bytes(limit.free_bytes)} left" for limit in short)
    return f"{axis.name} {value} is left out: it takes {format_bytes(takes)}, and {left}"


def _records(axes: Sequence[Axis], samples: Mapping[tuple[str, int], Samples]) -> Iterator[dict[str, Any]]:
    for axis in axes:
        of_axis = {value: samples[axis.name, value] for value in axis.values if (axis.name, value) in samples}
        for key in dict.fromkeys(key for found in of_axis.values() for key in found):
            for value, found in of_axis.items():
                if found.get(key):
                    yield _record(axis.name, value, key, estimate(found[key]))


def _record(axis: str, value: int, key: tuple[str, str], own: Estimate) -> dict[str, Any]:
    what, unit = key
    return {
        "axis": axis,
        "value": value,
        "what": what,
        "unit": unit,
        "median": _rounded(own.median),
        "low": _rounded(own.low),
        "high": _rounded(own.high),
        "samples": own.samples,
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.5g}")


@dataclass(frozen=True)
class Trend:
    """How one thing grows along one axis.

    Attributes: axis, what.  first, last: medians at the ends.  ratio: of them; None from zero.  exponent: of the power
        of the value that it grows with over the upper half of the axis, by the medians.  growth: "flat" (also if the
        intervals of the ends have something in common), "sublinear", "linear", "superlinear".
    """

    axis: str
    what: str
    first: float
    last: float
    ratio: float | None
    exponent: float | None
    growth: str


def trends(records: Sequence[Mapping[str, Any]]) -> Iterator[Trend]:
    """Yield a trend for everything that was measured at two values or more, rates and counts left out."""
    lines: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        if record["unit"] in _TIMES:
            lines.setdefault((record["axis"], record["what"]), []).append(record)
    for (axis, what), line in lines.items():
        if len(line) > 1:
            yield _trend(axis, what, line)


_TIMES = ("ns", "us", "ms", "s")


def _trend(axis: str, what: str, line: Sequence[Mapping[str, Any]]) -> Trend:
    first, middle, last = line[0], line[(len(line) - 1) // 2], line[-1]
    if not first["median"] or not middle["median"] or not last["median"]:
        return Trend(axis, what, first["median"], last["median"], None, None, "flat")
    exponent = math.log(last["median"] / middle["median"]) / math.log(last["value"] / middle["value"])
    growth = next((name for most, name in _GROWTHS if exponent <= most), "superlinear")
    if differ(_estimate(first), _estimate(last)) is False:
        growth = "flat"  # as far as can be told
    ratio = last["median"] / first["median"]
    return Trend(axis, what, first["median"], last["median"], round(ratio, 3), round(exponent, 3), growth)


def _estimate(record: Mapping[str, Any]) -> Estimate:
    return Estimate(record["median"], record["low"], record["high"], record["samples"])
