"""Stopping: how many texts it takes to see on which side of every limit a perplexity ratio is. No torch here.

The ratio of a run is that of two means over the same N texts, R = sum a_i / sum b_i, with the perplexities b before an
edit (known of all texts) and a after it. Texts are read in an order that the texts alone decide, at random, and looked
at after 8, 16 and 32 of them (a group-sequential test): where an interval of R crosses no limit, the rest is left out.

    R^ = sum_S a / sum_S b,   se^2 = (1 - n/N) / n * max(var(a/mean a - b/mean b), var(ln a_i/b_i))
    interval = R^ exp(+- t se), from below at least sum_S a / sum_all b

t is Student's quantile with n - 1 degrees of freedom at ALPHA / (2 looks): by Bonferroni's inequality all intervals
hold at once with probability 1 - ALPHA, as far as log-ratios are normal. The bound from below needs no such assumption:
perplexities are positive, so what was read already is a part of the sum. A collapse of many times the limit is
certain after 8 texts; what is left to chance is an edit that breaks a few texts only, none of which was read.
Finite populations: Cochran, Sampling Techniques (1977), sections 2.6 and 6.4; spending: Pocock (1977).
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from editsafety.errors import UsageError
from editsafety.judging.policy import Policy, Threshold
from editsafety.numbers import times
from editsafety.runs.measurement import Measurement

ALPHA = 0.01  # how often any interval of a case may miss the ratio
QUANTILES = {8: 4.355, 16: 3.484, 32: 3.180}  # Student's, one-sided at ALPHA / 6, by the texts that were read
OTHERS = frozenset({"nll_per_token", "ppl_median", "ppl_worst", "ppl_token_weighted"})  # figures that need every text


@dataclass(frozen=True, slots=True)
class RatioInterval:
    """What is known of a perplexity ratio after some of the texts."""

    ratio: float
    low: float
    high: float
    read: int

    def crosses(self, limits: Iterable[float]) -> bool:
        """Whether any of the limits is inside, so that it cannot be said on which side the ratio is."""
        return any(self.low <= limit <= self.high for limit in limits)


@dataclass(frozen=True, slots=True)
class EnoughTexts:
    """The rule for one model: its texts' perplexities before any edit, and the ratios that everything is decided at."""

    before: tuple[float, ...]
    limits: tuple[float, ...]

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many texts it is looked; none where there are hardly more than that."""
        return tuple(n for n in QUANTILES if n < len(self.before))

    def interval(self, places: Sequence[int], after: Sequence[float]) -> RatioInterval:
        """From the texts at these places and their perplexities after an edit, which are all finite and positive."""
        n, total = len(places), len(self.before)
        before = [self.before[place] for place in places]
        ratio = math.fsum(after) / math.fsum(before)
        over, under = statistics.fmean(after), statistics.fmean(before)
        shares = [a / over - b / under for a, b in zip(after, before, strict=True)]
        logs = [math.log(a / b) for a, b in zip(after, before, strict=True)]
        spread = max(statistics.stdev(shares), statistics.stdev(logs))
        reach = QUANTILES[n] * spread * math.sqrt((1 - n / total) / n)
        sure = math.fsum(after) / math.fsum(self.before)
        return RatioInterval(ratio, max(ratio * math.exp(-reach), sure), ratio * math.exp(min(reach, 700.0)), n)


def reading_order(texts: Sequence[str]) -> list[int]:
    """The places of texts in the order in which they are read: at random, and the same for the same texts."""
    seed = hashlib.sha256("\0".join(texts).encode("utf-8", "backslashreplace")).hexdigest()
    places = list(range(len(texts)))
    Random(seed).shuffle(places)
    return places


def ratio_limits(policy: Policy, base: float, even: float | None = None) -> tuple[float, ...]:
    """The perplexity ratios at which any limit of a policy on single edits turns from one verdict to another.

    `base` is the perplexity before any edit, `even` that of a model that guesses evenly. Raises UsageError for a policy
    that is on a figure which needs every text.
    """
    for name, limit in policy.case.items():
        if limit.measure in OTHERS and limit.figure != "before":
            raise UsageError(
                f"--adaptive: policy {policy.name} has a limit on {limit.measure} ({name}), which needs every text. "
                "Leave that limit out, or --adaptive."
            )
    found = {end for limit in policy.case.values() for end in ratio_ends(limit, base, even)}
    return tuple(sorted({*found, policy.collapse}))


def ratio_ends(limit: Threshold, base: float, even: float | None = None) -> tuple[float, ...]:
    """The perplexity ratios at which one limit turns; none where it is not on the perplexity after an edit."""
    if limit.measure != "me_ppl" or limit.figure == "before":
        return ()
    limit = limit.within_even(even)
    ends = (limit.pass_at_most, limit.warn_at_most, limit.pass_at_least, limit.warn_at_least)
    given = [end for end in ends if end is not None]
    if limit.figure == "ratio":
        return tuple(given)
    return tuple(end / base if limit.figure == "after" else (base - end) / base for end in given)


def undecided(limit: Threshold, before: Measurement | None, after: Measurement | None) -> str:
    """Why a figure over some of the texts does not tell on which side of a limit all of them are; empty if it does.

    A run stops reading where that is known for the limits of its own policy; another policy may have others.
    """
    if after is None or after.between is None or before is None or not before.value:
        return ""
    low, high = (end / before.value for end in after.between)
    inside = [end for end in ratio_ends(limit, before.value) if low <= end <= high]
    if not inside:
        return ""
    where = f"by which the perplexity is {times(low)} to {times(high)} of what it was"
    return (
        f"{after.n} of {after.of} texts were read (--adaptive), {where}: on which side of {inside[0]:g}x it is was not "
        "asked then. Run it again with this policy"
    )
