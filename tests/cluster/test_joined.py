"""Facts of several workers: compared where they must agree, replaced where the last word counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from editsafety.cluster.joined import JoinedFacts
from editsafety.errors import StoreError
from editsafety.runs.facts import ModelFacts, Problem, Software, Yardstick
from editsafety.runs.store import Store

MODEL = ModelFacts("pocket-neo", "f" * 64, 2_900_000, "cpu", "float32", noise=1e-7)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store.sqlite")
    yield made
    made.close()


def test_machines_that_compute_under_other_conditions_are_refused_by_name(store: Store) -> None:
    joined = JoinedFacts(store)
    assert joined.take("worker-1", MODEL)
    assert not joined.take("worker-2", replace(MODEL, threads=8, noise=3e-7))
    assert store.facts().models["pocket-neo"].noise == 3e-7
    with pytest.raises(
        StoreError, match=r"worker-3: .*than worker-1 .*fingerprint is 'eeee.*the same weights, packages"
    ):
        joined.take("worker-3", replace(MODEL, fingerprint="e" * 64))
    joined.take("worker-1", Software({"torch": "2.13.0"}))
    with pytest.raises(StoreError, match=r"versions is .*2\.6\.0"):
        joined.take("worker-2", Software({"torch": "2.6.0"}))


def test_a_worker_goes_on_with_its_own_readings_and_those_of_others_are_left(store: Store) -> None:
    joined = JoinedFacts(store)
    for worker, seconds in (("worker-1", (1.0,)), ("worker-2", (9.0,)), ("worker-1", (1.0, 1.1))):
        joined.take(worker, Yardstick("pocket-neo", "rome", seconds, "a machine"))
    assert store.facts().yardsticks["pocket-neo", "rome"].seconds == (1.0, 1.1)


def test_of_what_stands_in_the_way_the_last_word_counts(store: Store) -> None:
    joined = JoinedFacts(store)
    joined.take("worker-1", Problem("pocket-neo", "rome", "no file on node a"))
    joined.take("worker-2", Problem("pocket-neo", "rome", "no file on node b"))
    assert store.facts().problems["pocket-neo", "rome"] == "no file on node b"


def test_what_an_earlier_session_left_is_replaced_and_not_compared(store: Store) -> None:
    store.note(Software({"torch": "2.6.0"}))
    JoinedFacts(store).take("worker-1", Software({"torch": "2.13.0"}))
    assert store.facts().software == {"torch": "2.13.0"}
