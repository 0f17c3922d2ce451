# SPDX-License-Identifier: MIT
"""Hash maps: their elements come from a design."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.script.keys import a_design, a_number_of_times, key
from harness.script.registry import Step, quantity, step
from shmalloc.errors import MapError
from shmalloc.maps import pattern

if TYPE_CHECKING:
    from harness.script.nested import Nested
    from harness.script.scene import Scene
    from shmalloc.maps import HashMap


@step("map_create")
class MapCreate(Step):
    """Make a hash map: 1, or 0 if there is no memory for it."""

    name: str = key(defines="maps")
    entries: int = key(low=1, high=1 << 20)
    key_bytes: int = key(8, low=1, high=512)
    value_bytes: int = key(64, low=1, high=1 << 20)
    design: str = key("", check=a_design)

    def run(self, scene: Scene) -> None:
        """Make it; at the end it is destroyed."""
        design = scene.design_of(self)
        made = scene.cpus[self.cpu].map_create(design, self.key_bytes, self.value_bytes, self.entries)
        scene.maps[self.name] = made.index

        def destroy() -> None:
            if self.name in scene.maps:
                scene.cpus[0].map(scene.maps.pop(self.name)).destroy()

        scene.at_end.append(destroy)

    def __str__(self) -> str:
        return f"map_create {self.name}, {self.entries} entries" + (
            f" by {self.design}" if self.design else ""
        )


@step("map_destroy")
class MapDestroy(Step):
    """Destroy a map with all that is in it."""

    map: str = key(uses="maps")

    def run(self, scene: Scene) -> None:
        """Destroy it."""
        scene.cpus[self.cpu].map(scene.maps.pop(self.map)).destroy()


@dataclass(frozen=True, kw_only=True)
class _MapStep(Step):
    """Something done for `n` keys in a row, from `first` on: for how many it succeeded."""

    map: str = key(uses="maps")
    first: int = key(0, low=0, high=1 << 30)
    n: int | str = key(1, check=a_number_of_times)

    def _each(self, scene: Scene, do: Callable[[HashMap, int], Any]) -> int:
        found, done = scene.cpus[self.cpu].map(scene.maps[self.map]), 0
        for number in range(self.first, self.first + scene.number(self.n)):
            try:
                done += do(found, number) is not False
            except MapError as error:
                scene.refused(error.name)
            if scene.is_over:
                break
        return done

    def _nest(self, program: Nested, code: str, flag: int = 0) -> None:
        for number in range(self.first, self.first + program.scene.number(self.n)):
            fields = {"cache": program.scene.maps[self.map], "slot": number, "size": flag}
            program.line(code, fields, f"{code} {self.map}[{number}]")

    def __str__(self) -> str:
        many = f" to {self.first + self.n - 1}" if isinstance(self.n, int) and self.n > 1 else ""
        return f"{self.do} {self.map}, key {self.first}{many}" + (
            f", {self.n}" if isinstance(self.n, str) else ""
        )


@step("map_update")
class MapUpdate(_MapStep):
    """Insert or replace elements: how many it could. The reasons are the kernel's errors."""

    def run(self, scene: Scene) -> int:
        """Update."""
        return self._each(
            scene, lambda found, number: found.update(number, pattern(number, found.value_bytes))
        )

    def nest(self, program: Nested) -> None:
        """The same."""
        self._nest(program, "map_update")


@step("map_lookup")
class MapLookup(_MapStep):
    """Look elements up: how many are there, with the values that updates gave them."""

    def run(self, scene: Scene) -> int:
        """Look up."""
        return self._each(
            scene, lambda found, number: found.lookup(number) == pattern(number, found.value_bytes)
        )

    def nest(self, program: Nested) -> None:
        """The same."""
        self._nest(program, "map_lookup")


@step("map_delete")
class MapDelete(_MapStep):
    """Remove elements: how many there were."""

    def run(self, scene: Scene) -> int:
        """Remove."""
        return self._each(scene, lambda found, number: found.delete(number))

    def nest(self, program: Nested) -> None:
        """The same."""
        self._nest(program, "map_delete")


# --- what a map is made of ------------------------------------------------------------------------


@quantity("map.count")
def count(scene: Scene, *, map_: str) -> int:
    """Elements in a map."""
    return len(scene.cpus[0].map(scene.maps[map_]))


@quantity("map.elem_size")
def elem_size(scene: Scene, *, map_: str) -> int:
    """Bytes of an element: header, key and value."""
    return int(scene.arena.item("struct shm_map", "maps", scene.maps[map_]).elem_size)


@quantity("map.free_on_cpu")
def free_on_cpu(scene: Scene, *, map_: str, cpu: int = 0) -> int:
    """Elements on one CPU's freelist of a preallocated map."""
    arena, number = scene.arena, 1 + scene.maps[map_]
    head = _freelist(scene, number, cpu)
    at, found = int(head.first), 0
    while at and not at & 1 and found < 1 << 21:
        found += 1
        at = int(arena.pointer("uint64_t", at)[0])
    return found


@quantity("map.populated_on_cpu")
def populated_on_cpu(scene: Scene, *, map_: str, cpu: int = 0) -> int:
    """Elements that a CPU's freelist was given when the map was made."""
    return int(_freelist(scene, 1 + scene.maps[map_], cpu).nr_populated)


@quantity("map.populated_cpus")
def populated_cpus(scene: Scene, *, map_: str, elements: int) -> int:
    """CPUs whose freelist was given exactly so many elements."""
    cpus = range(int(scene.arena.header.geometry.nr_cpus))
    return sum(populated_on_cpu(scene, map_=map_, cpu=cpu) == elements for cpu in cpus)


def _freelist(scene: Scene, pool: int, cpu: int) -> Any:
    cpus = int(scene.arena.header.geometry.nr_cpus)
    return scene.arena.item("struct pcpu_freelist_head", "freelists", pool * cpus + cpu)
