# SPDX-License-Identifier: MIT
"""Medians and their intervals, against a model that counts every way in which samples can fall."""

import itertools
import random
from fractions import Fraction

import pytest

from harness.estimates import CONFIDENCE, Estimate, differ, estimate, interval_rank, ratio


def covered(samples: int, rank: int) -> Fraction:
    """Count the ways to fall on both sides of the median in which it lies within the rank-th from either end."""
    ways = list(itertools.product((False, True), repeat=samples))
    inside = sum(rank <= sum(below) <= samples - rank for below in ways)
    return Fraction(inside, len(ways))


@pytest.mark.parametrize("samples", range(1, 15))
def test_rank_is_the_largest_that_covers_enough(samples: int) -> None:
    rank = interval_rank(samples)

    assert rank == 0 or covered(samples, rank) >= Fraction(CONFIDENCE)
    assert covered(samples, rank + 1) < Fraction(CONFIDENCE)


def test_six_samples_are_the_least_that_have_an_interval() -> None:
    assert estimate([3.0, 1.0, 2.0, 5.0, 4.0]) == Estimate(3.0, None, None, 5)
    assert estimate([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]) == Estimate(3.5, 1.0, 6.0, 6)


def test_interval_encloses_the_median_of_a_skewed_distribution_as_often_as_it_says() -> None:
    rng = random.Random(23)
    true_median, trials, hits = 1.0, 2003, 0
    for _ in range(trials):
        made = estimate([2.0 ** rng.gauss(0.0, 3.0) for _ in range(15)])
        assert made.low is not None and made.high is not None
        hits += made.low <= true_median <= made.high

    assert CONFIDENCE - 0.015 < hits / trials < 0.985


def test_median_is_not_moved_by_one_sample_however_large() -> None:
    calm = estimate([10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0])
    disturbed = estimate([10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 1e9])

    assert (calm.median, disturbed.median) == (13.0, 13.0)
    assert disturbed.high == 1e9  # and the interval says that it was there


def test_bounds_of_a_ratio_are_the_worst_that_the_intervals_leave() -> None:
    middle, low, high = ratio(Estimate(12.0, 10.0, 14.0, 15), Estimate(6.0, 5.0, 8.0, 15))

    assert (middle, low, high) == (2.0, 10.0 / 8.0, 14.0 / 5.0)
    assert ratio(Estimate(12.0, None, None, 2), Estimate(6.0, 5.0, 8.0, 15)) == (2.0, None, None)


def test_two_medians_differ_if_their_intervals_have_nothing_in_common() -> None:
    one = Estimate(12.0, 10.0, 14.0, 15)

    assert differ(one, Estimate(20.0, 15.0, 21.0, 15)) is True
    assert differ(Estimate(20.0, 15.0, 21.0, 15), one) is True
    assert differ(one, Estimate(15.0, 14.0, 16.0, 15)) is False
    assert differ(one, Estimate(12.0, None, None, 3)) is None
