# SPDX-License-Identifier: MIT
"""Hashes that tie a built core to the sources it was made from.

The build writes them into the binary, the import compares them with the sources beside it: one
algorithm, used by both. Standard library only, because the build runs it without the package.
"""

import hashlib
from pathlib import Path

_SOURCE_SUFFIXES = frozenset({".c", ".h", ".def"})
_HEX_DIGITS = 16


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


def abi_hash(core_dir: Path) -> int:
    """Hash arena.h, which alone decides what a segment looks like.

    Args: core_dir: the folder that holds arena.h.
    Returns: 64 bits.
    """
    return int(hashlib.sha256((core_dir / "arena.h").read_bytes()).hexdigest()[:_HEX_DIGITS], 16)
