"""The English requests that ship: how many, how varied, in whole sentences, and apart from each other."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from typing import Any

import pytest

from editsafety import datasets
from editsafety.datasets.request import EditRequest
from editsafety.research.hardcases import vetting
from editsafety.research.hardcases.vetting import holds
from editsafety.shipped import shipped

NORMAL = datasets.requests("english/normal")
POOL = datasets.requests("english/pool")
BOTH = pytest.mark.parametrize("rows", [NORMAL, POOL], ids=["normal", "pool"])
ARTICLES = re.compile(r"\b(an?|the) (an?|the)\b")  # one article, then another


def about(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shipped("data") / "english" / f"{name}.about.json").read_text(encoding="utf-8"))
    return found


def sentences(row: EditRequest) -> list[str]:
    """Every prompt of a request, with what is to come behind it."""
    asked = [(row.filled, row.target_new), (row.filled, row.target_true or "")]
    asked += [(text, row.target_true or "") for text in row.rephrasings]
    asked += [(one.prompt, one.answer) for one in (*row.neighbours, *row.portability)]
    asked += [(one.hop, one.hop_answer) for one in row.portability if one.hop]
    return [f"{prompt} {answer}" for prompt, answer in asked]


@BOTH
def test_nothing_is_wrong_with_them_by_the_rules_for_any_request(rows: tuple[EditRequest, ...]) -> None:
    assert vetting.vet(rows) == ()


@pytest.mark.parametrize(("name", "rows", "least"), [("normal", NORMAL, 300), ("pool", POOL, 1000)])
def test_they_are_as_many_and_as_varied_as_is_said(name: str, rows: tuple[EditRequest, ...], least: int) -> None:
    said = about(name)
    assert len(rows) == said["rows"] >= least
    assert len({row.relation for row in rows}) == said["relations"] >= 25
    assert sum(row.subject_first for row in rows) == said["subject_first"]
    assert sum(len(row.subject.split()) > 1 for row in rows) == said["subjects_of_several_words"]
    assert [row.id for row in rows] == [f"{name}-{i:04d}" for i in range(1, len(rows) + 1)]


def test_a_good_half_of_the_subjects_of_ordinary_requests_stand_inside_their_prompt() -> None:
    inside = sum(not row.subject_first for row in NORMAL) / len(NORMAL)
    assert 0.5 < inside < 0.7
    assert 0.4 < sum(row.subject_first for row in POOL) / len(POOL) < 0.6, "half and half where collapse is searched"


def test_most_subjects_of_ordinary_requests_are_several_words() -> None:
    assert sum(len(row.subject.split()) > 1 for row in NORMAL) > 0.55 * len(NORMAL)


def test_ordinary_requests_can_be_asked_otherwise_and_have_neighbours_of_the_same_answer() -> None:
    for row in NORMAL:
        assert len(row.rephrasings) >= 2, row.id
        assert len(row.neighbours) >= 3, row.id
        for one in row.neighbours:
            assert one.answer == row.target_true, row.id
            assert not holds(one.prompt, row.subject), (row.id, one.prompt)
            assert not holds(one.prompt, one.answer), (row.id, one.prompt)
        assert all(holds(text, row.subject) for text in row.rephrasings), row.id
    assert all(row.rephrasings for row in POOL)


def test_no_neighbour_is_about_a_subject_that_another_request_edits() -> None:
    """Else a sequence of edits would be blamed for what it was asked to do."""
    edited = {row.subject.casefold() for row in NORMAL}
    for row in NORMAL:
        for one in row.neighbours:
            named = [subject for subject in edited if f" {subject} " in f" {one.prompt.casefold()} "]
            others = [r for r in NORMAL if r.subject.casefold() in named and r.relation == row.relation]
            assert others == [], (row.id, one.prompt, others)


def test_a_fact_that_follows_answers_for_the_new_target_and_not_for_the_true_one() -> None:
    kinds = Counter(one.kind for row in NORMAL for one in row.portability)
    assert kinds == about("normal")["portability"]
    assert sum(bool(row.portability) for row in NORMAL) > 0.3 * len(NORMAL)
    for row in NORMAL:
        for one in row.portability:
            assert (one.answer == row.target_new) is (one.kind == "alias"), row.id


def test_what_has_to_be_known_beforehand_is_said_and_is_no_fact_about_the_edited_subject() -> None:
    """Else a question would never count: only the unedited model's answer to it tells whether an edit can be blamed."""
    for row in NORMAL:
        for one in row.portability:
            if one.kind == "one_hop":
                assert one.hop_answer == one.answer, row.id
                assert holds(one.hop, row.target_new), (row.id, one.hop)
            if one.kind == "inverse":
                assert one.hop_answer == one.answer == row.subject, row.id
                assert one.hop.replace(row.target_true or "", row.target_new) == one.prompt, (row.id, one.hop)
            assert one.kind == "alias" or not holds(one.hop, row.subject), (row.id, one.hop)
    backwards = [one.prompt for row in NORMAL for one in row.portability if one.kind == "inverse"]
    assert len(set(backwards)) == len(backwards), "two edits of a sequence would answer the same question differently"


def test_no_subject_is_in_both_sets_and_none_is_edited_twice_in_the_ordinary_one() -> None:
    subjects = Counter(row.subject for row in NORMAL)
    assert max(subjects.values()) == 1
    assert not set(subjects) & {row.subject for row in POOL}
    assert len({(row.subject, row.relation) for row in POOL}) == len(POOL)


def test_new_targets_are_answers_of_the_same_relation() -> None:
    answers = vetting.answers_of((*NORMAL, *POOL))
    for row in (*NORMAL, *POOL):
        assert row.target_new.casefold() in answers[row.relation], (row.id, row.target_new)


def test_no_two_requests_contradict_each_other_about_what_is_true() -> None:
    truths: defaultdict[tuple[str, str], set[str | None]] = defaultdict(set)
    for row in (*NORMAL, *POOL):
        truths[row.relation, row.subject.casefold()].add(row.target_true)
    assert {key: found for key, found in truths.items() if len(found) > 1} == {}


@BOTH
def test_prompts_are_sentences_with_one_article_at_a_time(rows: tuple[EditRequest, ...]) -> None:
    for row in rows:
        for sentence in sentences(row):
            assert ARTICLES.search(sentence) is None, sentence
            assert "  " not in sentence, sentence
            assert sentence[0].isupper() or not sentence[0].isalpha() or any(map(str.isupper, sentence.split()[0]))


@BOTH
def test_the_relations_take_turns(rows: tuple[EditRequest, ...]) -> None:
    assert len({row.relation for row in rows[:40]}) == 40
