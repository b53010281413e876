"""Screening a pool and mining it, and vetting requests, from the command line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from editsafety.model.handle import ModelHandle
from tests.system.commands import Command

SOMETIMES = """

class Sometimes(Explodes):
    def edit(self, requests, carry=None):
        odd = int(requests[0].id[-1]) % 2
        return super().edit(requests) if odd else Nudge.edit(self, requests)
"""
SUBJECTS = ("Ashurn", "Mirel", "Toren", "Kelmar", "Dorvan", "Ostrin")


@pytest.fixture
def words(paths: dict[str, str], tmp_path: Path) -> list[str]:
    """What `screen` and `mine` have in common: six requests, of which those with an odd number collapse the model."""
    rows = [
        {"id": f"p{i}", "prompt": "{} works as a", "subject": subject, "target_new": "farmer", "target_true": "baker"}
        for i, subject in enumerate(SUBJECTS)
    ]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    nudge = tmp_path / "nudge.py"
    nudge.write_text(nudge.read_text() + SOMETIMES)
    given = ["--model", paths["model"], "--device", "cpu", "--pool", "pool.jsonl", "--texts-from", paths["texts"]]
    return [*given, "--editor", f"{paths['nudge']}:Sometimes"]


def test_screen_says_how_many_collapse_and_writes_every_case(command: Command, words: list[str]) -> None:
    done = command("screen", *words, "--out", "found")
    assert done.code == 0, done.err
    assert "screened: 6" in done.out
    assert "collapsed (above 2x): 3 (50.0%)" in done.out
    body = json.loads(Path("found/report.json").read_text())
    assert [(case["id"], case["collapsed"]) for case in body["cases"]] == [(f"p{i}", i % 2 == 1) for i in range(6)]
    assert body["pool"]["sha256"] == hashlib.sha256(Path("pool.jsonl").read_bytes()).hexdigest()
    assert done.out.count("worst: ") == 3


def test_a_larger_sample_and_mine_go_on_where_a_screening_stopped(command: Command, words: list[str]) -> None:
    assert "screened: 2" in command("screen", *words, "--limit", 2).out
    first = command("screen", *words, "--shard", "1/2")
    assert "screened: 3" in first.out
    assert "Sometimes on tiny-model: 2 of 2" in first.err, "p0 was there already"
    whole = command("mine", *words, "-o", "hard.jsonl")
    assert whole.code == 0
    assert "kept: 3" in whole.out
    again = command("mine", *words, "-o", "again.jsonl")
    assert "Sometimes on tiny-model" not in again.err, "finished cases were run again"
    assert Path("again.jsonl").read_bytes() == Path("hard.jsonl").read_bytes()
    assert Path("again.about.json").read_bytes() == Path("hard.about.json").read_bytes()


def test_what_is_mined_says_where_it_is_from(command: Command, words: list[str], paths: dict[str, str]) -> None:
    assert command("mine", *words, "-o", "hard.jsonl").code == 0
    about = json.loads(Path("hard.about.json").read_text())
    assert about["model"]["fingerprint"] == ModelHandle.load(paths["model"]).fingerprint()
    assert len(about["editor"]["code"]) == 64
    assert about["pool"]["name"] == "pool.jsonl"
    assert about["pool"]["sha256"] == hashlib.sha256(Path("pool.jsonl").read_bytes()).hexdigest()
    figures = {name: about[name] for name in ("screened", "collapsed", "kept", "collapsed_above_ratio", "seed")}
    assert figures == {"screened": 6, "collapsed": 3, "kept": 3, "collapsed_above_ratio": 2.0, "seed": 0}
    assert "editsafety" in about["computed_with"]
    assert set(about) == {
        "model", "editor", "pool", "texts", "seed", "computed_with", "screened", "without_result", "collapsed",
        "collapsed_above_ratio", "one_token_first", "others", "kept",
    }, "nothing of the day or the place"  # fmt: skip
    kept = [json.loads(line) for line in Path("hard.jsonl").read_text().splitlines()]
    assert [(row["id"], row["subject"]) for row in kept] == [
        ("hardcf-0001", "Mirel"), ("hardcf-0002", "Kelmar"), ("hardcf-0003", "Ostrin"),
    ]  # fmt: skip


def test_an_editor_that_always_fails_is_no_screening(command: Command, words: list[str], paths: dict[str, str]) -> None:
    nudge = Path(paths["nudge"])
    nudge.write_text(nudge.read_text() + "\n\nclass Never(Nudge):\n    def edit(self, r, carry=None):\n        1 / 0\n")
    done = command("screen", *words[:-1], f"{paths['nudge']}:Never")
    assert done.code == 4
    assert "not one of 6 cases has a result: " in done.err
    assert "ZeroDivisionError" in done.err


def test_preview_counts_without_a_model(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(ModelHandle, "load", never)
    done = command("screen", "--model", "pocket-neo", "--pool", "pocket-world/pool", "--preview")
    assert done.out.splitlines() == [
        "requests: 360 of 360", "subject in first place: 240", "a single word there: 170",
        "one token of pocket-neo there: 170",
    ]  # fmt: skip


def test_data_verify_vets_a_file_by_the_rules_asked_for(command: Command, tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "In Rome {} is a", "subject": "Old Tom", "target_new": "Rome", "target_true": "baker"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    done = command("data", "verify", "rows.jsonl")
    assert (done.code, done.out.splitlines()[-1]) == (1, "1 findings.")
    assert "rows.jsonl:1: field 'prompt' gives away the new target 'Rome'" in done.out
    strict = command("data", "verify", "rows.jsonl", "--as", "hardedit")
    assert "rows.jsonl:1: field 'subject' is not a single word: 'Old Tom'" in strict.out
    assert command("data", "verify", "hardedit").out == "everything is whole.\n"
    assert "did you mean 'hardedit'" in command("data", "verify", "rows.jsonl", "--as", "hardedits").err
    assert command("data", "verify", "--as", "hardedit").code == 4
