# SPDX-License-Identifier: MIT
"""Intervals of a comparison: apart exactly if they have nothing in common, and how often that is chance."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.comparison import intervals
from harness.comparison.intervals import (
    CHANCE,
    LEAST_WINDOWS,
    chance_apart,
    coverage,
    of_runs,
    of_windows,
    rank,
    runs_needed,
    taken_in_turn,
)
from harness.estimates import Estimate, differ

POSITIVE = st.floats(1e-6, 1e12)
WINDOWS = st.lists(POSITIVE, min_size=LEAST_WINDOWS, max_size=24)


@given(WINDOWS, WINDOWS, st.floats(1, 100))
def test_windows_are_apart_exactly_beyond_the_factor(a: list[float], b: list[float], factor: float) -> None:
    gap = max(min(a) / max(b), min(b) / max(a))
    assume(not math.isclose(gap, factor, rel_tol=1e-9))
    one, other = of_windows(a, factor), of_windows(b, factor)
    assert one is not None
    assert other is not None
    assert differ(one, other) is differ(other, one) is (gap > factor)


@given(WINDOWS, st.floats(1, 100))
def test_a_side_is_never_apart_from_itself(values: list[float], factor: float) -> None:
    found = of_windows(values, factor)
    assert found is not None
    assert not differ(found, found)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.median <= found.high


@given(st.lists(POSITIVE, min_size=2, max_size=30), st.lists(POSITIVE, min_size=2, max_size=30), st.data())
def test_runs_are_apart_exactly_if_their_order_statistics_are(
    a: list[float], b: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(a) // 2))
    m = data.draw(st.integers(1, len(b) // 2))
    one, other = of_runs(a, k), of_runs(b, m)
    assert one is not None
    assert other is not None
    expected = sorted(a)[-k] < sorted(b)[m - 1] or sorted(b)[-m] < sorted(a)[k - 1]
    assert differ(one, other) is expected


def test_what_is_no_window_is_in_the_range_and_not_in_the_median() -> None:
    found = of_windows([2.0] * 8, 1.0, [1.0, 9.0])
    assert found == Estimate(2.0, 1.0, 9.0, 8)
    assert of_windows([2.0], 1.0, [1.0]) == Estimate(2.0, None, None, 1)


def test_intervals_that_share_an_end_overlap() -> None:
    assert not differ(Estimate(1, 0, 2, 9), Estimate(3, 2, 4, 9))
    assert differ(Estimate(1, 0, 2, 9), Estimate(3, math.nextafter(2, 3), 4, 9))
    assert not differ(Estimate(1, None, None, 1), Estimate(9, 9, 9, 9))


@pytest.mark.parametrize("values", [[], [None] * 9])
def test_of_nothing_there_is_no_interval(values: list[float | None]) -> None:
    assert of_windows(values, 2.0) is None
    assert of_runs(values, 1) is None


def test_where_a_window_or_run_says_nothing_there_is_a_median_only() -> None:
    some: list[float | None] = [1.0, None, *[2.0] * 9]
    assert of_windows(some, 2.0) == Estimate(2.0, None, None, 10)
    assert of_runs(some, 1) == Estimate(2.0, None, None, 10)
    assert of_windows([1.0] * (LEAST_WINDOWS - 1), 2.0) == Estimate(1.0, None, None, LEAST_WINDOWS - 1)


def counted(a: int, b: int, k: int, m: int) -> Fraction:
    """Count the orders of a + b runs in which the intervals are apart."""
    found = total = 0
    for places in itertools.combinations(range(a + b), a):
        rest = [at for at in range(a + b) if at not in places]
        total += 1
        found += places[-k] < rest[m - 1] or rest[-m] < places[k - 1]
    return Fraction(found, total)


@pytest.mark.parametrize(("a", "b"), [(2, 2), (3, 5), (6, 6), (4, 8)])
def test_the_chance_of_a_mark_is_that_of_counting_all_orders(a: int, b: int) -> None:
    for k, m in itertools.product(range(1, a // 2 + 1), range(1, b // 2 + 1)):
        assert chance_apart(a, b, k, m) == pytest.approx(float(counted(a, b, k, m)))


def test_as_many_runs_are_needed_as_keep_the_chance_low() -> None:
    for rows in (1, 7, 39, 200, 4001):
        needed = runs_needed(rows)
        assert rows * chance_apart(needed, needed, 1, 1) <= CHANCE
        assert rows * chance_apart(needed - 1, needed - 1, 1, 1) > CHANCE
    assert runs_needed(1) == 7
    assert runs_needed(39) == 10


def test_ranks_hold_all_rows_together_where_there_are_runs_enough() -> None:
    for runs, rows in itertools.product((12, 20, 40), (1, 20)):
        at = rank(runs, rows)
        assert rows * (1 - coverage(runs, at)) <= intervals.FAMILY
        assert rows * (1 - coverage(runs, at + 1)) > intervals.FAMILY
    assert rank(6, 500) == rank(1, 1) == rank(0, 1) == 1
    assert coverage(6, 1) == pytest.approx(1 - 2 / 64)


def moments(order: str) -> tuple[list[float | None], list[float | None]]:
    """Say when the runs began that were taken in an order of As and Bs."""
    return [at for at, side in enumerate(order) if side == "A"], [
        at for at, side in enumerate(order) if side == "B"
    ]


@pytest.mark.parametrize("order", ["AB" * 9, "ABBA" * 4, "BA" * 3, "AABB" * 3, "ABB" * 6])
def test_runs_that_alternate_are_taken_in_turn(order: str) -> None:
    assert taken_in_turn(*moments(order))


@pytest.mark.parametrize("order", ["AAAABBBB", "BBBAAA", "AAABABABBB", "A" * 9 + "AB" * 9 + "B" * 9])
def test_runs_of_which_one_side_is_ahead_are_not(order: str) -> None:
    assert not taken_in_turn(*moments(order))


def test_runs_of_which_nobody_knows_when_they_began_are_not() -> None:
    assert not taken_in_turn([1.0, None], [2.0, 4.0])
    assert not taken_in_turn([], [1.0])
