# SPDX-License-Identifier: MIT
"""The process that runs a script: it is all the CPUs of it, one after the other, on one thread.

Phases as for the CPUs of a stress run: 1 ready, one for each step `audit`, then replayed, drained, the end.
`python -m harness.script.process SEGMENT PARENT < spec.json`.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from harness import child
from harness.child import Child
from harness.script.compiling import compiled
from harness.script.scene import Scene
from shmalloc.arena import Arena
from shmalloc.errors import ShmallocError

_WAIT_S = 2.0


class ScriptProcess:
    """This process."""

    def __init__(self, process: Child) -> None:
        spec = process.spec
        self.child = process
        self.steps = compiled(spec["steps"], spec["let"])
        self.arena = Arena.attach(process.segment, flavour=spec["flavour"])
        self.scene = Scene(
            self.arena,
            spec["cpus"],
            design=spec["design"],
            handler_design=spec["handler_design"],
            let=spec["let"],
            used_designs=spec["used_designs"],
        )
        self.scene.audit = self._meet
        self._phase = 0

    def run(self) -> None:
        """Live through all phases and exit."""
        self._meet()
        for at, step in enumerate(self.steps):
            try:
                self.scene.run(at, step)
            except (ShmallocError, ValueError) as error:
                self._cannot(at, step.do, error)
            self._end_if_over()
        self.scene.close_windows()
        self._end_if_over()
        self._meet()
        drained = self.scene.drain()
        self._end_if_over()
        self._meet()
        for cpu in reversed(self.scene.cpus):
            cpu.close()
        self._end(child.FINISHED, drained=drained)

    def _end_if_over(self) -> None:
        if self.scene.is_over:
            self._end(child.VERDICT if self.arena.header.stop > 1 else child.STOPPED)

    def _cannot(self, at: int, do: str, error: Exception) -> None:
        """End: a step asked for what there is not."""
        self._end_if_over()
        self._end(child.FAILED, wrong={"step": at, "do": do, "text": str(error)})

    def _meet(self) -> None:
        """Publish that a phase is finished and wait for the parent to open the next."""
        self._phase += 1
        lib = self.arena.core.lib
        self.scene.become(0)
        lib.shm_phase_finish(self._phase)
        while (result := lib.shm_phase_wait(self._phase, _WAIT_S)) == -errno.ETIMEDOUT:
            if self.child.is_orphan:
                self.child.end(child.ORPHANED)
        if result in (-errno.ECANCELED, -errno.EOWNERDEAD):
            self._end(child.STOPPED, told=bool(lib.shm_terminated()))
        if result:
            raise RuntimeError(f"wait for phase {self._phase}: {os.strerror(-result)}")

    def _end(self, code: int, *, told: bool = False, **more: Any) -> None:
        scene = self.scene
        self.child.end(
            code,
            told=told,
            steps=scene.log,
            counters=scene.counters,
            interleaving=scene.interleaving,
            **more,
        )


def main() -> None:
    """Run a script."""
    ScriptProcess(child.begin()).run()


if __name__ == "__main__":
    main()
