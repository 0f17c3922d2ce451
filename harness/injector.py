# SPDX-License-Identifier: MIT
"""A process that is no CPU and sends interrupts to those that are, at random, until the run is over.

`python -m harness.injector SEGMENT PARENT < spec.json`.
"""

from __future__ import annotations

import errno
import signal

from harness import child
from harness.cpu_process import READY
from shmalloc.arena import Arena

_WAIT_S = 2.0
_FOR_EVER_S = 1e9  # the parent ends the injector


def main() -> None:
    """Wait for the CPUs to be ready, then inject."""
    process = child.begin()
    spec = process.spec
    arena = Arena.attach(process.segment, flavour=spec["flavour"])
    arena.activate()
    lib = arena.core.lib
    # From here on the signal ends it at once, also within the core; the CPUs remove the segment.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while (result := lib.shm_phase_wait(READY, _WAIT_S)) == -errno.ETIMEDOUT:
        if process.is_orphan:
            process.end(child.ORPHANED)
    if result:
        process.end(child.STOPPED)
    kind = lib.KIND_NMI if spec["kind"] == "nmi" else lib.KIND_IRQ
    sent = lib.shm_inject(0, spec["cpus"] - 1, kind, spec["rate_hz"], spec["seed"], _FOR_EVER_S)
    process.end(child.STOPPED, sent=sent)


if __name__ == "__main__":
    main()
