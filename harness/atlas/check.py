# SPDX-License-Identifier: MIT
"""What a config says wrong about its atlas, found in the parent before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from typing import TYPE_CHECKING, Any

from harness.problems import Problem, one_of, shown, unknown
from harness.vocabulary import OK

if TYPE_CHECKING:
    from harness.config import Config
    from harness.vocabulary import Vocabulary

ENGINE = "atlas"
_FEW = 30
_SERVED = ("other_bucket", "deferred", "none")
_NUMBERS = (
    "instructions",
    "states",
    "deadlock_points",
    "deadlock_injections",
    "injections_per_s",
    "injections_per_s_overall",
    "cores",
    "seconds",
)
# Scenarios bring an arena, CPUs, ops and interrupts of their own.
_OTHERS = (
    "workload",
    "interrupts",
    "duration_s",
    "ops",
    "cpus",
    "pin",
    "pattern",
    "sample",
    "deadline_s",
    "arena",
    "pool",
    "faults",
    "kswapd",
    "page_cache",
    "memcg",
    "numa_model",
)


def facts(config: Config, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the keys of a cell that only an atlas has, for conditions to be checked against."""
    if config.engine != ENGINE:
        return {}
    counts = dict.fromkeys(("points", "covered"), 0)
    numbers = dict.fromkeys(_NUMBERS, 0)
    found = {**counts, **numbers, "totals": totals({}, vocabulary)}
    if config.atlas.pairs:
        found["pairs"] = {**counts, "nested": dict(counts)}
    if config.atlas.accesses:
        found["accesses"] = dict.fromkeys(("scenarios", "points", "outcomes_equal", "states_equal"), 0)
    return {"atlas": found}


def totals(outcomes: Mapping[str, int], vocabulary: Vocabulary) -> dict[str, int]:
    """Name all outcomes as conditions can: `null_zone_busy` for null:zone_busy, `null` for all of those."""
    names = (OK, *_SERVED, "null", "error", *(f"null_{reason}" for reason in vocabulary.reasons))
    found = dict.fromkeys((*names, *vocabulary.verdicts), 0)
    for outcome, count in outcomes.items():
        kind, colon, _ = outcome.partition(":")
        for name in dict.fromkeys((kind, outcome.replace(":", "_")) if colon else (kind,)):
            found[name] = found.get(name, 0) + count
    return found


def problems(config: Config, vocabulary: Vocabulary) -> Iterator[Problem]:
    """List what is wrong with a cell's atlas."""
    if config.engine != ENGINE:
        if _is_said(config, "atlas"):
            why = f'has no meaning with engine = "{config.engine}"; allowed is "{ENGINE}"'
            yield Problem("atlas", None, why)
        return
    for key in _OTHERS:
        if _is_said(config, key):
            why = f'has no meaning with engine = "{ENGINE}", whose scenarios say what is done'
            yield Problem(key, None, why)
    if config.flavour != "release":
        yield Problem(
            "flavour",
            shown(config.flavour),
            'allowed with engine = "atlas" is "release", the code that is measured',
        )
    if not config.oracle:
        yield Problem("oracle", "false", f'allowed with engine = "{ENGINE}" is true')
    yield from _variant(config)
    yield from _names(config, vocabulary)


def _is_said(config: Config, key: str) -> bool:
    """Whether a key has a value that is not its default: a resolved config has all of them."""
    default = type(config).model_fields[key].get_default(call_default_factory=True)
    return bool(getattr(config, key) != default)


def _variant(config: Config) -> Iterator[Problem]:
    from shmalloc import _binding

    if config.broken == "none":
        return
    there = _binding.release_variants()
    if config.broken not in there:
        why = f'allowed with engine = "{ENGINE}" is one that an interrupt can trigger: {", ".join(there)}'
        yield Problem("broken", shown(config.broken), why)


def _names(config: Config, vocabulary: Vocabulary) -> Iterator[Problem]:
    """Find patterns that no name matches, of whatever design, since others may vary; and selections of nothing."""
    from harness.atlas import plan, scenario

    chosen, found = config.atlas, []
    here, everywhere = config.design, vocabulary.designs
    known = {
        "operations": ("operation", _all(scenario.operation_names, here, everywhere)),
        "handlers": ("handler", _all(scenario.handler_names, here, everywhere)),
        "task": ("design", tuple(vocabulary.designs)),
    }
    for key, (what, names) in known.items():
        patterns = getattr(chosen, key)
        if not patterns:
            found.append(Problem(f"atlas.{key}", "[]", f"allowed is at least one name; {one_of(names)}"))
        for at, pattern in enumerate(patterns):
            if not any(fnmatchcase(name, pattern) for name in names):
                found.append(Problem(f"atlas.{key}[{at}]", shown(pattern), _unknown(what, pattern, names)))
    if not chosen.kinds:
        found.append(Problem("atlas.kinds", "[]", "allowed is at least one of nmi, irq"))
    yield from found
    if found:
        return
    scenarios = [each.name for each in plan.scenarios(config)]
    if not scenarios:
        why = f'no scenario of design "{here}" has one of these operations, handlers, task designs and kinds'
        yield Problem("atlas", None, why)
        return
    for at, pattern in enumerate(chosen.pairs):
        every = scenario.Selection(kinds=scenario.KINDS)
        others = (each.name for design in everywhere for each in scenario.scenarios(design, every))
        if not any(fnmatchcase(name, pattern) for name in chain(scenarios, others)):
            yield Problem(f"atlas.pairs[{at}]", shown(pattern), _no_scenario(pattern, scenarios))


def _unknown(what: str, pattern: str, names: Sequence[str]) -> str:
    """Say that no name matches, and which there are, unless that would be pages."""
    if len(names) <= _FEW:
        return unknown(what, pattern, names)
    close = difflib.get_close_matches(pattern, names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown {what}{hint}; `shmalloc scenarios DESIGN` lists what there is, and patterns with * are allowed"


def _all(names_of: Callable[[str], Sequence[str]], first: str, designs: Iterable[str]) -> tuple[str, ...]:
    """List the names of all designs, those of one of them first."""
    return tuple(dict.fromkeys(chain(names_of(first), *(names_of(design) for design in designs))))


def _no_scenario(pattern: str, scenarios: list[str]) -> str:
    first = scenarios[:5]
    more = f" and {len(scenarios) - len(first)} more" if len(scenarios) > len(first) else ""
    return f"no scenario of this selection; there are {', '.join(first)}{more} (patterns with * are allowed)"
