"""Offers: which requests of a data set a model is asked, and that it is asked once which facts it knows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from editsafety import datasets, progress
from editsafety.datasets.reading import Sifted
from editsafety.datasets.request import EditRequest
from editsafety.progress import Progress
from editsafety.runs.facts import Known
from editsafety.runs.offers import find_known, is_real, leaves_unknown_out, offer
from editsafety.runs.plan import RunPlan, keep_known, models_to_ask
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store
from tests import builders

ROWS = tuple(builders.request("normal", i) for i in range(200))
OF_TEN = 3  # of ten requests, the model knows the first three
BARE = Settings(("org/m",), ("ft",), texts_from="t")


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set holds the same 200 requests under ids of its own, every set of texts two texts."""

    def read(spec: str, limit: int | None = None, **more: bool) -> Sifted:
        return Sifted(tuple(replace(row, id=f"{spec}-{row.id}") for row in ROWS[:limit]))

    monkeypatch.setattr(datasets, "read_requests", read)
    monkeypatch.setattr(datasets, "texts", lambda spec, limit=None, **more: ("One.", "Two."))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "store.sqlite")) as opened:
        yield opened


class Model:
    """Says whether it knows a fact, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, model: str, requests: Sequence[EditRequest]) -> list[bool]:
        self.asked += places(requests)
        return [place % 10 < OF_TEN for place in places(requests)]


def places(requests: Sequence[EditRequest]) -> list[int]:
    return [int(request.id[-4:]) for request in requests]


def test_known_facts_only_is_for_real_models_and_the_requests_that_ship_or_for_who_asks() -> None:
    for model, real in (("gpt2-xl", True), ("./folder", True), ("pocket-neo", False), ("random:gpt2", False)):
        assert is_real(model) is real
        assert leaves_unknown_out(BARE, model) is real
        assert leaves_unknown_out(replace(BARE, known=True), model)
        assert not leaves_unknown_out(replace(BARE, all_facts=True), model)
        assert not leaves_unknown_out(replace(BARE, normal="mine.jsonl"), model), "who names requests gets those"
        assert leaves_unknown_out(replace(BARE, normal="mine.jsonl", known=True), model)


def test_without_answers_the_first_requests_are_offered() -> None:
    found = offer(replace(BARE, limit=3), "org/m", "x")
    assert (places(found.requests), found.sentences) == ([0, 1, 2], ())
    assert places(offer(BARE, "org/m", "x").requests) == list(range(200))


def test_the_first_known_requests_are_offered_and_it_is_said_how_many_of_how_many(store: Store) -> None:
    model, settings = Model(), replace(BARE, limit=5)
    known = find_known(settings, "org/m", ["x"], store, model)
    found = offer(settings, "org/m", "x", known)
    assert places(found.requests) == [0, 1, 2, 10, 11]
    assert found.sentences == (
        "the unedited model gives the true answer of 5 of the 12 requests that it was asked; "
        "the other 7 are not edited (--all-facts keeps them)",
    )


def test_a_model_that_knows_all_it_is_asked_loses_nothing(store: Store) -> None:
    settings = replace(BARE, limit=2)
    found = offer(settings, "org/m", "x", find_known(settings, "org/m", ["x"], store, Model()))
    assert found.sentences == ("the unedited model gives the true answer of 2 of the 2 requests that it was asked",)


def test_no_more_is_asked_than_needed_and_nothing_twice(store: Store) -> None:
    model = Model()
    find_known(replace(BARE, limit=5), "org/m", ["x", "y"], store, model)
    assert model.asked == [*range(20), *range(20)], "of each data set, four for each fact that is wanted"
    again = Model()
    find_known(replace(BARE, limit=25), "org/m", ["x"], store, again)
    assert again.asked == list(range(20, 84)), "64 at most at once"
    find_known(BARE, "org/m", ["x"], store, again)
    assert again.asked == list(range(20, 200))
    last = Model()
    known = find_known(BARE, "org/m", ["x"], store, last)
    assert last.asked == []
    assert len(offer(BARE, "org/m", "x", known).requests) == 200 * OF_TEN // 10


def test_the_time_left_is_that_of_the_facts_still_wanted_and_loading_is_no_part_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    class Slow(Model):
        def __call__(self, model: str, requests: Sequence[EditRequest]) -> list[bool]:
            nonlocal now
            now += 2.0 * len(requests) if requests else 1000.0
            return super().__call__(model, requests)

    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    out = io.StringIO()
    find_known(replace(BARE, limit=20), "org/m", ["x"], store, Slow(), Progress(out))
    assert out.getvalue().splitlines() == [
        "facts of x that m knows: 0 of 20",
        # 64 requests in 128 s, of which 21 are known; 20 are enough
        "facts of x that m knows: 20 of 20, 0.2/s, 20 of 62 known",
    ]
    find_known(BARE, "org/m", ["x"], store, Slow(), Progress(out))
    assert out.getvalue().splitlines()[2:] == [
        "facts of x that m knows: 0 of 136",
        "facts of x that m knows: 64 of 136, 0.5/s, 2 min left, 39 of 128 known",
        "facts of x that m knows: 128 of 136, 0.5/s, 16 s left, 59 of 192 known",
        "facts of x that m knows: 136 of 136, 0.5/s, 60 of 200 known",
    ]


def test_what_was_found_out_before_an_interruption_is_kept(store: Store) -> None:
    class Stopped(Model):
        def __call__(self, model: str, requests: Sequence[EditRequest]) -> list[bool]:
            if self.asked:
                raise KeyboardInterrupt
            return super().__call__(model, requests)

    with pytest.raises(KeyboardInterrupt):
        find_known(BARE, "org/m", ["x"], store, Stopped())
    after = Model()
    find_known(BARE, "org/m", ["x"], store, after)
    assert after.asked == list(range(64, 200))


def test_a_request_without_a_true_answer_cannot_be_asked_and_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (replace(ROWS[5], target_true=None), ROWS[0], ROWS[6])
    monkeypatch.setattr(datasets, "read_requests", lambda spec, limit=None, **more: Sifted(rows))
    model = Model()
    known = find_known(BARE, "org/m", ["x"], store, model)
    assert model.asked == [0, 6]
    assert offer(BARE, "org/m", "x", known).requests == rows[:2]


def test_a_plan_of_known_facts_is_laid_out_as_any_other_and_others_find_it_in_the_store(store: Store) -> None:
    settings = replace(BARE, limit=4, edits=3)
    plan = RunPlan.of(settings)
    assert models_to_ask(settings) == {"org/m": ("hardedit", "english/normal")}
    assert keep_known(plan, store) is plan, "nobody was asked yet"
    kept = keep_known(plan, store, Model())
    assert places([case.request for case in kept.cases if case.stream == "hard"]) == [0, 1, 2, 10]
    assert {tuple(places(case.requests)) for case in kept.courses} == {(0, 1, 2)}
    assert places([case.request for case in kept.controls]) == [0, 1, 2, 0, 1, 2, 0], "of rome, c_rome and noop"
    assert set(kept.unread) == {"m hard", "m normal"}
    assert keep_known(plan, store).about() == kept.about(), "a worker lays out the same"
    assert store.fact(Known, "m") is not None


def test_a_plan_of_one_stream_asks_nothing_about_the_other(store: Store) -> None:
    model = Model()
    settings = replace(BARE, limit=4)
    kept = keep_known(RunPlan.of(settings, only="normal"), store, model)
    assert {case.stream for case in kept.every} == {"normal"}
    assert len(kept.cases) == 4
    assert (set(kept.unread), set(kept.sources)) == ({"m normal"}, {"m normal", "m texts"})
    assert model.asked == list(range(len(model.asked))), "no request a second time, as another data set's"
    assert models_to_ask(settings, "normal") == {"org/m": ("english/normal",)}


def test_a_model_that_knows_nothing_leaves_a_plan_without_cases_and_the_reason(store: Store) -> None:
    plan = keep_known(RunPlan.of(BARE), store, lambda model, requests: [False] * len(requests))
    assert plan.every == ()
    assert plan.unread["m normal"][0].startswith("the unedited model gives the true answer of 0 of the 200 requests")


def test_a_plan_that_is_about_all_facts_asks_nobody(store: Store) -> None:
    for settings in (replace(BARE, all_facts=True), replace(BARE, models=("pocket-neo",)), replace(BARE, hard="x")):
        plan = RunPlan.of(settings)
        assert keep_known(plan, store, pytest.fail) is plan
