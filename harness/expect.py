# SPDX-License-Identifier: MIT
"""Expectations: which cells they are about, what was measured, and whether they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness import expression, overrides, schema
from harness.config import Cell, Config, ExpectSpec
from harness.expression import ExpressionError, Outcome
from harness.problems import one_of, unknown
from harness.results import blank_cell
from harness.vocabulary import OK, Vocabulary

_IN_BRACES = re.compile(r"\{([^{}]+)\}")
_MANY = 10_000
_NAMED = {"design": lambda v: list(v.designs), "broken": lambda v: list(v.broken)}


def mistakes(
    text: str, vocabulary: Vocabulary, facts: Iterable[str] = (), more: Mapping[str, Any] | None = None
) -> list[str]:
    """List what is wrong with a condition before anything has run.

    Args: text: the condition.  vocabulary: decides which names a cell's results have.  facts: counters
        that a script stores.  more: keys of a cell that only its engine's have.
    """
    try:
        tree = expression.parse(text)
    except ExpressionError as error:
        return [str(error)]
    blank = {**blank_cell(vocabulary, facts), **(more or {})}
    found = []
    for selector, keys in expression.names(tree):
        try:
            expression.lookup(blank, keys)
            if selector is not None:
                found += selector_problems(parse_selector(selector), vocabulary)
        except (ExpressionError, ValueError) as error:
            found.append(str(error))
    if not found:
        try:
            expression.evaluate(text, blank, lambda _: blank)
        except ExpressionError as error:
            found.append(str(error))
    return found


def template_mistakes(
    text: str, vocabulary: Vocabulary, facts: Iterable[str] = (), more: Mapping[str, Any] | None = None
) -> list[str]:
    """List what is wrong with the expressions in a text that says what was measured. Args: as of `mistakes`."""
    parts = _IN_BRACES.findall(text)
    if "{" in _IN_BRACES.sub("", text) or "}" in _IN_BRACES.sub("", text):
        return ["braces do not match; allowed is a text with expressions in braces: {allocs}"]
    facts = tuple(facts)
    found = [why for part in parts for why in mistakes(f"({part}) == 0", vocabulary, facts, more)]
    return [why for why in found if "cannot be compared" not in why]  # a text is as good as a number here


def fill_in(text: str, cell: Mapping[str, Any], other: expression.Lookup | None = None) -> str:
    """Put values into the braces of a text."""

    def value(found: re.Match[str]) -> str:
        try:
            return number(expression.value(found[1], cell, other))
        except ExpressionError as error:
            return f"({error})"

    return _IN_BRACES.sub(value, text)


def number(value: Any) -> str:
    """Write a measured value."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.4g}" if abs(value) < _MANY else f"{value:,.0f}"
    return f"{value:,.0f}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def parse_selector(text: str) -> dict[str, Any]:
    """Read ``"design=kmalloc,cpus=2"``.

    Raises: ValueError.
    """
    pairs = (overrides.parse(part) for part in text.split(","))
    return {".".join(path): value for path, value in pairs}


def flatten(selector: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested tables as dotted paths."""
    flat: dict[str, Any] = {}
    for key, value in selector.items():
        path = f"{prefix}{key}"
        flat.update(flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value})
    return flat


def selector_problems(selector: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
    """List the keys of a selector that no config has, and the names in it that do not exist."""
    found = []
    for path, value in flatten(selector).items():
        models: list[Any] = [Config]
        for key in path.split("."):
            if key not in schema.keys(models):
                found.append(f"{path}: " + unknown("key", key, schema.keys(models)))
                break
            annotation = schema.type_of(models, key)
            if schema.is_free(annotation):
                break
            models = schema.tables(annotation)
        if path in _NAMED:
            allowed = _NAMED[path](vocabulary)
            wrong = [name for name in (value if isinstance(value, list) else [value]) if name not in allowed]
            found += [f"{path} = {name!r}: {one_of(allowed)}" for name in wrong]
    return found


def matches(selector: Mapping[str, Any], config: Config) -> bool:
    """Whether a cell is one of those selected.  A list of values selects each of them."""
    data = config.model_dump(mode="json")
    return all(_equal(_at(data, path), wanted) for path, wanted in flatten(selector).items())


def _at(data: Any, path: str) -> Any:
    for key in path.split("."):
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_equal(value, each) for each in wanted)
    if isinstance(value, Mapping) and isinstance(wanted, str):
        return bool(value.get("kind") == wanted)
    return bool(value == wanted)


def expected_verdict(config: Config) -> str:
    """Return the verdict that a cell is expected to have: that of the last test that selects it, else ok."""
    found = OK
    for spec in config.expect:
        if spec.verdict is not None and spec.kind == "test" and matches(spec.cell, config):
            found = spec.verdict
    return found


def must_happen(config: Config, cell: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Evaluate what must have happened in a cell.

    Returns: {condition, measured, holds} for each.
    """
    outcomes = ((text, _safely(text, cell, None)) for text in config.must_happen)
    return [{"condition": text, "measured": o.measured, "holds": o.holds} for text, o in outcomes]


def judge(cells: Sequence[Cell], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Evaluate the expectations of a run.

    Args: cells, results: the cells that ran, and what each came to, in the same order.
    Returns: {text, kind, measured, holds} for each, and `said`, what was measured in words, if the config says
        how; holds is null if it is about no cell that ran.
    """
    pairs = list(zip(cells, results, strict=True))
    return [_judge(spec, pairs) for spec in cells[0].config.expect]


def _judge(spec: ExpectSpec, pairs: list[tuple[Cell, Mapping[str, Any]]]) -> dict[str, Any]:
    chosen = [(cell, result) for cell, result in pairs if matches(spec.cell, cell.config)]
    if spec.condition is not None and _is_about_run(spec.condition):
        chosen = chosen[:1]
    outcomes = {cell.id: _outcome(spec, result, pairs) for cell, result in chosen}
    said = {}
    if spec.measured is not None:
        texts = {cell.id: fill_in(spec.measured, result, _others(pairs)) for cell, result in chosen}
        same = len(set(texts.values())) == 1
        said["said"] = (
            next(iter(texts.values())) if same else "; ".join(f"{i}: {t}" for i, t in texts.items())
        )
    measured: Any = {name: outcome.measured for name, outcome in outcomes.items()}
    if len(outcomes) == 1:
        measured = next(iter(measured.values()))
    text = spec.text or spec.condition or f"verdict is {spec.verdict}"
    holds = all(outcome.holds for outcome in outcomes.values()) if outcomes else None
    return {
        "text": text,
        "kind": spec.kind,
        "measured": measured if outcomes else None,
        "holds": holds,
        **said,
    }


def _is_about_run(condition: str) -> bool:
    """Whether a condition names its cells itself."""
    return all(selector is not None for selector, _ in expression.names(expression.parse(condition)))


def _outcome(
    spec: ExpectSpec, result: Mapping[str, Any], pairs: list[tuple[Cell, Mapping[str, Any]]]
) -> Outcome:
    if spec.condition is None:
        return Outcome(result["verdict"] == spec.verdict, result["verdict"])
    return _safely(spec.condition, result, _others(pairs))


def _others(pairs: list[tuple[Cell, Mapping[str, Any]]]) -> expression.Lookup:
    """Return what finds another cell of the run by its selector."""

    def other(selector: str) -> Mapping[str, Any]:
        found = [r for cell, r in pairs if matches(parse_selector(selector), cell.config)]
        if len(found) != 1:
            raise ExpressionError(f'cells["{selector}"]: {len(found)} cells of this run; one is wanted')
        return found[0]

    return other


def _safely(text: str, cell: Mapping[str, Any], other: expression.Lookup | None) -> Outcome:
    """Evaluate a condition; one that cannot be does not hold."""
    try:
        return expression.evaluate(text, cell, other)
    except ExpressionError as error:
        return Outcome(False, str(error))
