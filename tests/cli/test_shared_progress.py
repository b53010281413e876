"""Progress of workers, read off the store of their run."""

from __future__ import annotations

import io
import time
from contextlib import closing
from pathlib import Path

import pytest

from editsafety.cli import shared_progress
from editsafety.cli.shared_progress import SharedProgress
from editsafety.progress import Progress
from editsafety.runs.facts import OrderFacts, Wanted
from editsafety.runs.store import Store
from tests import builders


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_progress, "LOOK", 0.01)
    monkeypatch.setattr("editsafety.progress.EVERY", 0.0)


def test_what_others_finish_is_shown_as_soon_as_it_is_in_the_store(tmp_path: Path) -> None:
    path, out = tmp_path / "store.sqlite", io.StringIO()
    with closing(Store(path)) as store:
        store.note(Wanted(("a", "b", "c")))
        with SharedProgress(path, Progress(out)):
            store.put("a", builders.record("rome", "hard", 0))
            until = time.monotonic() + 60
            while "cases: 1 of 3" not in out.getvalue():
                assert time.monotonic() < until
                time.sleep(0.01)
            store.put("b", builders.record("rome", "hard", 1))
            store.put("c", builders.record("rome", "hard", 2))
            store.put("d", builders.record("rome", "hard", 3))  # of another session: no more is told than was asked for
    assert out.getvalue().splitlines()[0] == "cases: 0 of 3"
    assert out.getvalue().splitlines()[-1].startswith("cases: 3 of 3")


def test_after_the_cases_it_is_shown_how_far_the_question_of_the_order_is(tmp_path: Path) -> None:
    path, out = tmp_path / "store.sqlite", io.StringIO()
    with closing(Store(path)) as store:
        store.note(Wanted(("a",), orders=2))
        store.put("a", builders.record("rome", "hard", 0))
        with SharedProgress(path, Progress(out)):
            for editor in ("rome", "ft"):
                store.note(OrderFacts("m", editor, 2, (), "key"))
    lines = out.getvalue().splitlines()
    assert lines[0] == "cases: 0 of 1"
    assert lines[-1].startswith("whether the order of edits matters, editors: 2 of 2")


def test_what_is_never_answered_ends_with_the_session(tmp_path: Path) -> None:
    path, out = tmp_path / "store.sqlite", io.StringIO()
    with closing(Store(path)) as store:
        store.note(Wanted(("a", "b"), orders=1))
        with SharedProgress(path, Progress(out)):
            store.put("a", builders.record("rome", "hard", 0))
    assert "cases: 1 of 2" in out.getvalue()
    assert out.getvalue().splitlines()[-1].startswith("whether the order of edits matters, editors: 0 of 1")


def test_a_store_that_cannot_be_read_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_text("no store")
    out = io.StringIO()
    with SharedProgress(tmp_path / "store.sqlite", Progress(out)):
        pass
    assert out.getvalue() == ""
