# SPDX-License-Identifier: MIT
"""What each injection came to: every distinct outcome is decoded once, every distinct state examined once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.atlas import outcomes, post
from harness.atlas.keys import MISSED
from harness.atlas.scenario import ScenarioError
from harness.vocabulary import OK

if TYPE_CHECKING:
    from harness.atlas.scenario import Built
    from harness.atlas.sweeper import Sweeper
    from harness.vocabulary import Vocabulary

RETURNED, NOT_REACHED = 0, 1  # how an injected run ended; the rest is what `outcomes` makes of it
NO_STATE = 0xFFFFFFFF
_KEY = ("end", "value", "state", "outcome")  # and the place, of a run that did not return, and what was sent


@dataclass(frozen=True)
class Judgement:
    """One distinct outcome.

    Attributes: name: the verdict if it is not ok, else what the handler got.  operation: what the interrupted
        one got.  handler.  verdict.  text: why, if it is not ok.
    """

    name: str
    operation: str
    handler: str
    verdict: str
    text: str

    @property
    def is_ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.verdict == OK


class Judge:
    """Judges the runs of one start state. Attributes: states: distinct ones that were examined."""

    def __init__(self, built: Built, sweeper: Sweeper, vocabulary: Vocabulary) -> None:
        self._built = built
        self._sweeper = sweeper
        self._words = vocabulary
        self._known: dict[tuple[tuple[int, ...], tuple[str, ...]], Judgement] = {}
        self.states: dict[int, Any] = {}

    def __call__(self, row: Any, sent: Sequence[str]) -> Judgement:
        """Judge one result of the sweeper. Args: sent: kinds of the interrupts of the run."""
        rip = int(row["rip"]) if row["end"] != RETURNED else 0
        return self._find((*(int(row[name]) for name in _KEY), rip), tuple(sent), row)

    def _find(self, key: tuple[int, ...], sent: tuple[str, ...], row: Any) -> Judgement:
        found = self._known.get((key, sent))
        if found is None:
            found = self._known[key, sent] = self._judge(row, sent)
        return found

    def _judge(self, row: Any, sent: tuple[str, ...]) -> Judgement:
        if row["end"] == NOT_REACHED:
            return Judgement(MISSED, "none", "none", MISSED, "the instruction was not reached")
        if row["end"] == RETURNED and NO_STATE in (row["state"], row["outcome"]):
            raise ScenarioError(f"{self._built.scenario.name}: a run changes more than can be compared")
        decoded = outcomes.decode(self._built, self._sweeper, row)
        verdict, text = decoded.verdict, decoded.text
        if verdict == OK and (unhandled := outcomes.unhandled(self._built, self._sweeper, row, sent)):
            return Judgement(MISSED, decoded.operation, "none", MISSED, unhandled)
        state = int(row["state"])
        if verdict == OK:  # what follows from a verdict is no further verdict
            if state not in self.states:
                self.states[state] = post.check_state(self._built, self._sweeper, state)
            verdict, text = self.states[state].verdict, self.states[state].text
        name = decoded.handler if verdict == OK else verdict
        return Judgement(name, decoded.operation, decoded.handler, verdict, text)

    def names(self, rows: Any, sent: Sequence[str]) -> list[Judgement]:
        """Judge all rows. Args: sent: kinds of the interrupts of each run."""
        rips = np.where(rows["end"] == RETURNED, 0, rows["rip"]).tolist()
        keys = zip(*(rows[name].tolist() for name in _KEY), rips, strict=True)
        return [self._find(key, tuple(sent), rows[at]) for at, key in enumerate(keys)]


def tally(judged: list[Judgement]) -> dict[str, int]:
    """Count by name."""
    return dict(sorted(Counter(each.name for each in judged).items()))
