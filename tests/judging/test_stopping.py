"""Stopping early: what an interval promises, against figures over all texts."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest
from scipy import stats

from editsafety.errors import UsageError
from editsafety.judging import stopping
from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy, Threshold
from editsafety.judging.stopping import EnoughTexts, ratio_ends, ratio_limits, reading_order
from editsafety.judging.verdict import Verdict
from editsafety.runs.measurement import Measurement
from tests.builders import BASE, record, stepped

LIMITS = (0.5, 1.25, 2.0)


def texts(generator: random.Random, count: int = 50) -> tuple[float, ...]:
    """Perplexities of unedited texts, as a model has them: between 2 and 9 or so."""
    return tuple(math.exp(generator.gauss(1.2, 0.35)) for _ in range(count))


def decide(enough: EnoughTexts, after: list[float], order: list[int]) -> tuple[int | None, int]:
    """On which side of how many limits the ratio is found to be, and after how many texts; None: all were read."""
    for look in enough.looks:
        found = enough.interval(order[:look], [after[place] for place in order[:look]])
        if not found.crosses(enough.limits):
            return sum(found.low > limit for limit in enough.limits), look
    return None, len(after)


def test_the_quantiles_are_students_at_a_sixth_of_alpha() -> None:
    for count, quantile in stopping.QUANTILES.items():
        share = stopping.ALPHA / (2 * len(stopping.QUANTILES))
        assert quantile == pytest.approx(stats.t.ppf(1 - share, count - 1), abs=5e-4)


def test_a_model_that_is_as_it_was_is_known_after_the_first_look() -> None:
    before = texts(random.Random(0))
    enough = EnoughTexts(before, LIMITS)
    found = enough.interval(range(8), before[:8])
    assert (found.ratio, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    assert decide(enough, list(before), list(range(50))) == (1, 8)


def test_what_was_read_is_a_bound_from_below_whatever_comes() -> None:
    before = (2.0,) * 50
    enough = EnoughTexts(before, LIMITS)
    after = [2000.0, *[2.0] * 7]
    found = enough.interval(range(8), after)
    assert found.low == pytest.approx(2014 / 100)
    assert found.low <= (2014 + 42 * 1e-9) / 100 * (1 + 1e-9)
    assert not found.crosses(LIMITS)


def test_a_ratio_near_a_limit_is_read_to_the_end() -> None:
    generator = random.Random(1)
    before = texts(generator)
    after = [value * 1.25 * math.exp(generator.gauss(0, 0.1)) for value in before]
    assert decide(EnoughTexts(before, LIMITS), after, list(range(50)))[0] is None


def test_the_interval_misses_the_ratio_no_more_often_than_alpha_says() -> None:
    """All looks together, over log-normal changes of every size, half of them close to a limit; 3,000 models."""
    generator, missed, wrong, runs = random.Random(2), 0, 0, 3000
    for _ in range(runs):
        before = texts(generator)
        middle, spread = generator.uniform(-0.1, 1.0), generator.choice((0.02, 0.1, 0.3, 0.6))
        after = [value * math.exp(generator.gauss(middle, spread)) for value in before]
        ratio = math.fsum(after) / math.fsum(before)
        enough = EnoughTexts(before, LIMITS)
        order = generator.sample(range(50), 50)
        found = [enough.interval(order[:n], [after[place] for place in order[:n]]) for n in enough.looks]
        missed += not all(one.low <= ratio <= one.high for one in found)
        side, _ = decide(enough, after, order)
        wrong += side is not None and side != sum(ratio > limit for limit in LIMITS)
    assert missed / runs <= 2 * stopping.ALPHA  # wide log-normal sums are skewed; 1 % is meant
    assert wrong / runs <= stopping.ALPHA


def test_the_order_follows_from_the_texts_alone_and_is_none_of_theirs() -> None:
    told = [f"text {i}" for i in range(50)]
    assert reading_order(told) == reading_order(list(told))
    assert sorted(reading_order(told)) == list(range(50))
    assert reading_order(told) != list(range(50))
    assert reading_order(told) != reading_order(told[::-1])


def test_few_texts_have_fewer_looks_or_none() -> None:
    assert [EnoughTexts((1.0,) * n, ()).looks for n in (8, 9, 33)] == [(), (8,), (8, 16, 32)]


def test_the_limits_are_all_ends_of_all_limits_on_the_perplexity_after_an_edit() -> None:
    policy = Policy.read("default")
    assert ratio_limits(policy, 51.2) == LIMITS
    after = Threshold(measure="me_ppl", figure="after", pass_at_most=100, why="")
    lost = Threshold(measure="me_ppl", figure="drop", pass_at_most=0.0, why="")
    assert ratio_ends(after, 50.0) == (2.0,)
    assert ratio_ends(lost, 50.0) == (1.0,)
    held = Threshold(measure="me_ppl", figure="after", pass_at_most=1000, pass_at_most_of_even=0.5, why="")
    assert ratio_ends(held, 50.0, even=300.0) == (3.0,)


def test_a_policy_that_needs_every_text_is_refused() -> None:
    policy = Policy.read("default")
    worst = Threshold(measure="ppl_worst", figure="ratio", pass_at_most=3, why="")
    with pytest.raises(UsageError, match=r"--adaptive: policy default has a limit on ppl_worst \(worst\)"):
        ratio_limits(policy.model_copy(update={"case": {**policy.case, "worst": worst}}), 51.2)


def adaptive(ratio: float, low: float, high: float) -> Measurement:
    return Measurement("me_ppl", 1, "perplexity", BASE * ratio, n=8, of=50, between=(BASE * low, BASE * high))


@pytest.mark.parametrize(
    ("ratio", "low", "high", "verdict"),
    [
        (1.0, 0.98, 1.02, Verdict.PASS),
        (1.5, 1.4, 1.6, Verdict.WARN),
        (90.0, 20.0, 200.0, Verdict.COLLAPSE),
        (1.2, 1.1, 1.3, Verdict.ERROR),  # by a policy that it was not stopped for
        (1.9, 1.7, 2.1, Verdict.ERROR),
    ],
)
def test_a_figure_that_stopped_on_both_sides_of_a_limit_is_judged_by_none(
    ratio: float, low: float, high: float, verdict: Verdict
) -> None:
    one = record("rome", "hard", 0)
    found = {**one.after, "me_ppl": adaptive(ratio, low, high)}
    judged = judge_case(Policy.read("default"), stepped(one, found=found)).check("perplexity")
    assert judged is not None
    assert judged.verdict is verdict
    assert ("8 of 50 texts were read (--adaptive)" in judged.sentence) is (verdict is Verdict.ERROR)


def test_a_measurement_that_stopped_is_the_same_after_a_file() -> None:
    one = replace(adaptive(1.0, 0.9, 1.1), items=(1.0, None, 2.0))
    row = one.as_json()
    assert (row["of"], row["n"], list(row["between"])) == (50, 8, [BASE * 0.9, BASE * 1.1])
    assert Measurement.from_json(row) == one
    assert {"of", "between"}.isdisjoint(record("rome", "hard", 0).after["me_ppl"].as_json())
    with pytest.raises(ValueError, match="not finite"):
        adaptive(1.0, 0.9, math.inf)


def test_the_estimate_is_the_ratio_of_means_of_what_was_read() -> None:
    before, after = (2.0, 4.0, *[3.0] * 14), [3.0, 5.0, *[4.0] * 6]
    found = EnoughTexts(before, LIMITS).interval(range(8), after)
    assert found.ratio == pytest.approx(statistics.fmean(after) / statistics.fmean(before[:8]))
