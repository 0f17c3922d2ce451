# SPDX-License-Identifier: MIT
"""Runs state machines: by Hypothesis, which finds short failures, and on long walks, which get further."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

STEPS = 40
Move = tuple[int, Callable[[Any, random.Random], None]]  # weight, and what it does to a machine


def _with(machine: type[Any], attributes: dict[str, Any]) -> type[Any]:
    return type(machine.__name__, (machine,), attributes)


def run_machine(machine: type[RuleBasedStateMachine], *, share: int, **attributes: Any) -> None:
    """Run a machine with some of the examples that the Hypothesis profile grants a test.

    Args: machine: its class.  share: a part in so many of the examples.  attributes: of the class.
    """
    examples = max(settings.default.max_examples // share, 1)  # type: ignore[union-attr]
    run_state_machine_as_test(
        _with(machine, attributes),
        settings=settings(max_examples=examples, stateful_step_count=STEPS, report_multiple_bugs=False),
    )


def walk(machine: type[Any], moves: Sequence[Move], steps: int, **attributes: Any) -> None:
    """Make so many random moves, always the same ones, and compare the states after each.

    Args: machine: its class.  moves: to choose from.  steps: how many.  attributes: of the class.
    """
    draw = random.Random(steps)
    weights = [weight for weight, _ in moves]
    walker = _with(machine, attributes)()
    walker.create()
    try:
        for _ in range(steps):
            draw.choices(moves, weights)[0][1](walker, draw)
            walker.same_state()
    except BaseException:
        walker.ready = False
        raise
    finally:
        walker.teardown()
