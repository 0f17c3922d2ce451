# SPDX-License-Identifier: MIT
"""The subcommand `bench`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from harness.bench import growth_commands

PASSED, FAILED, SIGNALLED = 0, 1, 128
_MOST_SAMPLES, _MOST_SECONDS = 10_000, 86_400.0


def add_commands(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure the designs beside the floors of this machine and the peers that it has",
        description="Measure every design, the floors and the peers side by side, on pinned cores, as ratios.",
    )
    parser.set_defaults(command=bench)
    parser.add_argument(
        "--rows", default="", metavar="A,B", help="only these; patterns such as lifo64_* are allowed"
    )
    parser.add_argument("--subjects", default="", metavar="A,B", help="only these; patterns are allowed")
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
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the results (default: results/bench-TIME)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON, and nothing else, on stdout"
    )
    parser.add_argument("--no-storm", action="store_true", help="put nothing under signals")
    parser.add_argument("--no-plot", action="store_true", help="draw nothing")
    parser.add_argument("--no-progress", action="store_true", help="no progress on stderr")
    growth_commands.add_command(parser)


def bench(arguments: argparse.Namespace) -> int:
    """Measure every design, the floors and the peers."""
    from harness import runs
    from harness.bench import report, selection
    from harness.bench.bench import Wanted
    from harness.bench.bench import bench as measure
    from harness.bench.peers import preloads
    from harness.bench.progress import Line
    from harness.interruption import Interrupted, Interruption

    _check(arguments)
    chosen = selection.select(
        _names(arguments.rows),
        _names(arguments.subjects),
        preloads.parse(arguments.preload),
        arguments.traces,
    )
    storm_s = 0.0 if arguments.no_storm else arguments.storm_seconds
    wanted = Wanted(arguments.samples, arguments.seconds, storm_s)
    out = arguments.out or runs.fresh_folder("bench")
    runs.make_folder(out)
    line = Line(quiet=arguments.no_progress)
    with Interruption() as interruption:

        def told(text: str) -> None:
            interruption.check()
            line(text)

        try:
            result = measure(chosen, wanted, told)
        except Interrupted as why:
            runs.remove_if_empty(out)
            import sys

            print(f"shmalloc: interrupted by {why}: all processes ended, nothing written", file=sys.stderr)
            return SIGNALLED + why.number
        finally:
            line.close()
    _write(out, result, plot=not arguments.no_plot)
    if arguments.json:
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        from harness.report import stdout_console

        console = stdout_console()
        for part in report.parts(result):
            console.print(part)
        console.print(f"results in {out}", style="dim", soft_wrap=True)
    broken = any(record["broken"] and record["kind"] == "design" for record in result["rows"])
    return FAILED if broken else PASSED


def _names(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name]


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


def _write(folder: Path, result: dict[str, Any], *, plot: bool) -> None:
    from harness.bench import report

    (folder / "bench.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "report.txt").write_text(report.text(result), encoding="utf-8")
    if plot:
        from harness import vocabulary
        from harness.bench.figure import draw

        draw(folder, result, list(vocabulary.load().designs))
