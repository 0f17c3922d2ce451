# SPDX-License-Identifier: MIT
"""What `bench` and `bench growth` do alike: options, a folder, a line of progress, an interruption, the result."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["add_options", "carry_out", "names", "names_of"]

_SIGNALLED = 128

Told = Callable[[str], None]


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Add where the result goes, and what is shown. Args: name: of the folder."""
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"folder for the results (default: results/{name}-TIME)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON, and nothing else, on stdout"
    )
    parser.add_argument("--no-plot", action="store_true", help="draw nothing")
    parser.add_argument("--no-progress", action="store_true", help="no progress on stderr")


def names(text: str) -> list[str]:
    """Split names that are separated by commas."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


def names_of(option: str, text: str | None) -> list[str]:
    """Split the names that an option was given; none, if it was not.

    Raises: ConfigError: it was, and there is none in it.
    """
    from harness.problems import ConfigError, Problem, shown

    found = names(text or "")
    if text is not None and not found:
        allowed = "allowed are names or patterns, separated by commas; without it: all"
        raise ConfigError("command line", [Problem(option, shown(text), allowed)])
    return found


def carry_out(
    arguments: argparse.Namespace,
    name: str,
    measure: Callable[[Told], dict[str, Any]],
    *,
    parts: Callable[[dict[str, Any]], Iterable[Any]],
    text: Callable[[dict[str, Any]], str],
    draw: Callable[[Path, dict[str, Any]], object],
    drawings: Callable[[dict[str, Any]], Sequence[Any]],
) -> dict[str, Any] | int:
    """Measure, leave NAME.json, report.txt, the picture and the page in the folder, and show it.

    Args: measure: is told what to call with what is going on; that raises if it was interrupted.  parts: of the
        report, for the terminal.  text: the report as a file.  draw: the picture into the folder.  drawings: the
        figures of the page.
    Returns: the result; or the exit status, if a signal has ended it: then nothing is left.
    """
    from harness import runs
    from harness.bench.progress import Line
    from harness.interruption import Interrupted, Interruption

    out = arguments.out or runs.fresh_folder(name)
    line = Line(quiet=arguments.no_progress)
    with Interruption() as interruption:  # from here on, so that no signal leaves the folder behind
        made = runs.make_folder(out)

        def told(what: str) -> None:
            interruption.check()
            line(what)

        try:
            result = measure(told)
        except Interrupted as why:
            runs.remove_empty(made)
            print(f"shmalloc: interrupted by {why}: all processes ended, nothing written", file=sys.stderr)
            return _SIGNALLED + why.number
        except BaseException:
            runs.remove_empty(made)
            raise
        finally:
            line.close()
    written = json.dumps(result, indent=1, allow_nan=False)
    (out / f"{name}.json").write_text(written + "\n", encoding="utf-8")
    (out / "report.txt").write_text(text(result), encoding="utf-8")
    if not arguments.no_plot:
        draw(out, result)
    from harness.bench import page

    page.write(out, name, parts(result), drawings(result), drawn=not arguments.no_plot)
    if arguments.json:
        print(written)
    else:
        from harness.report import stdout_console

        console = stdout_console()
        for part in parts(result):
            console.print(part)
        console.print(f"results in {out}", style="dim", soft_wrap=True)
    return result
