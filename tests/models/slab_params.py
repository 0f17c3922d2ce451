# SPDX-License-Identifier: MIT
"""slab_debug= as the kernel reads it: from a parameter and a cache's name to its flags, in plain Python."""

from __future__ import annotations

from fnmatch import fnmatchcase

LETTER_FLAGS = {
    "F": "SLAB_CONSISTENCY_CHECKS",
    "Z": "SLAB_RED_ZONE",
    "P": "SLAB_POISON",
    "U": "SLAB_STORE_USER",
    "T": "SLAB_TRACE",
    "A": "SLAB_FAILSLAB",
}


def letters_for(parameter: str, name: str) -> set[str]:
    """Letters that a cache gets: of the first list with its name, else of the last block without a list."""
    common: set[str] = set()
    for block in filter(None, parameter.split(";")):
        letters, comma, names = block.partition(",")
        meant = set((letters or "FZPU").upper()) if comma else set(letters.upper())
        if not comma:
            common = meant
        elif any(fnmatchcase(name, pattern) for pattern in names.split(",")):
            return meant
    return common


def flags_for(parameter: str, name: str) -> set[str]:
    """Flags that a cache gets."""
    return {LETTER_FLAGS[letter] for letter in letters_for(parameter, name) if letter in LETTER_FLAGS}
