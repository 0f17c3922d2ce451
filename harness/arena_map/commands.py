# SPDX-License-Identifier: MIT
"""The command `shmalloc pagemap`: what each page of a live arena is, now or for a while."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.problems import ConfigError, Problem
from harness.writing import replace_text

if TYPE_CHECKING:
    from harness.arena_map.recording import Recording
    from shmalloc.arena import Arena

__all__ = ["add_command"]

_PASSED, _USAGE = 0, 2
_MOMENTS = 48
_STEP_S = 0.005
_MOST_WATCH_S = 86_400.0


def add_command(commands: Any) -> None:
    """Declare it."""
    parser = commands.add_parser(
        "pagemap", help="what each page of a live arena is, as a table or a page", description=pagemap.__doc__
    )
    parser.set_defaults(command=pagemap)
    parser.add_argument("name", nargs="?", help="of the arena; may be left out if there is one only")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the map as a page, HTML")
    parser.add_argument(
        "--watch", type=float, metavar="SECONDS", help="with --out: record so long, or until Ctrl-C"
    )
    parser.add_argument("--json", action="store_true", help="the counts as JSON")


def pagemap(arguments: argparse.Namespace) -> int:
    """Say what each page of a live arena is: counts by zone, or with --out a page that shows every one."""
    from harness.live import only
    from shmalloc.arena import Arena

    _check(arguments)
    name = arguments.name or only()
    if name is None:
        return _USAGE
    with Arena.attach(name) as arena:
        found = _now(arena) if arguments.watch is None else _watch(arena, arguments.watch)
        counts = _counts(arena.name, found)
    if arguments.out is not None:
        _write(arguments.out, name, found)
    if arguments.json:
        print(json.dumps(counts, indent=1))
    elif arguments.out is None:
        _print(counts)
    return _PASSED


def _check(arguments: argparse.Namespace) -> None:
    problems = []
    if arguments.watch is not None and not 0 < arguments.watch <= _MOST_WATCH_S:
        allowed = f"allowed is more than 0 and at most {_MOST_WATCH_S:g}"
        problems.append(Problem("--watch", f"{arguments.watch:g}", allowed))
    if arguments.watch is not None and arguments.out is None:
        problems.append(
            Problem("--watch", f"{arguments.watch:g}", "needs --out FILE: what is recorded is a page")
        )
    if arguments.out is not None and arguments.out.is_dir():
        problems.append(Problem("--out", repr(str(arguments.out)), "is a folder; allowed is a file"))
    elif arguments.out is not None and not arguments.out.parent.is_dir():
        problems.append(Problem("--out", repr(str(arguments.out)), "there is no such folder to put it into"))
    if problems:
        raise ConfigError("command line", problems)


def _now(arena: Arena) -> Recording:
    """Look once, through all lists."""
    from harness.arena_map.recording import Moment, Recording, encode
    from shmalloc.pagemap import page_map

    found = page_map(arena)
    moment = Moment("now", 0.0, found.planes, found.types, found.objects)
    return Recording(encode(found.frame, found.caches, [moment]))


def _watch(arena: Arena, seconds: float) -> Recording:
    """Record for some seconds, or until a signal."""
    from harness.arena_map.recorder import Recorder
    from harness.arena_map.recording import Recording
    from harness.interruption import Interrupted, Interruption

    recorder = Recorder(arena, seconds, _MOMENTS, objects=True)
    began = before = time.monotonic()
    with Interruption() as interruption:
        try:
            while before - began < seconds:
                interruption.check()
                time.sleep(_STEP_S)
                now = time.monotonic()
                recorder.tick(now - before)
                before = now
        except Interrupted:
            print("shmalloc: interrupted; what was recorded so far is kept", file=sys.stderr)
    recorder.mark("end", at_rest=True)
    return Recording(recorder.finish())


def _counts(name: str, found: Recording) -> dict[str, Any]:
    """Count the pages of each kind at the last moment, by zone, and the objects."""
    import numpy as np

    from harness.arena_map.shown import named_zones
    from shmalloc.pagemap import KINDS, OBJECT_STATES, Kind

    objects = found.objects(len(found) - 1)
    names = [name for name, _ in named_zones(found.meta)]
    by_zone = dict(zip(names, found.zone_counts[-1], strict=True))
    states = np.bincount(objects.state, minlength=len(OBJECT_STATES)) if objects is not None else None
    return {
        "name": name,
        "pages": {KINDS[kind].name: int(found.counts[-1, kind]) for kind in Kind},
        "zones": {zone: {KINDS[kind].name: int(row[kind]) for kind in Kind} for zone, row in by_zone.items()},
        "objects": None
        if states is None
        else {naming.name: int(states[state]) for state, naming in OBJECT_STATES.items()},
    }


def _print(counts: dict[str, Any]) -> None:
    """Print a row for each kind there is, a column for each zone."""
    from rich import box
    from rich.table import Table

    from harness.report import stdout_console
    from shmalloc.pagemap import KINDS, OBJECT_STATES

    zones = counts["zones"]
    pages = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    pages.add_column("pages")
    for column in (*zones, "all"):
        pages.add_column(column, justify="right")
    for naming in KINDS.values():
        if counts["pages"][naming.name]:
            row = [f"{zone[naming.name]:,}" for zone in zones.values()]
            pages.add_row(naming.label, *row, f"{counts['pages'][naming.name]:,}")
    console = stdout_console()
    console.print(pages, markup=False)
    if counts["objects"] is not None:
        objects = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        objects.add_column("objects of slabs")
        objects.add_column("all", justify="right")
        for naming in OBJECT_STATES.values():
            if counts["objects"][naming.name]:
                objects.add_row(naming.label, f"{counts['objects'][naming.name]:,}")
        console.print(objects, markup=False)


def _write(path: Path, name: str, found: Recording) -> None:
    """Write the page."""
    from harness.arena_map.section import Mapped, section
    from harness.page import document, element, join

    frame = found.meta["frame"]
    title = f"Arena {name}"
    header = join(
        element("h1", title),
        element(
            "p",
            f"{frame['nr_pages']:,} pages, {frame['cpus']} possible CPUs; {time.strftime('%F %T')}",
            class_="quiet",
        ),
    )
    try:
        replace_text(path, document(title, header, [section([Mapped(name, "", found)])]))
    except OSError as error:
        raise ConfigError(
            "command line", [Problem("--out", repr(str(path)), f"cannot be written: {error.strerror}")]
        ) from None
