# SPDX-License-Identifier: MIT
"""Op arrays for handlers and small replays, made without numpy.

    nmi = ops(("alloc", {"size": 64, "slot": 0}), ("free", {"slot": 0}))

An op array is a run of ``struct shm_op``: bytes, a memoryview, or a numpy array of that dtype will do.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from shmalloc._binding import core as load_core

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Buffer

    from shmalloc._binding import Core
    from shmalloc.arena import Arena

    BufferLike: TypeAlias = Buffer | np.ndarray[Any, Any]

    Line: TypeAlias = str | tuple[str, Mapping[str, int | str]]

_FIELDS = ("flags", "node", "order", "slot", "size", "gfp", "cache")
_WORD_BYTES = 8


def kind_index(core: Core, kind: str) -> int:
    """Return the number of an interrupt kind, ``"nmi"`` or ``"irq"``."""
    kinds = {"nmi": int(core.lib.KIND_NMI), "irq": int(core.lib.KIND_IRQ)}
    if kind not in kinds:
        raise ValueError(f"kind = {kind!r}: allowed are {', '.join(kinds)}")
    return kinds[kind]


@cache
def op_codes(core: Core) -> Mapping[str, int]:
    """Map the name of each op, such as ``"cache_alloc"``, to its code."""
    constants = core.ffi.typeof("enum shm_op_code").relements
    return {
        name.removeprefix("OP_").lower(): code for name, code in constants.items() if name.startswith("OP_")
    }


def ops(*lines: Line) -> bytes:
    """Make an op array.

    Args:
        *lines: each an op's name (``nop alloc cache_alloc pages_alloc free irq_off irq_on bh_off bh_on nmi
            irq delay realloc shrink bulk_alloc bulk_free defer_barrier free_rcu rcu_lock rcu_unlock
            memcg page_cache map_update map_lookup map_delete``), or that and a dict of its fields: ``size slot
            gfp node order cache flags``.  gfp may be a text such as ``"GFP_ATOMIC|__GFP_ZERO"``, flags one such as
            ``"shared|same"``.  The size of a bulk op is a number of objects, its slot the first one's; that
            of page_cache a number of pages.  The cache of a map op is the map, its slot the key.

    Returns:
        The array, for `Cpu.set_program` or `Cpu.replay`.

    Raises:
        ValueError: with every mistake in every line.
    """
    core = load_core()
    made = core.ffi.new("struct shm_op[]", len(lines))
    problems: list[str] = []
    for number, line in enumerate(lines):
        name, given = (line, {}) if isinstance(line, str) else line
        problems += (f"op {number}: {problem}" for problem in _fill(core, made[number], name, given))
    if problems:
        raise ValueError("; ".join(problems))
    return bytes(core.ffi.buffer(made))


def _fill(core: Core, op: Any, name: str, given: Mapping[str, int | str]) -> list[str]:
    codes, problems = op_codes(core), []
    if name in codes:
        op.code = codes[name]
    else:
        problems.append(f"code = {name!r}: allowed are {', '.join(codes)}")
    op.node = core.lib.SHM_NO_NODE
    for key, value in given.items():
        if key not in _FIELDS:
            problems.append(f"{key} = {value!r}: unknown field; allowed are {', '.join(_FIELDS)}")
            continue
        try:
            setattr(op, key, _field_value(core, key, value))
        except (ValueError, OverflowError, TypeError) as error:
            problems.append(f"{key} = {value!r}: {error}")
    return problems


def _field_value(core: Core, key: str, value: int | str) -> int:
    if not isinstance(value, str):
        return value
    if key == "gfp":
        from shmalloc.gfp import parse

        return parse(value)
    if key != "flags":
        raise ValueError("allowed is an integer")
    flags = {"shared": core.lib.OPF_SHARED, "same": core.lib.OPF_SAME, "nofree": core.lib.OPF_NOFREE}
    total = 0
    for part in filter(None, value.split("|")):
        if part not in flags:
            raise ValueError(f"no such flag {part!r}; allowed are {', '.join(flags)}")
        total |= int(flags[part])
    return total


def _last_slot(core: Core, op: Any) -> int:
    bulk = op.code in (core.lib.OP_BULK_ALLOC, core.lib.OP_BULK_FREE)
    return int(op.slot) + (min(op.size, core.lib.SHM_MAX_BULK) - 1 if bulk and op.size else 0)


class OpArray:
    """An op array and its private slots, pinned for the core to use.

    Attributes:
        ops: ``struct shm_op *``.
        nr_ops: length.
        slots: private slots: 64-bit words, 0 = empty, offset of what they hold in bits 0-47.
        slots_pointer: the same for C.
    """

    def __init__(self, core: Core, source: BufferLike, slots: int | BufferLike | None) -> None:
        ffi = core.ffi
        with memoryview(cast("Buffer", source)) as view:
            nbytes = view.nbytes
        size = ffi.sizeof("struct shm_op")
        if not nbytes or nbytes % size:
            raise ValueError(
                f"ops = {nbytes} bytes: allowed is a whole number, at least one, of ops of {size} bytes"
            )
        # cffi over a memoryview crashes when both end in one garbage collection.
        self.ops = ffi.from_buffer(
            "struct shm_op[]", bytes(source) if isinstance(source, memoryview) else source
        )
        self.nr_ops = nbytes // size
        if slots is None:
            private = (op for op in self.ops if not op.flags & core.lib.OPF_SHARED)
            slots = 1 + max((_last_slot(core, op) for op in private), default=0)
        owner = _slot_words(slots)
        self.slots = memoryview(cast("Buffer", owner)).cast("B").cast("Q")
        self.slots_pointer = ffi.from_buffer("uint64_t[]", owner, require_writable=True)

    def check(self, arena: Arena) -> None:
        """Compare every op with what the arena has.

        Raises:
            ValueError: with every mistake in every op.
        """
        problems = self._problems(arena)
        if problems:
            raise ValueError("; ".join(problems))

    def _problems(self, arena: Arena) -> list[str]:
        lib, header = arena.core.lib, arena.header
        problems: list[str] = []
        for number, op in enumerate(self.ops):
            shared = op.flags & lib.OPF_SHARED
            bulk = op.code in (lib.OP_BULK_ALLOC, lib.OP_BULK_FREE)
            limits = {
                "code": lib.NR_OP_CODES,
                "order": lib.SHM_MAX_PAGE_ORDER + 1,
                "slot": header.geometry.nr_slots if shared else len(self.slots),
                "cache": header.nr_caches
                if bulk or op.code in (lib.OP_CACHE_ALLOC, lib.OP_SHRINK)
                else 1 << 16,
                "node": header.geometry.nr_nodes,
            }
            if bulk and not 0 < op.size <= lib.SHM_MAX_BULK:
                problems.append(f"op {number}: size = {op.size}: allowed are 1 to {lib.SHM_MAX_BULK} objects")
            elif bulk:
                limits["slot"] -= op.size - 1
            elif op.code == lib.OP_PAGE_CACHE:
                limits["size"] = header.nr_pages + 1
                del limits["slot"]
            elif op.code not in (
                lib.OP_ALLOC,
                lib.OP_CACHE_ALLOC,
                lib.OP_PAGES_ALLOC,
                lib.OP_FREE,
                lib.OP_REALLOC,
            ):
                del limits["slot"]
            problems += [
                f"op {number}: {key} = {getattr(op, key)}: allowed is less than {limit}"
                for key, limit in limits.items()
                if getattr(op, key) >= limit
            ]
        return problems

    def held(self) -> list[int]:
        """Return the offsets that the private slots hold."""
        return [word & ((1 << 48) - 1) for word in self.slots if word]


def _slot_words(slots: int | BufferLike) -> BufferLike:
    """Return what owns the memory of the slots."""
    allowed = "allowed is a number of slots or a writable buffer of 64-bit words"
    if isinstance(slots, int):
        if slots < 0:
            raise ValueError(f"slots = {slots}: {allowed}")
        return array("Q", bytes(_WORD_BYTES * max(1, slots)))
    with memoryview(cast("Buffer", slots)) as view:
        nbytes, readonly, owner = view.nbytes, view.readonly, view.obj
    if readonly or not nbytes or nbytes % _WORD_BYTES:
        raise ValueError(f"slots = {nbytes} bytes: {allowed}")
    if isinstance(slots, memoryview):
        # cffi over a memoryview crashes when both end in one garbage collection: go to its owner.
        with memoryview(owner) as whole:
            if whole.nbytes != nbytes:
                raise ValueError("slots = a part of a buffer: allowed is the whole of it")
        return owner
    return slots


class Program(OpArray):
    """What a handler does: an op array, run at each interrupt.

    Attributes:
        c: the ``struct shm_program``; valid as long as this object lives.
        design: name of the design that serves the ops.
    """

    def __init__(
        self,
        core: Core,
        source: BufferLike,
        *,
        design: str = "kmalloc_nolock",
        slots: int | BufferLike | None = None,
        per_interrupt: int = 0,
    ) -> None:
        from shmalloc import designs

        super().__init__(core, source, slots)
        if per_interrupt < 0:
            raise ValueError(f"per_interrupt = {per_interrupt}: allowed is 0 (all ops) or more")
        self.design = design
        self.c = core.ffi.new(
            "struct shm_program *",
            {
                "ops": self.ops,
                "nr_ops": self.nr_ops,
                "per_interrupt": per_interrupt,
                "slots": self.slots_pointer,
                "nr_slots": len(self.slots),
                "design": designs.index(design),
            },
        )
