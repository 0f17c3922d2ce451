# SPDX-License-Identifier: MIT
"""Subcommands about an atlas that exists: one of its injections again, or a sample of all."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

PASSED, FAILED, SIGNALLED = 0, 1, 128


def add_commands(commands: Any) -> None:
    """Add these subcommands to the parser."""
    replay_parser = commands.add_parser(
        "replay", help="run one injection of an atlas again", description=replay.__doc__
    )
    replay_parser.set_defaults(command=replay)
    replay_parser.add_argument("--broken", default="none", metavar="X", help="a broken variant")
    replay_parser.add_argument("design", metavar="DESIGN", help="of the cell")
    replay_parser.add_argument(
        "point",
        metavar="SCENARIO@INDEX",
        help="before which instruction of which scenario; +INDEX adds an interrupt in what runs then, ^INDEX one "
        "inside the handler; :nmi or :irq behind an index says of which kind",
    )
    replay_parser.add_argument("--json", action="store_true", help="as JSON")
    verify_parser = commands.add_parser(
        "verify", help="run a sample of a certificate's points again", description=verify.__doc__
    )
    verify_parser.set_defaults(command=verify)
    verify_parser.add_argument(
        "file", type=Path, metavar="FILE|DIR", help="a certificate, or the folder of a run"
    )
    verify_parser.add_argument("--points", type=int, default=251, metavar="N", help="at most so many (251)")
    verify_parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the sample")
    verify_parser.add_argument("--json", action="store_true", help="as JSON")
    scenarios_parser = commands.add_parser(
        "scenarios", help="list the scenarios of an atlas", description=scenarios.__doc__
    )
    scenarios_parser.set_defaults(command=scenarios)
    scenarios_parser.add_argument("design", metavar="DESIGN", help="of the cell")
    scenarios_parser.add_argument("--json", action="store_true", help="as JSON")
    map_parser = commands.add_parser(
        "map", help="show a function's instructions in an atlas", description=map_.__doc__
    )
    map_parser.set_defaults(command=map_)
    map_parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of a run")
    map_parser.add_argument("function", nargs="?", metavar="FUNCTION", help="default: a list of all")
    map_parser.add_argument("--cell", metavar="ID", help="default: the first")


def replay(arguments: argparse.Namespace) -> int:
    """Run exactly one injection of an atlas and show what came of it."""
    from harness.atlas import replay as replaying
    from harness.interruption import Interrupted, Interruption

    wanted = replaying.parse(arguments.design, arguments.broken, arguments.point)
    with Interruption() as interruption:
        try:
            found = replaying.run(wanted, interruption.check)
        except Interrupted as why:
            return SIGNALLED + why.number
    print(json.dumps(found, indent=1) if arguments.json else replaying.text(wanted, found))
    return FAILED if "died" in found else PASSED


def verify(arguments: argparse.Namespace) -> int:
    """Run a random sample of a certificate's points again, and compare. It has to be the same build."""
    from harness.atlas import verify as verifying
    from harness.interruption import Interrupted, Interruption
    from harness.problems import ConfigError, Problem

    if arguments.points < 1:
        raise ConfigError(
            "command line", [Problem("--points", str(arguments.points), "allowed is at least 1")]
        )
    with Interruption() as interruption:
        try:
            found = verifying.run(arguments.file, arguments.points, arguments.seed, interruption.check)
        except Interrupted as why:
            return SIGNALLED + why.number
    print(json.dumps(found, indent=1) if arguments.json else verifying.text(found))
    return PASSED if found["verified"] else FAILED


def scenarios(arguments: argparse.Namespace) -> int:
    """List the scenarios of a design: operation@task design/handler, and what each is about."""
    from rich import box
    from rich.table import Table

    from harness.atlas import replay as replaying
    from harness.atlas import scenario
    from harness.report import stdout_console

    replaying.check_names(arguments.design, "none")
    found = scenario.scenarios(arguments.design, scenario.Selection(kinds=("nmi", "irq")))
    rows = [
        {"scenario": each.name, "operation": each.operation.summary, "handler": each.handler.summary}
        for each in found
    ]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return PASSED
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("scenario", "operation", "handler"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    stdout_console().print(table, markup=False)
    return PASSED


def map_(arguments: argparse.Namespace) -> int:
    """Show each instruction of a function with what an interrupt before it came to."""
    from harness.atlas import sources, text
    from harness.problems import ConfigError, Problem, one_of, shown
    from harness.report import stdout_console

    path = arguments.folder / "atlas.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cells = {cell["id"]: cell for cell in document["cells"]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(str(path), [Problem("", None, f"no atlas: {error}")]) from None
    cell = cells.get(arguments.cell or next(iter(cells)))
    if cell is None:
        raise ConfigError(str(path), [Problem("--cell", shown(arguments.cell), one_of(tuple(cells)))])
    console = stdout_console()
    if arguments.function is None:
        console.print(text.functions(cell))
        return PASSED
    names = tuple(dict.fromkeys(function["name"] for function in cell["functions"]))
    if arguments.function not in names:
        why = f"was not executed in {cell['id']}; {one_of(names)}"
        raise ConfigError(str(path), [Problem("FUNCTION", shown(arguments.function), why)])
    for part in text.function_map(cell, arguments.function, sources.find()):
        console.print(part)
    return PASSED
