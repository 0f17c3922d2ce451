# SPDX-License-Identifier: MIT
"""What stands on the command line of `top` and `stat`: names, seconds, counts, with what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from harness.problems import ConfigError, Problem

LEAST_S, MOST_S = 0.01, 86_400.0
_MOST_LINES = 10**9


def name_interval_count(operands: Sequence[str]) -> tuple[str | None, float | None, int | None]:
    """Tell [NAME] [INTERVAL [COUNT]] apart: what is a number is no name, unless it begins with a slash.

    Raises: ConfigError.
    """
    rest = list(operands)
    name = rest.pop(0) if rest and not _is_number(rest[0]) else None
    if len(rest) > 2:
        raise refusal("arguments", " ".join(operands), "allowed are [NAME] [INTERVAL [COUNT]]")
    interval_s = seconds("INTERVAL", rest[0]) if rest else None
    return name, interval_s, _count("COUNT", rest[1]) if len(rest) > 1 else None


def seconds(option: str, text: str) -> float:
    """Read a time between two looks.

    Raises: ConfigError.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not LEAST_S <= found <= MOST_S:
        raise refusal(option, text, f"allowed are seconds, {LEAST_S} to {MOST_S:.0f}")
    return found


def _count(option: str, text: str) -> int:
    found = int(text) if text.isdecimal() else 0
    if not 1 <= found <= _MOST_LINES:
        raise refusal(option, text, f"allowed is a number of lines, 1 to {_MOST_LINES}")
    return found


def one_of(option: str, text: str, allowed: Sequence[str]) -> str:
    """Read one of some letters or words.

    Raises: ConfigError.
    """
    if text not in allowed:
        raise refusal(option, text, f"allowed is one of {', '.join(allowed)}")
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def refusal(option: str, text: str, allowed: str) -> ConfigError:
    """Make the error of what was given. Args: allowed: what is."""
    return ConfigError("command line", [Problem(option, text, allowed)])
