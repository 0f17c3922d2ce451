# SPDX-License-Identifier: MIT
"""The subcommand `bench growth`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.bench import growth_report
from harness.bench.carrying_out import add_options, carry_out, names

_AXES = ("size", "objects", "caches", "cpus", "processes")
_MOST_ROUNDS = 1000


def add_command(bench: argparse.ArgumentParser) -> None:
    """Add the subcommand to the parser of `bench`."""
    parser = bench.add_subparsers(metavar="growth", required=False).add_parser(
        "growth",
        help="measure how cost grows with arenas, objects, caches and CPUs",
        description="Measure how cost grows: against arena size, live objects, caches, CPUs and processes.",
    )
    parser.set_defaults(command=growth)
    parser.add_argument(
        "--axes", default=",".join(_AXES), metavar="A,B", help=f"only these of {', '.join(_AXES)}"
    )
    parser.add_argument(
        "--rounds", type=int, default=6, metavar="N", help="6 are the least that have an interval (6)"
    )
    parser.add_argument(
        "--values", type=int, default=99, metavar="N", help="only the N smallest values of each axis"
    )
    add_options(parser, "growth")


def growth(arguments: argparse.Namespace) -> int:
    """Measure how cost grows."""
    from harness.bench.growth import Wanted, grow

    wanted = Wanted(_checked(arguments), arguments.rounds, arguments.values)
    result = carry_out(
        arguments,
        "growth",
        lambda told: grow(wanted, told),
        parts=growth_report.parts,
        text=growth_report.text,
        draw=_draw,
        drawings=_drawings,
    )
    return result if isinstance(result, int) else 0


def _checked(arguments: argparse.Namespace) -> list[str]:
    """Return the axes that are wanted, in their order.

    Raises: ConfigError, with everything that is wrong.
    """
    from harness.problems import ConfigError, Problem, shown

    allowed = f"allowed are {', '.join(_AXES)}"
    axes = names(arguments.axes)
    problems = [Problem("--axes", shown(name), allowed) for name in axes or [""] if name not in _AXES]
    for key, value in (("--rounds", arguments.rounds), ("--values", arguments.values)):
        if not 1 <= value <= _MOST_ROUNDS:
            problems.append(Problem(key, shown(value), f"allowed is 1..{_MOST_ROUNDS}"))
    if problems:
        raise ConfigError("command line", problems)
    return [name for name in _AXES if name in axes]


def _draw(folder: Path, result: dict[str, Any]) -> None:
    from harness.bench.growth_figure import draw

    draw(folder, result)


def _drawings(result: dict[str, Any]) -> list[Any]:
    from harness.bench.page import drawings_of_growth

    return drawings_of_growth(result)
