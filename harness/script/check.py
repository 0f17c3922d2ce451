# SPDX-License-Identifier: MIT
"""What a config says wrong about its script, found in the parent before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.problems import Problem, dotted, shown
from harness.script import compiling
from harness.script.keys import Words

if TYPE_CHECKING:
    from harness.config import Config
    from harness.vocabulary import Vocabulary

ENGINE = "script"
_OTHERS = ("workload", "interrupts", "duration_s", "ops", "pin", "pattern", "sample")


def words(config: Config) -> Words:
    """Return what a script may refer to before its first step."""
    return Words(config.cpus, config.arena.nodes, config.flavour, config.design, frozenset(config.let))


def facts(config: Config) -> frozenset[str]:
    """Return the names of the counters that a config's script stores."""
    if config.engine != ENGINE:
        return frozenset()
    known = words(config)
    compiling.mistakes(config.step, config.let, known)
    return frozenset(known.defined.get("counters", ()))


def problems(config: Config, vocabulary: Vocabulary) -> Iterator[Problem]:
    """List what is wrong with a cell's steps."""
    if config.engine != ENGINE:
        for key in ("step", "let"):
            if getattr(config, key):
                yield Problem(
                    key, None, f'has no meaning with engine = "{config.engine}"; allowed is "{ENGINE}"'
                )
        return
    for key in _OTHERS:
        if key in config.model_fields_set:
            yield Problem(key, None, f'has no meaning with engine = "{ENGINE}", whose steps say what is done')
    if not config.step:
        yield Problem("step", "[]", "allowed is at least one [[step]]")
    known = words(config)
    for mistake in compiling.mistakes(config.step, config.let, known):
        value = None if mistake.value is None else shown(mistake.value)
        yield Problem(dotted(("step", *mistake.path)), value, mistake.allowed)
    taken = sorted(known.defined.get("counters", set()) & set(vocabulary.counter_names))
    for name in taken:
        yield Problem("step", name, "is the name of a kernel counter; allowed is another")
