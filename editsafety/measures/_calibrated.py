"""How well probabilities keep what they promise. No torch here.

Both over n items, each with probabilities p_k of its options, of which option g is right:

    ECE   = sum over 15 bins b of (n_b / n) |share of b that is right - mean confidence in b|      0 to 1
    Brier = mean over items of sum over k of (p_k - [k = g])^2                                     0 to 2

(Guo et al., arXiv 1706.04599, equation 3; Brier 1950.) An item's confidence is its largest p_k; it is right when that
is option g, and of several of one size a share of it. The bins are 15 equal parts of 0 to 1, without their lower ends.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

BINS = 15

Item = tuple[Sequence[float], int]


def calibration_error(items: Sequence[Item]) -> float:
    """The expected calibration error. NaN where a probability is; raises ValueError for no items."""
    if not items:
        raise ValueError("no items have no calibration")
    if any(math.isnan(p) for shares, _ in items for p in shares):
        return math.nan
    bins: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for shares, gold in items:
        confidence = max(shares)
        tops = [k for k, p in enumerate(shares) if p == confidence]
        place = min(BINS, max(1, math.ceil(confidence * BINS))) - 1
        bins[place].append((confidence, (gold in tops) / len(tops)))
    return math.fsum(abs(math.fsum(right - sure for sure, right in found)) for found in bins.values()) / len(items)


def brier(item: Item) -> float:
    """The Brier score of one item; NaN where a probability is."""
    shares, gold = item
    return math.fsum((p - (k == gold)) ** 2 for k, p in enumerate(shares))
