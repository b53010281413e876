"""`python -m editsafety.pocket`: what it writes, what it says, and how it refuses."""

from __future__ import annotations

import json

import pytest

from editsafety.pocket import __main__ as command
from editsafety.pocket import build
from editsafety.shipped import shipped
from tests import tiny


def test_data_writes_the_files_that_are_shipped(tmp_path, capsys):
    assert command.main(["data", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for name in ("pool", "normal", "texts", "recall", "refusal"):
        text = (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        assert f"{name}.jsonl: {len(rows)} rows" in said
        assert text == (shipped("data") / "pocket-world" / f"{name}.jsonl").read_text(encoding="utf-8")


def test_an_unknown_pocket_model_is_refused_with_the_known_ones(tmp_path, capsys):
    assert command.main(["build", "pocket-nero", "--out", str(tmp_path)]) == 2
    assert "did you mean 'pocket-neo'?" in capsys.readouterr().err


def test_build_says_how_far_it_is_and_what_the_model_then_recalls(tmp_path, capsys, monkeypatch):
    def quick(out, *, spec, seed, threads, progress):
        tiny.folder(out, "gpt_neo")
        for step in range(1, 251):
            progress(step, 250, 2.5)

    monkeypatch.setattr(build, "build", quick)
    assert command.main(["build", "pocket-neo", "--out", str(tmp_path / "model")]) == 0
    lines = capsys.readouterr().out.splitlines()
    steps = [line.partition(",")[0] for line in lines if line.startswith("pocket-neo: step")]
    assert steps == [f"pocket-neo: step {step}/250" for step in (100, 200, 250)]
    figures = {line[:32].strip(): float(line[32:]) for line in lines if line[32:33] == " " and "." in line[32:]}
    assert figures["recall, mid-sentence, trained"] < 0.01  # random weights know nothing
    assert figures["perplexity"] > 50


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(command.sys.stdout, "isatty", lambda: True, raising=False)
    with command._progress("pocket-neo") as progress:
        progress(1, 10, 3.0)
        progress(10, 10, 1.0)


@pytest.mark.parametrize("words", [[], ["train"], ["build"]])
def test_what_cannot_be_meant_ends_with_usage(words):
    with pytest.raises(SystemExit) as end:
        command.main(words)
    assert end.value.code == 2
