"""Facts: every kind of them survives the store, and together they say what a run knows beside its records."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from editsafety.errors import StoreError
from editsafety.hyperparameters.carried import CarriedFrom
from editsafety.runs.case import Case
from editsafety.runs.fact import RunFact
from editsafety.runs.facts import (
    KINDS,
    BlockKey,
    Columns,
    Drifted,
    EditorFacts,
    Ended,
    JudgedCheck,
    Known,
    ModelFacts,
    ModelFiles,
    NotApplicable,
    OrderFacts,
    Pace,
    Problem,
    RepeatedCost,
    RunFacts,
    Software,
    Unedited,
    Unexplained,
    Unusable,
    Wanted,
    Yardstick,
)
from editsafety.runs.measurement import Column, Measurement
from editsafety.runs.schedule import Schedule
from editsafety.runs.store import Store
from tests import tiny

PERPLEXITY = Measurement("me_ppl", 1, "perplexity", 51.2, n=2, stderr=0.5, items=(51.0, None))
EVERY: tuple[RunFact, ...] = (
    Wanted(("a-case", "b-case"), ("b-case",)),
    Ended(interrupted=False),
    Columns((Column("efficacy", "prompt", "success", order=20),)),
    Unusable("gpt2 has other weights than when this run was begun."),
    Software({"editsafety": "1.0", "machine": "a — ☃"}),
    JudgedCheck("perplexity"),
    NotApplicable("a-case", "ft takes no batch"),
    Unexplained(("test_it[a-case]: OSError: disk full",)),
    ModelFacts("gpt2", "f" * 64, 2_900_000, "cpu", "float32", "eager", "gpt2", "org/gpt2", "main", True, 2, 1e-7, 12),
    ModelFiles("gpt2", "a" * 64),
    Known("gpt2", {"r" * 64: True, "q" * 64: False}),
    Pace("gpt2", 0.02),
    Unedited("gpt2", "f" * 64, "t" * 64, 1e-7, {"me_ppl": json.loads(json.dumps(PERPLEXITY.as_json()))}),
    EditorFacts(
        *("gpt2", "rome", {"layers": [3], "lr": 0.5}, "c" * 64, "h.yaml", "m.py", "arXiv 2202.05262", "x", ("a",)),
        CarriedFrom("gpt2-xl", "rome/gpt2-xl.yaml", (48, 12), {"layers": ([17], [4])}),
    ),
    BlockKey("gpt2", "rome", "s" * 64, "c" * 64),
    OrderFacts("gpt2", "rome", 2, ("a-case",), "s" * 64),
    Yardstick("gpt2", "rome", (0.012, 0.011), "a processor, 2 of 4 threads"),
    RepeatedCost("gpt2", "rome", "latency", "a" * 16, (0.21, 0.2), (0.012, 0.011), "a processor, 2 of 4 threads"),
    Drifted("gpt2", "rome"),
    Problem("gpt2", "memit", "memit on gpt2 needs a covariance."),
)
MODEL = next(fact for fact in EVERY if isinstance(fact, ModelFacts))
SINGLE = Case("org/GPT2", "rome", "hard", (tiny.request("case-0"),))
COURSE = replace(SINGLE, schedule=Schedule("sequential"))


def test_every_kind_of_fact_is_tried_here() -> None:
    assert {type(fact) for fact in EVERY} == set(KINDS.values())
    assert len({fact.kind for fact in EVERY}) == len(EVERY)


@pytest.mark.parametrize("fact", EVERY, ids=lambda fact: fact.kind)
def test_every_kind_of_fact_survives_the_store(fact: RunFact, tmp_path: Path) -> None:
    Store(tmp_path / "store.sqlite").note(fact)
    again = Store(tmp_path / "store.sqlite")
    assert again.fact(type(fact), fact.name) == fact
    assert again.fact(type(fact), "another name") is None
    assert again.facts() == RunFacts.of([fact])


def test_all_facts_of_a_store_are_those_that_were_noted_whatever_their_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    for fact in EVERY:
        store.note(fact)
    assert store.facts() == RunFacts.of(EVERY) == RunFacts.of(reversed(EVERY))
    untouched = RunFacts()
    empty = [
        one.name for one in fields(RunFacts) if getattr(RunFacts.of(EVERY), one.name) == getattr(untouched, one.name)
    ]
    assert empty == []


def test_a_fact_is_kept_by_kind_and_name_and_a_later_one_takes_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    store.note(Problem("m", "rome", "no covariance"))
    store.note(Problem("m", "memit", "no covariance"))
    store.note(Problem("m", "rome", "out of memory"))
    assert store.fact(Problem, "m:rome") == Problem("m", "rome", "out of memory")
    assert (store.fact(Drifted, "m:rome"), store.fact(Problem)) == (None, None)
    assert store.facts().problems == {("m", "memit"): "no covariance", ("m", "rome"): "out of memory"}


@pytest.mark.parametrize("noise", [math.nan, math.inf])
def test_a_fact_that_is_no_number_is_refused_and_the_store_goes_on(tmp_path: Path, noise: float) -> None:
    store = Store(tmp_path / "store.sqlite")
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.note(replace(MODEL, noise=noise))
    assert store.fact(ModelFacts, "gpt2") is None
    store.note(MODEL)
    assert store.fact(ModelFacts, "gpt2") == MODEL


@pytest.mark.parametrize("said", ["\ud800", "a \udfff\ud800 b", "\U0001f600 é \x00 \x1b[31m \u202e"])
def test_whatever_an_error_says_comes_back_with_half_characters_spelled_out(tmp_path: Path, said: str) -> None:
    store = Store(tmp_path / "store.sqlite")
    store.note(Problem("gpt2", "rome", said))
    spelled = "".join(f"\\u{ord(one):04x}" if "\ud800" <= one <= "\udfff" else one for one in said)
    assert store.facts().problems == {("gpt2", "rome"): spelled}


@pytest.mark.parametrize("value", ["{", "[]", '{"cases": 12}'])
def test_a_fact_that_cannot_be_read_is_named(tmp_path: Path, value: str) -> None:
    store = Store(tmp_path / "store.sqlite")
    store.note(Wanted(("a",)))
    store._db.execute("UPDATE facts SET value = ?", (value,))
    for read in (lambda: store.fact(Wanted), store.facts):
        with pytest.raises(StoreError, match=r"what it says of asked cannot be read. Give another --out"):
            read()


@pytest.mark.parametrize(
    "found",
    [{"me_ppl": {}}, {"me_ppl": {"name": "me_ppl", "wrong": 1}}, {"me_ppl": 3}, [], {"me_ppl": {"value": None}}],
)
def test_a_base_that_holds_no_measurements_cannot_be_read(tmp_path: Path, found: object) -> None:
    store = Store(tmp_path / "store.sqlite")
    store.note(Unedited("gpt2", "f", "t", 0.0, {}))
    body = {"model": "gpt2", "fingerprint": "f", "texts": "t", "noise": 0.0, "found": found}
    store._db.execute("UPDATE facts SET value = ?", (json.dumps(body),))
    with pytest.raises(StoreError, match=r"what it says of unedited cannot be read. Give another --out"):
        store.facts()


def test_a_fact_of_a_kind_that_is_unknown_here_is_passed_over(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    store.note(Wanted(("a",)))
    store._db.execute("INSERT INTO facts VALUES ('weather', '', '{}')")
    assert store.facts() == RunFacts(asked=Wanted(("a",)))


def test_facts_are_found_by_what_they_are_about() -> None:
    facts = RunFacts.of(EVERY)
    assert facts.models["gpt2"].parameters == 2_900_000
    assert facts.editors["gpt2", "rome"].hparams["layers"] == [3]
    assert facts.problems == {("gpt2", "memit"): "memit on gpt2 needs a covariance."}
    assert facts.drifted == {("gpt2", "rome")}
    assert facts.not_applicable == {"a-case": "ft takes no batch"}
    assert facts.software["editsafety"] == "1.0"
    assert (facts.asked.probed, facts.ended.interrupted, facts.judged) == (("b-case",), False, {"perplexity"})


def test_without_any_fact_the_run_never_got_to_its_end() -> None:
    facts = RunFacts.of([])
    assert facts == RunFacts()
    assert facts.ended.interrupted


def test_without_a_word_on_it_every_check_was_asked_for_and_else_only_those_that_are_named() -> None:
    assert RunFacts().asks_for("perplexity")
    facts = RunFacts.of([JudgedCheck("perplexity"), JudgedCheck("course kept")])
    assert [facts.asks_for(name) for name in ("perplexity", "course kept", "kept", "restore")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_a_record_is_found_by_its_block_s_key_that_of_courses_where_abilities_are_measured() -> None:
    facts = RunFacts.of([BlockKey("gpt2", "rome", "single", "course")])
    assert facts.key_of(SINGLE) == SINGLE.key("single")
    assert facts.key_of(COURSE) == COURSE.key("course")
    probed = replace(SINGLE, probed=True)
    assert facts.key_of(probed) == SINGLE.key("course") != SINGLE.key("single")
    assert facts.key_of(replace(SINGLE, editor="memit")) is None
    assert facts.key_of(replace(SINGLE, model="pocket-neo")) is None


def test_the_block_of_an_editor_of_one_s_own_is_found_by_its_short_name() -> None:
    facts = RunFacts.of([BlockKey("gpt2", "rect(Mine)", "single", "course")])
    case = replace(SINGLE, editor="rect(some/file.py:Mine)")
    assert facts.key_of(case) == case.key("single")


def test_unedited_measurements_belong_to_weights_and_texts_and_come_back_as_such() -> None:
    unedited = next(fact for fact in EVERY if isinstance(fact, Unedited))
    assert unedited.measurements == {"me_ppl": PERPLEXITY}
    others = [replace(unedited, fingerprint="e" * 64), replace(unedited, texts="u" * 64), replace(unedited, model="x")]
    assert len({one.name for one in (unedited, *others)}) == 4


@pytest.mark.parametrize(
    ("compared", "different", "holds", "said"),
    [
        (0, (), False, "no case gave an edit, so nothing can be compared"),
        (3, (), True, "3 cases are the same bytes in another order"),
        (3, ("a", "b"), False, "not the same bytes when computed alone in another order: a, b"),
    ],
)
def test_an_order_that_was_not_compared_does_not_hold(
    compared: int, different: tuple[str, ...], holds: bool, said: str
) -> None:
    order = OrderFacts("gpt2", "rome", compared, different, "key")
    assert (order.holds, order.sentence) == (holds, said)
