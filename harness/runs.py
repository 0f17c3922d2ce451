# SPDX-License-Identifier: MIT
"""Running experiments: all cells of all files, and the folders that they leave."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from harness import expect, machine, numa_report, plots, repeats, report, report_page, stress
from harness.config import Cell
from harness.interruption import Interruption
from harness.matrix import Experiment
from harness.memory import Sample
from harness.page import Loaded, complete
from harness.problems import CannotRun, ConfigError, Problem
from harness.progress import Goal, Progress
from harness.results import SCHEMA, run_verdict
from harness.script import engine as script
from harness.spawning import kept_zygote
from harness.vocabulary import Vocabulary
from harness.writing import replace_text, replacing

RUNS_DIR = Path("results")
Samples = dict[str, list[Sample]]
Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]


def _run_atlas(job: stress.Job) -> tuple[dict[str, Any], list[Sample]]:
    from harness.atlas import engine  # its catalogue takes a moment

    return engine.run_cell(job)


_ENGINES = {"stress": stress.run_cell, "script": script.run_cell, "atlas": _run_atlas}


@dataclass
class Left:
    """What a run leaves beside its result.

    Attributes: samples: of each cell.  documents: file -> JSON object.  arrays: name -> the arrays of
        arrays/NAME.npz, by their own names.
    """

    samples: Samples = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Arrays] = field(default_factory=dict)


def check_configs(experiments: Sequence[Experiment]) -> None:
    """Find out what only shows when workloads are built, or with all files together.

    Raises: ConfigError.
    """
    names = [experiment.name for experiment in experiments]
    problems = [
        Problem("name", repr(name), "two configs have it; their results would overwrite each other")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    for experiment in experiments:
        problems += _workload_problems(experiment)
    if problems:
        raise ConfigError(", ".join(experiment.source for experiment in experiments), problems)


def check_machine(experiments: Sequence[Experiment]) -> None:
    """Find out whether this machine can run all cells.

    Raises: CannotRun.
    """
    if any(cell.config.engine == "atlas" for experiment in experiments for cell in experiment.cells):
        from harness.atlas.image import machine_check

        machine_check()
    for experiment in experiments:
        for cell in experiment.cells:
            _check_machine(experiment, cell)


def _workload_problems(experiment: Experiment) -> list[Problem]:
    """Build each workload once: what is wrong with a trace shows only then."""
    problems, seen = [], set()
    for cell in experiment.cells:
        config = cell.config
        if config.engine != "stress":
            continue
        arena = config.arena
        nodes = (arena.nodes, arena.cpus, str(arena.distance), str(arena.cpu_node))
        key = (config.workload, config.interrupts, config.cpus, config.seed, nodes)
        if key in seen:
            continue
        seen.add(key)
        try:
            stress.plan(config, experiment.base_dir)
        except ConfigError as error:
            problems += error.problems
    return problems


def _check_machine(experiment: Experiment, cell: Cell) -> None:
    from shmalloc import room
    from shmalloc.units import format_bytes

    config, cores = cell.config, len(os.sched_getaffinity(0))
    if config.engine == "atlas":
        return
    if config.pin == "exclusive" and config.cpus > cores:
        raise CannotRun(
            f'{experiment.source}: pin = "exclusive" with cpus = {config.cpus}: this process may use {cores} '
            'cores; pin = "shared" lets CPUs take turns'
        )
    if config.arena.reserve == "full":
        short = room.shortages(config.arena.size, room.limits())
        if short:
            sizes = ", ".join(f"{limit.source}: {format_bytes(limit.free_bytes)} left" for limit in short)
            raise CannotRun(
                f"{experiment.source}: no room for an arena of {format_bytes(config.arena.size)}: {sizes}; "
                'arena.reserve = "sparse" takes pages only when they are touched'
            )


def run_experiment(
    experiment: Experiment, vocabulary: Vocabulary, interruption: Interruption, progress: Progress
) -> tuple[dict[str, Any], Left]:
    """Run all cells of a config, one after the other.

    Returns: the run's JSON, and what else is to be written.
    Raises: Interrupted, NoRoom, GeometryError, ConfigError, CannotRun.
    """
    cells = experiment.cells
    done: list[list[repeats.Done]] = [[] for _ in cells]
    with kept_zygote():
        for at, repeat in repeats.order(cells):
            interruption.check()
            cell = repeats.with_seed_of(cells[at], repeat)
            progress.begin(_goal(experiment, at, repeat))
            pieces = stress.Pieces()
            job = stress.Job(
                cell, experiment.base_dir, vocabulary, interruption, progress.update, pieces=pieces, number=at
            )
            result, samples = _ENGINES[cell.config.engine](job)
            result["replay"] = replay_command(experiment, cell)
            progress.end(result["verdict"], result["expected"])
            done[at].append(repeats.Done(result, samples, pieces))
    merged = [repeats.merge(of_cell, vocabulary) for of_cell in done]
    results = [each.cell for each in merged]
    left = Left({each.cell["id"]: each.samples for each in merged})
    pieces = stress.Pieces()
    for each in merged:
        for key, found in each.pieces.items():
            pieces.setdefault(key, []).extend(found)
    run = _run_json(experiment, results, vocabulary)
    if experiment.resolved["engine"] == "atlas":
        from harness.atlas import engine as atlas

        left.documents = atlas.documents(run, pieces)
    left.arrays = dict(pieces.get("arrays", []))
    return run, left


def _goal(experiment: Experiment, at: int, repeat: int) -> Goal:
    """Say what a repeat of a cell is to do."""
    cell, config = experiment.cells[at], experiment.cells[at].config
    label = f"{experiment.name} [{at + 1}/{len(experiment.cells)}] {cell.id}"
    if config.repeats > 1:
        label += f" ({repeat + 1} of {config.repeats})"
    return Goal(label, config.seconds, config.ops or 0)


def _run_json(
    experiment: Experiment, results: list[dict[str, Any]], vocabulary: Vocabulary
) -> dict[str, Any]:
    config = experiment.resolved
    placements = sorted({cell["numa"]["placement"]["why"] for cell in results if "placement" in cell["numa"]})
    flavours = list(dict.fromkeys(cell.config.flavour for cell in experiment.cells))
    return {
        "schema": SCHEMA,
        "name": experiment.name,
        "verdict": run_verdict(results, vocabulary),
        "seed": config["seed"],
        "build": machine.build(flavours),
        "machine": {**machine.machine(), "arena_nodes": placements},
        "config": config,
        "expectations": expect.judge(experiment.cells, results),
        "cells": results,
    }


def replay_command(experiment: Experiment, cell: Cell) -> str:
    """Return the command that runs one cell again."""
    sets = [*experiment.overrides, *(f"{path}={_toml(value)}" for path, value in cell.params.items())]
    words = ["shmalloc", "run", experiment.source]
    for text in sets:
        words += ["--set", text]
    return shlex.join(words)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def default_out(experiments: Sequence[Experiment]) -> Path:
    """Choose a fresh folder: results/NAME-TIME, or results/TIME for several files."""
    return fresh_folder(experiments[0].name if len(experiments) == 1 else "")


def fresh_folder(name: str) -> Path:
    """Choose a folder of the results that is not there yet: results/NAME-TIME, or results/TIME."""
    base = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}".removeprefix("-")
    path, number = RUNS_DIR / base, 2
    while path.exists():
        path, number = RUNS_DIR / f"{base}-{number}", number + 1
    return path


def make_folder(folder: Path) -> list[Path]:
    """Make the folder of the results, before anything runs.

    Returns: what was not there before, itself and those around it, innermost first.
    Raises: ConfigError, if it cannot be.
    """
    made: list[Path] = []
    try:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        remove_empty(made)
        problem = Problem("--out", repr(str(folder)), f"no folder for results: {error.strerror}")
        raise ConfigError("command line", [problem]) from None
    return made


def remove_empty(folders: Iterable[Path]) -> None:
    """Leave no folder without results. Args: folders: as `make_folder` returned them."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def write(folder: Path, run: Mapping[str, Any], left: Left, designs: Sequence[str] | None) -> list[str]:
    """Leave a run's folder: result.json, samples, reports, arrays, plots, numastat.txt, an atlas's files.

    Args: left: what `run_experiment` returned.  designs: all that exist, which decides their colours;
        None = no plots, and tables only in the page.
    Returns: what of the page could not be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "report.txt", report.text(run))
    _write_samples(folder / "samples.csv", left.samples)
    replace_text(folder / "result.json", json.dumps(run, indent=1, allow_nan=False) + "\n")
    if numastat := numa_report.numastat_text(run["cells"]):
        replace_text(folder / "numastat.txt", numastat)
    _write_arrays(folder / "arrays", left.arrays)
    for name, document in left.documents.items():
        replace_text(folder / name, json.dumps(document, allow_nan=False) + "\n")
    loaded = Loaded(folder, run["name"], complete(run), left.samples, left.documents.get("atlas.json"))
    if designs is not None:
        plots.draw(loaded, designs)
    return report_page.write(folder / report_page.FILE, [loaded], designs or ())


def _write_arrays(folder: Path, arrays: Mapping[str, Arrays]) -> None:
    """Leave NAME.npz for each, which is to be read without pickle."""
    for name, mapping in arrays.items():
        folder.mkdir(exist_ok=True)
        if objects := [key for key, array in mapping.items() if array.dtype.hasobject]:
            raise TypeError(f"{name}: {', '.join(objects)} holds Python objects")
        with replacing(folder / f"{name}.npz") as part, part.open("wb") as file:
            np.savez_compressed(file, **dict[str, Any](mapping))


def _write_samples(path: Path, samples: Samples) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", *(field.name for field in fields(Sample))])
        for cell, taken in samples.items():
            writer.writerows([cell, *asdict(sample).values()] for sample in taken)
