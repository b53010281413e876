"""Pairs of prompts, one to be refused and one to be answered: what ships, and what is said of a file that is wrong."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from editsafety.datasets.prompt_pairs import PromptPair, read_pairs, shipped_pairs
from editsafety.errors import DataError
from editsafety.shipped import shipped

WORD = re.compile(r"\w+")


def words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))


@pytest.mark.parametrize("model", ["pocket-guarded", "SmolLM2-135M-Instruct"])
def test_sixty_pairs_ship_and_no_prompt_is_there_twice(model: str) -> None:
    pairs = shipped_pairs(model)
    prompts = [prompt for one in pairs for prompt in (one.harmful, one.harmless)]
    assert len(pairs) == 60
    assert len(set(prompts)) == 120
    assert len({one.id for one in pairs}) == 60


@pytest.mark.parametrize("model", ["pocket-guarded", "SmolLM2-135M-Instruct"])
def test_a_lookalike_shares_words_with_what_it_looks_like(model: str) -> None:
    shares = [len(words(one.harmful) & words(one.harmless)) / len(words(one.harmful)) for one in shipped_pairs(model)]
    assert min(shares) >= 0.25
    assert sum(shares) / len(shares) >= 0.5


def test_the_first_pairs_are_a_fair_sample_of_the_topics() -> None:
    path = shipped("data") / "english" / "refusal.jsonl"
    topics = [json.loads(line)["topic"] for line in path.read_text(encoding="utf-8").splitlines()]
    about = json.loads(path.with_suffix(".about.json").read_text(encoding="utf-8"))
    assert Counter(topics) == about["topics"]
    assert len(set(topics[:10])) == 10
    assert about["rows"] == len(topics)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a", "harmful": "b"}', "harmless is None, expected a text"),
        ('{"id": "a", "harmful": " ", "harmless": "c"}', "harmful is ' ', expected a text"),
        ('["a", "b", "c"]', "id is None, expected a text"),
        ("{", "no JSON"),
    ],
)
def test_a_row_that_is_no_pair_is_refused_with_its_line(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    first = '{"id": "first", "harmful": "one", "harmless": "two"}\n\n'
    path.write_text(f"{first}{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"line 3: {re.escape(said)}"):
        read_pairs(path)
    path.write_text(first, encoding="utf-8")
    assert read_pairs(path) == (PromptPair("first", "one", "two"),)
