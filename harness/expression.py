# SPDX-License-Identifier: MIT
"""Conditions over a cell's results: a small, closed language.

``interrupts.nmi.in_slow_path > 0 and failures.zone_busy < 0.01 * allocs``. Names are the paths of the cell's
JSON; a bare name means "above 0"; another cell of the run is ``cells["design=kmalloc"].throughput_ops_s``.
Numbers, texts, + - * /, comparisons, and, or, not, min(), max(), abs() are there, and nothing else.
A value that is null (a percentile of nothing) makes every comparison with it false.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.problems import unknown

Value = float | int | str | bool | None
Lookup = Callable[[str], Mapping[str, Any]]

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "abs": abs}
_ELSEWHERE = "cells"


class ExpressionError(ValueError):
    """No expression of this language, or a name in it that does not exist."""


@dataclass(frozen=True)
class Outcome:
    """What came of a condition: whether it holds, and the number or numbers it was about."""

    holds: bool
    measured: Any


def parse(text: str) -> ast.expr:
    """Parse a condition and refuse what the language does not have.

    Raises: ExpressionError.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"no condition: {getattr(error, 'msg', error)}") from None
    _check(tree)
    return tree


def _check(node: ast.expr) -> None:
    match node:
        case ast.BoolOp(values=parts):
            pass
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=part):
            parts = [part]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            parts = [left, right]
        case ast.Compare(left=left, ops=ops, comparators=others) if all(
            type(op) in _COMPARISONS for op in ops
        ):
            parts = [left, *others]
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as parts, keywords=[]) if name in _FUNCTIONS:
            pass
        case ast.Constant(value=int() | float() | str()):
            parts = []
        case _ if _path(node) is not None:
            parts = []
        case _:
            raise ExpressionError(
                f"{ast.unparse(node)!r} is not part of a condition; allowed are names, numbers, + - * /, "
                "comparisons, and, or, not, min(), max(), abs()"
            )
    for part in parts:
        _check(part)


def _path(node: ast.expr) -> tuple[str | None, list[str]] | None:
    """Take a name apart: the selector of another cell or None, and the keys.  None if it is no name."""
    keys: list[str] = []
    while isinstance(node, ast.Attribute):
        keys.insert(0, node.attr)
        node = node.value
    match node:
        case ast.Name(id=name) if name != _ELSEWHERE:
            return None, [name, *keys]
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str() as selector)):
            return (selector, keys) if name == _ELSEWHERE and keys else None
    return None


def names(tree: ast.expr) -> Iterator[tuple[str | None, list[str]]]:
    """Yield the names in a condition: (selector of another cell or None, keys)."""
    path = _path(tree)
    if path is not None:
        yield path
        return
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.expr) and not (isinstance(tree, ast.Call) and child is tree.func):
            yield from names(child)


def lookup(cell: Mapping[str, Any], keys: list[str]) -> Value:
    """Return the value of a name in a cell.

    Raises: ExpressionError, naming what exists there.
    """
    here: Any = cell
    for at, key in enumerate(keys):
        if not isinstance(here, Mapping):
            raise ExpressionError(f"{'.'.join(keys[:at])} is a value, it has no part {key}")
        if key not in here:
            where = ".".join(keys[: at + 1])
            raise ExpressionError(f"{where}: " + unknown("name", key, list(here)))
        here = here[key]
    if isinstance(here, Mapping):
        raise ExpressionError(f"{'.'.join(keys)} is a table; name one of its keys: {', '.join(here)}")
    if isinstance(here, list):
        return len(here)
    return here  # type: ignore[no-any-return]


def evaluate(text: str, cell: Mapping[str, Any], other: Lookup | None = None) -> Outcome:
    """Evaluate a condition.

    Args: text: the condition.  cell: whose names are meant.  other: finds another cell by its selector.
    Raises: ExpressionError.
    """
    tree = parse(text)

    def value_of(node: ast.expr) -> Any:
        return _value(node, cell, other)

    holds = _truth(value_of(tree))
    if isinstance(tree, ast.Compare):
        return Outcome(holds, value_of(tree.left))
    found = {_spelled(path): _resolve(path, cell, other) for path in names(tree)}
    if len(found) == 1:
        return Outcome(holds, next(iter(found.values())))
    return Outcome(holds, found)


def value(text: str, names: Mapping[str, Any], other: Lookup | None = None) -> Value:
    """Return the value of an expression: a number or a text, or None if it has none.

    Args: as for `evaluate`.
    Raises: ExpressionError.
    """
    return _value(parse(text), names, other)  # type: ignore[no-any-return]


def _spelled(path: tuple[str | None, list[str]]) -> str:
    selector, keys = path
    prefix = "" if selector is None else f'cells["{selector}"].'
    return prefix + ".".join(keys)


def _resolve(path: tuple[str | None, list[str]], cell: Mapping[str, Any], other: Lookup | None) -> Value:
    selector, keys = path
    if selector is None:
        return lookup(cell, keys)
    if other is None:
        raise ExpressionError("cells[...] has no place here: the condition is about one cell")
    return lookup(other(selector), keys)


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        raise ExpressionError(f"{value!r} is a text, no condition; compare it")
    return isinstance(value, int | float) and value > 0


def _value(node: ast.expr, cell: Mapping[str, Any], other: Lookup | None) -> Any:
    def inner(part: ast.expr) -> Any:
        return _value(part, cell, other)

    path = _path(node)
    if path is not None:
        return _resolve(path, cell, other)
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_truth(value) for value in [*map(inner, parts)])
        case ast.BoolOp(values=parts):
            return any(_truth(value) for value in [*map(inner, parts)])
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return not _truth(inner(part))
        case ast.UnaryOp(operand=part):
            return _arithmetic(operator.neg, inner(part))
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(_ARITHMETIC[type(op)], inner(left), inner(right))
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [inner(left), *map(inner, others)]
            return all(map(_compare, ops, values, values[1:]))
        case ast.Call(func=ast.Name(id=name), args=parts):
            return _arithmetic(_FUNCTIONS[name], *map(inner, parts))
        case ast.Constant(value=constant):
            return constant
    raise ExpressionError(f"{ast.unparse(node)!r} is not part of a condition")  # pragma: no cover


def _arithmetic(function: Callable[..., Any], *values: Any) -> Value:
    if any(value is None for value in values):
        return None
    if any(isinstance(value, str) for value in values):
        raise ExpressionError("a text cannot be calculated with")
    try:
        return function(*values) if len(values) > 1 or function in (operator.neg, abs) else values[0]  # type: ignore[no-any-return]
    except ZeroDivisionError:
        return None


def _compare(op: ast.cmpop, left: Any, right: Any) -> bool:
    if left is None or right is None:
        return False
    if isinstance(left, str) != isinstance(right, str):
        raise ExpressionError(f"{left!r} and {right!r} cannot be compared")
    return _COMPARISONS[type(op)](left, right)
