# SPDX-License-Identifier: MIT
"""One design's operations, called from one CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmalloc import designs
from shmalloc.calls import Caller
from shmalloc.fast import fast
from shmalloc.flags import gfp_flags

if TYPE_CHECKING:
    from shmalloc.cache import KmemCache
    from shmalloc.calls import Calls


class DesignCalls(Caller):
    """The operations of one design. Make one with `Cpu.design`.

    Whatever a design is called, its operations are the same; each is counted under its name.

    Attributes:
        name: of the design.
    """

    def __init__(self, calls: Calls, name: str) -> None:
        self._calls = calls
        self._index = designs.index(name)
        self.name = name

    def __repr__(self) -> str:
        return f"<design {self.name}>"

    def setup(self) -> None:
        """Prepare the design in this arena, before it is used; again is no error. Context: task.

        Raises:
            ShmallocError: there is no memory for it, or the geometry has nothing of what it needs.
        """
        self._calls.run(self._calls.lib.shm_design_setup, self._index)

    def teardown(self) -> None:
        """Have the design give all memory back; nothing of it may be in use. Context: task.

        Raises:
            ShmallocError: objects or maps of the design are in use.
        """
        self._calls.run(self._calls.lib.shm_design_teardown, self._index)

    @fast("design_alloc")
    def alloc(self, size: int, gfp: int | str = "GFP_ATOMIC", node: int = -1) -> int:
        """Allocate *size* bytes.

        Args:
            size: in bytes.
            gfp: flags or their names.
            node: NUMA node, or -1 for any.

        Returns:
            Offset of the object, in bytes.

        Raises:
            AllocationFailed: with its reason.
        """
        function = self._calls.lib.shm_design_alloc
        return self._calls.allocate(function, self._index, size, gfp_flags(gfp), self._calls.node(node))

    def cache_alloc(self, cache: KmemCache, gfp: int | str = "GFP_ATOMIC", node: int = -1) -> int:
        """Allocate an object of a slab cache; otherwise as `alloc`."""
        function = self._calls.lib.shm_design_cache_alloc
        node = self._calls.node(node)
        return self._calls.allocate(function, self._index, cache.index, gfp_flags(gfp), node)

    def pages_alloc(self, order: int = 0, gfp: int | str = "GFP_ATOMIC", node: int = -1) -> int:
        """Allocate 2**order pages in a row; otherwise as `alloc`."""
        function = self._calls.lib.shm_design_pages_alloc
        return self._calls.allocate(function, self._index, gfp_flags(gfp), self._calls.node(node), order)

    @fast("design_free")
    def free(self, offset: int) -> None:
        """Free an object.

        Raises:
            BadFree: it is no live object; nothing was changed.
        """
        self._calls.free(offset, self._calls.lib.shm_design_free, self._index, offset)

    def pages_free(self, offset: int, order: int = 0) -> None:
        """Give pages back; otherwise as `free`."""
        self._calls.free_pages(offset, order, self._calls.lib.shm_design_pages_free, self._index)
