# SPDX-License-Identifier: MIT
"""The registry of steps and quantities: whatever the files of `topics/` declare."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_type_hints

from harness.script.keys import a_cpu, a_number_of_times, key, spelled

if TYPE_CHECKING:
    from harness.script.nested import Nested
    from harness.script.scene import Scene

__all__ = ["Quantity", "Step", "is_nestable", "quantities", "quantity", "step", "steps"]

_steps: dict[str, type[Step]] = {}
_quantities: dict[str, Quantity] = {}

Kind = TypeVar("Kind", bound="type[Step]")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Step:
    """One table `[[step]]`: what is done, once or `repeat` times.

    Attributes: cpu: that does it.  count: name of the counter that gets the sum of what `run` returns.
        repeat: how often: a number, or an expression over the counters so far.
    """

    do: ClassVar[str] = ""

    cpu: int = key(0, check=a_cpu)
    count: str = key("", defines="counters")
    repeat: int | str = key(1, check=a_number_of_times)

    def run(self, scene: Scene) -> float | None:
        """Do it. Returns: successes, or a value; None = there is no number to speak of."""
        raise NotImplementedError

    def nest(self, program: Nested) -> None:
        """Add the ops that do it inside an interrupt."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Say what is done, for the interleaving."""
        return self.do


@dataclass(frozen=True)
class Quantity:
    """What the step `read` can read.

    Attributes: name: dotted.  function: that reads it.  keys: key -> type.  required: keys without a default.
        parameters: key -> parameter of the function; `map_` is the key `map`.
    """

    name: str
    function: Callable[..., float]
    keys: Mapping[str, Any]
    required: tuple[str, ...]
    parameters: Mapping[str, str]

    def read(self, scene: Scene, keys: Mapping[str, Any]) -> float:
        """Read it."""
        return self.function(scene, **{self.parameters[key]: value for key, value in keys.items()})


def step(name: str) -> Callable[[Kind], Kind]:
    """Register a class as the step of a name; it becomes a frozen dataclass."""

    def register(kind: Kind) -> Kind:
        assert name not in _steps, f"two steps are called {name}"
        dataclass(frozen=True, kw_only=True)(kind)
        kind.do = name
        _steps[name] = kind
        return kind

    return register


def quantity(name: str) -> Callable[[Function], Function]:
    """Register a function `f(scene, *, key, ...) -> number` as the quantity of a name."""

    def register(function: Function) -> Function:
        assert name not in _quantities, f"two quantities are called {name}"
        hints = get_type_hints(function, {**function.__globals__, "Scene": object})
        parameters = [*inspect.signature(function).parameters.values()][1:]
        keys = {spelled(p.name): p.name for p in parameters}
        required = tuple(spelled(p.name) for p in parameters if p.default is inspect.Parameter.empty)
        types = {key: hints[parameter] for key, parameter in keys.items()}
        _quantities[name] = Quantity(name, function, types, required, keys)
        return function

    return register


def is_nestable(kind: type[Step]) -> bool:
    """Whether a step may be done inside an interrupt."""
    return kind.nest is not Step.nest


@cache
def _load() -> None:
    from harness.script import topics

    for found in pkgutil.iter_modules(topics.__path__):
        importlib.import_module(f"{topics.__name__}.{found.name}")


def steps() -> Mapping[str, type[Step]]:
    """Map the names of all steps to their classes."""
    _load()
    return _steps


def quantities() -> Mapping[str, Quantity]:
    """Map the names of all quantities."""
    _load()
    return _quantities
