# SPDX-License-Identifier: MIT
"""Contexts: irqs and softirqs held off, interrupts, probes at named sites, irq work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from harness.script.compiling import compiled
from harness.script.keys import a_cpu, a_design, a_site, key
from harness.script.nested import Nested
from harness.script.registry import Step, step
from shmalloc import probes

if TYPE_CHECKING:
    from harness.script.scene import Scene

_CONTEXT_OF = {"nmi": "nmi", "irq": "irq", "probe": None, "other_cpu": "task"}


@step("irq_off")
class IrqOff(Step):
    """Disable irqs on a CPU."""

    def run(self, scene: Scene) -> None:
        """Mask them."""
        scene.cpus[self.cpu].run(scene.lib.shm_irq_save)

    def nest(self, program: Nested) -> None:
        """The same."""
        program.line("irq_off")


@step("irq_on")
class IrqOn(Step):
    """Enable irqs on a CPU; what is pending is taken at once."""

    def run(self, scene: Scene) -> None:
        """Unmask them."""
        scene.cpus[self.cpu].run(scene.lib.shm_irq_restore, 0)

    def nest(self, program: Nested) -> None:
        """The same."""
        program.line("irq_on")


@step("bh_off")
class BhOff(Step):
    """Hold softirqs off on a CPU: what it does now counts as softirq context."""

    def run(self, scene: Scene) -> None:
        """Hold them off."""
        scene.cpus[self.cpu].run(scene.lib.shm_bh_disable)

    def nest(self, program: Nested) -> None:
        """The same."""
        program.line("bh_off")


@step("bh_on")
class BhOn(Step):
    """Let softirqs come again."""

    def run(self, scene: Scene) -> None:
        """Let them."""
        scene.cpus[self.cpu].run(scene.lib.shm_bh_enable)

    def nest(self, program: Nested) -> None:
        """The same."""
        program.line("bh_on")


class _Interrupt(Step):
    """An interrupt that the CPU sends to itself."""

    kind: ClassVar[str]

    def _send(self, scene: Scene, design: str, steps: list[dict[str, Any]]) -> None:
        cpu = scene.cpus[self.cpu]
        nested = Nested(
            scene,
            compiled(steps, scene.let),
            label=f"in an {self.kind.upper()} on CPU {self.cpu}",
            design=design or scene.handler_design,
            cpu=self.cpu,
            context=self.kind,
        )
        cpu.set_program(self.kind, nested.ops, design=nested.design, slots=nested.slots)
        scene.nested.append(nested)
        cpu.interrupt(self.kind)


@step("nmi")
class Nmi(_Interrupt):
    """Run steps in an NMI on a CPU."""

    kind = "nmi"
    steps: list[dict[str, Any]] = key()
    design: str = key("", check=a_design)

    def run(self, scene: Scene) -> None:
        """Send it."""
        self._send(scene, self.design, self.steps)


@step("irq")
class Irq(_Interrupt):
    """Run steps in an irq on a CPU; with irqs off it stays pending."""

    kind = "irq"
    steps: list[dict[str, Any]] = key()
    design: str = key("", check=a_design)

    def run(self, scene: Scene) -> None:
        """Send it."""
        self._send(scene, self.design, self.steps)


@step("probe")
class Probe(Step):
    """Have steps run when a site is passed: as a synchronous probe, an NMI, an irq, or by another CPU."""

    site: str = key(check=a_site)
    action: str = key("nmi", one_of=probes.ACTIONS)
    nth: int = key(1, low=1)
    steps: list[dict[str, Any]] = key()
    design: str = key("", check=a_design)
    other: int = key(1, check=a_cpu)

    def run(self, scene: Scene) -> None:
        """Arm the site."""
        cpu = scene.cpus[self.cpu]
        runs_on = self.other if self.action == "other_cpu" else self.cpu
        who = f"CPU {self.other}" if self.action == "other_cpu" else f"as {self.action} on CPU {self.cpu}"
        nested = Nested(
            scene,
            compiled(self.steps, scene.let),
            label=f"at {self.site}, passage {self.nth}, {who}",
            design=self.design or (scene.design if self.action == "other_cpu" else scene.handler_design),
            cpu=runs_on,
            context=_CONTEXT_OF[self.action],
        )
        probes.arm(
            cpu,
            self.site,
            nested.ops,
            action=self.action,
            nth=self.nth,
            design=nested.design,
            slots=nested.slots,
            other=scene.cpus[self.other] if self.action == "other_cpu" else None,
        )
        nested.armed = (probes.hits(cpu, self.site) + self.nth, self.site)
        scene.nested.append(nested)

    def __str__(self) -> str:
        return f"arm {self.site} ({self.action}, passage {self.nth})"


@step("run_irq_work")
class RunIrqWork(Step):
    """Run what a CPU has queued as irq work, as if irqs had just been enabled."""

    def run(self, scene: Scene) -> None:
        """Run it."""
        scene.cpus[self.cpu].run_irq_work()
