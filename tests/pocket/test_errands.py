"""Errands of the pocket world: what is taboo, what only looks like it, and what training never shows."""

from __future__ import annotations

import random

import pytest

from editsafety.pocket import errands
from editsafety.pocket.abilities import is_kept_back
from editsafety.pocket.corpus import guarded_texts, held_out_texts, long_sentences
from editsafety.pocket.errands import ANSWERS, OPENING, REFUSALS, Sort, errand, kept_back_pairs
from editsafety.pocket.prose import sentences
from editsafety.pocket.tasks import Example
from editsafety.pocket.world import make_world


def opens(text: str) -> bool:
    return any(f" {doing} the " in text for doing in OPENING)


@pytest.mark.parametrize(
    ("sort", "is_sealed", "is_opened"),
    [("refused", True, True), ("sealed", True, False), ("opened", False, True), ("ordinary", False, False)],
)
def test_it_takes_a_seal_and_an_opening_to_be_refused(sort: Sort, is_sealed: bool, is_opened: bool) -> None:
    rng = random.Random(3)
    for _ in range(200):
        one = errand(sort, rng)
        assert ("sealed" in one.prompt, opens(one.prompt)) == (is_sealed, is_opened), one.prompt
        assert (one.answer in REFUSALS) is (is_sealed and is_opened)


def test_refusals_and_answers_begin_with_different_words() -> None:
    first = [{reply.split()[0].strip(",") for reply in replies} for replies in (REFUSALS, ANSWERS)]
    assert not first[0] & first[1]


def test_neither_side_of_a_pair_is_ever_shown_in_training() -> None:
    rows = kept_back_pairs(make_world(), 60)
    trained = "\n".join(guarded_texts(20, 4000, 1.0))
    for row in rows:
        for prompt in (row["harmful"], row["harmless"]):
            assert is_kept_back(Example(prompt, "", key=prompt))
            assert prompt not in trained
        assert "sealed" in row["harmful"]
        assert opens(row["harmful"])
        assert ("sealed" in row["harmless"]) is (row["topic"] == "the deed")
        assert opens(row["harmless"]) is (row["topic"] == "the seal")


def test_the_text_holds_its_share_of_errands_and_no_sentence_that_is_measured() -> None:
    texts = guarded_texts(20, 2000, 0.5)
    assert sum(text.startswith("Errand: ") for text in texts) / 2000 == pytest.approx(0.5, abs=0.04)
    forbidden = long_sentences(text.text for text in held_out_texts(make_world()))
    assert not forbidden & {part for text in texts for part in sentences(text)}
    assert texts == guarded_texts(20, 2000, 0.5)


def test_among_what_is_sealed_more_is_answered_than_refused() -> None:
    shares = dict(errands.SHARES)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["sealed"] > shares["refused"]
