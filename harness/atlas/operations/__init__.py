# SPDX-License-Identifier: MIT
"""The catalogue of operations: whatever the files of this folder declare.

An operation is a function that arranges a start state and returns what is then asked for. Handlers have
been prepared by then, so it goes on from whatever state they have left.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from harness.atlas.staging import SIZE_BYTES, Request, Staging

Arrange: TypeAlias = Callable[[Staging], Request]
Register: TypeAlias = Callable[[Arrange], Arrange]


def nothing(_stage: Staging) -> None:
    """Arrange nothing."""


@dataclass(frozen=True)
class Operation:
    """One path of one operation.

    Attributes: name.  summary: one line.  group: alloc free pages deferred memcg bpf pool objpool sheaf map rcu.
        designs: that may be asked for it.  arrange: brings the arena into the start state, and returns the
        request.  path: counter -> condition on its growth over one run that nobody interrupts.
        geometry: keys over `staging.SMALL`.  size: bytes of the objects that handlers ask for.  before: runs
        before the handler is prepared.  functions: that must be in the recorded trace.
        context: "irq": it runs as the program of an irq; "masked": irqs are off from its begin to its end.
    """

    name: str
    summary: str
    group: str
    designs: tuple[str, ...]
    arrange: Arrange
    path: Mapping[str, str]
    geometry: Mapping[str, Any] = field(default_factory=dict)
    size: int = SIZE_BYTES
    before: Callable[[Staging], None] = nothing
    functions: tuple[str, ...] = ()
    context: str = "task"


_operations: dict[str, Operation] = {}


def operation(
    name: str,
    summary: str,
    *,
    group: str,
    designs: tuple[str, ...],
    path: Mapping[str, str],
    in_irq: bool = False,
    **more: Any,
) -> Register:
    """Register a function as an operation.

    Args:
        name: of the operation.
        summary: one line.
        group: its topic.
        designs: that may be asked for it.
        path: what proves it.
        in_irq: register NAME_irq, too: the same as the program of an irq.
        **more: see `Operation`.
    """

    def register(arrange: Arrange) -> Arrange:
        _add(Operation(name, summary, group, designs, arrange, path, **more))
        if in_irq:
            text = f"{summary}, in an irq"
            _add(Operation(f"{name}_irq", text, group, designs, arrange, path, context="irq", **more))
        return arrange

    return register


def _add(made: Operation) -> None:
    assert made.name not in _operations, f"two operations are called {made.name}"
    _operations[made.name] = made


@cache
def _load() -> None:
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        importlib.import_module(f"{__name__}.{found.name}")


def all_operations() -> Mapping[str, Operation]:
    """Map the names of all operations, in order of their topics' files."""
    _load()
    return _operations
