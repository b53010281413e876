"""Dealing: every case exactly once, editors of a request together, one at a time after a death."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editsafety.cluster.dealing import TARGET, CaseDealer, QueueDealer, bundled
from editsafety.cluster.work import KeyQuestion, Portion
from editsafety.runs.case import Case
from tests import builders

CASES = [
    builders.case_of(editor, stream, number)
    for editor in ("rome", "ft")
    for stream, count in (("hard", 5), ("normal", 3))
    for number in range(count)
]
REQUESTS = 8


def other_model(case: Case) -> Case:
    return Case("pocket-qwen", case.editor, case.stream, case.requests)


def dealt_to_the_end(dealer: CaseDealer, workers: int, seconds: float) -> list[Portion]:
    """All portions when workers take turns and every portion takes so long."""
    found = []
    while dealer.left:
        for worker in range(workers):
            if (portion := dealer.deal(str(worker))) is not None:
                found.append(portion)
                dealer.took(portion, seconds)
    return found


@given(st.integers(1, 9), st.floats(0.0, 1000.0))
def test_every_case_is_dealt_once_with_all_editors_of_its_request(workers: int, seconds: float) -> None:
    portions = dealt_to_the_end(CaseDealer(CASES, workers), workers, seconds)
    assert Counter(case for portion in portions for case in portion.cases) == Counter(CASES)
    for portion in portions:
        of = {e: {case.request.id for case in portion.cases if case.editor == e} for e in ("rome", "ft")}
        assert of["rome"] == of["ft"]


def test_the_first_portion_is_one_request_and_later_ones_are_as_many_as_the_target_holds() -> None:
    many = [builders.case_of("rome", "normal", number) for number in range(100)]
    dealer = CaseDealer(many, 1)
    first = dealer.deal("a")
    assert first is not None
    assert len(first.cases) == 1
    dealer.took(first, TARGET / 5)
    second = dealer.deal("a")
    assert second is not None
    assert len(second.cases) == 5


def test_what_is_left_is_shared_so_that_nobody_waits_for_one_large_portion_at_the_end() -> None:
    many = [builders.case_of("rome", "normal", number) for number in range(41)]
    dealer = CaseDealer(many, 4)
    first = dealer.deal("a")
    assert first is not None
    dealer.took(first, 0.001)
    sizes = [len(portion.cases) for _ in range(4) if (portion := dealer.deal("a")) is not None]
    assert sizes == [5, 5, 4, 4]  # of 40, 35, 30 and 26 that are left, an eighth each


def test_a_worker_keeps_to_its_model_and_another_one_takes_the_other() -> None:
    dealer = CaseDealer([*CASES, *map(other_model, CASES)], 2)
    models = [(worker, portion.model) for _ in range(4) for worker in "ab" if (portion := dealer.deal(worker))]
    assert models[:4] == [("a", "pocket-neo"), ("b", "pocket-qwen"), ("a", "pocket-neo"), ("b", "pocket-qwen")]


def test_a_worker_whose_model_is_done_goes_on_with_another() -> None:
    dealer = CaseDealer([CASES[0], *map(other_model, CASES)], 1)
    models = [portion.model for _ in range(3) if (portion := dealer.deal("a"))]
    assert models == ["pocket-qwen", "pocket-qwen", "pocket-qwen"]
    rest = dealt_to_the_end(dealer, 1, 0.0)
    assert {portion.model for portion in rest} == {"pocket-neo", "pocket-qwen"}


def test_after_a_death_each_case_is_tried_alone_and_only_the_one_that_dies_alone_is_blamed() -> None:
    dealer = CaseDealer(CASES[:1] + CASES[8:9], 1)  # both editors of one request
    portion = dealer.deal("a")
    assert portion is not None
    assert len(portion.cases) == 2
    dealer.lost(portion)
    guilty, innocent = dealer.deal("b"), dealer.deal("b")
    assert guilty is not None
    assert innocent is not None
    assert (len(guilty.cases), len(innocent.cases)) == (1, 1)
    assert guilty.deaths == innocent.deaths == 0
    dealer.took(innocent, 1.0)
    seen = []
    for _ in range(3):
        dealer.lost(guilty)
        guilty = dealer.deal("c")
        assert guilty is not None
        seen.append(guilty.deaths)
    assert seen == [1, 2, 3]  # dealt once more with three: the lab gives it up and writes that down
    assert dealer.left == 0


def test_questions_are_asked_again_and_given_up_after_three_deaths() -> None:
    question, other = KeyQuestion("pocket-neo", ("rome",)), KeyQuestion("pocket-qwen", ("rome",))
    dealer = QueueDealer([question, other])
    assert dealer.deal("a") is question
    assert dealer.deal("b") is other
    for _ in range(2):
        dealer.lost(question)
        assert dealer.given_up == []
        assert dealer.deal("a") is question
    dealer.lost(question)
    assert dealer.given_up == [question]
    assert dealer.left == 0


def test_bundles_keep_the_order_of_the_plan() -> None:
    bundles = bundled(CASES)["pocket-neo"]
    assert [bundle[0] for bundle in bundles] == CASES[:REQUESTS]
    assert [case.editor for case in bundles[0]] == ["rome", "ft"]
    assert bundled([]) == {}


@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_is_dealt_of_nothing(workers: int) -> None:
    assert CaseDealer([], workers).deal("a") is None
