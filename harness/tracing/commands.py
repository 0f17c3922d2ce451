# SPDX-License-Identifier: MIT
"""Subcommands for traces in the tools of others."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from harness.problems import ConfigError, Problem

_PASSED = 0
_CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_MOST_CPU = 0xFFFF
_SUFFIXES = (".gz", ".txt", ".log", ".trace", ".perf")


def add_commands(commands: Any) -> None:
    """Add these subcommands to the parser."""
    parser = commands.add_parser(
        "import-trace",
        help="make a workload of a kernel's trace: text of perf script, tracefs or trace-cmd",
        description=import_trace.__doc__,
    )
    parser.set_defaults(command=import_trace)
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="text, also .gz; - is standard input; several are put in order",
    )
    parser.add_argument(
        "--out", type=Path, metavar="X.npz", help="the workload (default: named as the first FILE, here)"
    )
    parser.add_argument(
        "--comm",
        action="append",
        default=[],
        metavar="NAME",
        help="only allocations by tasks of this name, * allowed; may be repeated",
    )
    parser.add_argument("--cpus", metavar="LIST", help="only events of these CPUs: 0,2-3")
    parser.add_argument(
        "--no-slab-pages",
        action="store_true",
        help="without pages that slabs were made of: the replay's slabs take their own",
    )
    parser.add_argument(
        "--calls",
        action="store_true",
        help="of text that export-trace wrote: calls of designs, instead of the kmem events below them",
    )
    _add_export(commands)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export-trace",
        help="write a run's recorded events for Perfetto, or as tracefs, trace-cmd or perf script print them",
        description=export_trace.__doc__,
    )
    parser.set_defaults(command=export_trace)
    parser.add_argument(
        "path", type=Path, metavar="DIR|FILE.npz", help="the folder of a run, or one of its traces"
    )
    parser.add_argument(
        "--cell", metavar="ID", help="of the run; may be left out if one cell only has a trace"
    )
    parser.add_argument(
        "--format",
        default="perfetto",
        metavar="FORMAT",
        help="perfetto (default), tracefs, trace-cmd or perf-script",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="- is standard output (default: that for text, NAME.pftrace here)",
    )


def export_trace(arguments: argparse.Namespace) -> int:
    """Write recorded events for other tools. Perfetto: open the file at ui.perfetto.dev, or with trace_processor."""
    from harness.problems import unknown
    from harness.tracing import exporting
    from harness.tracing.timeline import cpus_of

    if arguments.format not in exporting.FORMATS:
        problem = Problem(
            "--format", arguments.format, unknown("format", arguments.format, exporting.FORMATS)
        )
        raise ConfigError("export-trace", [problem])
    recorded = exporting.find(arguments.path, arguments.cell)
    perfetto = arguments.format == exporting.PERFETTO
    out = arguments.out or (Path(f"{recorded.name}.pftrace") if perfetto else exporting.STDOUT)
    exporting.write(recorded, arguments.format, out)
    if out != exporting.STDOUT:
        lost = sum(recorded.events.lost.values()) + sum(recorded.events.overwritten.values())
        gone = f"; {lost:,} more were lost or overwritten" if lost else ""
        print(f"{out}: {len(recorded.events):,} events of {len(cpus_of(recorded.events))} CPUs{gone}")
    return _PASSED


def import_trace(arguments: argparse.Namespace) -> int:
    """Make a workload of the kmem events in a trace, and a config that replays it."""
    from harness.tracing import imported, importing

    wanted = importing.Wanted(
        tuple(arguments.comm),
        _cpus(arguments.cpus),
        slab_pages=not arguments.no_slab_pages,
        calls=arguments.calls,
    )
    out = arguments.out or _default_out(arguments.files[0])
    _check_out(out)
    made = importing.import_trace(arguments.files, wanted)
    imported.write(made, out)
    print(imported.summary(made))
    config = out.with_suffix(".toml")
    if config.exists():
        text = f"{out} written; {config} is there already and stays as it is"
    else:
        config.write_text(imported.config_of(made, out), encoding="utf-8")
        text = f"{out} and {config} written"
    print(f"{text}\nreplay it:  shmalloc run {config}")
    return _PASSED


def _cpus(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset()
    found: set[int] = set()
    ok = _CPUS.fullmatch(text)
    for part in text.split(",") if ok else ():
        first, _, last = part.partition("-")
        ok = ok if int(first) <= int(last or first) <= _MOST_CPU else None
        if ok:
            found.update(range(int(first), int(last or first) + 1))
    if not ok:
        raise _error("--cpus", text, f"allowed are numbers and ranges up to {_MOST_CPU}: 0,2-3")
    return frozenset(found)


def _default_out(file: Path) -> Path:
    from harness.tracing.sources import STDIN

    name = "trace" if file == STDIN else file.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    out = Path(f"{name or 'trace'}.npz")
    if out.exists():
        raise _error("--out", str(out), "is there already; allowed is to name it, or another, with --out")
    return out


def _check_out(out: Path) -> None:
    if out.suffix != ".npz":
        raise _error("--out", str(out), "allowed is a name that ends in .npz")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise _error("--out", str(out), "allowed is a file in a folder that is there")


def _error(option: str, value: str, allowed: str) -> ConfigError:
    return ConfigError("import-trace", [Problem(option, value, allowed)])
