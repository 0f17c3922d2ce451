# SPDX-License-Identifier: MIT
"""The subcommand `compare`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.problems import ConfigError, Problem, shown

__all__ = ["add_command"]

PASSED, FAILED = 0, 1
_MOST_FACTOR = 1000.0
_USAGE = "two folders, A and B; or --a DIR... --b DIR...; or folders and --cells A B"


def add_command(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser(
        "compare",
        help="compare runs: medians, intervals, and a mark only where these do not overlap",
        description=(
            "Compare two runs, several runs on each side, or cells of one run. A mark says that two intervals do not "
            "overlap; what they are is said below the table."
        ),
    )
    parser.set_defaults(command=compare)
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="DIR", help="of runs, or of benches: A and B"
    )
    parser.add_argument(
        "--a", nargs="+", type=Path, default=[], metavar="DIR", help="folders that are A together"
    )
    parser.add_argument(
        "--b", nargs="+", type=Path, default=[], metavar="DIR", help="folders that are B together"
    )
    parser.add_argument(
        "--cells", nargs=2, metavar=("A", "B"), help="cells of one run: design=kmalloc design=kmalloc_nolock"
    )
    parser.add_argument(
        "--steady",
        action="store_true",
        help="runs that were not taken in turn count as if: nothing changed between",
    )
    parser.add_argument(
        "--factor",
        type=float,
        metavar="F",
        help="what load may do to single runs, where no interval says it (3)",
    )
    parser.add_argument("--marked", action="store_true", help="only rows with a mark")
    parser.add_argument(
        "--fail-if-worse", action="store_true", help="exit status 1 if B is worse in a marked row"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def compare(arguments: argparse.Namespace) -> int:
    """Compare runs."""
    from harness.comparison import table
    from harness.report import stdout_console

    found = _compared(arguments)
    if arguments.json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        console = stdout_console()
        for part in table.parts(found, marked_only=arguments.marked):
            console.print(part)
    worse = found["marks"]["worse"] or found["verdicts_worse"]
    return FAILED if arguments.fail_if_worse and worse else PASSED


def _compared(arguments: argparse.Namespace) -> dict[str, Any]:
    from harness.comparison import bench
    from harness.comparison.comparing import LOAD_FACTOR, Options
    from harness.comparison.comparing import compare as made
    from harness.comparison.sides import chosen

    factor = LOAD_FACTOR if arguments.factor is None else arguments.factor
    if not 1 <= factor <= _MOST_FACTOR:
        raise _usage("--factor", shown(arguments.factor), f"allowed is 1..{_MOST_FACTOR:g}")
    options = Options(arguments.steady, factor)
    folders: list[Path] = arguments.folders
    if arguments.cells:
        if arguments.a or arguments.b or not folders:
            raise _usage(
                "--cells", shown(arguments.cells), "allowed with one or more folders, and neither --a nor --b"
            )
        all_ = _members(folders)
        a, keys_a = chosen(all_, arguments.cells[0])
        b, keys_b = chosen(all_, arguments.cells[1])
        if any(one is other for one in a for other in b):
            raise _usage(
                "--cells", shown(arguments.cells), "allowed are two selectors that have no cell in common"
            )
        return made(a, b, list(dict.fromkeys((*keys_a, *keys_b))), options)
    if arguments.a or arguments.b:
        if folders or not (arguments.a and arguments.b):
            raise _usage("folders", None, f"allowed is {_USAGE}")
        return made(_members(arguments.a), _members(arguments.b), (), options)
    if len(folders) != 2:
        raise _usage("folders", str(len(folders)), f"allowed is {_USAGE}")
    if any((folder / bench.FILE).is_file() for folder in folders):
        return bench.compare(*(bench.read(folder) for folder in folders))
    return made(_members(folders[:1]), _members(folders[1:]), (), options)


def _usage(what: str, value: str | None, allowed: str) -> ConfigError:
    return ConfigError("command line", [Problem(what, value, allowed)])


def _members(folders: Sequence[Path]) -> list[Any]:
    from harness.comparison.sides import members, read

    return members([result for folder in folders for result in read(folder)])
