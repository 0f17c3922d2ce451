# SPDX-License-Identifier: MIT
"""Runs a state machine with attributes that are chosen by the test's parameters."""

from typing import Any

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

STEPS = 40


def run_machine(machine: type[RuleBasedStateMachine], *, share: int, **attributes: Any) -> None:
    """Run a machine with some of the examples that the Hypothesis profile grants a test.

    Args: machine: its class.  share: a part in so many of the examples.  attributes: of the class.
    """
    kind = type(machine.__name__, (machine,), attributes)
    examples = max(settings.default.max_examples // share, 1)  # type: ignore[union-attr]
    run_state_machine_as_test(
        kind,
        settings=settings(max_examples=examples, stateful_step_count=STEPS, report_multiple_bugs=False),
    )
