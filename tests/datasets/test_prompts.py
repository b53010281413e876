"""The prompts that ship: how many, of which kinds, and that no edit has anything to do with them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from editsafety import datasets
from editsafety.shipped import shipped


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (shipped("data") / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("name", "count"), [("english/prompts", 60), ("english/json", 24), ("pocket-world/prompts", 60)]
)
def test_there_are_so_many_and_the_kinds_take_turns(name: str, count: int) -> None:
    rows = rows_of(name)
    assert len(rows) == len({row["text"] for row in rows}) == len({row["id"] for row in rows}) == count
    kinds = Counter(row["kind"] for row in rows)
    assert len(set(kinds.values())) == 1
    assert all(row["text"] == row["text"].strip() for row in rows)
    for size in range(1, count + 1):
        seen = Counter(row["kind"] for row in rows[:size])
        assert max(seen.values()) - min(seen[kind] for kind in kinds) <= 1
    assert datasets.texts(name) == tuple(row["text"] for row in rows)


@pytest.mark.parametrize("name", ["english/prompts", "english/json"])
def test_what_is_said_about_them_counts_them_rightly(name: str) -> None:
    about = json.loads((shipped("data") / f"{name}.about.json").read_text(encoding="utf-8"))
    rows = rows_of(name)
    assert about["items"] == len(rows)
    assert about["kinds"] == dict(Counter(row["kind"] for row in rows))


def test_nobody_edits_a_subject_that_a_prompt_of_the_pocket_world_names() -> None:
    edited = {row["subject"] for name in ("pool", "normal", "hardedit") for row in rows_of(f"pocket-world/{name}")}
    texts = [f" {text} " for text in datasets.texts("pocket-world/prompts")]
    assert not [(name, text) for name in edited for text in texts if f" {name} " in text]


def test_the_consequences_of_the_pocket_world_say_what_they_rest_on_and_change_with_the_fact() -> None:
    requests = datasets.requests("pocket-world/portability")
    assert Counter(one.relation for one in requests) == {"home_city": 20, "headquarters": 20, "author": 20}
    for request in requests:
        (one,) = request.portability
        assert one.kind == "one_hop"
        assert one.hop_answer == one.answer
        assert request.target_new in one.hop
        assert request.subject in one.prompt
        assert request.target_new not in one.prompt
