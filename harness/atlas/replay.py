# SPDX-License-Identifier: MIT
"""`shmalloc replay`: exactly one injection again, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness import vocabulary
from harness.atlas import engine, outcome_names, scenario
from harness.atlas.crew import Crew
from harness.problems import ConfigError, Problem, one_of, unknown
from harness.vocabulary import OK
from shmalloc import _binding

_FORM = re.compile(r"(?P<scenario>[^@]+@[^@]+)@(?P<places>\d+(:\w+)?([+^]\d+(:\w+)?)*)")
_PLACE = re.compile(r"([+^]?)(\d+)(?::(\w+))?")
_INSIDE = "^"
KINDS = ("nmi", "irq")


@dataclass(frozen=True)
class Wanted:
    """An injection by name. Attributes: places: [index, kind, inside] of each interrupt."""

    design: str
    broken: str
    scenario: str
    places: tuple[tuple[int, str, bool], ...]


def check_names(design: str, broken: str) -> None:
    """Raise ConfigError if there is no such design, or no such broken variant at release quality."""
    designs = list(vocabulary.load().designs)
    variants = ["none"] if broken == "none" else ["none", *_binding.release_variants()]
    problems = []
    if design not in designs:
        problems.append(Problem("DESIGN", design, unknown("design", design, designs)))
    if broken not in variants:
        problems.append(Problem("--broken", broken, unknown("broken variant", broken, variants)))
    if problems:
        raise ConfigError("command line", problems)


def parse(design: str, broken: str, point: str) -> Wanted:
    """Read what is to be replayed.

    Raises: ConfigError: naming what there is.
    """
    check_names(design, broken)
    match = _FORM.fullmatch(point)
    if match is None:
        form = "allowed is OPERATION@TASK/HANDLER@INDEX, and +INDEX or ^INDEX (inside the handler) behind it"
        raise ConfigError("command line", [Problem("SCENARIO@INDEX", point, form)])
    name = match["scenario"]
    try:
        chosen = scenario.find(design, name)
    except KeyError:
        raise ConfigError("command line", [Problem("SCENARIO", name, _allowed(design, name))]) from None
    places = []
    for how, index, kind in _PLACE.findall(match["places"]):
        inside = how == _INSIDE
        kind = kind or ("nmi" if inside else chosen.kind)
        if kind not in KINDS:
            raise ConfigError("command line", [Problem("KIND", kind, one_of(KINDS))])
        places.append((int(index), kind, inside))
    return Wanted(design, broken, name, tuple(places))


def _allowed(design: str, name: str) -> str:
    """Say which part of a scenario's name is wrong, and what there is."""
    operation, _, rest = name.partition("@")
    operations = scenario.operation_names(design)
    if operation not in operations:
        return unknown("operation", operation, operations)
    starts = f"{operation}@"
    names = [
        each.name.removeprefix(starts)
        for each in scenario.scenarios(design, scenario.Selection(kinds=KINDS))
        if each.name.startswith(starts)
    ]
    return unknown(f"scenario of {operation}", rest, names)


def run(wanted: Wanted, check: Callable[[], None]) -> dict[str, Any]:
    """Run it, in a process of its own.

    Raises: ConfigError: the scenario has fewer instructions.  CannotRun.
    """
    spec = {"design": wanted.design, "broken": wanted.broken, "nested": False, "accesses": False}
    order = {"do": "replay", "scenario": wanted.scenario, "places": wanted.places}
    with Crew(engine.cores(1, 1), spec) as crew:
        ((_, message),) = list(crew.work_off([order], check))
    if "beyond" in message:
        raise ConfigError("command line", [Problem("INDEX", None, message["beyond"])])
    if "failed" in message:
        raise ConfigError("command line", [Problem("SCENARIO", wanted.scenario, message["failed"])])
    return message


def text(wanted: Wanted, found: dict[str, Any]) -> str:
    """Write what came of it."""
    if "died" in found:
        return f"{wanted.scenario}: {found['died']}"
    lines = [
        f"{wanted.scenario}, {wanted.design}" + (f" with {wanted.broken}" if wanted.broken != "none" else "")
    ]
    for place in found["places"]:
        lines += [
            f"{place['kind'].upper()} before instruction {place['index']} of {place['of']}"
            + (" of the handler" if place["inside"] else "")
            + f", occurrence {place['occurrence']}:",
            f"  {place['symbol']}  {place['text']}",
            f"  {place['source']}",
        ]
    lines += ["", "interrupted:", *(f"  {frame}" for frame in found["stacks"]["operation"])]
    lines += ["", "in the handler:", *(f"  {frame}" for frame in found["stacks"]["handler"])]
    verdict = found["verdict"] + (f": {found['text']}" if found["verdict"] != OK else "")
    lines += [
        "",
        f"operation  {outcome_names.said(found['operation'])}",
        f"handler    {outcome_names.said(found['handler'])}",
        f"verdict    {verdict}",
    ]
    for title, key in (("arena before", "before"), ("arena after", "after"), ("what changed", "changed")):
        if found[key]:
            lines += ["", f"{title}:", *(f"  {line}" for line in found[key])]
    return "\n".join(lines)
