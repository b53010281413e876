"""Correlations and predictions against scipy's own, and against counts made by hand."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence

import pytest
from scipy import stats

from editsafety.research.surrogate import SPANS, Observation, correlation, of_cases, of_courses, studies
from editsafety.runs.case_record import CaseRecord, Failure, Step
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import Schedule
from tests import builders


def seen(ratios: Sequence[float], scores: Sequence[float | None]) -> list[Observation]:
    pairs = zip(ratios, scores, strict=True)
    return [
        Observation("m", "e", str(i), r, {} if s is None else {"piqa": s}, collapsed=r > 2)
        for i, (r, s) in enumerate(pairs)
    ]


def spread(n: int, seed: int = 0) -> tuple[list[float], list[float]]:
    """Perplexity ratios from intact to dead, and scores that fall with them, with noise and ties."""
    draw = random.Random(seed)
    ratios = [math.exp(draw.uniform(-0.1, 6)) for _ in range(n)]
    return ratios, [round(max(0.0, 0.9 - 0.1 * math.log(r) + draw.gauss(0, 0.1)), 2) for r in ratios]


@pytest.mark.parametrize("seed", range(3))
def test_coefficients_and_p_values_are_those_of_scipy(seed: int) -> None:
    ratios, scores = spread(60, seed)
    logs = [math.log(r) for r in ratios]
    for method, theirs in (("spearman", stats.spearmanr(logs, scores)), ("pearson", stats.pearsonr(logs, scores))):
        found = correlation(seen(ratios, scores), "piqa", method)  # type: ignore[arg-type]
        assert found.n == 60
        assert found.value == pytest.approx(theirs.statistic)
        assert found.p == pytest.approx(theirs.pvalue, rel=1e-6)
        assert found.low is not None
        assert found.low < found.value < (found.high or -2)


def test_the_interval_of_pearson_is_that_of_scipy() -> None:
    ratios, scores = spread(40)
    found = correlation(seen(ratios, scores), "piqa", "pearson")
    theirs = stats.pearsonr([math.log(r) for r in ratios], scores).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_the_interval_of_spearman_has_the_variance_of_bonett_and_wright() -> None:
    found = correlation(seen([1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], [7, 5, 6, 4, 3, 1, 2]), "piqa", "spearman")
    r = 1 - 6 * (0 + 1 + 1 + 0 + 0 + 1 + 1) / (7 * 48)  # of the reversed scores, d^2 counted by hand
    assert found.value == pytest.approx(-r)
    half = 1.959964 * math.sqrt((1 + r * r / 2) / 4)
    assert found.low == pytest.approx(math.tanh(-math.atanh(r) - half), abs=1e-6)
    assert found.high == pytest.approx(math.tanh(-math.atanh(r) + half), abs=1e-6)


def test_the_interval_of_spearman_covers_the_truth_as_often_as_it_says() -> None:
    """Bivariate normal with r = 0.8: Spearman's is 6 / pi arcsin(r / 2). 300 draws."""
    draw = random.Random(5)
    truth, hits = 6 / math.pi * math.asin(0.4), 0
    for _ in range(300):
        pairs = [(a := draw.gauss(0, 1), 0.8 * a + 0.6 * draw.gauss(0, 1)) for _ in range(40)]
        found = correlation(seen([math.exp(a) for a, _ in pairs], [b for _, b in pairs]), "piqa", "spearman")
        hits += (found.low or 1.0) <= truth <= (found.high or -1.0)
    assert 0.925 <= hits / 300 <= 0.99


def test_a_range_takes_only_the_models_inside_it() -> None:
    ratios = [0.9, 1.0, 1.1, 1.2, 1.25, 1.9, 2.0, 5.0, 10.0, math.inf]
    count = {span: correlation(seen(ratios, range(10)), "piqa", "spearman", span).n for span, _, _ in SPANS}
    assert count == {"all": 10, "below 1.25x": 4, "1x to 2x": 5, "2x to 10x": 2, "10x and above": 2}


def test_a_broken_model_has_the_largest_rank_and_no_place_in_pearson() -> None:
    ratios, scores = [1.0, 1.5, 4.0, 80.0, math.inf], [0.9, 0.8, 0.85, 0.2, 0.0]
    rank = correlation(seen(ratios, scores), "piqa", "spearman")
    assert rank.n == 5
    assert rank.value == pytest.approx(stats.spearmanr([1, 2, 3, 4, 5], scores).statistic)
    line = correlation(seen(ratios, scores), "piqa", "pearson")
    assert (line.n, line.left_out) == (4, 1)


@pytest.mark.parametrize(
    ("ratios", "scores", "said"),
    [
        ([1.0, 2.0, 3.0], [1, 2, 3], r"3 model\(s\) with both figures"),
        ([1.0, 2.0, 3.0, 4.0], [1, None, math.nan, 3], r"2 model\(s\) with both figures"),
        ([1.0, 2.0, 3.0, 4.0], [0.5] * 4, "piqa is the same in all 4 models"),
        ([2.0] * 4, [1, 2, 3, 4], "perplexity is the same in all 4 models"),
        ([math.inf] * 5, [1, 2, 3, 4, 5], "perplexity is the same in all 5 models"),
    ],
)
def test_what_cannot_be_correlated_has_a_reason_and_no_number(
    ratios: list[float], scores: list[float | None], said: str
) -> None:
    found = correlation(seen(ratios, scores), "piqa", "spearman")
    assert found.value is None
    assert found.p is None
    assert re.search(said, found.reason)


def test_scores_that_differ_by_rounding_only_are_not_correlated() -> None:
    scores = [0.5 + i * 1e-17 for i in range(4)] + [0.5 + 2e-16]
    found = correlation(seen([1.0, 2.0, 3.0, 4.0, 5.0], scores), "piqa", "pearson")
    assert found.value is None
    assert "too close together" in found.reason


def test_a_perfect_correlation_has_no_interval() -> None:
    found = correlation(seen([1.0, 2.0, 3.0, 4.0], [4, 3, 2, 1]), "piqa", "spearman")
    assert found.value == -1.0
    assert found.low is found.high is None


def test_cases_give_observations_and_failed_ones_none() -> None:
    records = [
        builders.record("rome", "hard", 0, ratio=526.0, norm=1.9e4, notes={"denominator": -0.003, "first_token": True}),
        builders.record("rome", "hard", 1, ratio=math.inf, notes={"denominator": "nan", "key_cosine": "high"}),
        builders.record("rome", "normal", 2, ratio=1.01, notes={"denominator": 1.2}),
        builders.record("rome", "normal", 3, ratio=None),
        builders.failed("rome", "normal", 4),
    ]
    first, second, third = of_cases(records, probes=("locality",))
    assert (first.ratio, first.collapsed) == (pytest.approx(526), True)
    assert first.signals["|denominator|"] == 0.003
    assert first.signals["delta_norm"] == 1.9e4
    assert first.signals["first_token"] == 1.0
    assert first.probes == {"locality": 1.0}
    assert (second.ratio, second.collapsed) == (math.inf, True)
    assert second.signals["|denominator|"] == -math.inf
    assert "key_cosine" not in second.signals
    assert not third.collapsed
    (strict,) = of_cases([records[2]], limit=1.0)
    assert strict.collapsed


def test_abilities_of_a_single_edit_are_scores_as_those_along_a_course_are() -> None:
    plain = builders.record("rome", "hard", 0, ratio=3.0)
    probed = builders.renamed(
        builders.stepped(plain, found={**plain.after, "nli": rated("nli", 0.25)}),
        before={**plain.before, "nli": rated("nli", 0.9)},
        abilities=("nli",),
    )
    (found,) = of_cases([probed], probes=("locality",))
    assert found.probes == {"locality": 1.0, "nli": 0.25}


def rated(name: str, value: float, unit: str = "rate") -> Measurement:
    return Measurement(name, 1, unit, value, n=10)


def walked(*, kind: str = "sequential", failure: Failure | None = None) -> CaseRecord:
    """10 steps of a sequence, at 3x from the eighth on, whose drift grows with them."""
    before = {
        "me_ppl": rated("me_ppl", 50.0, "perplexity"),
        "nli": rated("nli", 0.9),
        "nll_per_token": rated("nll_per_token", 3, "nat"),
    }
    steps = []
    for at in range(1, 11):
        ppl = 50.0 * (1 + 0.01 * at if at < 8 else 3.0)
        found = {
            "me_ppl": rated("me_ppl", ppl, "perplexity"),
            "nli": rated("nli", 0.9 - at / 100),
            "kept": rated("kept", 1.0),
            "nll_per_token": rated("nll_per_token", math.log(ppl), "nat"),
            "drift_growth": rated("drift_growth", 1 + at / 10, "ratio"),
        }
        steps.append(Step(at * 10, (), found, {"denominator": 1.0}))
    schedule = Schedule(kind, every=10) if kind == "sequential" else Schedule(kind)  # type: ignore[arg-type]
    requests = tuple(builders.request("normal", i) for i in range(100))
    return CaseRecord("c", "m", "rome", "normal", requests, schedule, before, ("nli",), tuple(steps), failure=failure)


def test_every_step_of_a_course_is_an_edited_model() -> None:
    found = of_courses([walked()])
    assert len(found) == 10
    assert [one.collapsed for one in found] == [False] * 7 + [True] * 3
    assert [one.ahead for one in found] == [False] * 6 + [True] + [None] * 3
    assert found[0].probes == {"nli": pytest.approx(0.89)}
    assert found[0].signals == {"|denominator|": 1.0, "drift_growth": pytest.approx(1.1)}
    assert all(one.ahead is None for one in of_courses([walked(kind="batch")]))


def test_models_are_never_mixed() -> None:
    both = [*seen([1.0, 3.0], [1, 0]), Observation("other", "e", "x", math.inf)]
    first, second = studies(both)
    assert (first.model, first.n, first.broken) == ("m", 2, 0)
    assert (second.model, second.n, second.broken) == ("other", 1, 1)


def test_a_study_is_plain_json_with_infinities_by_name() -> None:
    ratios, scores = spread(80)
    found = [
        Observation("m", "e", str(i), r, {"piqa": s}, {"delta_norm": math.inf if r > 2 else r}, r > 2)
        for i, (r, s) in enumerate(zip(ratios, scores, strict=True))
    ]
    (study,) = studies(found)
    assert [str(alarm).split()[0] for alarm in study.alarms] == ["delta_norm"]
    body = json.loads(json.dumps(study.as_json(), allow_nan=False))
    assert body["predictions"][0]["gap"][1] == "inf"
    assert len(body["correlations"]) == 2 * len(SPANS)
