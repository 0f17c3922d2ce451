# SPDX-License-Identifier: MIT
"""What a user would pick instead: allocators of other people, as far as this machine has them.

None of them is needed. One that is missing is named, with what brings it and what was looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.bench.subjects import Missing, Subject

__all__ = ["Found", "find"]


@dataclass(frozen=True)
class Found:
    """The peers of this machine, and those that it does not have."""

    subjects: tuple[Subject, ...]
    missing: tuple[Missing, ...]


def find(preload: Mapping[str, Path] | None = None) -> Found:
    """Look for all peers, and build those that are headers. Those called from Python are `python_rows.subjects`.

    Args: preload: libraries to take malloc's place, as `preloads.parse` reads them from the command line; one with the
        name of a peer stands for it.
    """
    from harness.bench import python_rows
    from harness.bench.peers import headers, preloads

    subjects = preloads.chosen(preload or {})
    names = {subject.name for subject in subjects}
    missing: list[Missing] = []
    for look in (preloads.find, headers.find):
        found, not_found = look()
        subjects += [each for each in found if each.name not in names]
        missing += [each for each in not_found if each.peer not in names]
    missing += python_rows.missing()
    return Found(tuple(subjects), tuple(missing))
