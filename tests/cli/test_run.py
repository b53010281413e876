"""`editsafety run` and `report` as a user types them: exit codes, selection, what is printed and what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from editsafety import datasets
from tests.system import world
from tests.system.commands import FT, LENIENT, ROOT, cases, given, report


def written(folder, name, text):
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize(
    ("editor", "code", "verdict", "more"),
    [
        ("Explodes", 10, "COLLAPSE", {}),
        ("Nudge", 11, "INEFFECTIVE", {}),
        ("Raises", 13, "ERROR", {}),
        ("Nudge", 0, "PASS", {"policy": LENIENT}),
    ],
    ids=["collapse", "ineffective", "error", "pass"],
)
def test_the_exit_code_is_that_of_the_worst_verdict(run, tmp_path, editor, code, verdict, more):
    more = {name: written(tmp_path, f"{name}.yaml", text) for name, text in more.items()}
    done = run(editor, limit=1 if editor != "Raises" else 2, **more)
    assert done.code == code
    assert report("out")["verdict"] == verdict
    assert f"exit code {code}" in done.out
    assert "report    out/report.md" in done.out
    assert "page      out/report.html" in done.out


@pytest.mark.parametrize(
    ("editors", "code"),
    [(("Explodes", "Nudge"), 0), (("Nudge", "Raises"), 13)],
    ids=["collapsed but ran", "a case in error"],
)
def test_report_only_exits_0_when_the_job_ran_and_the_controls_behaved(run, editors, code):
    assert run(*editors, report_only=True).code == code


def test_report_only_is_not_0_when_a_control_misbehaves(run, monkeypatch):
    from editsafety.runs import plan

    monkeypatch.setattr(plan, "CONTROLS", {"noop": "COLLAPSE"})
    done = run("Nudge", limit=1, report_only=True)
    assert done.code == 13
    assert "but COLLAPSE was expected, so no other verdict can be trusted" in " ".join(done.out.split())


def test_nothing_selected_is_14_and_never_a_pass(run):
    done = run("Nudge", k="no-such-case")
    assert done.code == 14
    assert "nothing was judged" in done.err


def test_a_model_that_knows_none_of_the_facts_is_14_and_says_how_many_it_was_asked(run):
    done = run("Nudge", known=True)
    assert done.code == 14
    assert "nothing was judged" in done.err
    assert "normal: the unedited model gives the true answer of 0 of the 2 requests that it was asked" in done.err


def test_known_facts_only_are_edited_where_that_is_asked_for_and_the_report_says_how_many(command):
    words = ["run", "--model", "pocket-neo", "--editor", "noop", "--normal", "rows.jsonl", "--known", "--limit", "2"]
    rows = datasets.requests("pocket-world/normal", limit=3)
    asked = [replace(rows[0], target_true="none of the kind"), *rows[1:]]
    Path("rows.jsonl").write_text("".join(json.dumps(row.as_json()) + "\n" for row in asked))
    for _ in range(2):  # the second time from what the first kept
        command(*words, "--texts", "2", "--suite", "collapse", "--out", "out", "--device", "cpu")
        assert list(cases(report("out"))) == [f"pocket-neo-noop-{row.id}" for row in rows[1:]]
        (sentence,) = report("out")["plan"]["unread"]["pocket-neo normal"]
        assert sentence.startswith("the unedited model gives the true answer of 2 of the 3 requests")
    assert "gives the true answer of 2 of the 3 requests" in " ".join(command("report", "out").out.split())


def test_k_runs_only_the_cases_that_match(run):
    run("Nudge", k="Nudge-hard-1")
    assert list(cases(report("out"))) == ["tiny-model-Nudge-hard-1"]


def test_several_models_and_editors_in_one_run(command, paths, tmp_path):
    other = world.tiny.folder(tmp_path / "other-model", "gpt_neo", knows=True)
    words = given(paths, "Nudge", "noop", limit=1, out="out")
    assert command("run", f"--model={other}", *words).code == 11
    assert {(group["model"], group["editor"]) for group in report("out")["groups"]} == {
        (model, editor) for model in ("tiny-model", "other-model") for editor in ("Nudge", "noop")
    }


def test_perplexity_of_a_model_that_is_no_pocket_model_is_that_of_the_english_texts(command, paths, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = world.tiny.folder(tmp_path / "small-gpt2", knows=True, n_positions=1024)
    words = [f"--normal={paths['normal']}", "--editor=noop", "--limit=1", "--texts=4", "--device=cpu", "--out=out"]
    command("run", f"--model={place}", *words)
    assert json.loads(Path("out/plan.json").read_text())["data"]["small-gpt2 texts"] == "english/texts"
    (case,) = cases(report("out")).values()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    rows = (ROOT / "data" / "english" / "texts.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    batches = [tokenizer(json.loads(row)["text"], return_tensors="pt")["input_ids"] for row in rows]
    each = [float(model(ids, labels=ids).loss.detach().exp()) for ids in batches]
    assert case["before"]["me_ppl"]["value"] == pytest.approx(sum(each) / 4, rel=1e-4)


def test_a_model_of_random_weights_is_measured_on_the_english_texts_too(command, paths, tmp_path):
    place = world.tiny.config_folder(tmp_path / "shape", n_positions=1024)
    words = [f"--normal={paths['normal']}", "--editor=noop", "--limit=1", "--texts=2", "--device=cpu", "--out=out"]
    command("run", f"--model=random:{place}", *words)
    assert json.loads(Path("out/plan.json").read_text())["data"]["shape texts"] == "english/texts"
    (case,) = cases(report("out")).values()
    assert case["before"]["me_ppl"]["n"] == 2


def test_offline_a_data_set_that_would_have_to_be_fetched_is_one_sentence_before_a_model_is_loaded(command, paths):
    words = [f"--model={paths['model']}", f"--normal={paths['normal']}", "--editor=noop", "--texts-from=me_ppl_50"]
    done = command("run", *words, "--offline")
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith("ERROR: me_ppl_50 is not in the cache")
    assert "editsafety data fetch me_ppl_50" in done.err


def test_quiet_prints_nothing(run):
    done = run("Explodes", limit=1, quiet=True)
    assert (done.code, done.out, done.err) == (10, "", "")


def test_progress_goes_to_standard_error_and_the_report_to_standard_output(run):
    done = run("Nudge", limit=1)
    assert "Nudge on tiny-model: 2 of 2" in done.err
    assert "Nudge on tiny-model:" not in done.out
    assert done.out.rstrip().endswith("exit code 11")


@pytest.mark.slow
def test_workers_come_to_the_same_report(run):
    assert run("Nudge", n=2, out="two").code == 11
    assert run("Nudge", out="one").code == 11
    one, two = (cases(report(folder)) for folder in ("one", "two"))
    assert one.keys() == two.keys()
    for name, case in one.items():
        assert case["edit_id"] == two[name]["edit_id"]
        assert case["after"]["me_ppl"]["value"] == pytest.approx(two[name]["after"]["me_ppl"]["value"], rel=1e-6)


def test_a_users_hparams_file_is_used_and_reported(run, tmp_path):
    path = written(tmp_path, "mine.yaml", FT)
    run("ft", hparams=f"ft={path}", limit=1)
    assert report("out")["editors"]["tiny-model:ft"]["hparams"]["num_steps"] == 5
    run("ft", hparams=written(tmp_path, "other.yaml", FT.replace("steps: 5", "steps: 2")), limit=1, out="other")
    assert report("other")["editors"]["tiny-model:ft"]["hparams"]["num_steps"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--editor", "romee"], "no editor named 'romee'; did you mean 'rome'?"),
        (["--policy", "defualt"], "no policy named 'defualt'; did you mean 'default'?"),
        (["--hparams", "nowhere.yaml"], "nowhere.yaml: there is no such file"),
        (["--texts-from", "pocket-world/text"], "did you mean 'pocket-world/texts'?"),
        (["--limit", "0"], "expected at least 1"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_an_invalid_command_is_one_sentence_and_exit_code_4(command, paths, words, said):
    done = command("run", *given(paths, "Nudge"), *words)
    assert done.code == 4
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a", "prompt": "{} is", "subject": "A"}', "target_new"),
        ('{"id": "a", "prompt": "it is", "subject": "A", "target_new": "b"}', "prompt"),
        ("{", "no whole JSON value"),
        ("", "is empty"),
    ],
)
def test_a_bad_row_is_named_with_file_row_and_field_before_any_model_loads(command, paths, tmp_path, line, said):
    bad = written(tmp_path, "bad.jsonl", line)
    done = command("run", *given({**paths, "normal": bad}, "Nudge"))
    assert done.code == 4
    assert "bad.jsonl" in done.err
    assert said in done.err
    assert line == "" or "bad.jsonl:1" in done.err


def test_an_editor_without_numbers_for_the_model_goes_on_with_those_of_the_nearest_and_says_so(run):
    done = run("rome", "Nudge", limit=1)
    assert done.code == 11
    # 4 * (3 - 1) / (12 - 1) is 0.73; ten tokens for each of 64 dimensions
    said = "those of gpt2 (rome/gpt2.yaml), layers [4] of 12 as [1] of 3"
    assert f"rome: no numbers ship for tiny-model, so they are {said}" in done.err
    assert "so the model writes 640 tokens itself" in done.err
    found = report("out")
    assert found["footnotes"] == [f"numbers of rome on tiny-model: {said}; nobody has measured whether they suit it"]
    assert found["editors"]["tiny-model:rome"]["hparams"]["layers"] == [1]
    assert found["editors"]["tiny-model:Nudge"]["carried_from"] is None
    assert [one["tentative"] for one in found["controls"]] == [True, True, False]
    assert "numbers carried over" in done.out


def test_what_stops_a_whole_editor_is_in_the_report_and_the_others_are_judged(run, paths, tmp_path):
    done = run("rome", "Nudge", limit=1, controls=0, hparams=f"rome={written(tmp_path, 'rome.yaml', 'layer: 1')}")
    assert done.code == 13
    assert "unknown hyperparameter 'layer'" in " ".join(done.out.split())
    assert {group["editor"]: group["verdict"] for group in report("out")["groups"]} == {
        "rome": "ERROR",
        "Nudge": "INEFFECTIVE",
    }


def test_an_editor_that_cannot_even_be_made_is_named_with_its_line(run, tmp_path):
    (tmp_path / "nudge.py").write_text((tmp_path / "nudge.py").read_text() + UNMADE)
    done = run("Unmade", limit=1)
    assert done.code == 13
    assert "Unmade on tiny-model cannot be run: ZeroDivisionError: division by zero (nudge.py:" in " ".join(
        done.out.split()
    )


UNMADE = """

class Unmade(Nudge):
    def __init__(self, *args, **more):
        1 / 0
"""


def test_a_model_that_is_not_available_is_said_once_and_not_tried_for_every_item(run, paths, monkeypatch, command):
    from editsafety.model.handle import ModelHandle

    tried, real = [], ModelHandle.load
    monkeypatch.setattr(ModelHandle, "load", lambda spec: tried.append(spec) or real(spec))
    done = command("run", *given({**paths, "model": "nobody/no-such-model"}, "Nudge", out="out", offline=True))
    assert done.code == 13
    assert "no-such-model" in done.out
    assert len(tried) <= 4  # once for the editor and for each control


def test_a_limit_on_something_that_no_measure_gives_is_refused_before_a_model_is_loaded(run, tmp_path):
    policy = written(tmp_path, "mine.yaml", LENIENT.replace("measure: efficacy", "measure: efficasy"))
    done = run("Nudge", limit=1, policy=policy)
    assert done.code == 4
    assert "no measurement named 'efficasy'; did you mean 'efficacy'?" in " ".join(done.err.split())


def test_a_blocked_folder_is_one_sentence(run, tmp_path):
    written(tmp_path, "file", "not a folder")
    done = run("Nudge", limit=1, out="file")
    assert done.code == 4
    assert "file: cannot hold a run" in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_folder_of_another_run_is_refused(run):
    run("Nudge", limit=1, quiet=True)
    done = run("Nudge", limit=1, seed=1)
    assert done.code == 4
    assert "out: holds another run" in done.err


@pytest.mark.slow
def test_the_replay_command_of_a_checkout_can_be_pasted(run, monkeypatch):
    done = run("Explodes", limit=1)
    (line,) = [line for line in done.out.splitlines() if line.startswith("replay")]
    words = line.split()[1:]
    assert words[:2] == ["pytest", f"{ROOT / 'suites'}/collapse"]
    again = subprocess.run(
        [sys.executable, "-m", *words, "-p", "no:cacheprovider", "-q"], capture_output=True, text=True, check=False
    )
    assert "COLLAPSE tiny-model-Explodes-hard-0" in again.stdout


@pytest.mark.parametrize(
    ("part", "limit"),
    [
        ("case", "mine: {measure: delta_relative, figure: after, pass_at_most: 0.0, fails_as: DAMAGED, why: x}"),
        ("group", "mine: {measure: efficacy, figure: after, pass_at_least: 2.0, fails_as: DAMAGED, why: x}"),
    ],
)
def test_a_limit_that_no_suite_names_is_judged_all_the_same(command, paths, part, limit):
    Path("mine.yaml").write_text(LENIENT.replace(f"{part}:\n", f"{part}:\n  {limit}\n"))
    Path("lenient.yaml").write_text(LENIENT)
    words = [*given(paths, policy="mine.yaml", out="own"), "--editor", f"{paths['nudge']}:Nudge", "--controls", "0"]
    done = command("run", *words)
    assert done.code == 11, done.out
    assert "mine" in done.out
    usual = [*given(paths, policy="lenient.yaml", out="usual"), *words[words.index("--editor") :]]
    assert command("run", *usual).code == 0
    assert command("report", "usual").code == 0
    assert command("report", "usual", "--policy", "mine.yaml").code == 11


def test_a_plan_says_what_a_run_is_going_to_take_and_runs_nothing(command, tmp_path):
    done = command("run", "--model=pocket-neo", "--editor=rome", "--limit=2", "--device=cpu", "--plan", "--out=out")
    assert done.code == 0, done.err
    assert "2.9 M parameters as float32 on cpu" in done.out
    assert "together on cpu:" in done.out
    assert "single edits and controls: about" in done.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("cores", "told"), [(3, True), (1, False)])
def test_a_plan_says_how_many_workers_would_share_the_run(command, monkeypatch, cores, told):
    monkeypatch.setattr("editsafety.lab.worker_count.usable_cores", lambda: cores)
    monkeypatch.setattr("editsafety.model.room.free_memory", lambda *_: 64 << 30)
    done = command("run", "--model=pocket-neo", "--editor=rome", "--limit=2", "--device=cpu", "--plan")
    assert done.code == 0, done.err
    assert ("-n auto shares them between 3 workers, one for each of 3 cores: 64.0 GiB" in done.out) is told
    assert ("workers" in done.out) is told
