# SPDX-License-Identifier: MIT
"""The subcommand `bench growth`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from harness.bench import growth_report

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
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the results (default: results/growth-TIME)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON, and nothing else, on stdout"
    )
    parser.add_argument("--no-plot", action="store_true", help="draw nothing")
    parser.add_argument("--no-progress", action="store_true", help="no progress on stderr")


def growth(arguments: argparse.Namespace) -> int:
    """Measure how cost grows."""
    import sys

    from harness import runs
    from harness.bench.growth import Wanted, grow
    from harness.bench.progress import Line
    from harness.interruption import Interrupted, Interruption

    axes = _checked(arguments)
    out = arguments.out or runs.fresh_folder("growth")
    runs.make_folder(out)
    line = Line(quiet=arguments.no_progress)
    with Interruption() as interruption:

        def told(text: str) -> None:
            interruption.check()
            line(text)

        try:
            result = grow(Wanted(axes, arguments.rounds, arguments.values), told)
        except Interrupted as why:
            runs.remove_if_empty(out)
            print(f"shmalloc: interrupted by {why}: all processes ended, nothing written", file=sys.stderr)
            return 128 + why.number
        finally:
            line.close()
    _write(out, result, plot=not arguments.no_plot)
    if arguments.json:
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        from harness.report import stdout_console

        console = stdout_console()
        for part in growth_report.parts(result):
            console.print(part)
        console.print(f"results in {out}", style="dim", soft_wrap=True)
    return 0


def _checked(arguments: argparse.Namespace) -> list[str]:
    """Return the axes that are wanted, in their order.

    Raises: ConfigError, with everything that is wrong.
    """
    from harness.problems import ConfigError, Problem, shown

    allowed = f"allowed are {', '.join(_AXES)}"
    axes = [name for name in (part.strip() for part in arguments.axes.split(",")) if name]
    problems = [Problem("--axes", shown(name), allowed) for name in axes or [""] if name not in _AXES]
    for key, value in (("--rounds", arguments.rounds), ("--values", arguments.values)):
        if not 1 <= value <= _MOST_ROUNDS:
            problems.append(Problem(key, shown(value), f"allowed is 1..{_MOST_ROUNDS}"))
    if problems:
        raise ConfigError("command line", problems)
    return [name for name in _AXES if name in axes]


def _write(folder: Path, result: dict[str, Any], *, plot: bool) -> None:
    (folder / "growth.json").write_text(
        json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    (folder / "report.txt").write_text(growth_report.text(result), encoding="utf-8")
    if plot:
        from harness.bench.growth_figure import draw

        draw(folder, result)
