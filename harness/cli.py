# SPDX-License-Identifier: MIT
"""The command `shmalloc`: one function per subcommand.

Exit status: 0 all as expected; 1 otherwise; 2 bad usage or config; 3 this machine cannot do it;
130 interrupted. For 2 and 3 stdout stays empty.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.interruption import ends_at_ctrl_c
from harness.problems import CannotRun, ConfigError

PASSED, FAILED, USAGE, CANNOT, SIGNALLED = 0, 1, 2, 3, 128

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand. Args: argv: default: the command line.  Returns: the exit status."""
    with ends_at_ctrl_c():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    from shmalloc.errors import (
        BadName,
        BuildMissing,
        GeometryError,
        NoRoom,
        ShmallocError,
        StaleBuildError,
        Unsupported,
    )

    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    try:
        return command(arguments)
    except ConfigError as error:
        return _say(str(error), USAGE)
    except GeometryError as error:
        return _say("\n".join(f"shmalloc: arena: {problem}" for problem in error.problems), USAGE)
    except BadName as error:
        return _say(f"shmalloc: arena: {error}", USAGE)
    except (CannotRun, NoRoom, BuildMissing, StaleBuildError, Unsupported) as error:
        return _say(f"shmalloc: this machine cannot do it: {error}", CANNOT)
    except ShmallocError as error:
        return _say(f"shmalloc: {error}", FAILED)
    except BrokenPipeError:  # the reader has enough; what is still buffered must go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _say(text: str, status: int) -> int:
    print(text, file=sys.stderr)
    return status


def run(arguments: argparse.Namespace) -> int:
    """Run experiments."""
    from harness import claims, matrix, report, report_page, results, runs, vocabulary
    from harness.interruption import Interrupted, Interruption
    from harness.progress import choose

    words = vocabulary.load()
    experiments = _load_all(arguments, lambda path: matrix.load(path, arguments.set, words))
    runs.check_configs(experiments)
    runs.check_machine(experiments)
    out = arguments.out or runs.default_out(experiments)
    progress = choose(quiet=arguments.no_progress)
    finished = []
    with Interruption() as interruption:  # from here on, so that no signal leaves the folder behind
        folders = runs.make_folder(out)
        try:
            for experiment in experiments:
                made, left = runs.run_experiment(experiment, words, interruption, progress)
                finished.append(made)
                folder = out if len(experiments) == 1 else out / experiment.name
                unmade = runs.write(folder, made, left, None if arguments.no_plots else list(words.designs))
                for problem in unmade:
                    print(
                        f"shmalloc: report of {made['name']}: could not be made: {problem}", file=sys.stderr
                    )
                if folder != out:
                    report_page.write_index(out, finished)
        except Interrupted as why:
            progress.close()
            done = f"{len(finished)} of {len(experiments)} configs finished"
            text = f"shmalloc: interrupted by {why}: all processes ended, the arena removed, {done}"
            return _say(text, SIGNALLED + why.number)
        finally:
            progress.close()
            runs.remove_empty(folders)
    if arguments.json:
        found = {"runs": finished, "claims": claims.of(finished)}
        print(json.dumps(found if found["claims"] else {"runs": finished}, indent=1, allow_nan=False))
    else:
        console = report.stdout_console()
        for made in finished:
            if len(finished) == 1 or not claims.speaks_for(made):
                report.print_run(made, console)
        claims.print_table(finished, console)
        console.print(f"results in {out}; report: {out / report_page.FILE}", style="dim", soft_wrap=True)
    return PASSED if all(map(results.passed, finished)) else FAILED


def _load_all(arguments: argparse.Namespace, load: Callable[[Path], Any]) -> list[Any]:
    """Load all files; the mistakes of all of them are one error."""
    loaded, errors = [], []
    for path in arguments.files:
        try:
            loaded.append(load(path))
        except ConfigError as error:
            if error.source == "command line":
                raise
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise _Several(errors)
    return loaded


class _Several(ConfigError):
    def __init__(self, errors: list[ConfigError]) -> None:
        super().__init__("configs", [problem for error in errors for problem in error.problems])
        self._text = "\n".join(map(str, errors))

    def __str__(self) -> str:
        return self._text


def show(arguments: argparse.Namespace) -> int:
    """Show a resolved config and its cells, or an old result."""
    from harness import report

    found: list[Any] = []
    for path in arguments.files:
        result = path / "result.json" if path.is_dir() else path
        found.append(_read_result(result) if result.suffix == ".json" else _resolve(path, arguments))
    if arguments.json:
        print(json.dumps(found if len(found) > 1 else found[0], indent=1))
        return PASSED
    console = report.stdout_console()
    for each in found:
        if "schema" in each:
            report.print_run(each, console)
        else:
            console.print(_shown(each), markup=False, soft_wrap=True)
    return PASSED


def _read_result(path: Path) -> dict[str, Any]:
    from harness.problems import Problem
    from harness.results import SCHEMA

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), [Problem("", None, f"no result: {error}")]) from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ConfigError(
            str(path), [Problem("schema", None, f"no result of this version; allowed is {SCHEMA}")]
        )
    return data


def _resolve(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from harness import matrix, runs, vocabulary

    experiment = matrix.load(path, arguments.set, vocabulary.load())
    runs.check_configs([experiment])
    return {"config": experiment.resolved, "cells": [cell.id for cell in experiment.cells]}


def _shown(resolved: dict[str, Any]) -> str:
    from harness.toml import dumps

    cells = "\n".join(f"#   {cell}" for cell in resolved["cells"])
    return f"{dumps(resolved['config'])}\n# {len(resolved['cells'])} cells:\n{cells}"


def _add_sets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key: a.b=c, c as in TOML"
    )


def _parser() -> argparse.ArgumentParser:
    from harness import linking, live, live_trace, report_command
    from harness.arena_map import commands as arena_map
    from harness.atlas import commands as atlas
    from harness.bench import commands as bench
    from harness.comparison import commands as comparison
    from harness.top import commands as top
    from harness.tracing import commands as tracing

    parser = argparse.ArgumentParser(
        prog="shmalloc", description="A testbed for memory allocators that may be called from any context."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_show(commands)
    report_command.add_command(commands)
    atlas.add_commands(commands)
    bench.add_commands(commands)
    comparison.add_command(commands)
    live.add_commands(commands)
    live_trace.add_command(commands)
    arena_map.add_command(commands)
    top.add_commands(commands)
    linking.add_command(commands)
    tracing.add_commands(commands)
    return parser


def _add_run(commands: Any) -> None:
    parser = commands.add_parser("run", help="run experiments", description="Run experiments.")
    parser.set_defaults(command=run)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a config, TOML")
    _add_sets(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the results (default: results/NAME-TIME)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the results as JSON, and nothing else, on stdout"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress on stderr")
    parser.add_argument("--no-plots", action="store_true", help="draw nothing into the folder of the results")


def _add_show(commands: Any) -> None:
    parser = commands.add_parser(
        "show", help="show a resolved config or an old result", description=show.__doc__
    )
    parser.set_defaults(command=show)
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE|DIR", help="a config, or the folder of a run"
    )
    _add_sets(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
