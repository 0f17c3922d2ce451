# SPDX-License-Identifier: MIT
"""From the tables of a config to steps, with every mistake and its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.problems import one_of, unknown
from harness.script import keys
from harness.script.keys import Words
from harness.script.registry import Step, is_nestable, steps

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Mistake:
    """One mistake. Attributes: path: keys and indices below `step`.  value: what is there.  allowed."""

    path: tuple[str | int, ...]
    value: Any
    allowed: str


def filled_in(value: Any, let: Mapping[str, Any]) -> Any:
    """Put the values of `let` where a text says "$name".

    Raises: KeyError, with a name that `let` does not have.
    """
    if isinstance(value, str) and value.startswith("$"):
        return let[value[1:]]
    if isinstance(value, Mapping):
        return {name: filled_in(each, let) for name, each in value.items()}
    if isinstance(value, list):
        return [filled_in(each, let) for each in value]
    return value


def compiled(tables: Sequence[Table], let: Mapping[str, Any]) -> list[Step]:
    """Make the steps of tables without mistakes."""
    made = []
    for table in tables:
        full = filled_in(table, let)
        made.append(keys.build(steps()[full["do"]], full))
    return made


def mistakes(tables: Sequence[Table], let: Mapping[str, Any], words: Words) -> list[Mistake]:
    """List what is wrong with a script; `words` then knows all names that it defines."""
    found: list[Mistake] = []
    for at, table in enumerate(tables):
        try:
            full = filled_in(table, let)
        except KeyError as error:
            name = str(error.args[0])
            found.append(Mistake((at,), f"${name}", unknown("name of let", name, list(let))))
            continue
        found += _of_step(full, (at,), words, nested=False)
    return found


def _of_step(table: Table, path: tuple[str | int, ...], words: Words, *, nested: bool) -> Iterator[Mistake]:
    if not isinstance(table, Mapping) or "do" not in table:
        yield Mistake((*path, "do"), None, "must be given: which step it is; " + one_of(steps()))
        return
    kind = steps().get(table["do"]) if isinstance(table["do"], str) else None
    if kind is None:
        yield Mistake((*path, "do"), table["do"], unknown("step", str(table["do"]), list(steps())))
        return
    if nested and not is_nestable(kind):
        able = [name for name, each in steps().items() if is_nestable(each)]
        yield Mistake((*path, "do"), table["do"], f"not inside an interrupt; there {one_of(able)}")
        return
    if nested:
        for name in {"cpu", "design"} & table.keys():
            yield Mistake((*path, name), table[name], "allowed on the interrupt's own table only")
    inner = table.get("steps")
    if isinstance(inner, list):
        if not inner:
            yield Mistake((*path, "steps"), [], "allowed is a list of at least one step")
        for at, each in enumerate(inner):
            yield from _of_step(each, (*path, "steps", at), words, nested=True)
    for name, allowed in keys.mistakes(kind, table, words):
        yield Mistake((*path, name), table.get(name), allowed)
