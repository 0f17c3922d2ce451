# SPDX-License-Identifier: MIT
"""Results that were made up, for comparisons whose outcome is known."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.results import SCHEMA


def span(ops_s: float = 1e6, p50: float | None = 50.0, failed: int = 0, **more: Any) -> dict[str, Any]:
    """Make what a window, or a run, says of itself: one task's context, one second."""
    return {
        "seconds": 1.0,
        "processor_s": 2.0,
        "ops": ops_s,
        "throughput_ops_s": ops_s,
        "interrupts": {"nmi": 0, "irq": 0},
        "contexts": {
            "task": {
                "allocs": 1_000_000 - failed,
                "failures": {"zone_busy": failed} if failed else {},
                "latency_ns": {"p50": p50, "p99": None, "p999": None},
                "timed": 10_007,
            }
        },
        "used_bytes": 1 << 20,
        **more,
    }


def windows(values: Sequence[float]) -> list[dict[str, Any]]:
    """Make windows of these throughputs."""
    return [span(value) for value in values]


def cell(
    runs: Sequence[Mapping[str, Any]],
    own: Sequence[Mapping[str, Any]] = (),
    params: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Make a cell. Args: runs: entries of `repeats`.  own: its windows.  params: keys that vary."""
    params = dict(params or {})
    return {
        "id": ",".join(f"{key}={value}" for key, value in params.items()) or "kmalloc",
        "params": params,
        "design": "kmalloc",
        "verdict": "ok",
        "expected": "ok",
        "cpus": 2,
        "contexts": {"task": {"latency_ns": {"max": 1013.0}}},
        "windows": list(own),
        "repeats": list(runs),
        **more,
    }


def result(cells: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """Make a result."""
    return {
        "schema": SCHEMA,
        "name": "made",
        "verdict": "ok",
        "seed": 1,
        "build": {"id": "aa"},
        "machine": {"cores_allowed": 2, "load_1min": 0.1, "warnings": []},
        "config": {"engine": "stress", "design": "kmalloc", "cpus": 2, "oracle": True},
        "expectations": [],
        "cells": list(cells),
        **more,
    }


def leave(folder: Path, made: Mapping[str, Any]) -> Path:
    """Write a result into a folder. Returns: the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(made))
    return folder
