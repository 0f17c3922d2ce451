# SPDX-License-Identifier: MIT
"""Subcommands that look at what there is: designs, arenas, and the insides of a live one."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich import box
from rich.table import Table

# command -> module of shmalloc with a function of that name (arena -> text), summary
_VIEWS = {
    "slabinfo": ("procfs", "slab caches, as /proc/slabinfo"),
    "buddyinfo": ("procfs", "free blocks by order, as /proc/buddyinfo"),
    "zoneinfo": ("procfs", "zones, watermarks and pagesets, as /proc/zoneinfo"),
    "numastat": ("procfs", "NUMA counters of each node"),
    "pagetypeinfo": ("procfs", "free pages by migratetype, as /proc/pagetypeinfo"),
    "alloc_traces": ("slab_traces", "who allocated what is live, of caches with slab_debug=U"),
    "free_traces": ("slab_traces", "who had freed what is live before, of caches with slab_debug=U"),
    "slab_errors": ("slab_traces", "what the debug checks have found"),
    "maps": ("pools", "hash maps, and what is free in their pools and in those of designs, by CPU"),
    "rcu": ("backlog", "grace periods, readers, and callbacks that wait, by CPU"),
    "sheaves": ("sheaves", "objects in each CPU's sheaves, and sheaves in each node's barn (Linux 7.x)"),
    "memcg": (
        "memcg_stat",
        "memory cgroups: usage, limits, events, statistics, and what each CPU has in stock",
    ),
    "deferred": ("backlog", "what was left for irq_work, or for a zone's lock"),
}
_PASSED, _FAILED, _USAGE = 0, 1, 2


def add_commands(commands: Any) -> None:
    """Add these subcommands to the parser."""
    designs_parser = commands.add_parser("designs", help="list the designs", description=designs.__doc__)
    designs_parser.set_defaults(command=designs)
    designs_parser.add_argument("--broken", action="store_true", help="the broken variants instead")
    designs_parser.add_argument("--probes", action="store_true", help="the probe sites instead")
    designs_parser.add_argument(
        "--steps", action="store_true", help="the steps and quantities of scripts instead"
    )
    designs_parser.add_argument("--json", action="store_true", help="as JSON")
    ls_parser = commands.add_parser("ls", help="list the arenas of this machine", description=ls.__doc__)
    ls_parser.set_defaults(command=ls)
    ls_parser.add_argument("--json", action="store_true", help="as JSON")
    rm_parser = commands.add_parser("rm", help="remove an arena that was left behind", description=rm.__doc__)
    rm_parser.set_defaults(command=rm)
    which = rm_parser.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", help="of the arena, as ls shows it")
    which.add_argument("--stale", action="store_true", help="all that nobody uses any more")
    for name, (_, summary) in _VIEWS.items():
        parser = commands.add_parser(name, help=summary, description=f"Print {summary}.")
        parser.set_defaults(command=view, view=name)
        parser.add_argument("name", nargs="?", help="of the arena; may be left out if there is one only")
        if name == "numastat":
            parser.add_argument("-m", dest="memory", action="store_true", help="memory of each node instead")


def designs(arguments: argparse.Namespace) -> int:
    """List the designs and the contexts they may be called from, broken variants, probe sites, or steps."""
    from shmalloc import designs as registry

    if arguments.broken:
        summaries, others = registry.broken_variants(), registry.set_off_by()
        rows = [[name, summaries[name], other or "an interrupt"] for name, other in others.items()]
        return _print(["broken", "what is wrong", "set off by"], rows, as_json=arguments.json)
    if arguments.probes:
        return _print(["probe site"], [[name] for name in registry.probe_sites()], as_json=arguments.json)
    if arguments.steps:
        from harness.script.listing import rows as step_rows

        return _print(["step or quantity", "keys", "what it does"], step_rows(), as_json=arguments.json)
    found = [registry.info(name) for name in registry.names()]
    rows = [[design.name, ", ".join(design.contexts), design.summary] for design in found]
    return _print(["design", "contexts", "summary"], rows, as_json=arguments.json)


def _print(columns: list[str], rows: list[list[str]], *, as_json: bool) -> int:
    from harness.report import stdout_console

    if as_json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1))
        return _PASSED
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    stdout_console().print(table, markup=False)
    return _PASSED


def ls(arguments: argparse.Namespace) -> int:
    """List the arenas of this machine, and who uses them."""
    from shmalloc.arena import list_segments
    from shmalloc.units import format_bytes

    found = list_segments()
    if arguments.json:
        entries = [
            {
                "name": info.name,
                "size_bytes": info.size_bytes,
                "state": info.state,
                "creator_pid": info.creator_pid,
                "possible_cpus": info.nr_cpus,
                "users": list(info.users),
                "stale": not info.users,
            }
            for info in found
        ]
        print(json.dumps(entries, indent=1))
        return _PASSED
    rows = [
        [
            info.name,
            format_bytes(info.size_bytes),
            info.state,
            f"{sum(cpu.alive for cpu in info.cpus)} of {info.nr_cpus}",
            ", ".join(map(str, info.users)) or "nobody: stale",
        ]
        for info in found
    ]
    return _print(["arena", "size", "state", "CPUs", "used by"], rows, as_json=False)


def rm(arguments: argparse.Namespace) -> int:
    """Remove an arena that nobody uses, or all of those."""
    from shmalloc.arena import list_segments, remove

    names = [info.name for info in list_segments() if not info.users] if arguments.stale else [arguments.name]
    for name in names:
        remove(name)
        print(f"removed {name}")
    return _PASSED


def view(arguments: argparse.Namespace) -> int:
    """Print one view of a live arena."""
    from importlib import import_module

    from shmalloc.arena import Arena

    name = arguments.name or only()
    if name is None:
        return _USAGE
    with Arena.attach(name) as arena:
        module = import_module(f"shmalloc.{_VIEWS[arguments.view][0]}")
        if getattr(arguments, "memory", False):
            print(module.numastat_memory(module.memory_per_node(arena)), end="")
        else:
            print(getattr(module, arguments.view)(arena), end="")
    return _PASSED


def only() -> str | None:
    """Return the only arena that is in use; say which there are if it is not the only one."""
    from shmalloc.arena import list_segments

    found = [info.name for info in list_segments() if info.state == "ready" and info.users]
    if len(found) == 1:
        return found[0]
    said = f"which arena? {', '.join(found)}" if found else "there is no arena in use; name one (shmalloc ls)"
    print(f"shmalloc: {said}", file=sys.stderr)
    return None
