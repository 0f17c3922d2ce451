# SPDX-License-Identifier: MIT
"""The subcommand `config`: what a C compiler and linker have to be told, on one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from shmalloc import linking

# option -> its words, summary; printed in this order, whatever the order on the command line
_OPTIONS: dict[str, tuple[Callable[[], list[str]], str]] = {
    "version": (lambda: [linking.version()], "version of the package"),
    "cflags": (linking.cflags, "for the compiler: where shmalloc.h is"),
    "libs": (linking.libs, "for the linker: libshmalloc.so, found at run time, too"),
    "includedir": (lambda: [str(linking.includedir())], "folder of shmalloc.h"),
    "libdir": (lambda: [str(linking.libdir())], "folder of libshmalloc.so"),
    "examples": (lambda: [str(linking.examplesdir())], "folder of the example programs"),
}


def add_command(commands: Any) -> None:
    """Add this subcommand to the parser."""
    parser = commands.add_parser(
        "config",
        help="what a C program is compiled and linked with",
        description="Print what a C program is compiled and linked with: "
        "cc program.c $(shmalloc config --cflags --libs).",
    )
    parser.set_defaults(command=config, parser=parser)
    for name, (_, summary) in _OPTIONS.items():
        parser.add_argument(f"--{name}", action="store_true", help=summary)


def config(arguments: argparse.Namespace) -> int:
    """Print what was asked for, in one line."""
    asked = [words for name, (words, _) in _OPTIONS.items() if getattr(arguments, name)]
    if not asked:
        arguments.parser.error(f"nothing asked for: give {', '.join(f'--{name}' for name in _OPTIONS)}")
    print(*(word for words in asked for word in words()))
    return 0
