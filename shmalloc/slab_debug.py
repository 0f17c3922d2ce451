# SPDX-License-Identifier: MIT
"""The kernel parameter ``slab_debug=``: which caches are debugged, and how.

``FZP`` is for all caches.  ``FZ,kmalloc-64,task*;U,mine`` is one list after the other: letters, then names, or
beginnings of names with a ``*``.  The first list that has a cache wins; a block without names is for the caches
in no list; ``,name`` is ``FZPU,name``.  The core applies it to each cache when it is made (slub_params.c).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

__all__ = ["ALONE", "FORM", "LETTERS", "Block", "parse", "problems"]

LETTERS = {
    "F": "consistency checks",
    "Z": "red zones",
    "P": "poisoning",
    "U": "user tracking",
    "T": "trace",
    "A": "failslab mark",
    "O": "off where slabs would have to be larger",
    "-": "none",
}
ALONE = "FZPU"  # slab_debug without a value, and a list without letters
FORM = (
    "accepted is LETTERS[,NAME...][;LETTERS,NAME...]..., letters "
    + ", ".join(f"{letter} ({meaning})" for letter, meaning in LETTERS.items())
    + ", names with a * at most at their end"
)


@dataclass(frozen=True)
class Block:
    """One block of the parameter.

    Attributes: letters: upper case; "" = none.  names: of the caches it is for; () = those in no list.
    """

    letters: str
    names: tuple[str, ...]


def parse(text: str) -> list[Block]:
    """Split the parameter as the kernel does.

    Args: text: what follows ``slab_debug=``.
    Returns: its blocks; none for an empty text.
    """
    return [_block(part) for part in text.split(";") if part]


def _block(part: str) -> Block:
    letters, comma, names = part.partition(",")
    return Block(
        ALONE if comma and not letters else letters.upper(), tuple(names.split(",")) if comma else ()
    )


def problems(text: str, longest: int) -> list[str]:
    """Say what is wrong with a parameter, in words for people.

    Args: text: what follows ``slab_debug=``.  longest: bytes that there is room for.
    Returns: the problems, each once; empty if the kernel and its reader would agree on what it means.
    """
    if len(text.encode()) > longest:
        return [f"{len(text.encode())} bytes: allowed are {longest}"]
    blocks = parse(text)
    found = [problem for block in blocks for problem in _block_problems(block)]
    common = [block for block in blocks if not block.names]
    if len(common) > 1:
        shown = " and ".join(repr(block.letters) for block in common)
        found.append(f"{shown} are both for all caches in no list: one such block")
    listed = Counter(name for block in blocks for name in block.names)
    found += [
        f"{name!r} stands in {count} lists, and the first one wins"
        for name, count in listed.items()
        if count > 1
    ]
    return found


def _block_problems(block: Block) -> list[str]:
    found = [f"unknown letter {letter!r}" for letter in dict.fromkeys(block.letters) if letter not in LETTERS]
    found += [f"letter {letter!r} twice" for letter, n in Counter(block.letters).items() if n > 1]
    if "-" in block.letters and len(block.letters) > 1:
        found.append(f"'-' (none) together with others in {block.letters!r}")
    if "O" in block.letters and block.names:
        found.append(f"'O' is for all caches, and cannot have a list: {','.join(block.names)!r}")
    found += [_name_problem(name) for name in block.names if _name_problem(name)]
    return found


def _name_problem(name: str) -> str:
    if not name:
        return "an empty name between the commas"
    if "*" in name[:-1]:
        return f"{name!r}: a * is allowed at the end only"
    if any(not character.isprintable() or character.isspace() for character in name):
        return f"{name!r}: names have no blanks"
    return ""
