# SPDX-License-Identifier: MIT
"""Keys of steps: declared as fields of a dataclass, validated with errors that say what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from harness.problems import unknown

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MOST_TIMES = 1_000_000
EXTRA = "extra"  # the field that collects keys which depend on others
_TYPES = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list of tables",
}


class Refused(ValueError):
    """A value that is not allowed. The text says what is."""


@dataclass
class Words:
    """What a script may refer to, at one of its steps.

    Attributes: cpus: CPUs that it is.  nodes: of the arena.  flavour: of the core.  design: of the cell.
        let: names of the config's `let`.  defined: kind of name -> names that earlier steps have defined.
    """

    cpus: int
    nodes: int
    flavour: str
    design: str
    let: frozenset[str]
    defined: dict[str, set[str]] = field(default_factory=dict)


Check = Callable[[Any, Words], None]


def key(
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    one_of: Iterable[Any] = (),
    check: Check | None = None,
    defines: str = "",
    uses: str = "",
    known: Iterable[str] = (),
) -> Any:
    """Declare a key of a step.

    Args: default: none = must be given.  low, high: of a number.  one_of: what is allowed.  check: raises
        Refused.  defines: kind of name that the value becomes.  uses: kind of name that it must be, of an
        earlier step, or one of `known`.  An empty text names nothing.
    """
    rules = {
        "low": low,
        "high": high,
        "one_of": tuple(one_of),
        "check": check,
        "defines": defines,
        "uses": uses,
        "known": frozenset(known),
    }
    return field(default=default, metadata=rules)


def spelled(name: str) -> str:
    """Return a field's key: `as_` is `as`."""
    return name.removesuffix("_")


def fields_of(kind: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Map the keys of a step to their fields and types."""
    hints = get_type_hints(kind)
    return {spelled(each.name): (each, hints[each.name]) for each in dataclasses.fields(kind)}


def mistakes(kind: type[Any], data: Mapping[str, Any], words: Words) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a step's table: the key, and what is allowed.

    The names that it defines are known afterwards.
    """
    known = {name: each for name, each in fields_of(kind).items() if name != EXTRA}
    extra, required = _extra(kind, data)
    for name, value in data.items():
        if name == "do":
            continue
        if name not in known and name not in extra:
            there = [*known, *extra]
            yield name, f"unknown key{_close(name, there)}; allowed are {', '.join(there)}"
            continue
        try:
            if name in known:
                _check(value, *known[name], words)
            else:
                _check_type(value, extra[name])
        except Refused as why:
            yield name, str(why)
    for name, (each, _) in known.items():
        if each.default is dataclasses.MISSING and name not in data:
            yield name, "must be given"
    for name in required:
        if name not in data:
            yield name, "must be given"
    for name, (each, _) in known.items():
        value = data.get(name, each.default)
        if each.metadata.get("defines") and isinstance(value, str) and value:
            words.defined.setdefault(each.metadata["defines"], set()).add(value)


def build(kind: type[Any], data: Mapping[str, Any]) -> Any:
    """Make a step of a table without mistakes."""
    known, (extra, _) = fields_of(kind), _extra(kind, data)
    arguments = {known[name][0].name: value for name, value in data.items() if name in known}
    if EXTRA in known:
        arguments[EXTRA] = {name: value for name, value in data.items() if name in extra}
    return kind(**arguments)


def _extra(kind: type[Any], data: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return the keys that this very table may have besides: of the quantity that `read` reads."""
    if not hasattr(kind, "extra_keys"):
        return {}, ()
    found: tuple[Mapping[str, Any], tuple[str, ...]] = kind.extra_keys(data)
    return found


def _check(value: Any, each: dataclasses.Field[Any], hint: Any, words: Words) -> None:
    _check_type(value, hint)
    rules = each.metadata
    low, high = rules.get("low"), rules.get("high")
    if (low is not None and value < low) or (high is not None and value > high):
        raise Refused(f"allowed are {'' if low is None else low} to {'' if high is None else high}")
    if rules.get("one_of") and value not in rules["one_of"]:
        raise Refused(
            f"allowed is one of {', '.join(map(str, rules['one_of']))}{_close(value, rules['one_of'])}"
        )
    if rules.get("check"):
        rules["check"](value, words)
    if rules.get("defines") and value and not _IDENTIFIER.fullmatch(str(value).replace("-", "_")):
        raise Refused("allowed is a name: letters, digits and underscores")
    if rules.get("uses") and value and isinstance(value, str):
        there = words.defined.get(rules["uses"], set())
        if value not in there and value not in rules["known"]:
            names = ", ".join(sorted(there)) or "none"
            raise Refused(f"no earlier step has made it; so far the {rules['uses']} are: {names}")


def _check_type(value: Any, hint: Any) -> None:
    wanted = [get_origin(each) or each for each in _alternatives(hint)]
    if isinstance(value, bool):
        fits = bool in wanted
    else:
        fits = isinstance(value, tuple(wanted)) or (float in wanted and isinstance(value, int))
    if not fits:
        raise Refused(f"allowed is {' or '.join(_TYPES.get(each, str(each)) for each in wanted)}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _close(name: Any, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(str(name), [*map(str, names)], n=1)
    return f" (did you mean {found[0]}?)" if found else ""


# --- checks that several topics use ---------------------------------------------------------------


def a_cpu(value: Any, words: Words) -> None:
    """Refuse what is no CPU of the script."""
    if not 0 <= value < words.cpus:
        raise Refused(f"allowed are 0 to {words.cpus - 1}: cpus = {words.cpus}")


def a_number_of_times(value: Any, words: Words) -> None:
    """Refuse what is neither a number of at least 1 nor an expression over counters stored so far and `let`."""
    if isinstance(value, int):
        if not 1 <= value <= MOST_TIMES:
            raise Refused(f"allowed are 1 to {MOST_TIMES}, or an expression over counters")
        return
    an_expression(value, words)


def an_expression(value: Any, words: Words) -> None:
    """Refuse what is no expression over counters stored so far and `let`."""
    from harness import expression

    there = {*words.defined.get("counters", ()), *words.let}
    try:
        for _, names in expression.names(expression.parse(value)):
            if names[0] not in there or len(names) > 1:
                raise Refused(unknown("name", ".".join(names), sorted(there)))
    except expression.ExpressionError as error:
        raise Refused(str(error)) from None


def a_node(value: Any, words: Words) -> None:
    """Refuse what is no node of the arena."""
    if not -1 <= value < words.nodes:
        raise Refused(f"allowed are -1 (any) to {words.nodes - 1}")


def a_design(value: Any, _words: Words) -> None:
    """Refuse what is no design; an empty text is the cell's."""
    from shmalloc import designs

    if value and value not in designs.names():
        raise Refused(f"allowed is one of {', '.join(designs.names())}")


def gfp_names(value: Any, _words: Words) -> None:
    """Refuse what is no gfp flag."""
    from shmalloc.gfp import parse

    try:
        parse(value)
    except ValueError as error:
        raise Refused(str(error)) from None


def a_site(value: Any, words: Words) -> None:
    """Refuse what is no probe site."""
    from shmalloc import designs

    if words.flavour != "checked":
        raise Refused('needs flavour = "checked": release has no probe sites')
    if value not in designs.probe_sites():
        raise Refused(
            f"allowed is one of {', '.join(designs.probe_sites())}{_close(value, designs.probe_sites())}"
        )
