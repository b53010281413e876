"""`editsafety experiment` and `editsafety keys` as a user types them."""

from __future__ import annotations

import json

import pytest
import torch

from editsafety import tensor_files
from tests import tiny
from tests.system.commands import ROME


@pytest.fixture
def options(paths, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(tiny.SENTENCES), encoding="utf-8")
    (tmp_path / "rome.yaml").write_text(f"{ROME}mom2_corpus: {corpus}\n")
    sets = [f"--{name}={paths[name]}" for name in ("hard", "normal")]
    return [f"--model={paths['model']}", *sets, "--device=cpu", "--hparams=rome.yaml"]


def test_every_experiment_of_the_papers_is_listed_with_its_command(command):
    done = command("experiment", "--list")
    assert done.code == 0
    for name in ("first-token", "second-to-first", "denominators", "c-rome", "weights", "correlation", "sequential"):
        assert name in done.out
    assert "editsafety surrogate" in done.out


def test_an_experiment_is_shown_and_written(command, options, paths, tmp_path):
    done = command("experiment", "denominators", *options, "--texts-from", paths["texts"], "--out", "found")
    assert done.code == 0, done.err
    assert "shows: the denominators of hard edits are" in done.out
    body = json.loads((tmp_path / "found/denominators-tiny-model.json").read_text())
    assert [row["stream"] for row in body["rows"]] == ["hard", "normal"]
    assert body["published"].startswith("GPT-2 XL: numerator 168.55")
    again = command("experiment", "denominators", *options, "--texts-from", paths["texts"], "--out", "found", "--quiet")
    assert (again.code, again.out, again.err) == (0, "", "")  # nothing is computed twice


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["experiment"], "no experiment was named. `editsafety experiment --list` says which there are"),
        (["experiment", "c-rome"], "no model was given. Name one: editsafety experiment c-rome --model pocket-neo"),
        (["experiment", "correlation"], "is a command of its own: editsafety surrogate"),
        (["experiment", "crome"], "did you mean 'c-rome'"),
    ],
)
def test_an_invalid_command_is_one_sentence(command, words, said):
    done = command(*words)
    assert done.code == 4
    assert said in done.err
    assert done.err.count("\n") == 1


def test_keys_are_printed_saved_and_drawn(command, options, tmp_path, paths):
    assert command("prepare", options[0], "--editor=rome", "--hparams=rome.yaml", "--device=cpu").code == 0
    done = command(
        "keys", *options, "--each", "--contexts", "-o", "keys.safetensors", "--map", "map.svg",
        "--texts", 3, "--texts-from", paths["texts"],
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "|denominator|" in done.out
    assert "hard-0 Ashurn" in done.out
    tensors, about = tensor_files.load(tmp_path / "keys.safetensors")
    assert [row[:2] for row in about["entries"]] == [
        ["hard-0", "hard"], ["hard-1", "hard"], ["normal-0", "normal"], ["normal-1", "normal"],
    ]  # fmt: skip
    assert tensors["contexts"].shape == (4, 3, tiny.INNER)
    assert torch.equal(tensors["contexts"][:, 0], tensors["bare"])
    assert (tmp_path / "map.svg").read_text().startswith("<?xml")
    assert (
        len((tmp_path / "map.csv").read_text().splitlines())
        == len(json.loads((tmp_path / "map.json").read_text())["points"]) + 1
    )


def test_keys_of_an_unprepared_editor_name_the_command(command, options):
    done = command("keys", *options)
    assert done.code == 4
    assert "Run: editsafety prepare --model" in done.err


def test_a_causal_trace_is_printed_drawn_and_saved_beside_the_picture(command, tmp_path):
    words = ["trace", "--model", "pocket-neo", "--facts", 2, "--samples", 1, "--device=cpu"]
    done = command(*words, "--kind=state", "--map", "trace.svg")
    assert done.code == 0, done.err
    assert "2 facts to trace in pocket-neo: about 0 min" in done.err
    assert "last subject token" in done.out
    saved = json.loads((tmp_path / "trace.json").read_text())
    assert {one["kind"] for one in saved["averages"]} == {"state"}
    assert len(saved["facts"]) == 2
    assert (tmp_path / "trace.svg").read_text().startswith("<?xml")
    refused = command(*words, "--map", "trace.bmp")
    assert refused.code == 4
    assert "end its name in .svg, .png, .pdf" in refused.err


def test_fewer_known_facts_than_asked_for_are_told(command, tmp_path):
    from editsafety import datasets

    row = datasets.requests("pocket-world/normal", limit=1)[0]
    named = ("id", "prompt", "subject", "target_new", "target_true")
    (tmp_path / "facts.jsonl").write_text(json.dumps({name: getattr(row, name) for name in named}) + "\n")
    done = command("trace", "--model", "pocket-neo", "--requests", "facts.jsonl", "--kind=state", "--device=cpu")
    assert done.code == 0, done.err
    assert "pocket-neo knows 1 of the facts in facts.jsonl; 20 were asked for" in done.err


def test_a_calibration_is_shown_and_written_where_hparams_takes_it_from(command, tmp_path):
    from tests.research.calibration.test_calibrating import NUMBERS

    (tmp_path / "few.yaml").write_text(NUMBERS)
    words = ["--model", "pocket-neo", "--editor", "rome", "--device=cpu"]
    few = ["--facts", 1, "--edits", 1, "--others", 1, "--minutes", 0, "--hparams", "few.yaml"]
    done = command("calibrate", *words, *few)
    assert done.code == 0, done.err
    assert "sets of numbers" in done.err
    assert "saved rome-pocket-neo.yaml; use it with --hparams rome=rome-pocket-neo.yaml" in done.out
    assert (tmp_path / "rome-pocket-neo.yaml").read_text().startswith("# rome on pocket-neo, calibrated with")
    refused = command("calibrate", "--model", "pocket-neo", "--editor", "noop")
    assert refused.code == 4
    assert "the numbers of noop are not sought here" in refused.err
