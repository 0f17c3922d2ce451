# SPDX-License-Identifier: MIT
"""The numbers of the talk's picture: what who arrives at a level of the stack gets there.

Counted from what was found at every instruction, for a whole cell and for each pair of an interrupted design
and a design that arrives.  An instruction counts once however often it was executed, an injection each time.
An instruction that runs on two levels (of a helper that both call) counts on each of them, in a total once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.atlas import outcome_names
from harness.vocabulary import DEADLOCK

__all__ = ["ALL", "by_address", "by_level", "pictures"]

ALL = "*"  # handlers
Counts = Mapping[int, Mapping[str, int]]  # key -> outcome -> injections
_ADDRESS = (1 << 48) - 1  # of a key: what is above it may tell levels apart
_PAIR = ("task_design", "handler_design", "kind")


def by_level(counts: Counts, level_of: Callable[[int], str], order: Sequence[str]) -> list[dict[str, Any]]:
    """Sum up the instructions of each level.

    Args: counts: of each key: an address, and above its 48 bits whatever level_of needs.  level_of: the
        level of a key.  order: of the levels, top first; one that is
        not in it goes to the end.
    Returns: for each level with an instruction {level, instructions, points, deadlock_points, outcomes,
        worst}: worst counts instructions by their worst outcome, outcomes counts injections.
    """
    levels: dict[str, list[Mapping[str, int]]] = defaultdict(list)
    for address, found in counts.items():
        levels[level_of(address)].append(found)
    known = [level for level in order if level in levels]
    return [
        {"level": level, **_summary(levels[level])} for level in [*known, *sorted(levels.keys() - set(order))]
    ]


def pictures(
    rows: Iterable[tuple[Mapping[str, Any], Counts]], level_of: Callable[[int], str], order: Sequence[str]
) -> list[dict[str, Any]]:
    """Sum up the scenarios of a cell by who was interrupted, by whom, and by what the handler does.

    Args: rows: each scenario's JSON, and what was found at its instructions.  level_of, order: as above.
    Returns: {task_design, handler_design, kind, handler, scenarios, instructions, points, deadlock_points,
        outcomes, worst, levels}; for each pair first one of all handlers, which is called "*".
    """
    groups: dict[tuple[str, ...], list[Counts]] = defaultdict(list)
    for scenario, counts in rows:
        pair = tuple(scenario[name] for name in _PAIR)
        groups[*pair, ALL].append(counts)
        groups[*pair, scenario["handler"]].append(counts)
    made = []
    for names, found in groups.items():
        counts = _merged(found)
        made.append(
            {
                **dict(zip((*_PAIR, "handler"), names, strict=True)),
                "scenarios": len(found),
                **_summary(list(by_address(counts).values())),
                "levels": by_level(counts, level_of, order),
            }
        )
    return made


def by_address(counts: Counts) -> dict[int, Counter[str]]:
    """Return the counts of each instruction, whatever its level."""
    return _merged([{key & _ADDRESS: found} for key, found in counts.items()])


def _merged(parts: Iterable[Counts]) -> dict[int, Counter[str]]:
    merged: dict[int, Counter[str]] = defaultdict(Counter)
    for part in parts:
        for address, found in part.items():
            merged[address].update(found)
    return merged


def _summary(instructions: Sequence[Mapping[str, int]]) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    worst: Counter[str] = Counter()
    for found in instructions:
        outcomes.update(found)
        worst[outcome_names.worst(found)] += 1
    return {
        "instructions": len(instructions),
        "points": outcomes.total(),
        "deadlock_points": sum(bool(found.get(DEADLOCK)) for found in instructions),
        "outcomes": {name: outcomes[name] for name in outcome_names.sort(outcomes)},
        "worst": {name: worst[name] for name in outcome_names.sort(worst)},
    }
