# SPDX-License-Identifier: MIT
"""Hashes that tie a built core to the sources it was made from.

The build writes them into the binary, the import compares them with the sources beside it: one
algorithm, used by both. Standard library only, because the build runs it without the package.
"""

import hashlib
import re
from pathlib import Path

_SOURCE_SUFFIXES = frozenset({".c", ".h", ".def"})
_HEX_DIGITS = 16
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def sources(core_dir: Path) -> list[Path]:
    """List the files of *core_dir* that decide what the core does, in a fixed order."""
    return sorted(path for path in core_dir.iterdir() if path.suffix in _SOURCE_SUFFIXES)


def source_id(core_dir: Path, flags: str) -> str:
    """Hash the core's sources and the flags it is compiled with.

    Args: core_dir: the folder that holds them.  flags: compiler and flags, one text.
    Returns: 16 hex digits.
    """
    digest = hashlib.sha256(flags.encode())
    for path in sources(core_dir):
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:_HEX_DIGITS]


def layout_headers(core_dir: Path) -> list[str]:
    """List the headers that decide what a segment looks like: arena.h and its parts, what is included first.

    Args: core_dir: the folder that holds them.
    """
    order: list[str] = []
    met: set[str] = set()

    def visit(name: str) -> None:
        if name in met:
            return
        met.add(name)
        for part in _INCLUDE.findall((core_dir / name).read_text()):
            visit(part)
        order.append(name)

    visit("arena.h")
    return order


def abi_hash(core_dir: Path) -> int:
    """Hash arena.h and its parts, which alone decide what a segment looks like.

    Args: core_dir: the folder that holds them.
    Returns: 64 bits.
    """
    digest = hashlib.sha256()
    for name in layout_headers(core_dir):
        digest.update(f"\0{name}\0".encode())
        digest.update((core_dir / name).read_bytes())
    return int(digest.hexdigest()[:_HEX_DIGITS], 16)
