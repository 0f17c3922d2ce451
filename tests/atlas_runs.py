# SPDX-License-Identifier: MIT
"""Runs of an atlas's scenario without its machinery: the interrupt comes before the call, or after it.

What the sweep does at every instruction is done here at the two ends of the call, with real signals; a lock
that a test takes by hand stands for the call having been interrupted while it held that lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.atlas.classes import IGNORE, OUTCOME, STATE, word_classes
from harness.atlas.scenario import Built

WORD = np.dtype([("offset", "u8"), ("old", "u4"), ("new", "u4")])
ROW = np.dtype(
    [("index", "u4"), ("end", "u4"), ("value", "u8"), ("state", "u4"), ("outcome", "u4"), ("rip", "u8")]
)


@dataclass
class Runs:
    """Stands in for a sweeper: the same words, states and outcomes. Attributes: found: of each run."""

    built: Built
    found: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.classes = word_classes(self.built.arena)
        self.words = np.frombuffer(self.built.arena.buffer, np.uint32)
        self.slots = [np.frombuffer(each, np.uint32) for each in self.built.watched]
        self.classes = np.concatenate([self.classes, np.full(sum(map(len, self.slots)), OUTCOME, np.uint8)])
        self.start = self.now()
        self.lib = self.built.arena.core.lib

    def now(self) -> np.ndarray:
        return np.concatenate([self.words, *self.slots])

    def restore(self) -> None:
        self.load(self.start)

    def load(self, words: np.ndarray) -> None:
        self.words[:] = words[: len(self.words)]
        at = len(self.words)
        for slots in self.slots:
            slots[:] = words[at : at + len(slots)]
            at += len(slots)
        assert self.lib.shm_cpu_switch(0) == 0

    def run(self, call: Any, stages: Any = (), *, held: Callable[[], Any] | None = None, **_: Any) -> Any:
        """Call; the interrupts come before. Args: held: the lock words that they find taken, and freed afterwards."""
        self.restore()
        words = held() if held else []
        for word in words:
            word.word = 1  # CPU 0, level 0
        for kind in stages:
            self.built.staging.cpus[0].interrupt(kind)
        for word in words:
            word.word = 0
        value = self._call(call) & (1 << 64) - 1
        self.found.append(self.now())
        row = np.zeros(1, ROW)[0]
        row["value"], row["state"], row["outcome"] = value, len(self.found) - 1, len(self.found) - 1
        self.restore()
        return row

    def _call(self, call: Any) -> int:
        function, ffi = getattr(self.lib, call.function), self.built.arena.core.ffi
        types = ffi.typeof(function).args
        pairs = zip(types, call.args, strict=True)
        return int(
            function(*(ffi.cast(ctype, arg) if ctype.kind == "pointer" else arg for ctype, arg in pairs))
        )

    def interrupted(self, held: Callable[[], Any] | None = None) -> Any:
        return self.run(self.built.call, (self.built.scenario.kind,), held=held)

    def add(self, change: Callable[[], Any]) -> int:
        """Make a state of the start state with a change. Returns: its number."""
        self.restore()
        change()
        self.found.append(self.now())
        self.restore()
        return len(self.found) - 1

    def load_state(self, state: int) -> None:
        words = np.where(self.classes == STATE, self.found[state], self.start)
        self.load(words)

    def state_words(self, state: int) -> np.ndarray:
        return self._changed(state, STATE)

    def outcome_words(self, outcome: int) -> np.ndarray:
        return self._changed(outcome, OUTCOME)

    def ignored_words(self, run: int) -> np.ndarray:
        return self._changed(run, IGNORE)

    def _changed(self, run: int, kind: int) -> np.ndarray:
        at = np.flatnonzero((self.found[run] != self.start) & (self.classes == kind))
        words = np.zeros(len(at), WORD)
        words["offset"], words["old"], words["new"] = at * 4, self.start[at], self.found[run][at]
        return words
