# SPDX-License-Identifier: MIT
"""What a process of a run leaves behind when its parent is gone: nothing, whatever it was at."""

import os

from harness import child
from shmalloc import Arena


def test_an_orphan_removes_the_names_of_arenas_that_it_was_still_making() -> None:
    with Arena.create(size="4MiB") as arena:
        path = f"/dev/shm{arena.name}"
        assert os.path.exists(path)
        child.unlink("/shmalloc-0-is-not-there")
        assert not os.path.exists(path)
