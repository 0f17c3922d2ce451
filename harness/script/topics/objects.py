# SPDX-License-Identifier: MIT
"""Objects: allocating, allocating until it fails, freeing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.script.keys import a_design, a_node, a_number_of_times, gfp_names, key
from harness.script.registry import Step, quantity, step

if TYPE_CHECKING:
    from harness.script.nested import Nested
    from harness.script.scene import Scene

_PASSING = " alloc_free"


@step("alloc")
class Alloc(Step):
    """Allocate objects: 1 for each success."""

    size: int = key(low=0, high=1 << 32)
    gfp: str = key("GFP_ATOMIC", check=gfp_names)
    node: int = key(-1, check=a_node)
    design: str = key("", check=a_design)
    as_: str = key("", defines="objects")

    def run(self, scene: Scene) -> int:
        """Allocate one."""
        return scene.allocate(self, lambda calls: calls.alloc(self.size, self.gfp, self.node))

    def nest(self, program: Nested) -> None:
        """Allocate one, into a slot."""
        fields = {"size": self.size, "gfp": self.gfp, "node": self.node}
        program.allocate("alloc", fields, self.as_, f"alloc {self.size}")

    def __str__(self) -> str:
        return f"{self.do} {self.size}" + (f" by {self.design}" if self.design else "")


@step("churn")
class Churn(Step):
    """Allocate an object and free it at once: 1 for each success."""

    size: int = key(low=0, high=1 << 32)
    gfp: str = key("GFP_ATOMIC", check=gfp_names)
    design: str = key("", check=a_design)
    as_: str = key("churned", defines="objects")

    def run(self, scene: Scene) -> int:
        """Allocate one and free it."""
        got = scene.allocate(self, lambda calls: calls.alloc(self.size, self.gfp, -1))
        for held in scene.take(self.as_, got, lifo=True):
            scene.free(held, self.cpu)
        return got

    def __str__(self) -> str:
        return f"{self.do} {self.size}" + (f" by {self.design}" if self.design else "")


@step("alloc_until_fail")
class AllocUntilFail(Alloc):
    """Allocate objects until one is refused, at most `limit`: how many there were."""

    limit: int = key(1_000_000, low=1, high=10_000_000)

    def run(self, scene: Scene) -> int:
        """Allocate until it fails."""
        for done in range(self.limit):
            if not Alloc.run(self, scene):
                return done
        return self.limit

    def nest(self, program: Nested) -> None:
        """Allocate up to the limit: an interrupt cannot stop at the first failure, but counts successes."""
        for _ in range(self.limit):
            Alloc.nest(self, program)


@step("alloc_free")
class AllocFree(Step):
    """Allocate an object and free it, `n` times: how often there was one."""

    size: int = key(low=0, high=1 << 32)
    n: int | str = key(1, check=a_number_of_times)
    gfp: str = key("GFP_ATOMIC", check=gfp_names)
    design: str = key("", check=a_design)

    def run(self, scene: Scene) -> int:
        """Do it."""
        done = 0
        for _ in range(scene.number(self.n)):
            if scene.is_over:
                break
            got = scene.allocate(self, lambda calls: calls.alloc(self.size, self.gfp), name=_PASSING)
            done += got
            for each in scene.take(_PASSING, got):
                scene.free(each, self.cpu)
        return done

    def __str__(self) -> str:
        return f"{self.do} {self.size}" + (f" by {self.design}" if self.design else "")


@dataclass(frozen=True, kw_only=True)
class FreeHeld(Step):
    """What all steps do that free what earlier ones hold."""

    which: str = key("", uses="objects")
    n: int = key(1 << 30, low=1)
    design: str = key("", check=a_design)

    @property
    def is_lifo(self) -> bool:
        """Whether the youngest go first."""
        return False

    def run(self, scene: Scene) -> int:
        """Free them."""
        taken = scene.take(self.which, self.n, lifo=self.is_lifo)
        for held in taken:
            scene.free(held, self.cpu, self.design)
        return len(taken)

    def nest(self, program: Nested) -> None:
        """Free them, out of slots."""
        program.free(self.which, self.n, lifo=self.is_lifo)


@step("free")
class Free(FreeHeld):
    """Free objects, pages and objects of caches that earlier steps hold: how many there were."""

    order: str = key("fifo", one_of=("fifo", "lifo"))

    @property
    def is_lifo(self) -> bool:
        """Whether the youngest go first."""
        return self.order == "lifo"

    def __str__(self) -> str:
        return f"free {self.which or 'what has no name'}" + (f" by {self.design}" if self.design else "")


@quantity("objects.held")
def held(scene: Scene, *, which: str) -> int:
    """Objects that the script holds by a name."""
    return len(scene.held.get(which, ()))


@quantity("objects.reused")
def reused(scene: Scene, *, which: str, of: str) -> int:
    """Of the objects held by one name, how many lie where objects lay that were freed by another name."""
    before = scene.taken.get(of, set())
    return sum(each.offset in before for each in scene.held.get(which, ()))
