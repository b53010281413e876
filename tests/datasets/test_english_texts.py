"""The English texts that ship: how many, how long, in which registers, and that none is much like another."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from editsafety import datasets
from editsafety.shipped import shipped

REGISTERS = {
    "news", "encyclopaedia", "fiction", "dialogue", "instructions", "reviews", "law", "science", "code comments",
    "letters",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    lines = (shipped("data") / "english" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def test_there_are_three_hundred_and_twenty_texts_thirty_two_of_each_register(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 320
    assert Counter(row["register"] for row in rows) == dict.fromkeys(REGISTERS, 32)
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row.keys() == {"id", "register", "text"} for row in rows)


def test_wherever_the_texts_are_cut_off_no_register_has_two_more_than_another(rows: list[dict[str, Any]]) -> None:
    for count in range(1, len(rows) + 1):
        seen = Counter(row["register"] for row in rows[:count])
        assert max(seen.values()) - min(seen[name] for name in REGISTERS) <= 1
    assert set(Counter(row["register"] for row in rows[:50]).values()) == {5}


def test_every_text_has_twenty_to_a_hundred_and_twenty_words_and_no_space_around_it(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert 20 <= len(row["text"].split()) <= 120, row["id"]
        assert row["text"] == row["text"].strip(), row["id"]
    lengths = sorted(len(row["text"].split()) for row in rows)
    assert lengths[32] < 40 < 75 < lengths[-16], "lengths differ as those of real texts do"


def test_no_two_texts_share_eight_words_in_a_row_or_begin_with_the_same_four(rows: list[dict[str, Any]]) -> None:
    runs: dict[tuple[str, ...], str] = {}
    starts: dict[tuple[str, ...], str] = {}
    for row in rows:
        found = words(row["text"])
        assert starts.setdefault(tuple(found[:4]), row["id"]) == row["id"]
        for place in range(len(found) - 7):
            assert runs.setdefault(tuple(found[place : place + 8]), row["id"]) == row["id"]


def test_none_of_the_eight_word_runs_is_in_the_texts_of_the_pocket_world(rows: list[dict[str, Any]]) -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        found = words(text)
        return {tuple(found[place : place + 8]) for place in range(len(found) - 7)}

    others = set().union(*(runs(text) for text in datasets.texts("pocket-world/texts")))
    assert not others & set().union(*(runs(row["text"]) for row in rows))


def test_they_are_read_by_name_as_they_are_written_in_that_order(rows: list[dict[str, Any]]) -> None:
    assert datasets.texts("english/texts") == tuple(row["text"] for row in rows)
    assert "english/texts" in datasets.names()


def test_what_is_said_about_them_counts_them_rightly(rows: list[dict[str, Any]]) -> None:
    about = json.loads((shipped("data") / "english" / "texts.about.json").read_text(encoding="utf-8"))
    assert about["registers"] == dict(Counter(row["register"] for row in rows))
