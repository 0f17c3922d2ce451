# SPDX-License-Identifier: MIT
"""The outcomes of an injection in one order, from best to worst, and how each of them looks.

An outcome is a verdict, where that is not ok, else what the handler's operation got: "ok", "other_bucket",
"deferred", "null:REASON", "error:ERRNO" or "none".  Every look is a letter, a colour that colour-blind
readers tell apart from its neighbours, and a pattern, so that none of the three is needed alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness import vocabulary
from harness.vocabulary import CORRUPTION, DEADLOCK, OK

__all__ = ["Look", "is_verdict", "look", "rank", "said", "said_together", "sort", "worst"]

NULL, ERROR = "null:", "error:"
_SERVED = (OK, "none", "other_bucket", "deferred")


@dataclass(frozen=True)
class Look:
    """How an outcome is shown.

    Attributes: letter: in maps and bars of text.  colour: of a terminal and of a page.  dark: of a page on a
        dark ground.  pattern: "solid" or a name that page.css knows.
    """

    letter: str
    colour: str
    dark: str
    pattern: str = "solid"


# Okabe and Ito's colours; what must never happen is the darkest and the most saturated.
_LOOKS = {
    OK: Look("s", "#A9D8C8", "#2E6B58"),
    "none": Look("-", "#D9D9D9", "#4A4F57"),
    "other_bucket": Look("b", "#56B4E9", "#3F8FBF", "dots"),
    "deferred": Look("d", "#0072B2", "#1F7FC4", "rising"),
    DEADLOCK: Look("D", "#D55E00", "#E8701A", "cross"),
    CORRUPTION: Look("X", "#000000", "#FFFFFF", "solid"),
    "lost_memory": Look("L", "#A0427B", "#D885B4", "rising"),
    "stall": Look("T", "#A0427B", "#D885B4", "cross"),
    "broken_rule": Look("R", "#A0427B", "#D885B4", "level"),
    "dead_owner": Look("O", "#A0427B", "#D885B4", "dots"),
    "vacuous": Look("V", "#A0427B", "#D885B4", "falling"),
}
_CONTENTION = Look("n", "#E69F00", "#C98B00", "falling")  # a lock was busy: the price of not waiting
_SHORTAGE = Look("m", "#F0E442", "#B8AE1F", "level")  # there was nothing left, or it was not allowed
_FAILED = Look("e", "#F0E442", "#B8AE1F", "rising")
_UNKNOWN = Look("?", "#8B8B8B", "#8B8B8B", "cross")


def look(outcome: str) -> Look:
    """Return how an outcome is shown."""
    if outcome.startswith(NULL):
        return _CONTENTION if outcome.endswith("_busy") else _SHORTAGE
    return _FAILED if outcome.startswith(ERROR) else _LOOKS.get(outcome, _UNKNOWN)


def said(outcome: str) -> str:
    """Write an outcome for people."""
    if outcome.startswith(NULL):
        return f"NULL ({outcome.removeprefix(NULL)})"
    if outcome.startswith(ERROR):
        return outcome.removeprefix(ERROR)
    return {
        OK: "success",
        "none": "nothing to get",
        "other_bucket": "success in another bucket",
        "lost_memory": "lost memory",
        "broken_rule": "broken rule",
        "dead_owner": "dead owner",
    }.get(outcome, outcome)


def said_together(outcomes: Sequence[str]) -> str:
    """Write outcomes that have one look."""
    if all(outcome.startswith(NULL) for outcome in outcomes):
        return f"NULL ({', '.join(outcome.removeprefix(NULL) for outcome in outcomes)})"
    return ", ".join(map(said, outcomes))


def is_verdict(outcome: str) -> bool:
    """Whether it says that something is wrong, not what the handler got."""
    return outcome != OK and outcome in vocabulary.load().verdicts


def rank(outcome: str) -> tuple[int, str]:
    """Return a key that sorts outcomes from best to worst."""
    if outcome in _SERVED:
        return _SERVED.index(outcome), ""
    if outcome.startswith(NULL):
        return 10 + outcome.endswith("_busy"), outcome  # a lock was met there, which is what one looks for
    if is_verdict(outcome):
        return 100 + vocabulary.load().verdicts.index(outcome), ""
    return 20, outcome


def sort(outcomes: Iterable[str]) -> list[str]:
    """Sort outcomes, best first."""
    return sorted(outcomes, key=rank)


def worst(counts: Mapping[str, int]) -> str:
    """Return the worst outcome that was counted; of none it is "none"."""
    return max((outcome for outcome, count in counts.items() if count), key=rank, default="none")
