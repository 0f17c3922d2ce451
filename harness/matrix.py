# SPDX-License-Identifier: MIT
"""From a file to cells: reading, overriding, spreading lists out, validating.

Every mistake of a file is reported at once: those that a model finds, and, with the keys that are
wrong put aside, those that only several keys together can make.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness import overrides, schema
from harness.checks import contradictions
from harness.config import Cell, Config
from harness.problems import ConfigError, Problem, dig, dotted, shown, unknown
from harness.vocabulary import Vocabulary

MAX_CELLS = 4096


@dataclass(frozen=True)
class Experiment:
    """One config file.

    Attributes: source: the file as it was named.  base_dir: its folder, that paths in it are relative to.
        raw: its tables, overrides applied.  overrides: as given.  cells: at least one.
    """

    source: str
    base_dir: Path
    raw: Mapping[str, Any]
    cells: tuple[Cell, ...]
    overrides: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """The experiment's name: that of its results' folder."""
        return self.cells[0].config.name

    @property
    def resolved(self) -> dict[str, Any]:
        """The config with all defaults filled in, and lists where values vary."""
        data: dict[str, Any] = self.cells[0].config.model_dump(mode="json")
        for path, values in schema.axes([Config], self.raw):
            data = overrides.put(data, path, values)
        return data


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises: ConfigError, if it is not there or is no TOML.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [Problem("", None, f"cannot be read: {error.strerror}")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [Problem("", None, f"no TOML: {error}")]) from None
    return {"name": path.stem, **data}


def load(path: Path, sets: Sequence[str], vocabulary: Vocabulary) -> Experiment:
    """Read a config and resolve it into cells.

    Args: path: of the TOML file.  sets: overrides, ``a.b=c``.  vocabulary: the names that exist.
    Raises: ConfigError, with every mistake.
    """
    raw = overrides.apply(read(path), sets)
    cells = expand(str(path), raw, vocabulary)
    return Experiment(str(path), path.resolve().parent, raw, cells, tuple(sets))


def expand(source: str, raw: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[Cell, ...]:
    """Validate every combination of the values that vary.

    Raises: ConfigError, with the mistakes of all of them.
    """
    axes = list(schema.axes([Config], raw))
    problems = _axis_problems(axes)
    cells = []
    for values in itertools.product(*(values for _, values in axes)) if not problems else ():
        cell, found = _cell(raw, dict(zip((path for path, _ in axes), values, strict=True)), vocabulary)
        problems += found
        cells += [cell] if cell is not None else []
    ids = [cell.id for cell in cells]
    if len(set(ids)) < len(ids) and not problems:
        problems.append(Problem("", None, "a list has a value twice: two cells would be the same"))
    if problems:
        raise ConfigError(source, problems)
    return tuple(cells)


def _axis_problems(axes: list[tuple[tuple[str, ...], list[Any]]]) -> list[Problem]:
    allowed = "allowed is a value, or a list of at least one"
    problems = [Problem(dotted(path), "[]", allowed) for path, values in axes if not values]
    count = math.prod(len(values) for _, values in axes)
    if count > MAX_CELLS:
        problems.append(Problem("", None, f"{count} cells; allowed are at most {MAX_CELLS}"))
    return problems


def _cell(
    raw: Mapping[str, Any], values: Mapping[tuple[str, ...], Any], vocabulary: Vocabulary
) -> tuple[Cell | None, list[Problem]]:
    """Make one cell of one value from each axis."""
    data = dict(raw)
    for path, value in values.items():
        data = overrides.put(data, path, value)
    config, problems = validate(data, vocabulary)
    if config is None:
        return None, problems
    params = {dotted(path): value for path, value in values.items()}
    return Cell(cell_id(params, config), params, config), problems


def cell_id(params: Mapping[str, Any], config: Config) -> str:
    """Name a cell by what varies; keys are shortened where that leaves no doubt."""
    if not params:
        return config.design
    last = [path.rpartition(".")[2] for path in params]
    short = {path: key if last.count(key) == 1 else path for path, key in zip(params, last, strict=True)}
    return ",".join(f"{short[path]}={_plain(value)}" for path, value in params.items())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, separators=(",", ":"), sort_keys=True)
    return str(value).lower() if isinstance(value, bool) else str(value)


def validate(data: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[Config | None, list[Problem]]:
    """Validate one cell.

    Returns: the config, or None, and every mistake in it.
    """
    try:
        config = Config.model_validate(data, context=vocabulary)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [_problem(data, detail) for detail in details]
        return None, problems + _beyond(data, details, vocabulary)
    problems = contradictions(config, vocabulary, frozenset())
    return (None if problems else config), problems


def _beyond(data: Mapping[str, Any], details: list[ErrorDetails], vocabulary: Vocabulary) -> list[Problem]:
    """Look past the keys that are wrong, for contradictions between the others."""
    rest, wrong = copy.deepcopy(dict(data)), set()
    for detail in details:
        path = _path(data, detail)
        wrong.add(dotted(path))
        parent = dig(rest, path[:-1]) if path else None
        if isinstance(parent, dict):
            parent.pop(path[-1], None)
        elif isinstance(parent, list):
            rest.pop(str(path[0]), None)
    rest.setdefault("name", "unnamed")
    try:
        config = Config.model_validate(rest, context=vocabulary)
    except ValidationError:
        return []
    return contradictions(config, vocabulary, frozenset(wrong))


def _path(data: Mapping[str, Any], detail: ErrorDetails) -> list[str | int]:
    """Return where the mistake is in the file: without the names of alternatives that pydantic adds."""
    path: list[str | int] = []
    location = [part for part in detail["loc"] if part != "[key]"]
    for at, part in enumerate(location):
        here = dig(data, path)
        known = (isinstance(here, Mapping) and part in here) or (
            isinstance(here, list) and isinstance(part, int)
        )
        if known or (at == len(location) - 1 and isinstance(here, Mapping)):
            path.append(part)
    return path


def _problem(data: Mapping[str, Any], detail: ErrorDetails) -> Problem:
    path = _path(data, detail)
    value = None if detail["type"] == "missing" else shown(detail["input"])
    return Problem(dotted(path), value, _allowed(path, detail))


def _allowed(path: Sequence[str | int], detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return unknown("key", str(path[-1]), _keys_at(path[:-1]))
    if detail["type"] == "missing":
        return "must be given"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "allowed is")
    return message[:1].lower() + message[1:]


def _keys_at(path: Sequence[str | int]) -> list[str]:
    models: list[type[BaseModel]] = [Config]
    for key in path:
        if isinstance(key, str):
            models = schema.tables(schema.element(schema.type_of(models, key)))
    return schema.keys(models)
