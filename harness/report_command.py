# SPDX-License-Identifier: MIT
"""The command `shmalloc report`: the page of an old run, or of several side by side."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.problems import ConfigError, Problem, shown

if TYPE_CHECKING:
    from harness.page import Loaded

__all__ = ["add_command"]

_SOURCE = "command line"
_RESULT = "result.json"


def add_command(commands: Any) -> None:
    """Declare it."""
    parser = commands.add_parser(
        "report", help="make the page of an old run, or of several side by side", description=report.__doc__
    )
    parser.set_defaults(command=report)
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="the folder of a run, or a folder of such folders",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html in DIR, or in this folder if there are several runs)",
    )
    parser.add_argument(
        "--picture",
        metavar="ID",
        help="no page, but this section or figure of it as PNG (default of --out: ID.png); needs a Chromium",
    )


def report(arguments: argparse.Namespace) -> int:
    """Make one HTML file of what runs have left; it loads nothing and opens from disk."""
    from harness import page, report_page, vocabulary

    folders = _folders(arguments.folders)
    runs = _labelled([page.load(folder) for folder in folders])
    if arguments.picture is not None:
        return _picture(arguments.picture, arguments.out, runs)
    path = arguments.out or (runs[0].folder if len(runs) == 1 else Path()) / report_page.FILE
    problems = _write(path, runs, list(vocabulary.load().designs))
    for problem in problems:
        print(f"shmalloc: report: could not be made: {problem}", file=sys.stderr)
    print(f"report of {_said(runs)}: {path}")
    return 0


def _said(runs: Sequence[Loaded]) -> str:
    label = runs[0].label.encode(errors="replace").decode()  # JSON may have half a surrogate pair
    return label if len(runs) == 1 else f"{len(runs)} runs"


def _folders(given: Sequence[Path]) -> list[Path]:
    """Find the folders of all runs, in the order given; what holds runs stands for them, by name.

    Raises: ConfigError, with all that are no results, or are there twice.
    """
    found: list[Path] = []
    problems = []
    for path in given:
        folder = path.parent if path.name == _RESULT else path
        try:
            inner = [folder] if (folder / _RESULT).is_file() else _inner(folder)
            why = "" if inner else _allowed(folder)
        except OSError as error:  # a name that is too long, say
            inner, why = [], f"cannot be read: {error.strerror}"
        found += inner
        if not inner:
            problems.append(Problem("DIR", shown(str(path)), why))
    places = Counter(folder.resolve() for folder in found)
    problems += [
        Problem("DIR", repr(str(folder)), "the same run twice; allowed is once")
        for folder in dict.fromkeys(found)
        if places.pop(folder.resolve(), 0) > 1
    ]
    if problems:
        raise ConfigError(_SOURCE, problems)
    return found


def _inner(folder: Path) -> list[Path]:
    return sorted(each.parent for each in folder.glob(f"*/{_RESULT}"))


def _allowed(folder: Path) -> str:
    why = (
        "no such folder"
        if not folder.exists()
        else "not a folder"
        if not folder.is_dir()
        else f"no {_RESULT}"
    )
    return f"{why}; allowed is the folder of a run, with its {_RESULT}, or a folder of such folders"


def _labelled(runs: Sequence[Loaded]) -> list[Loaded]:
    """Name each run as shortly as tells them apart: by its config, by its folder, or by the whole path."""
    names = [
        [each.label for each in runs],
        [each.folder.resolve().name for each in runs],
        [str(each.folder) for each in runs],
    ]
    chosen = next(each for each in names if len(set(each)) == len(each))
    return [replace(each, label=label) for each, label in zip(runs, chosen, strict=True)]


def _picture(name: str, out: Path | None, runs: Sequence[Loaded]) -> int:
    from harness import report_page, vocabulary
    from harness.page import picture

    path = out or Path(f"{name}.png")
    if path.suffix != ".png":
        raise _unwritable(path, "allowed is the name of a PNG")
    drawn = picture.take(report_page.html(runs, list(vocabulary.load().designs)), name)
    try:
        path.write_bytes(drawn)
    except OSError as error:
        raise _unwritable(path, f"cannot be written: {error.strerror}") from None
    print(f"{name} of {_said(runs)}: {path}")
    return 0


def _write(path: Path, runs: Sequence[Loaded], designs: Sequence[str]) -> list[str]:
    from harness import report_page

    if path.is_dir():
        raise _unwritable(path, "a folder; allowed is a file")
    try:
        return report_page.write(path, runs, designs)
    except OSError as error:
        raise _unwritable(path, f"cannot be written: {error.strerror}") from None


def _unwritable(path: Path, why: str) -> ConfigError:
    return ConfigError(_SOURCE, [Problem("--out", repr(str(path)), why)])
