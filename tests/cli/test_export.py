"""`editsafety export` as a user types it, over a run of the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.commands import given, report


@pytest.fixture
def ran(command, paths):
    """A run that has ended, in the folder `out`."""
    command("run", *given(paths, "Nudge", limit=1, out="out", controls=0))
    return "out"


def test_every_file_is_written_and_bound_to_the_weights_of_the_run(ran, command):
    words = ("--badge", "new/badge.svg", "--model-card", "card.md", "--eval-results", "results.yaml")
    done = command("export", ran, *words, "--dataset", "someone/edits")
    assert (done.code, done.err) == (0, "")
    fingerprint = report("out")["models"]["tiny-model"]["fingerprint"]
    assert f"new/badge.svg: INEFFECTIVE of tiny-model, weights sha256 {fingerprint}" in done.out
    assert f"INEFFECTIVE {fingerprint[:12]}<" in Path("new/badge.svg").read_text()
    assert fingerprint in Path("card.md").read_text()
    assert "task_id: Nudge-efficacy" in Path("results.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to export"),
        (("--eval-results", "r.yaml"), "--eval-results needs --dataset"),
        (("--badge", "b.svg", "--dataset", "a/b"), "go with --eval-results"),
        (("--badge", "."), "is a folder"),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_written(command, tmp_path, words, said):
    done = command("export", "nowhere", *words)
    assert (done.code, said in done.err) == (4, True)
    assert list(tmp_path.glob("*.svg")) == []


def test_a_folder_without_a_run_is_refused(command):
    done = command("export", "nowhere", "--badge", "b.svg")
    assert done.code == 4
    assert "nowhere: cannot be read" in done.err
