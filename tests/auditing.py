# SPDX-License-Identifier: MIT
"""An arena that tests of the library use, and whether all is well in it."""

from shmalloc import Arena
from shmalloc.audit import audit

SIZE = 8 << 20


def clean(arena: Arena) -> bool:
    report = audit(arena)
    assert report.ok, report.problems
    return True
