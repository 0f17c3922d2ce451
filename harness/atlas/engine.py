# SPDX-License-Identifier: MIT
"""The engine `atlas`: an interrupt before every instruction. The parent's side; it runs one cell."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.atlas import certificate, plan
from harness.atlas.crew import Crew
from harness.atlas.merge import Merged
from harness.problems import CannotRun
from harness.progress import Advance

if TYPE_CHECKING:
    from harness.memory import Sample
    from harness.stress import Job, Pieces

SCHEMA = "shmalloc-atlas/1"
_SHOW_S = 0.1  # between two reports of progress


@dataclass
class Found:
    """What the workers have reported.

    Attributes: reports: by number of the scenario.  failed: scenarios that came to nothing, and why.
        deaths: of workers: verdict and text.  points: swept so far.
    """

    reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    deaths: list[tuple[str, str]] = field(default_factory=list)
    points: int = 0


def run_cell(job: Job) -> tuple[dict[str, Any], list[Sample]]:
    """Run one cell from nothing to nothing: no process and no segment is left, whatever happens.

    Returns: the cell's JSON, and no samples.
    Raises: CannotRun.  Interrupted.
    """
    config, begin = job.config, time.monotonic()
    deal = plan.deal(config)
    spec = {
        "design": config.design,
        "broken": config.broken,
        "nested": config.atlas.nested,
        "accesses": config.atlas.accesses,
    }
    with Crew(cores(config.atlas.cores, deal.total), spec) as crew:
        found = _sweep(crew, job, deal, begin)
        merged = Merged(job, found, len(crew.workers))
        for order, message in crew.work_off(merged.to_explain(), job.interruption.check):
            merged.explain(order["scenario"], message.get("explained", {}))
        code = _annotated(crew, job, merged)
    merged.annotate(code)
    seconds = time.monotonic() - begin
    job.pieces.setdefault("cells", []).append(merged.atlas_cell(seconds))
    job.pieces.setdefault("certificate", []).append(merged.certificate_cell(seconds))
    job.pieces.setdefault("build", []).append(code["build"])
    return merged.cell(seconds), []


def cores(wanted: int, useful: int) -> Sequence[int]:
    """Choose cores. Args: wanted: how many, 0 = all that this process may use.  useful: at most."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[: max(1, min(wanted or len(allowed), useful))]


def documents(run: Mapping[str, Any], pieces: Pieces) -> dict[str, Any]:
    """Return the files of a run beside its result."""
    build = {**run["build"], **pieces["build"][0]}
    build["ids"] = {cell["id"]: made["id"] for cell, made in zip(run["cells"], pieces["build"], strict=True)}
    return {
        "atlas.json": {"schema": SCHEMA, "build": build, "cells": pieces["cells"]},
        "certificate.json": certificate.document(run, build, pieces["certificate"]),
    }


def _sweep(crew: Crew, job: Job, deal: plan.Deal, begin: float) -> Found:
    """Deal out all scenarios, and collect what comes of them."""
    found = Found()
    for order, message in crew.work_off(deal.orders(), _ticker(job, deal, found, begin)):
        if "points" in message:
            found.points += message["points"]
            continue
        report = message.get("report")
        if report is not None:
            found.reports[order["number"]] = report
        elif "died" in message:
            found.deaths.append((message["verdict"], f"{order['scenario']}: {message['died']}"))
        else:
            found.failed.append((order["scenario"], message["failed"]))
        deal.finish(order["number"], report["points"] if report else 0, report["seconds"] if report else 0.0)
    return found


def _ticker(job: Job, deal: plan.Deal, found: Found, begin: float) -> Callable[[], None]:
    """Return what looks for interruptions and shows how far it has come."""
    shown = begin

    def tick() -> None:
        nonlocal shown
        job.interruption.check()
        now = time.monotonic()
        if now - shown >= _SHOW_S:
            shown = now
            total = max(deal.estimate(), found.points)
            job.on_sample(Advance(now - begin, deal.done, deal.total, found.points, total))

    return tick


def _annotated(crew: Crew, job: Job, merged: Merged) -> dict[str, Any]:
    """Have a worker lay the outcomes over the code: only a process that has the very core loaded can."""
    order = {"do": "annotate", "counts": merged.by_address()}
    ((_, message),) = list(crew.work_off([order], job.interruption.check))
    if "functions" not in message:
        why = message.get("died") or message["failed"]
        raise CannotRun(f'engine = "atlas": the code cannot be laid out: {why}')
    return message
