# SPDX-License-Identifier: MIT
"""The subcommand `trace`: events of a live arena, switched and shown from outside."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.problems import ConfigError, Problem, one_of

if TYPE_CHECKING:
    from shmalloc.arena import Arena
    from shmalloc.trace import Events

__all__ = ["add_command"]

_PASSED, _USAGE = 0, 2
_PERIOD_S = 0.1
_STYLE = "tracefs"
_SHM = Path("/dev/shm")


def add_command(commands: Any) -> None:
    """Add it to the parser."""
    parser = commands.add_parser("trace", help="events of a live arena", description=trace.__doc__)
    parser.set_defaults(command=trace)
    parser.add_argument("name", nargs="?", help="of the arena; may be left out if there is one only")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--on", action="store_true", help="record from now on")
    what.add_argument("--off", action="store_true", help="record nothing any more; what is there stays")
    what.add_argument("--show", action="store_true", help="print what is there, and leave it")
    what.add_argument("--follow", action="store_true", help="print and take it, and what comes, till Ctrl-C")
    what.add_argument("--save", type=Path, metavar="FILE.npz", help="write what is there, for export-trace")
    parser.add_argument(
        "--events", action="append", metavar="GLOB", help="with --on: kmem:*, kmalloc; repeated; default: all"
    )
    parser.add_argument("--mode", metavar="MODE", help="with --on: overwrite (default) or discard")


def trace(arguments: argparse.Namespace) -> int:
    """Record events of a live arena that has rings (trace.buffer of a config), and print them as tracefs does.

    Without an option: what is recorded, and how much of it there is.
    """
    from harness.live import only
    from shmalloc.arena import Arena

    _check(arguments)
    name = arguments.name or only()
    if name is None:
        return _USAGE
    with Arena.attach(name) as arena:
        if arguments.on:
            _say_behind(arena.trace.on(arguments.events or ["*"], arguments.mode or "overwrite"), "recorded")
        elif arguments.off:
            _say_behind(arena.trace.off(), "faster again")
        elif arguments.show:
            sys.stdout.write(_text(arena.trace.read()))
        elif arguments.follow:
            _follow(arena)
        elif arguments.save:
            arena.trace.read().save(arguments.save)
        else:
            _print_state(arena)
    return _PASSED


def _check(arguments: argparse.Namespace) -> None:
    """Find everything wrong with the options before anything is done. Raises: ConfigError."""
    from shmalloc._binding import core
    from shmalloc.tracing import MODES, event_mask

    problems = []
    for option, given in (("--events", arguments.events), ("--mode", arguments.mode)):
        if given and not arguments.on:
            problems.append(Problem(option, None, "allowed is with --on only"))
    for glob in arguments.events or ():
        try:
            event_mask(core(), [glob])
        except ValueError:
            names = ", ".join(core().names("trace"))
            problems.append(Problem("--events", glob, f"allowed is what matches one of {names}"))
    if arguments.mode and arguments.mode not in MODES:
        problems.append(Problem("--mode", arguments.mode, one_of(MODES)))
    if arguments.save and arguments.save.suffix != ".npz":
        problems.append(Problem("--save", str(arguments.save), "allowed is a name that ends in .npz"))
    if problems:
        raise ConfigError("command line", problems)


def _say_behind(cpus: list[int], what: str) -> None:
    if cpus:
        listed = ", ".join(map(str, cpus))
        print(
            f"shmalloc: CPUs that take no interrupts now: {listed}: what their first attempts serve is {what} "
            "once one of their calls goes another way",
            file=sys.stderr,
        )


def _print_state(arena: Arena) -> None:
    events = arena.trace.events
    print(
        f"{arena.name}: {'recording ' + ', '.join(events) if events else 'off'}; mode {arena.trace.mode}, ",
        end="",
    )
    print(f"{arena.trace.places} events for each CPU")
    for state in arena.trace.states():
        print(
            f"CPU {state.cpu:<3} events {state.events}  there {state.there}  taken {state.taken}  "
            f"overwritten {state.overwritten}  lost {state.lost}"
        )


def _text(events: Events) -> str:
    from harness.tracing.kernel_text import write_text

    out = io.StringIO()
    write_text(events, out, _STYLE)
    return out.getvalue()


def _follow(arena: Arena) -> None:
    """Take and print events until the arena's name is gone; what was lost is said once, where it was."""
    lost: dict[int, int] = {}
    overwritten: dict[int, int] = {}
    first = True
    while True:
        goes_on = (_SHM / arena.name.lstrip("/")).exists()
        events = arena.trace.read(consume=True)
        shown = replace(
            events, lost=_more(events.lost, lost), overwritten=_more(events.overwritten, overwritten)
        )
        lost, overwritten = dict(events.lost), dict(events.overwritten)
        lines = _text(shown).splitlines(keepends=True)
        sys.stdout.writelines(line for line in lines if first or not line.startswith("#"))
        sys.stdout.flush()
        first = False
        if not goes_on:
            return
        time.sleep(_PERIOD_S)


def _more(now: Mapping[int, int], before: Mapping[int, int]) -> dict[int, int]:
    return {cpu: number - before.get(cpu, 0) for cpu, number in now.items()}
