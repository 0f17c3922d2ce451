# SPDX-License-Identifier: MIT
"""RCU: readers, frees after a grace period, waiting, and the backlog.

How long a grace period lasts at least is `arena.rcu_gp_us`; 0 leaves it to the ticks alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.script.keys import key
from harness.script.registry import Step, quantity, step

if TYPE_CHECKING:
    from harness.script.nested import Nested
    from harness.script.scene import Scene

_DOMAINS = ("rcu", "tasks_trace")


@step("rcu_lock")
class RcuLock(Step):
    """Begin a read-side section on a CPU."""

    domain: str = key("rcu", one_of=_DOMAINS)

    def run(self, scene: Scene) -> None:
        """Begin it."""
        scene.cpus[self.cpu].run(scene.lib.shm_rcu_read_lock, _DOMAINS.index(self.domain))

    def nest(self, program: Nested) -> None:
        """The same, in the plain domain."""
        program.line("rcu_lock")


@step("rcu_unlock")
class RcuUnlock(Step):
    """End a read-side section."""

    domain: str = key("rcu", one_of=_DOMAINS)

    def run(self, scene: Scene) -> None:
        """End it."""
        scene.cpus[self.cpu].run(scene.lib.shm_rcu_read_unlock, _DOMAINS.index(self.domain))

    def nest(self, program: Nested) -> None:
        """The same, in the plain domain."""
        program.line("rcu_unlock")


@step("free_rcu")
class FreeRcu(Step):
    """Free objects after a grace period (kfree_rcu): how many were taken."""

    which: str = key("", uses="objects")
    n: int = key(1 << 30, low=1)
    head: int = key(0, low=0, high=1 << 20)

    def run(self, scene: Scene) -> int:
        """Hand them over."""
        taken = scene.take(self.which, self.n)
        for held in taken:
            scene.cpus[self.cpu].run(scene.lib.shm_kfree_rcu, held.offset, self.head)
        return len(taken)

    def nest(self, program: Nested) -> None:
        """Hand them over, out of slots; in an NMI they stay."""
        program.free(self.which, self.n, code="free_rcu")


@step("tick")
class Tick(Step):
    """Do what the timer does: run irq_work that waits for it, advance grace periods, invoke what is due."""

    def run(self, scene: Scene) -> None:
        """Tick."""
        scene.cpus[self.cpu].run(scene.lib.shm_rcu_tick)


@step("synchronize_rcu")
class SynchronizeRcu(Step):
    """Wait for a grace period."""

    domain: str = key("rcu", one_of=_DOMAINS)

    def run(self, scene: Scene) -> None:
        """Wait."""
        scene.cpus[self.cpu].run(scene.lib.shm_synchronize_rcu, _DOMAINS.index(self.domain))


@step("rcu_barrier")
class RcuBarrier(Step):
    """Wait until no callback is left, on any CPU."""

    def run(self, scene: Scene) -> None:
        """Wait."""
        scene.cpus[self.cpu].run(scene.lib.shm_rcu_barrier)


@quantity("rcu.pending")
def pending(scene: Scene) -> int:
    """Callbacks on all CPUs that are not yet invoked."""
    return scene.cpus[0].run(scene.lib.shm_rcu_pending)


@quantity("rcu.completed")
def completed(scene: Scene, *, domain: str = "rcu") -> int:
    """Grace periods that are over."""
    return int(scene.arena.header.rcu[_DOMAINS.index(domain)].gp_completed)
