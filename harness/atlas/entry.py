# SPDX-License-Identifier: MIT
"""Where a worker begins: it chooses its core before any other module can ask for one.

`python -m harness.atlas.entry SEGMENT PARENT < spec.json`. Modules that take constants from the core load it when
they are imported, and a process keeps the one that it has loaded: one with a bug must be there before them.
"""

from __future__ import annotations

from harness import child
from shmalloc import _binding


def main() -> None:
    """Load the core that the spec names, then sweep."""
    process = child.begin()
    _binding.core("release", process.spec["broken"])
    from harness.atlas import worker

    worker.work(process)


if __name__ == "__main__":
    main()
