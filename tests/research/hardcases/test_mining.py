"""A screening counts what it says: collapses, subjects, quantiles, signals; a sample is even, shards share it out."""

from __future__ import annotations

import json
import math

import pytest

from editsafety.errors import UsageError
from editsafety.research.hardcases import mining
from editsafety.research.hardcases.mining import CollapseCount, Screening
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.measurement import Measurement
from tests import builders


def rome(number: int, ratio: float | None, *, denominator: float | None = None) -> CaseRecord:
    record = builders.record(
        "rome", "hard", number, ratio=ratio, norm=100.0 * (ratio or 1) if ratio != math.inf else 1.0
    )
    if denominator is None:
        return record
    found = Measurement("denominator", 1, "1", denominator)
    return builders.stepped(record, found={**record.after, "denominator": found})


@pytest.fixture
def screening() -> Screening:
    """Ten edits: three collapse (one to no number at all), one failed, two have a one-token subject in first place."""
    ratios = [1.0, 30.0, 1.1, 1.5, math.inf, 2.0, 1.2, 2.5, 1.3]
    records = [rome(i, ratio, denominator=0.01 if ratio > 2 else 1.0) for i, ratio in enumerate(ratios)]
    records.append(builders.failed("rome", "hard", 9, message="rome failed: no such layer"))
    return Screening(tuple(records), 2.0, frozenset({records[1].case, records[2].case}))


def test_what_is_above_the_limit_or_not_finite_collapses_and_what_failed_does_neither(screening: Screening) -> None:
    assert [record.requests[0].id for record in screening.collapsed] == ["hardcf-0001", "hardcf-0004", "hardcf-0007"]
    assert len(screening.measured) == 9
    assert [record.requests[0].id for record in screening.failed] == ["hardcf-0009"]
    assert (screening.group(first=True), screening.group(first=False)) == (CollapseCount(2, 1), CollapseCount(7, 2))


def test_quantiles_are_ratios_that_occurred_and_the_broken_model_is_the_largest(screening: Screening) -> None:
    assert screening.quantiles() == {
        0.0: 1.0, 0.25: pytest.approx(1.2), 0.5: pytest.approx(1.5), 0.75: 2.5, 0.9: math.inf, 0.99: math.inf,
        1.0: math.inf,
    }  # fmt: skip
    assert [record.requests[0].id for record in screening.worst(2)] == ["hardcf-0004", "hardcf-0001"]


def test_signals_are_compared_between_what_collapses_and_what_stays(screening: Screening) -> None:
    signals = {name: (hard, stays) for name, hard, stays in screening.signals()}
    assert signals["denominator"] == (0.01, 1.0)
    assert signals["delta_norm"] == (250.0, pytest.approx(125.0))
    assert "key_cosine" not in signals, "nothing noted one"


def test_the_summary_says_the_same_in_words(screening: Screening) -> None:
    said = dict(screening.summary()[:6])
    assert said["collapsed (above 2x)"] == "3 (33.3%)"
    assert said["one-token subject in first place"] == "1 of 2 collapse"
    assert said["without a result"] == "1 case; rome failed: no such layer"
    worst = [figure for name, figure in screening.summary() if name == "worst"]
    assert [line.split()[:2] for line in worst] == [["not", "finite"], ["30x", "hardcf-0001"], ["2.50x", "hardcf-0007"]]


def test_the_report_is_json_without_infinities_and_has_every_case(screening: Screening) -> None:
    body = json.loads(json.dumps(screening.as_json(), allow_nan=False))
    assert (body["screened"], body["measured"], body["collapsed"], body["without_result"]) == (10, 9, 3, 1)
    assert [case["collapsed"] for case in body["cases"]] == [i in (1, 4, 7) for i in range(10)]
    assert (body["cases"][4]["ratio"], body["cases"][4]["collapsed"]) == (None, True)
    assert body["cases"][9]["failure"] == "rome failed: no such layer"
    assert body["ratio_quantiles"]["1"] is None
    assert body["one_token_first"] == {"n": 2, "collapsed": 1}


def test_hard_cases_are_the_collapsing_ones_evenly_spread_and_named_anew(screening: Screening) -> None:
    assert [request.id for request in mining.hard_cases(screening)] == ["hardcf-0001", "hardcf-0002", "hardcf-0003"]
    ten = tuple(
        builders.renamed(rome(i, 3.0), requests=(builders.request("hard", i, subject=f"S{i}"),)) for i in range(10)
    )
    found = mining.hard_cases(Screening(ten, 2.0), 4)
    assert [request.subject for request in found] == ["S0", "S2", "S5", "S7"]


def test_nothing_measured_has_no_quantiles_and_no_signals() -> None:
    empty = Screening((builders.failed("rome", "hard", 0),), 2.0)
    assert empty.quantiles() == {}
    assert list(empty.signals()) == []
    assert dict(empty.summary())["ratios"] == "none"


def test_a_sample_is_even_and_shards_are_a_partition_of_it() -> None:
    plan = builders.plan([builders.case_of("rome", "hard", i) for i in range(20)])
    every = [case.request.id for case in mining.sample_cases(plan, 10).cases]
    assert every == [f"hardcf-{i:04d}" for i in range(0, 20, 2)]
    shards = [[case.request.id for case in mining.sample_cases(plan, 10, f"{i}/3").cases] for i in (1, 2, 3)]
    assert sorted(case for shard in shards for case in shard) == every
    assert [len(shard) for shard in shards] == [4, 3, 3]
    assert mining.sample_cases(plan).cases == plan.cases


@pytest.mark.parametrize(
    ("limit", "shard", "said"),
    [
        (0, "", "--limit 0 screens nothing"),
        (None, "0/3", "--shard 0/3: expected i/n"),
        (None, "4/3", "--shard 4/3: expected i/n"),
        (None, "one", "--shard one: expected i/n"),
        (None, "-1/3", "expected i/n"),
        (2, "3/3", "is empty; give a smaller n"),
    ],
)
def test_a_sample_of_nothing_is_refused(limit: int | None, shard: str, said: str) -> None:
    plan = builders.plan([builders.case_of("rome", "hard", i) for i in range(5)])
    with pytest.raises(UsageError, match=said):
        mining.sample_cases(plan, limit, shard)
