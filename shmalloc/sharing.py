# SPDX-License-Identifier: MIT
"""What a CPU makes for Python and other processes: blocks, numpy arrays, and many objects by one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shmalloc import arrays
from shmalloc.calls import Caller
from shmalloc.errors import BadFree
from shmalloc.fast import fast, run
from shmalloc.flags import gfp_flags

if TYPE_CHECKING:
    import numpy as np

    from shmalloc.fast import Block
    from shmalloc.program import BufferLike


class Sharing(Caller):
    """The side of `shmalloc.Cpu` that Python's own objects are made on."""

    # --- blocks -------------------------------------------------------------------------------

    @fast("block")
    def block(self, size: int, gfp: int | str = "GFP_KERNEL", node: int = -1) -> Block:
        """Allocate *size* bytes that are freed with the object that is returned.

        It is a buffer (``memoryview(block)``, ``numpy.frombuffer(block, "f8")``) and a context manager, which
        frees it at the end, or when the last view of it is gone; ``free()`` does so at once, ``give()`` returns
        its offset and leaves the freeing to who gets that. Dropped by another thread it is freed by this CPU's
        next block, or when the CPU is closed. It should not outlive the CPU: then another CPU of this thread
        frees it, or nobody, with a ResourceWarning.

        Args:
            size: bytes.
            gfp: flags or their names.
            node: NUMA node, or -1 for any.

        Returns:
            The block.

        Raises:
            AllocationFailed: with its reason.
        """
        size = arrays.number("size", size)
        block: Block = self._calls.call(run, "block", self, size, gfp_flags(gfp), self._calls.node(node))
        return block

    @fast("own")
    def own(self, offset: int) -> Block:
        """Take over an object that somebody has allocated: it is freed with the block that is returned.

        Args:
            offset: of the object, as `kmalloc` or a block's ``give()`` has returned it, here or elsewhere.

        Raises:
            BadFree: it is no live object.
        """
        self._refuse_dead(offset)
        block: Block = self._calls.call(run, "own", self, offset)
        return block

    # --- arrays -------------------------------------------------------------------------------

    @fast("empty")
    def empty(
        self, shape: int | tuple[int, ...], dtype: Any = "f8", gfp: int | str = "GFP_KERNEL", node: int = -1
    ) -> np.ndarray[Any, Any]:
        """Make a numpy array in the arena, with whatever was there before.

        It is freed when the last array that looks at it is gone, as a `block` is. Shape and type lie in front of
        the numbers, in 64 bytes or more, so its offset is all that another process needs: see `give`.

        Args:
            shape: as numpy's; all in all at most 4 MiB, as any kmalloc.
            dtype: any but those that hold Python objects.
            gfp: flags or their names.
            node: NUMA node, or -1 for any.

        Returns:
            An array of its own, contiguous in C's order.

        Raises:
            AllocationFailed: with its reason.
            ValueError: a shape or a type that no array in an arena can have.
        """
        arrays.set_up()
        axes, dtype = arrays.axes(shape), arrays.shareable(dtype)
        made: np.ndarray[Any, Any] = self._calls.call(
            run, "empty", self, axes, dtype, gfp_flags(gfp), self._calls.node(node)
        )
        return made

    def zeros(
        self, shape: int | tuple[int, ...], dtype: Any = "f8", gfp: int | str = "GFP_KERNEL", node: int = -1
    ) -> np.ndarray[Any, Any]:
        """Make a numpy array of zeros; otherwise as `empty`."""
        made = self.empty(shape, dtype, gfp, node)
        made.fill(0)
        return made

    @fast("give")
    def give(self, array: np.ndarray[Any, Any]) -> int:
        """Hand an array over: return its offset, and do not free it.

        Whoever gets the offset, 64 bits by any channel, may `take` it, in any process.  This array still looks
        at the memory, and should not be used once somebody has taken it.

        Args:
            array: as `empty`, `zeros` or `take` has returned it, not a view of it.

        Raises:
            ShmallocError: it is none of these, or was given away.
        """
        arrays.set_up()
        arrays.refuse_foreign(array, self._calls.window)
        offset: int = self._calls.call(run, "give", self, array)
        return offset

    @fast("take")
    def take(self, offset: int) -> np.ndarray[Any, Any]:
        """Take over an array that somebody has given: it is freed when the last array that looks at it is gone.

        To look without taking over: `Arena.at`.

        Args:
            offset: that `give` has returned, here or in another process.

        Raises:
            BadFree: it is no live object.
            ShmallocError: there is no array.
        """
        arrays.set_up()
        self._refuse_dead(offset)
        taken: np.ndarray[Any, Any] = self._calls.call(run, "take", self, offset)
        return taken

    def _refuse_dead(self, offset: int) -> None:
        self._calls.refuse_caller()
        arrays.number("offset", offset, least=None)
        why = self._calls.why_dead(offset)
        if why is not None:
            raise BadFree(offset, why)

    # --- many objects ---------------------------------------------------------------------------

    @fast("kmalloc_bulk")
    def kmalloc_bulk(
        self,
        sizes: BufferLike,
        gfp: int | str = "GFP_KERNEL",
        node: int = -1,
        *,
        out: BufferLike | None = None,
        reasons: BufferLike | None = None,
    ) -> Any:
        """Allocate an object of each size, in order; may spin.

        All or none: at the first that fails those before it are freed again. With *reasons* what can be had is
        had: nothing is raised, an offset of 0 is NULL, and its reason is a number into
        ``arena.core.names("reason")``.

        Args:
            sizes: in bytes: a numpy array, array.array or any buffer of 64-bit integers is used as it is; any
                other array or sequence of integers is copied first.
            gfp: flags or their names.
            node: NUMA node, or -1 for any.
            out: where the offsets are put: a writable buffer of as many 64-bit integers; None = a new array.
            reasons: where the reason of each NULL is put: a writable buffer of as many bytes.

        Returns:
            Offsets of the objects, in bytes: *out*, or a numpy array of uint64.

        Raises:
            AllocationFailed: with its reason, and naming the size that nothing was got for; nothing is allocated.
            ValueError: an argument is no such array.

        Context: task.  Cost: that of as many calls in C; from 1,024 sizes on the GIL is released.
        """
        return self._alloc_bulk("kmalloc_bulk", sizes, gfp, node, out, reasons)

    @fast("kmalloc_nolock_bulk")
    def kmalloc_nolock_bulk(
        self,
        sizes: BufferLike,
        gfp: int | str = 0,
        node: int = -1,
        *,
        out: BufferLike | None = None,
        reasons: BufferLike | None = None,
    ) -> Any:
        """Allocate an object of each size without waiting for any lock; otherwise as `kmalloc_bulk`."""
        return self._alloc_bulk("kmalloc_nolock_bulk", sizes, gfp, node, out, reasons)

    def _alloc_bulk(self, kind: str, sizes: Any, gfp: int | str, node: int, out: Any, reasons: Any) -> Any:
        self._calls.refuse_caller()
        arrays.set_up()
        sizes = arrays.numbers("sizes", sizes)
        arrays.refuse_target("out", out, len(sizes), 8)
        arrays.refuse_target("reasons", reasons, len(sizes), 1)
        return self._calls.call(run, kind, self, sizes, gfp_flags(gfp), self._calls.node(node), out, reasons)

    @fast("kfree_bulk")
    def kfree_bulk(self, offsets: BufferLike) -> None:
        """Free objects, in order, whoever allocated them; NULL and ZERO_SIZE_PTR are no-ops.

        It ends at the first that is no live object: those before it are free then, it and those behind it were
        not touched.

        Args:
            offsets: as *sizes* of `kmalloc_bulk`.

        Raises:
            BadFree: naming the one that is no live object, and its index.
            ValueError: this is no such array.
        """
        self._free_bulk("kfree_bulk", offsets)

    @fast("kfree_nolock_bulk")
    def kfree_nolock_bulk(self, offsets: BufferLike) -> None:
        """Free objects without waiting for any lock; otherwise as `kfree_bulk`."""
        self._free_bulk("kfree_nolock_bulk", offsets)

    def _free_bulk(self, kind: str, offsets: Any) -> None:
        self._calls.refuse_caller()
        self._calls.call(run, kind, self, arrays.numbers("offsets", offsets))
