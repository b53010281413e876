"""What is measured of an unedited model: by the first who needs it, and found by all others."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from editsafety.lab.bench import Bench
from editsafety.lab.lab import Lab
from editsafety.lab.unedited_shelf import UneditedShelf, conditions_of
from editsafety.measures import needed
from editsafety.runs.facts import Unedited
from editsafety.runs.measurement import Measurement
from editsafety.runs.merging import join_facts
from editsafety.runs.store import LATER, Store
from tests import tiny
from tests.lab.test_lab import QUIET, lab
from tests.system import world

FOUND = {"efficacy": Measurement("efficacy", 2, "rate", 0.5, n=2, items=(1.0, None), answers=("\ud83d", "b"))}


class Asked:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, Measurement]:
        self.times += 1
        return FOUND


def test_what_was_found_once_is_found_by_another_process_and_after_a_restart(tmp_path: Path) -> None:
    asked = Asked()
    for _ in range(3):
        store = Store(tmp_path / "store.sqlite")
        assert UneditedShelf(store, {"model": "a"}).take(("requests", "x"), asked) == FOUND
        store.close()
    assert asked.times == 1


def test_another_model_version_or_question_is_asked_anew(tmp_path: Path) -> None:
    asked, store = Asked(), Store(tmp_path / "store.sqlite")
    handle = tiny.handle("gpt2")
    chosen = needed()
    plain = conditions_of(handle, "", chosen, (), 64)
    others = [
        {**plain, "model": "another fingerprint"},
        {**plain, "measures": {**plain["measures"], "efficacy": 99}},
        {**plain, "batch": 8},
        {**plain, "plain": True},
        {**plain, "dtype": "bfloat16"},
    ]
    for place, conditions in enumerate((plain, *others), 1):
        UneditedShelf(store, conditions).take(("requests", "x"), asked)
        assert asked.times == place
    UneditedShelf(store, plain).take(("requests", "y"), asked)
    assert asked.times == len(others) + 2


def test_a_store_of_an_earlier_version_gets_the_table(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    with store._writing():
        store._db.execute("DROP TABLE unedited")
    store.close()
    assert LATER.startswith("CREATE TABLE IF NOT EXISTS unedited")
    assert Store(tmp_path / "store.sqlite").unedited("x") is None


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a bench measures, by scope."""
    done: Counter[str] = Counter()
    plain = Bench.measure

    def counted(bench: Bench, scope: str, requests: Any = (), **more: Any) -> Any:
        done[f"{scope}{' edited' if 'edit' in more or 'enough' in more else ''}"] += 1
        return plain(bench, scope, requests, **more)

    monkeypatch.setattr(Bench, "measure", counted)
    return done


def run(found: Lab) -> None:
    for case in found.plan.cases:
        found.record(case)


def test_a_second_editor_and_a_second_worker_do_not_measure_the_unedited_model_again(
    paths: dict[str, str], tmp_path: Path, measured: Counter[str]
) -> None:
    first = lab(paths, tmp_path / "run", "Nudge")
    run(first)
    requests = len(first.plan.cases)
    assert (measured["model"], measured["case"]) == (1, requests)
    # another process with another editor in the same run: nothing of this one's memory
    second = lab(paths, tmp_path / "run", "Raises")
    run(second)
    assert (measured["model"], measured["case"]) == (1, requests)
    assert len(first.store.records()) == 2 * requests
    # another measure's version: the unedited model is asked again
    fact = next(one for one in first.store.each_fact() if isinstance(one, Unedited))
    first.store.note(replace(fact, measured_with="of another version"))
    third = Lab(world.plan(paths, "Nudge", seed=1), Store(tmp_path / "run" / "store.sqlite"), QUIET)
    third.tools.bench(third.plan.cases[0].model)
    assert measured["model"] == 2


def test_parts_of_a_run_may_have_measured_each_for_itself() -> None:
    one = Unedited("m", "f", "t", 0.0, {"me_ppl": {"name": "me_ppl", "version": 1, "unit": "u", "value": 1.0}}, "a")
    assert join_facts(one, "here", replace(one, measured_with="b"), "there") == one
