# SPDX-License-Identifier: MIT
"""The subcommands `top` and `stat`."""

from __future__ import annotations

import argparse
from typing import Any

_COLUMNS = (
    "slow: interrupts that landed in an allocator's slow path. path%: of allocations and frees in slabs, those that "
    "took it. waits: for locks. p50ns, p99ns: of the allocations that are timed. A rate below 10 has a decimal."
)
_WAIT = "wait for an arena that is not there yet, and for the next one when it has ended"


def add_commands(commands: Any) -> None:
    """Add these subcommands to the parser."""
    parser = commands.add_parser(
        "top", help="a running arena on the terminal, as slabtop", description=_top.__doc__
    )
    parser.set_defaults(command=_top)
    parser.add_argument(
        "name", nargs="?", help="of the arena; without, the only one, and those its run makes next"
    )
    parser.add_argument("-d", dest="delay", metavar="SECONDS", help="between two looks (default: 3)")
    parser.add_argument(
        "-s", dest="sort", metavar="KEY", default="o", help="sort caches by: a b c l v n o p s u"
    )
    parser.add_argument(
        "-o", dest="once", action="store_true", help="print it once; rates: since it was made, or of -d"
    )
    parser.add_argument("--json", action="store_true", help="with -o: as JSON")
    parser.add_argument("--wait", action="store_true", help=_WAIT)
    parser = commands.add_parser(
        "stat",
        help="a line an interval, as vmstat",
        description=_stat.__doc__,
        usage="%(prog)s [-h] [-t] [-n] [--json] [--wait] [NAME] [INTERVAL [COUNT]]",
        epilog=_COLUMNS,
    )
    parser.set_defaults(command=_stat)
    operands = "arena, as in top; seconds between two lines (without: one line); lines (without: no end)"
    parser.add_argument("operands", nargs="*", metavar="NAME INTERVAL COUNT", help=operands)
    parser.add_argument("-t", dest="timestamp", action="store_true", help="with the time")
    parser.add_argument("-n", dest="one_header", action="store_true", help="write the header once")
    parser.add_argument(
        "--json", action="store_true", help="as JSON, one object a line, with counts of the interval"
    )
    parser.add_argument("--wait", action="store_true", help=_WAIT)


def _top(arguments: argparse.Namespace) -> int:
    """Show what a running arena does: caches, CPUs, contexts, failures, zones, memcgs. Press h for the keys."""
    from harness.top.top import top

    return top(arguments)


def _stat(arguments: argparse.Namespace) -> int:
    """Print what a running arena does, a line an interval; the first is of the time since it was made."""
    from harness.top.stat import stat

    return stat(arguments)
