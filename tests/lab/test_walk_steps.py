"""What is measured at the steps of a course: what is said by now, what is forgotten, what is spared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from editsafety.lab.bench import Bench
from tests.lab.walking import REQUESTS, Parrot, Push, bench_of, course, editor, go, values


@pytest.fixture
def bench() -> Bench:
    return bench_of("gpt2")


def test_recent_and_kept_are_the_exact_match_of_efficacy_and_forgetting_shows(bench: Bench, tmp_path: Path) -> None:
    words = [word for word in ("a", "the", "in", "of", "works", "farmer") if len(bench.handle.target_ids(word)) == 1]
    assert len(words) >= 2, words
    one, two = words[:2]
    said = [one, one, two, two, two, one]
    requests = [replace(request, target_new=word) for request, word in zip(REQUESTS, said, strict=False)]
    along = course("sequential", requests, every=2)
    record = go(bench, editor(Parrot, bench, tmp_path), along, limit=math.inf, stop=False)
    # By hand: after "one one" all is kept; after "two two" the first two are lost; after "two one" the ones are back.
    assert values(record, "recent") == [1.0, 1.0, 0.5]
    assert values(record, "kept") == [1.0, 0.5, 0.5]
    assert record.steps[1].found["kept"].items == (0.0, 0.0, 1.0, 1.0)
    assert record.steps[2].found["kept"].n == 6
    assert record.steps[1].found["recent"].answers[0].startswith(f" {two}")
    assert record.steps[0].found["locality"].value == 0.0  # every neighbour is answered with the target now


def test_neighbours_are_compared_with_what_the_unedited_model_says_of_them(bench: Bench, tmp_path: Path) -> None:
    gentle = editor(Push, bench, tmp_path)
    gentle.deltas = lambda requests, count: (gentle.along(1e-9),)  # type: ignore[method-assign]
    record = go(bench, gentle, course("sequential", every=3), limit=math.inf)
    assert values(record, "locality") == [1.0, 1.0, 1.0]
    assert [step.found["locality"].n for step in record.steps] == [3, 3, 1]
