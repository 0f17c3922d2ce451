# SPDX-License-Identifier: MIT
"""What a config may say about a handler's program: `interrupts.{nmi,irq}.program`, one model a kind."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, WrapValidator
from pydantic_core import PydanticCustomError

from harness.workload.strict import MAX_SLOTS, GfpNames, Node, Share, Size, Strict, by_kind, pick

__all__ = [
    "AllocFreeProgram",
    "AllocProgram",
    "AnyProgram",
    "BurstProgram",
    "FreeProgram",
    "MapProgram",
    "MixProgram",
    "PagesProgram",
    "ProgramBase",
    "ProgramSpec",
    "SameProgram",
    "parse_program",
]


class ProgramBase(Strict):
    """Keys that every kind of handler's program has.

    Attributes:
        gfp: flags of allocations; a design that cannot honour all of them takes those that it can.
        node: -1 = any.
        per_interrupt: ops that one interrupt runs, going round the program; 0 = the kind's own choice.
    """

    kind: str
    gfp: GfpNames = "GFP_ATOMIC"
    node: Node = -1
    per_interrupt: int = Field(default=0, ge=0, le=MAX_SLOTS)


class AllocFreeProgram(ProgramBase):
    """`alloc_free`: allocate one object and free it."""

    kind: Literal["alloc_free"]
    size: Size = 256


class AllocProgram(ProgramBase):
    """`alloc`: allocate into a slot that the task frees some day; a taken slot is left alone."""

    kind: Literal["alloc"]
    size: Size = 256
    count: int = Field(default=1, ge=1, le=4096)


class FreeProgram(ProgramBase):
    """`free`: free what the task has allocated into the shared slots."""

    kind: Literal["free"]
    count: int = Field(default=1, ge=1, le=4096)


class SameProgram(ProgramBase):
    """`same`: allocate and free an object of the size and cache that the interrupted op works on."""

    kind: Literal["same"]


class AbaProgram(ProgramBase):
    """`aba`: allocate two like the interrupted op's, free the first, keep the second: a freelist begins as before.

    Attributes: count: objects that are kept before all of them are freed.
    """

    kind: Literal["aba"]
    count: int = Field(default=33, ge=1, le=4096)


class PagesProgram(ProgramBase):
    """`pages`: allocate and free a block of 2^order pages."""

    kind: Literal["pages"]
    order: int = Field(default=0, ge=0, le=10)


class BurstProgram(ProgramBase):
    """`burst`: `count` allocations, then as many frees, within one interrupt."""

    kind: Literal["burst"]
    size: Size = 256
    count: int = Field(default=32, ge=1, le=4096)


class MapProgram(ProgramBase):
    """`map`: updates, lookups and deletes of the workload's hash map.

    Attributes: update, delete: shares of the ops; the rest are lookups.
    """

    kind: Literal["map"]
    update: Share = 0.5
    delete: Share = 0.25


class MixProgram(ProgramBase):
    """`mix`: random lifetimes over `slots` private slots and, if there are any, the shared ones."""

    kind: Literal["mix"]
    size: Size = "kernel"
    slots: int = Field(default=32, ge=1, le=4096)
    pages_share: Share = 0.1


AnyProgram = (
    AllocFreeProgram
    | AllocProgram
    | FreeProgram
    | SameProgram
    | AbaProgram
    | PagesProgram
    | BurstProgram
    | MapProgram
    | MixProgram
)
_KINDS: dict[str, type[AnyProgram]] = by_kind(get_args(AnyProgram))


def parse_program(data: Any) -> AnyProgram:
    """Make a program's spec from `interrupts.{nmi,irq}.program`: a kind's name, or a table.

    Raises: pydantic.ValidationError, listing every mistake with its key.
    """
    if isinstance(data, AnyProgram):
        return data
    if isinstance(data, str):
        if data not in _KINDS:
            raise PydanticCustomError(
                "program", "no such program; it may be: {kinds}", {"kinds": ", ".join(sorted(_KINDS))}
            )
        data = {"kind": data}
    return pick(_KINDS, data, "program")


#: For a field of a config's model; `parse_program` makes one alone.
ProgramSpec = Annotated[AnyProgram, WrapValidator(lambda data, _: parse_program(data))]
