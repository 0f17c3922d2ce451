# SPDX-License-Identifier: MIT
"""The process that is one node's kswapd, until the run is over.

`python -m harness.kswapd SEGMENT PARENT < spec.json`.
"""

from __future__ import annotations

import errno
import signal

from harness import child
from shmalloc.arena import Arena

_LOOK_S = 2.0  # how often an orphan notices that it is one


def main() -> None:
    """Be kswapd until told to end."""
    process = child.begin()
    arena = Arena.attach(process.segment, flavour=process.spec["flavour"])
    arena.activate()
    lib, node = arena.core.lib, process.spec["node"]
    # From here on the signal ends it at once, also within the core; the CPUs remove the segment.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if lib.shm_kswapd_start(node):
        process.end(child.FAILED)
    while (result := lib.shm_kswapd_run(node, _LOOK_S)) == -errno.ETIMEDOUT:
        if process.is_orphan:
            process.end(child.ORPHANED)
    process.end(child.FINISHED if result == 0 else child.STOPPED)


if __name__ == "__main__":
    main()
