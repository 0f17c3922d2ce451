# SPDX-License-Identifier: MIT
"""The subcommand `bench`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.bench import growth_commands
from harness.bench.carrying_out import add_options, carry_out, names_of

PASSED, FAILED = 0, 1
_MOST_SAMPLES, _MOST_SECONDS = 10_000, 86_400.0


def add_commands(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure the designs beside the floors of this machine and the peers that it has",
        description="Measure every design, the floors and the peers side by side, on pinned cores, as ratios.",
    )
    parser.set_defaults(command=bench)
    parser.add_argument("--rows", metavar="A,B", help="only these; patterns such as lifo64_* are allowed")
    parser.add_argument("--subjects", metavar="A,B", help="only these; patterns are allowed")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--samples", type=int, default=16, metavar="N", help="of each subject in each row (16)"
    )
    amount.add_argument("--seconds", type=float, metavar="S", help="measure for about so long instead")
    parser.add_argument("--storm-seconds", type=float, default=1.0, metavar="S", help="for each subject (1)")
    parser.add_argument("--preload", action="append", default=[], metavar="NAME=FILE", help="one more malloc")
    parser.add_argument(
        "--traces", type=Path, metavar="DIR", help="recorded traces (configs/traces, if it is there)"
    )
    parser.add_argument("--no-storm", action="store_true", help="put nothing under signals")
    add_options(parser, "bench")
    growth_commands.add_command(parser)


def bench(arguments: argparse.Namespace) -> int:
    """Measure every design, the floors and the peers."""
    from harness.bench import report, selection
    from harness.bench.bench import Wanted
    from harness.bench.bench import bench as measure
    from harness.bench.peers import preloads

    _check(arguments)
    chosen = selection.select(
        names_of("--rows", arguments.rows),
        names_of("--subjects", arguments.subjects),
        preloads.parse(arguments.preload),
        arguments.traces,
    )
    storm_s = 0.0 if arguments.no_storm else arguments.storm_seconds
    wanted = Wanted(arguments.samples, arguments.seconds, storm_s)
    result = carry_out(
        arguments,
        "bench",
        lambda told: measure(chosen, wanted, told),
        parts=report.parts,
        text=report.text,
        draw=_draw,
        drawings=_drawings,
    )
    if isinstance(result, int):
        return result
    broken = any(record["broken"] and record["kind"] == "design" for record in result["rows"])
    return FAILED if broken else PASSED


def _check(arguments: argparse.Namespace) -> None:
    from harness.problems import ConfigError, Problem, shown

    problems = []
    if not 1 <= arguments.samples <= _MOST_SAMPLES:
        allowed = f"allowed is 1..{_MOST_SAMPLES}; 6 are the least that have an interval"
        problems.append(Problem("--samples", shown(arguments.samples), allowed))
    for name, value in (("--seconds", arguments.seconds), ("--storm-seconds", arguments.storm_seconds)):
        if value is not None and not 0 < value <= _MOST_SECONDS:
            problems.append(Problem(name, shown(value), f"allowed is more than 0, up to {_MOST_SECONDS:.0f}"))
    if problems:
        raise ConfigError("command line", problems)


def _draw(folder: Path, result: dict[str, Any]) -> None:
    from harness import vocabulary
    from harness.bench.figure import draw

    draw(folder, result, list(vocabulary.load().designs))


def _drawings(result: dict[str, Any]) -> list[Any]:
    from harness import vocabulary
    from harness.bench.page import drawings_of_bench

    return drawings_of_bench(result, list(vocabulary.load().designs))
