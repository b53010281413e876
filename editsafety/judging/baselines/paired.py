"""Paired statistics: the same cases twice, before and now. No torch here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from fractions import Fraction
from random import Random

LEVEL = 0.05  # of every test and interval: a difference below it is one that the cases show
DRAWS = 2000  # resamples; the ends of a 95 % interval are then known to about one percentile


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided exact p-value of McNemar's test (1947): cases that were right and are wrong, and the other way round.

    Under no difference each of the discordant cases falls on either side like a coin; cases that stayed say nothing.
    Raises ValueError for counts below 0.
    """
    if lost < 0 or gained < 0:
        raise ValueError(f"counts of cases must not be negative: {lost} lost, {gained} gained")
    n = lost + gained
    tail = sum(math.comb(n, k) for k in range(min(lost, gained) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**n)))


def fewest_lost(level: float = LEVEL) -> int:
    """How many cases must be lost, and none gained, before McNemar's test shows it: 6 at 5 %."""
    lost = 1
    while mcnemar(lost, 0) >= level:
        lost += 1
    return lost


def power(n: int, loss: float, churn: float = 0.0, level: float = LEVEL) -> float:
    """The chance that McNemar's test shows a loss of `loss` (0.1: ten points) over n cases, exactly.

    Every case is lost with probability loss + churn and gained with probability churn, independently.
    Raises ValueError for probabilities that cannot be.
    """
    down, up = loss + churn, churn
    if not (0 <= up <= down and down + up <= 1):
        raise ValueError(f"a loss of {loss} with a churn of {churn} cannot be")
    stay = 1 - down - up
    total = 0.0
    for lost in range(n + 1):
        for gained in range(n - lost + 1):
            if lost > gained and mcnemar(lost, gained) < level:
                ways = math.comb(n, lost) * math.comb(n - lost, gained)
                total += ways * down**lost * up**gained * stay ** (n - lost - gained)
    return total


def mean_interval(differences: Sequence[float], generator: Random, level: float = LEVEL) -> tuple[float, float]:
    """Bootstrap percentile interval of the mean of paired differences (Efron 1979).

    Args:
        differences: one number for each case, finite.
        generator: where the resamples come from; the same state gives the same interval.
        level: what is left outside, both sides together.

    Raises ValueError for no differences: nothing has no interval.
    """
    n = len(differences)
    if not n:
        raise ValueError("an interval needs at least one pair")
    means = sorted(math.fsum(generator.choices(differences, k=n)) / n for _ in range(DRAWS))
    cut = round(DRAWS * level / 2)
    return means[cut], means[-1 - cut]


def median_ratio_interval(
    pairs: Sequence[tuple[float, float]],
    yardsticks: tuple[Sequence[float], Sequence[float]],
    generator: Random,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Bootstrap percentile interval of the ratio of medians, now to before, each in units of its own yardstick.

    Pairs are drawn together and each yardstick by itself: how much the yardsticks scatter is a part of what is not
    known. A draw whose earlier median is 0 says nothing and is left out.

    Args:
        pairs: earlier and present value of each case, at least 0.
        yardsticks: earlier and present readings of what both are counted in, above 0.
        generator: where the resamples come from; the same state gives the same interval.
        level: what is left outside, both sides together.

    Raises ValueError for no pairs, and where no draw says anything.
    """
    if not pairs or not all(yardsticks):
        raise ValueError("an interval needs at least one pair and one reading of each yardstick")
    ratios = []
    for _ in range(DRAWS):
        drawn = generator.choices(pairs, k=len(pairs))
        before, now = (statistics.median(side) for side in zip(*drawn, strict=True))
        then, here = (statistics.median(generator.choices(one, k=len(one))) for one in yardsticks)
        if before > 0:
            ratios.append((now / before) / (here / then))
    if not ratios:
        raise ValueError("every earlier median is 0")
    ratios.sort()
    cut = round(len(ratios) * level / 2)
    return ratios[cut], ratios[-1 - cut]
