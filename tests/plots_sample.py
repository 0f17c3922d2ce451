# SPDX-License-Identifier: MIT
"""Results made up for figures: every number is told apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import vocabulary
from harness.memory import SAMPLE_PERIOD_S, Sample
from harness.page import Loaded
from harness.results import blank_cell

WORDS = vocabulary.load()
ORDER = list(WORDS.designs)
_MIB = 1 << 20
CURVE = [[0.0, 11.0], [0.5, 23.0], [0.9, 47.0], [0.99, 101.0], [0.999, 1009.0], [1.0, 2003.0]]


def cell(design: str, served: int, failed: int = 0, **params: Any) -> dict[str, Any]:
    made = blank_cell(WORDS)
    made["id"] = ",".join(f"{key}={value}" for key, value in {"design": design, **params}.items())
    made["params"] = {"design": design, **params}
    made |= {
        "design": design,
        "ops": 2 * served,
        "throughput_ops_s": 1e6 * served,
        "allocs": served,
        "seconds": 2.0,
    }
    made["failures"]["zone_busy"] = failed
    task = made["contexts"]["task"]
    task |= {"allocs": served, "timed": served // 7, "latency_curve": CURVE}
    task["failures"]["zone_busy"] = failed
    task["latency_ns"] = {"p50": 23.0, "p99": 101.0, "p999": 1009.0, "max": 2003.0}
    made["memory"] |= {"peak_bytes": served * _MIB, "sample_period_s": SAMPLE_PERIOD_S}
    return made


def window(served: int, failed: int, speed: float, p50: float) -> dict[str, Any]:
    latency = {"p50": p50, "p99": 4 * p50, "p999": None}
    task = {
        "allocs": served,
        "failures": {"zone_busy": failed} if failed else {},
        "latency_ns": latency,
        "timed": 7,
    }
    return {
        "seconds": 0.1,
        "throughput_ops_s": speed,
        "interrupts": {"nmi": 3, "irq": 0},
        "contexts": {"task": task},
    }


def loaded(
    *cells: dict[str, Any],
    samples: Mapping[str, Sequence[Sample]] | None = None,
    label: str = "many",
    folder: Path = Path("/nowhere"),
    engine: str = "stress",
) -> Loaded:
    machine = {"cores_allowed": 2, "cpu_model": "a processor", "architecture": "x86_64"}
    run = {"name": "many", "seed": 23, "machine": machine, "config": {"engine": engine}, "cells": list(cells)}
    return Loaded(folder, label, run, samples or {})


def samples(*used_mib: int) -> list[Sample]:
    return [Sample(round(at * 0.02, 4), mib * _MIB, at * 1000, 0, 0, 0) for at, mib in enumerate(used_mib)]


PAIR = (cell("kmalloc", 101), cell("kmalloc_nolock", 75, 25))
HELD = {made["id"]: samples(*held) for made, held in zip(PAIR, [(0, 7, 3, 2), (5, 5, 5, 5)], strict=True)}


def of_nodes() -> list[dict[str, Any]]:
    cells = [cell("kmalloc", 101), cell("kmalloc_nolock", 101)]
    for made, shares in zip(cells, ((0.49, 0.76, 0.0, 0.5), (0.0, 0.81, 0.25, 0.125)), strict=True):
        names = ("mismatch_share", "slow_path_share", "elsewhere_share", "remote_share")
        made["numa"] |= dict(zip(names, shares, strict=True)) | {"allocs": {"node0": 50, "node1": 51}}
        made["numa"]["modelled_ns"] = {"per_alloc": 80 * (1 + shares[3]), "if_all_local": 80.0}
        made["numa"]["allocs_from"] = {
            "node0": {"node0": 30, "node1": 10},
            "node1": {"node0": 20, "node1": 41},
        }
    return cells
