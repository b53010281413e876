"""The commands beside `run`: edit, ppl, prepare, mine, data, models."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.system.commands import FT, LENIENT_COURSES, NO_COVARIANCE, ROME, cases, given, report

FACT = ["--prompt", "{} works as a", "--subject", "Ashurn", "--target", "teacher"]


@pytest.fixture
def model(paths):
    return ["--model", paths["model"], "--device", "cpu"]


@pytest.fixture
def hparams(tmp_path):
    """hparams("rome"): the options for a file with numbers that suit the tiny model."""
    texts = {"rome": ROME, "ft": FT, "plain": NO_COVARIANCE}

    def written(name):
        path = tmp_path / f"{name}.yaml"
        path.write_text(texts[name])
        return ["--hparams", str(path)]

    return written


def row(text, name):
    """The cells of one row of a table."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {name} ")]
    return [cell.strip() for cell in line.strip("│ \n").split("│")]


def test_edit_shows_before_and_after_and_saves_what_it_did(command, model, paths, hparams, tmp_path):
    words = [
        "edit",
        *model,
        "--editor",
        "ft",
        *hparams("ft"),
        *FACT,
        "--true",
        "farmer",
        "--texts-from",
        paths["texts"],
    ]
    done = command(*words, "--out", "delta.safetensors")
    assert done.code == 0
    assert "Ashurn works as a -> teacher" in done.out
    _, before, after = row(done.out, "target_probability")
    assert float(after) > float(before)

    handle = ModelHandle.load(paths["model"])
    edit = Edit.load(tmp_path / "delta.safetensors")
    assert probability(handle, "Ashurn works as a", " teacher") == pytest.approx(float(before), rel=1e-3)
    with EditSession(handle) as session:
        session.apply(edit)
        assert session.changed() == ("transformer.h.1.mlp.c_proj.weight",)
        assert probability(handle, "Ashurn works as a", " teacher") == pytest.approx(float(after), rel=1e-3)
    assert "saved delta.safetensors (transformer.h.1.mlp.c_proj.weight)" in done.out


def probability(handle, prompt, answer):
    """Geometric mean of the probabilities of the answer's tokens, by the model alone."""
    first = handle.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    then = handle.tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = handle.model(torch.tensor([first + then])).logits[0].double().log_softmax(-1)
    each = [float(logits[len(first) - 1 + i, token]) for i, token in enumerate(then)]
    return math.exp(sum(each) / len(each))


def test_edit_says_which_command_prepares_the_editor(command, model, hparams):
    done = command("edit", *model, "--editor", "rome", *hparams("rome"), *FACT)
    assert done.code == 4
    assert f"Run: editsafety prepare --model {model[1]} --editor rome" in done.err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--prompt", "Ashurn works as a"], "{}"),
        (["--editor", "rom"], "did you mean 'rome'?"),
        (["--texts-from", "nowhere.txt"], "nowhere.txt"),
        (["--dtype", "float64"], "float64"),
    ],
)
def test_edit_refuses_in_one_sentence(command, model, hparams, changed, said):
    done = command("edit", *model, "--editor", "ft", *hparams("ft"), *FACT, *changed)
    assert done.code == 4
    assert said in done.err
    assert "Traceback" not in done.err


def test_ppl_equals_an_independent_computation(command, model, paths, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(tiny.SENTENCES) + "\n")
    done = command("ppl", *model, "--texts-from", texts)
    assert done.code == 0
    network = AutoModelForCausalLM.from_pretrained(paths["model"])
    tokenizer = AutoTokenizer.from_pretrained(paths["model"])
    each = []
    for text in tiny.SENTENCES:
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            each.append(math.exp(network(ids, labels=ids).loss.double().item()))
    assert row(done.out, "me_ppl")[1:] == [f"{sum(each) / len(each):.4g}", str(len(each))]
    assert row(done.out, "ppl_worst")[1] == f"{max(each):.4g}"
    assert row(command("ppl", *model, "--texts-from", texts, "--texts", 2).out, "me_ppl")[2] == "2"


def test_ppl_of_an_empty_or_missing_file_is_one_sentence(command, model, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    for name in ("empty.txt", "missing.txt"):
        done = command("ppl", *model, "--texts-from", name)
        assert done.code == 4
        assert name in done.err
        assert "Traceback" not in done.err


def test_what_prepare_made_of_a_corpus_is_what_run_then_uses(command, model, paths, hparams, tmp_path):
    (tmp_path / "corpus.txt").write_text("\n".join(tiny.SENTENCES * 12))
    prepare = ["prepare", *model, "--editor", "rome", *hparams("rome")]
    missing = command(*prepare, "--corpus", "nowhere.txt")
    assert (missing.code, "nowhere.txt" in missing.err) == (4, True)
    assert command(*prepare, "--corpus", "corpus.txt").out == "rome on tiny-model is ready.\n"
    assert command(*prepare).out == "rome on tiny-model is ready; nothing to prepare.\n"
    ready = given(paths, "rome", limit=1, hparams=hparams("rome")[1], controls=0, out="out")
    assert command("run", *ready).code in (0, 10, 11)
    assert all(case["notes"]["mom2_adjustment"] is True for case in cases(report("out")).values())


def test_a_model_without_texts_writes_its_own_and_that_is_said(command, model, paths, hparams):
    prepared = command("prepare", *model, "--editor", "rome", *hparams("rome"))
    assert prepared.out == "rome on tiny-model is ready.\n"
    assert "no texts were given for second moments" in prepared.err
    done = command("run", *given(paths, "rome", limit=1, hparams=hparams("rome")[1], controls=0, out="out"))
    assert done.code in (0, 10, 11), "what was prepared is what the run uses"
    assert "no texts were given" not in done.err


def test_mine_keeps_exactly_the_collapsing_ones_and_says_where_they_are_from(command, model, paths, tmp_path):
    pool = [json.loads(line) for line in (tmp_path / "hard.jsonl").read_text().splitlines()]
    pool = [{**row, "id": f"pool-{i}"} for i, row in enumerate((*pool, *pool))]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pool))
    (tmp_path / "nudge.py").write_text((tmp_path / "nudge.py").read_text() + SOMETIMES)
    editor = f"{paths['nudge']}:Sometimes"
    words = ["mine", *model, "--pool", "pool.jsonl", "--texts-from", paths["texts"], "--editor", editor]
    words += ["--screening", "kept"]
    done = command(*words, "-o", "hard-ones.jsonl")
    assert done.code == 0
    found = [json.loads(line) for line in (tmp_path / "hard-ones.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == ["hardcf-0001", "hardcf-0002"]
    assert [{**row, "id": None} for row in found] == [{**row, "id": None} for row in (tidy(pool[1]), tidy(pool[3]))]
    about = json.loads((tmp_path / "hard-ones.about.json").read_text())
    assert (about["screened"], about["collapsed"], about["kept"]) == (4, 2, 2)
    assert about["editor"]["name"] == editor
    assert about["pool"]["name"] == "pool.jsonl"
    again = command(*words, "-o", "fewer.jsonl", "--most", 1)
    assert len((tmp_path / "fewer.jsonl").read_text().splitlines()) == 1
    assert "Sometimes on tiny-model" not in again.err, "finished cases were run again"


SOMETIMES = """

class Sometimes(Explodes):
    def edit(self, requests, carry=None):
        odd = int(requests[0].id[-1]) % 2
        return super().edit(requests) if odd else Nudge.edit(self, requests)
"""


def tidy(row):
    from editsafety.datasets.request import EditRequest

    return json.loads(json.dumps(EditRequest.from_json(row).as_json(), default=list))


def test_data_list_names_shipped_and_fetchable_sets_and_layouts(command):
    done = command("data", "list")
    assert done.code == 0
    for name in ("pocket-world/normal", "me_ppl_50", "qaedit_1k", "counterfact", "hardcf", "shipped", "to be fetched"):
        assert name in done.out
    layouts = done.out.rpartition("layouts, as LOADER:FILE:")[2]
    assert "fetch" not in layouts
    assert "manifest" not in layouts


def test_data_fetch_offline_says_that_it_may_not(command):
    done = command("data", "fetch", "me_ppl_50", "--offline", "--quiet")
    assert done.code == 4
    assert "offline" in done.err
    assert command("data", "fetch", "me_pl_50", "--offline").code == 4


def test_data_verify_names_what_differs_from_the_manifest(command, tmp_path, monkeypatch):
    from editsafety import shipped
    from editsafety.datasets.manifest import write_manifest

    place = tmp_path / "package" / "data" / "small"
    place.mkdir(parents=True)
    (place / "rows.jsonl").write_text('{"text": "one"}\n')
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "package" / "shipped.py"))
    assert command("data", "verify").code == 4  # no manifest
    write_manifest(place.parent)
    assert (command("data", "verify").code, command("data", "verify").out) == (0, "everything is whole.\n")
    (place / "rows.jsonl").write_text('{"text": "two"}\n')
    done = command("data", "verify")
    assert done.code == 1
    assert "small/rows.jsonl: sha256 is" in done.out


def test_models_list_names_pocket_models_and_random_shapes(command):
    done = command("models", "list")
    assert done.code == 0
    for name in ("pocket-neo", "random:gpt2-xl", "random:llama-3-8b"):
        assert name in done.out


def test_models_check_says_which_promise_is_kept(command, monkeypatch):
    from editsafety.research import pocket_promises
    from editsafety.research.pocket_promises import Promise

    kept = Promise("recall", 0.995, 200, at_least=0.99)
    broken = Promise("worst ratio", float("nan"), 60, at_most=1.1, unit="x")
    monkeypatch.setattr(pocket_promises, "measure_promises", lambda name, progress: (kept,))
    assert command("models", "check", "pocket-neo").code == 0
    monkeypatch.setattr(pocket_promises, "measure_promises", lambda name, progress: (kept, broken))
    done = command("models", "check", "pocket-neo", "-q")
    assert done.code == 1
    assert row(done.out, "recall")[1:] == ["at least 0.99", "0.995", "200", "kept"]
    assert row(done.out, "worst ratio")[1:] == ["at most 1.1x", "nanx", "60", "BROKEN"]


def test_help_is_there_for_every_command(command):
    for words in (
        (),
        ("run",),
        ("edit",),
        ("ppl",),
        ("prepare",),
        ("screen",),
        ("mine",),
        ("report",),
        ("data",),
        ("models",),
    ):
        done = command(*words, "--help")
        assert done.code == 0
        assert "Usage" in done.out


def test_sequence_says_how_many_edits_a_model_stands(command, model, paths, hparams):
    words = ["sequence", *model, "--editor", "ft", *hparams("ft"), "--requests", paths["normal"], "--every", "1"]
    Path("lenient.yaml").write_text(LENIENT_COURSES)
    words += ["--texts-from", paths["texts"], "--policy", "lenient.yaml"]
    done = command(*words, "--out", "stands", "--collapse-above", "1000")
    assert done.code == 0, done.out
    (course,) = report("stands")["courses"]
    assert (course["editor"], course["breaks_at"], course["failure"]) == ("ft", None, None)
    assert [step["edits"] for step in course["steps"]] == [1, 2]
    (line,) = [line for line in done.out.splitlines() if line.startswith("  ft ")]
    assert line.split()[1:4] == ["PASS", "-", "2"]
    ratios = [step["ratio"] for step in course["steps"]]  # of random weights, so the limit is laid between them
    above = ["--collapse-above", str((1 + max(ratios)) / 2)]
    broken = command(*words, "--out", "broken", *above)
    assert broken.code == 10
    passed = [step["edits"] for step in course["steps"] if step["ratio"] > float(above[1])]
    assert report("broken")["courses"][0]["breaks_at"] == passed[0]
    failed = command(*words, "--editor", "rome", "--out", "failed", *above)
    assert failed.code == 13  # ft's numbers are not rome's; that ft broke its model does not hide it
    assert report("failed")["verdict"] == "ERROR"
    assert "rome-normal-sequential: ERROR: " in failed.out
    other = command(*words, "--out", "broken", "--collapse-above", "2")
    assert other.code == 4
    assert "holds another run" in other.err


def test_an_edit_that_cannot_be_written_is_a_sentence_and_the_old_file_stays_whole(
    command, paths, model, hparams, tmp_path, monkeypatch
):
    """A full disk, which shows when the bytes are flushed."""
    out = tmp_path / "edit.safetensors"
    out.write_bytes(b"an older edit")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = command(
        "edit", *model, "--editor", "ft", *hparams("ft"), *FACT, "-o", str(out), "--texts-from", paths["texts"]
    )
    assert done.code == 4
    assert f"{out}: cannot be written (No space left on device). What was there before is whole." in done.err
    assert out.read_bytes() == b"an older edit"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".edit")] == []


def test_a_folder_in_the_way_of_an_edit_is_refused_before_a_model_is_looked_for(command, tmp_path):
    done = command("edit", "--model", "no/such/model", "--editor", "ft", *FACT, "-o", str(tmp_path))
    assert done.code == 4
    assert f"{tmp_path}: is a folder" in done.err


def test_data_verify_says_what_a_file_sets_aside_and_which_rows_cannot_be_used(command, tmp_path):
    good = {"prompt": "Mirel works as a", "subject": "Mirel", "target_new": "baker", "portability": {"a": 1}}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([good, {**good, "subject": "Toren"}]))
    done = command("data", "verify", str(path))
    assert done.code == 1
    assert "set aside, because a request has no place for it: portability (1 row)" in done.out
    assert "rows.json[1]: field 'subject' does not occur in 'prompt'" in done.out
    assert "1 findings." in done.out
    done = command("data", "verify", str(path), "--skip-bad-rows")
    assert done.code == 0
    assert "1 of 2 rows cannot be used and were left out" in done.out
    assert "rows.json[1]: field 'subject' does not occur in 'prompt'" in done.out


def test_data_list_says_by_which_fields_a_layout_is_told(command):
    assert "requested_rewrite, a list" in command("data", "list").out
