# SPDX-License-Identifier: MIT
"""What CPUs do, what became of their requests in each context, and why some failed."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness import units
from harness.top import words
from harness.top.figures import PERCENTILES, latencies
from harness.top.look import Array, Interval, Look, total
from harness.top.tables import Column, Row, Section
from harness.vocabulary import CONTEXTS, KINDS
from harness.watch import innermost
from shmalloc import designs
from shmalloc._binding import core
from shmalloc.layout import constants


def cpus(interval: Interval) -> Section:
    """Make the section of the CPUs: what each does now, and what it did a second."""
    counts = interval.counts()
    per_cpu = {
        "ops_s": interval.ops(),
        "allocs_s": counts["allocs"].sum(axis=(1, 2)),
        "frees_s": counts["frees"].sum(axis=(1, 2)),
        "failures_s": counts["failures"].sum(axis=(1, 2, 3)),
        "lock_waits_s": interval.telemetry("lock_waits"),
    }
    landed = {name: interval.interrupts(name) for name in ("handled", "in_allocator", "in_slow_path")}
    rows = []
    for cpu, record in enumerate(interval.now.cpus):
        handled = int(landed["handled"][cpu].sum())
        rows.append(
            {
                "cpu": cpu,
                "node": int(record["node"]),
                "pid": int(record["pid"]),
                **_doing(interval.now, cpu),
                **{name: interval.rate(int(values[cpu])) for name, values in per_cpu.items()},
                **{
                    f"{kind}_s": interval.rate(int(landed["handled"][cpu][at]))
                    for at, kind in enumerate(KINDS)
                },
                "in_allocator": words.of(int(landed["in_allocator"][cpu].sum()), handled),
                "in_slow_path": words.of(int(landed["in_slow_path"][cpu].sum()), handled),
            }
        )
    columns = (
        Column("CPU", "cpu"),
        Column("NODE", "node"),
        Column("PID", "pid"),
        Column("STATE", "state", left=True),
        Column("NOW", "context", left=True, width=7),
        Column("OPS/S", "ops_s", words.rate, width=6),
        Column("ALLOCS/S", "allocs_s", words.rate),
        Column("FREES/S", "frees_s", words.rate),
        Column("FAIL/S", "failures_s", words.rate),
        Column("NMI/S", "nmi_s", words.rate),
        Column("IRQ/S", "irq_s", words.rate),
        Column("ALLOC%", "in_allocator", words.share),
        Column("SLOW%", "in_slow_path", words.share),
        Column("WAITS/S", "lock_waits_s", words.rate),
        Column("WAITS FOR", "waiting_for", left=True),
    )
    return Section("cpus", "CPUs", columns, rows, is_bad=lambda row: row["state"] == "dead")


def _doing(look: Look, cpu: int) -> dict[str, Any]:
    """Read what a CPU is in; any of it may be half-written."""
    record = look.cpus[cpu]
    states = {constants()[f"CPU_{name.upper()}"]: name for name in ("offline", "online", "binding", "served")}
    state = "dead" if cpu in look.dead else states.get(int(record["state"]), "?")
    if state != "online":
        return {"state": state, "context": "-", "level": 0, "irqs_off": False, "waiting_for": ""}
    level, context = innermost(record)
    return {
        "state": state,
        "context": context or "?",
        "level": level,
        "irqs_off": bool(record["irqs_disabled"]),
        "waiting_for": look.waits.get(cpu, ""),
    }


def contexts(interval: Interval) -> Section:
    """Make the section of the contexts, of all designs together and of each: rates, totals, latencies."""
    counts, so_far = interval.counts(), interval.now.telemetry["counts"]
    timed = latencies(interval)
    nothing: dict[str, float | None] = dict.fromkeys(PERCENTILES)
    rows: list[Row] = [
        _outcomes(interval, "all", context, counts[:, :, at], so_far[:, :, at]) | timed[context]
        for at, context in enumerate(CONTEXTS)
    ]
    for number, design in enumerate(designs.names()):
        for at, context in enumerate(CONTEXTS):
            row = _outcomes(interval, design, context, counts[:, number, at], so_far[:, number, at])
            if row["allocs"] or row["frees"] or row["failures"]:
                rows.append({**row, **nothing})
    columns = (
        Column("DESIGN", "design", left=True),
        Column("CONTEXT", "context", left=True),
        Column("ALLOCS/S", "allocs_s", words.rate),
        Column("FREES/S", "frees_s", words.rate),
        Column("FAIL/S", "failures_s", words.rate),
        Column("ALLOCS", "allocs", words.count),
        Column("FREES", "frees", words.count),
        Column("FAILURES", "failures", words.count),
        *(Column(f"{name.upper()} NS", name, units.nanoseconds, width=7) for name in PERCENTILES),
    )
    return Section("contexts", "contexts", columns, rows, is_bad=lambda row: row["failures_s"] > 0)


def _outcomes(interval: Interval, design: str, context: str, counts: Array, so_far: Array) -> dict[str, Any]:
    names = ("allocs", "frees", "failures")
    return {
        "design": design,
        "context": context,
        **{f"{name}_s": interval.rate(total(counts[name])) for name in names},
        **{name: total(so_far[name]) for name in names},
    }


def failures(interval: Interval) -> Section:
    """Make the section of the reasons why allocations failed: a second, and so far in each context."""
    by_reason = interval.counts()["failures"].sum(axis=(0, 1), dtype=np.uint64)  # (contexts, reasons)
    so_far = interval.now.telemetry["counts"]["failures"].sum(axis=(0, 1), dtype=np.uint64)
    rows = [
        {
            "reason": reason,
            "failures_s": interval.rate(int(by_reason[:, at].sum())),
            "failures": int(so_far[:, at].sum()),
            **{context: int(so_far[number, at]) for number, context in enumerate(CONTEXTS)},
        }
        for at, reason in enumerate(core().names("reason"))
        if so_far[:, at].any()
    ]
    columns = (
        Column("REASON", "reason", left=True, width=16),
        Column("FAIL/S", "failures_s", words.rate),
        Column("TOTAL", "failures", words.count),
        *(Column(context.upper(), context, words.count, width=6) for context in CONTEXTS),
    )
    return Section(
        "failures", "failures", columns, rows, "no request has failed", lambda row: row["failures_s"] > 0
    )
