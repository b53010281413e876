"""Paired statistics, against values from tables and from enumeration."""

import itertools
import statistics
from random import Random

import pytest

from editsafety.judging.baselines.paired import fewest_lost, mcnemar, mean_interval, median_ratio_interval, power


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (10, 2, 0.03857421875), (3, 3, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int, p: float) -> None:
    """p from the binomial distribution with 1/2, by hand: (10, 2) is 2 * (1 + 12 + 66) / 4096."""
    assert mcnemar(lost, gained) == pytest.approx(p, abs=1e-12)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


def test_six_cases_lost_and_none_gained_are_the_fewest_that_show_a_loss():
    assert fewest_lost() == 6
    with pytest.raises(ValueError, match="must not be negative"):
        mcnemar(-1, 0)


def test_the_power_is_what_enumeration_of_every_outcome_gives():
    n, down, up = 8, 0.3, 0.1
    total = 0.0
    for outcome in itertools.product((-1, 0, 1), repeat=n):
        lost, gained = outcome.count(-1), outcome.count(1)
        if lost > gained and mcnemar(lost, gained) < 0.05:
            total += down**lost * up**gained * (1 - down - up) ** (n - lost - gained)
    assert power(n, 0.2, churn=0.1) == pytest.approx(total, abs=1e-12)


def test_ten_points_over_sixty_cases_are_found_more_often_than_not_and_twenty_always():
    """Without churn it is the chance of six or more of sixty at 0.1: 1 - 0.4372 from a table of the binomial."""
    assert power(60, 0.10) == pytest.approx(1 - 0.4372, abs=1e-4)
    assert power(60, 0.20) > 0.98
    assert power(300, 0.10, churn=0.02) > 0.99
    with pytest.raises(ValueError, match="cannot be"):
        power(10, 0.9, churn=0.2)


def test_the_interval_of_a_mean_covers_it_in_about_nineteen_of_twenty_samples():
    generator, covered, trials = Random(1), 0, 200
    for _ in range(trials):
        low, high = mean_interval([generator.gauss(0.3, 1.0) for _ in range(40)], generator)
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / trials <= 0.99


def test_the_same_state_gives_the_same_interval_and_nothing_has_none():
    assert mean_interval([0.0, 1.0, 2.0], Random(7)) == mean_interval([0.0, 1.0, 2.0], Random(7))
    assert mean_interval([0.25] * 9, Random(0)) == (0.25, 0.25)
    with pytest.raises(ValueError, match="at least one pair"):
        mean_interval([], Random(0))


def test_the_interval_of_a_ratio_of_medians_covers_it_in_about_nineteen_of_twenty_samples():
    """Seconds with a log-normal spread between cases, 1.5 times as many now: the ratio of medians is 1.5."""
    generator, covered, trials = Random(4), 0, 120
    for _ in range(trials):
        cases = [generator.lognormvariate(0, 0.5) for _ in range(25)]
        pairs = [
            (one * generator.lognormvariate(0, 0.1), 1.5 * one * generator.lognormvariate(0, 0.1)) for one in cases
        ]
        low, high = median_ratio_interval(pairs, ((1.0,), (1.0,)), generator)
        covered += low <= 1.5 <= high
    assert 0.90 <= covered / trials <= 1.0


def test_a_ratio_is_counted_in_yardsticks_and_their_scatter_widens_it():
    pairs = [(1.0, 3.0)] * 9
    assert median_ratio_interval(pairs, ((1.0,), (2.0,)), Random(0)) == (1.5, 1.5)
    low, high = median_ratio_interval(pairs, ((1.0,), (1.0, 2.0, 4.0)), Random(0))
    assert (low, high) == (0.75, 3.0)
    with pytest.raises(ValueError, match="at least one pair"):
        median_ratio_interval([], ((1.0,), (1.0,)), Random(0))
    with pytest.raises(ValueError, match="earlier median is 0"):
        median_ratio_interval([(0.0, 1.0)], ((1.0,), (1.0,)), Random(0))


@pytest.mark.parametrize(("level", "fewest"), [(0.5, 3), (0.0625, 6), (0.01, 8)])
def test_how_many_must_be_lost_follows_the_level_which_itself_is_not_past(level: float, fewest: int) -> None:
    """2 / 2**n of n lost and none gained: 1/2 of two, 1/4 of three, 1/16 of five, 1/128 of eight."""
    assert fewest_lost(level) == fewest


@pytest.mark.parametrize(("level", "outside"), [(0.05, 50), (0.5, 500)])
def test_an_interval_leaves_its_level_outside_half_on_either_side(level: float, outside: int) -> None:
    values, again = [0.0, 1.0, 2.0, 5.0, 9.0], Random(7)
    means = sorted(sum(again.choices(values, k=5)) / 5 for _ in range(2000))
    assert mean_interval(values, Random(7), level) == (means[outside], means[1999 - outside])
    pairs, again = [(1.0, one + 1) for one in values], Random(7)
    ratios = []
    for _ in range(2000):
        ratios.append(statistics.median(now for _, now in again.choices(pairs, k=5)))
        again.choices((1.0,), k=1), again.choices((1.0,), k=1)  # the yardsticks are drawn as well
    ratios.sort()
    found = median_ratio_interval(pairs, ((1.0,), (1.0,)), Random(7), level)
    assert found == (ratios[outside], ratios[1999 - outside])


def test_probabilities_at_the_ends_can_be():
    assert power(6, 1.0) == 1.0
    assert power(5, 1.0) == 0.0
    assert power(6, 0.0, churn=0.5) == pytest.approx(0.5**6)
    assert power(6, 0.5, level=0.01) == 0.0
    for loss, churn in ((-0.1, 0.0), (0.0, -0.1), (0.5, 0.3)):
        with pytest.raises(ValueError, match="cannot be"):
            power(10, loss, churn)
