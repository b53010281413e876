"""Fluency of texts: by hand, and on thousands of published generations against nltk's word_tokenize."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from statistics import mean

import pytest

from editsafety.measures._fluency import (
    entropy,
    generation_entropy,
    longest_run,
    ngrams,
    repetition,
    unigram_entropy,
    words,
)

# Mean of 100 GE over 1,000 texts each, by nltk 3.9 with its Punkt model for English, as the published code computes it.
BY_NLTK = {"GPT-2 XL": 626.570, "FT_L": 621.366, "MEND": 627.447, "ROME": 623.049}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The farmer, however, didn't go.", "The farmer , however , did n't go ."),
        ("He lives in the U.S. and works.", "He lives in the U.S. and works ."),
        ("Mr. Kelm left. She stayed.", "Mr. Kelm left . She stayed ."),
        ("It cost $3,600 at 10:30 a.m. today", "It cost $ 3,600 at 10:30 a.m. today"),
        ("Wait... what?!", "Wait ... what ? !"),
        ("the (old) well-known house's roof", "the ( old ) well-known house 's roof"),
        ("'Tis he'll cannot gonna", "' Tis he 'll can not gon na"),
        ('He said "yes." Then left', 'He said `` yes . " Then left'),
        ("one--two – three", "one -- two – three"),
        ("the dogs' bowls", "the dogs ' bowls"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_words_are_those_of_the_treebank(text: str, expected: str) -> None:
    assert words(text) == expected.split()


def test_entropy_of_equal_shares_is_the_logarithm_of_their_number() -> None:
    assert entropy(ngrams("abcd", 1)) == 2.0
    assert entropy(ngrams("abab", 2)) == pytest.approx(-(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3)))
    assert entropy(ngrams("aaaa", 1)) == 0.0
    assert entropy(ngrams("a", 2)) is None


def test_generation_entropy_weighs_pairs_and_triples_as_published() -> None:
    text = "a b c d e f g h i"  # 8 different pairs, 7 different triples
    assert generation_entropy(text) == pytest.approx((2 / 3 * 3 + 4 / 3 * math.log2(7)) / 2)
    assert generation_entropy("the the the the the") == 0.0
    assert generation_entropy("two words") is None


def test_unigram_entropy_is_one_for_even_words_and_zero_for_a_single_one() -> None:
    assert unigram_entropy(["A farmer. works"]) == pytest.approx(1.0)
    assert unigram_entropy(["Farm. farm farm", "FARM"]) == 0.0
    assert unigram_entropy([" . ", ""]) is None
    two = unigram_entropy(["a a a b"])
    assert two == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))


def test_repetition_is_the_share_of_triples_that_were_there_before() -> None:
    assert repetition("abcabcabc") == pytest.approx(1 - 3 / 7)
    assert repetition("abcdef") == 0.0
    assert repetition("ab") is None


def test_the_longest_run_counts_neighbours_only() -> None:
    assert longest_run([]) == 0
    assert longest_run([7]) == 1
    assert longest_run([1, 2, 2, 2, 1, 2, 2]) == 3
    assert longest_run([None, None]) == 2


@pytest.fixture(scope="module")
def published() -> dict[str, list[str]]:
    """1,000 texts each of GPT-2 XL unedited and edited by FT-L, MEND and ROME."""
    here = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("EDITSAFETY_SHARED", here.parent / "shared"))
    path = folder / "data" / "texts" / "sample_collection.json"
    if not path.is_file():
        pytest.skip(f"{path} is not here: the published generations cannot be compared")
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {name: [text for row in rows for text in row[name]] for name in BY_NLTK}


def test_the_figures_of_real_generations_are_those_of_nltk(published: dict[str, list[str]]) -> None:
    for name, texts in published.items():
        assert len(texts) == 1000
        ours = mean(100 * (generation_entropy(text) or 0.0) for text in texts)
        assert ours == pytest.approx(BY_NLTK[name], abs=0.15)  # plain text.split() is 16 off


def test_real_generations_have_the_published_level_and_hardly_repeat(published: dict[str, list[str]]) -> None:
    for texts in published.values():
        entropies = [100 * (generation_entropy(text) or 0.0) for text in texts]
        assert 600 < mean(entropies) < 635
        assert sum(figure < 500 for figure in entropies) < 30
        assert 0.04 < mean(repetition(words(text)) or 0.0 for text in texts) < 0.08
