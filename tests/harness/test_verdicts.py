# SPDX-License-Identifier: MIT
"""Which verdict wins, and what the parent makes of deaths."""

import signal

import pytest

from harness import verdicts, vocabulary

WORDS = vocabulary.load()


def found(*pairs: tuple[str, str]) -> list[dict[str, object]]:
    return [verdicts.entry(verdict, checker, "text") for verdict, checker in pairs]


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([], "ok"),
        ([("broken_rule", "lock_rules")], "broken_rule"),
        ([("broken_rule", "lock_rules"), ("deadlock", "deadlock")], "deadlock"),
        ([("deadlock", "deadlock"), ("dead_owner", "supervisor")], "deadlock"),
        ([("stall", "retry_bound"), ("corruption", "supervisor")], "stall"),
        ([("lost_memory", "audit"), ("corruption", "audit")], "corruption"),
        ([("broken_rule", "audit")], "broken_rule"),
        ([("broken_rule", "lock_rules"), ("dead_owner", "supervisor")], "dead_owner"),
    ],
)
def test_the_first_to_stop_the_run_wins(pairs: list[tuple[str, str]], verdict: str) -> None:
    assert verdicts.judge(found(*pairs), WORDS) == verdict


@pytest.mark.parametrize(
    ("returncode", "verdict", "text"),
    [
        (-signal.SIGKILL, "dead_owner", "was killed by SIGKILL"),
        (-signal.SIGTERM, "dead_owner", "was killed by SIGTERM"),
        (-signal.SIGSEGV, "corruption", "was killed by SIGSEGV"),
        (-signal.SIGBUS, "corruption", "was killed by SIGBUS"),
        (-signal.SIGILL, "corruption", "was killed by SIGILL"),
        (1, "dead_owner", "ended with status 1"),
        (-63, "dead_owner", "was killed by signal 63"),
    ],
)
def test_a_fault_of_its_own_is_corruption(returncode: int, verdict: str, text: str) -> None:
    assert verdicts.death_verdict(returncode) == verdict
    assert verdicts.death_text(returncode) == text


def test_the_closed_list_of_verdicts_is_as_documented() -> None:
    documented = "ok corruption deadlock lost_memory broken_rule dead_owner stall vacuous"
    assert sorted(WORDS.verdicts) == sorted(documented.split())
    assert WORDS.worst(["vacuous", "deadlock", "ok"]) == "deadlock"
    assert WORDS.worst([]) == "ok"
