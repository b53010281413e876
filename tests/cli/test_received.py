"""`check`, `verify` and `apply` as a user types them."""

from __future__ import annotations

import json
import math
import shlex

import pytest
import torch
from transformers import AutoModelForCausalLM

from editsafety.edits.edit import Edit, Replace
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.system.commands import LENIENT

NORM = "transformer.ln_f.weight"


@pytest.fixture
def world(paths, tmp_path):
    """Paths, a policy for perplexity alone, and saved edits: one that does little, one that ends the model."""
    (tmp_path / "lenient.yaml").write_text(LENIENT)
    handle = ModelHandle.load(paths["model"])
    little = tiny.low_rank(handle.mlp_out(1), size=1e-3)
    loud = Replace(NORM, handle.model.get_parameter(NORM).detach() * 100)
    for name, deltas in (("little", (little,)), ("loud", (loud,)), ("none", ())):
        Edit("by-hand", ("case-0",), handle.identity, deltas).save(tmp_path / f"{name}.safetensors")
    return {**paths, "lenient": str(tmp_path / "lenient.yaml")}


def judge(world, *words, policy=True):
    given = [*words, "--texts-from", world["texts"], "--device", "cpu"]
    return [*given, "--policy", world["lenient"]] if policy else given


def check(world, after, *words, **more):
    return judge(world, "check", "--before", world["model"], "--after", after, *words, **more)


def verify(world, delta, *words, **more):
    return judge(world, "verify", delta, "--model", world["model"], *words, **more)


@pytest.mark.parametrize(
    ("edit", "code", "verdict"), [("little", 0, "PASS"), ("loud", 10, "COLLAPSE"), ("none", 11, "NO-OP")]
)
def test_an_edit_is_verified_applied_and_recognised_in_the_checkpoint(command, world, edit, code, verdict):
    verified = command(*verify(world, f"{edit}.safetensors"))
    assert verified.code == code, verified
    assert "the sha256 of every tensor matches; made for this model" in verified.out
    written = command("apply", f"{edit}.safetensors", "--model", world["model"], "--out", "new", "--device", "cpu")
    assert written.code == 0, written
    assert written.err == ""
    checked = command(*check(world, "new", "--requests", world["hard"], "--out", "found"))
    assert checked.code == code, checked
    for done in (verified, checked):
        assert done.out.rstrip().splitlines()[-1].startswith(f"verdict   {verdict} · ")
        assert done.out.rstrip().endswith(f"exit code {code}")
    assert "3 cases" in checked.out  # the model and two requests
    if edit == "little":
        for done in (verified, checked):
            (row,) = [line for line in done.out.splitlines() if line.startswith("transformer.h.1.mlp.c_proj.weight")]
            assert "1 of 32" in row


def test_of_controls_nothing_is_said_where_none_are_run_by_design(command, world, tmp_path):
    done = command(*verify(world, "little.safetensors", "--out", "found"))
    pages = [(tmp_path / "found" / name).read_text() for name in ("report.html", "report.md", "report.json")]
    assert "tensors" in pages[2]
    for page in (done.out, *pages[:2]):
        assert "PASS" in page
        assert "no control" not in page.lower()
        assert "## Controls" not in page


def test_the_file_says_what_the_terminal_says(command, world, tmp_path):
    command("apply", "little.safetensors", "--model", world["model"], "--out", "new", "--device", "cpu")
    done = command(*check(world, "new", "--requests", world["normal"], "--limit", 1, "--out", "found"))
    body = json.loads((tmp_path / "found/report.json").read_text())
    assert (body["verdict"], body["exit_code"], body["line"]) == (
        "PASS",
        0,
        done.out.rstrip().splitlines()[-1].removeprefix("verdict   "),
    )
    assert body["received"]["kind"] == "model"
    before = ModelHandle.load(world["model"])
    (model,) = body["models"].values()
    assert model["fingerprint"] == before.identity
    (group,) = body["groups"]
    assert sorted(case["stream"] for case in group["cases"]) == ["model", "requests"]
    (change,) = body["received"]["tensors"]["edited"]
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "new").get_parameter(change["name"])
    dense = (after - before.model.get_parameter(change["name"])).detach().double()
    assert change["norm"] == pytest.approx(float(dense.norm()))
    assert change["rank"] == 1
    assert body["received"]["tensors"]["compared"] == len(list(before.model.parameters()))
    ppl = next(case for case in group["cases"] if case["stream"] == "model")
    assert f"{ppl['before']['me_ppl']['value']:.4g}" in done.out
    assert math.isclose(ppl["after"]["me_ppl"]["value"], ppl["before"]["me_ppl"]["value"], rel_tol=0.1)


def test_the_replay_line_asks_the_same_again(command, world, tmp_path):
    done = command(*check(world, "little.safetensors", "--requests", world["hard"], "--limit", 1, "--out", "found"))
    program, *words = shlex.split(json.loads((tmp_path / "found/report.json").read_text())["replay"])
    assert program == "editsafety"
    for option in ("--policy", "--texts-from", "--device"):
        assert option in words, "else another policy, other texts or another place would be judged by"
    again = command(*words)
    assert (again.code, again.out.splitlines()[-1]) == (done.code, done.out.splitlines()[-1])


def test_a_figure_of_the_edited_model_alone_has_a_row_too(command, world):
    done = command(*verify(world, "little.safetensors", policy=False))
    (row,) = [line.split() for line in done.out.splitlines() if line.startswith("norm_growth ")]
    assert row[1] == "-"
    assert float(row[2]) == pytest.approx(1.0, abs=0.1)


def test_rates_in_the_table_are_over_the_requests_alone(command, world, tmp_path):
    """The neighbours of so small an edit keep their answers: were the model's own record counted, it would be 2/3."""
    done = command(*check(world, "little.safetensors", "--requests", world["hard"], "--out", "found"))
    body = json.loads((tmp_path / "found/report.json").read_text())
    (group,) = body["groups"]
    asked = [case for case in group["cases"] if case["stream"] == "requests"]
    assert [case["after"]["locality"]["value"] for case in asked] == [1.0, 1.0]
    assert {row["locality"] for row in group["figures"]} == {1.0, None}
    (row,) = [line.split() for line in done.out.splitlines() if line.startswith("locality ")]
    assert row == ["locality", "-", "1.00"]


def test_the_default_policy_asks_the_requests(command, world):
    done = command(*verify(world, "little.safetensors", "--requests", world["hard"], policy=False))
    assert done.code == 11
    assert "INEFFECTIVE" in done.out
    assert "over 2 cases" in done.out


def test_a_base_that_has_nothing_to_lose_is_an_error(command, world, tmp_path):
    policy = LENIENT.replace(
        "group:", "  base: {measure: me_ppl, figure: before, pass_at_most: 1, fails_as: ERROR, why: x}\ngroup:"
    )
    (tmp_path / "lenient.yaml").write_text(policy)
    assert command(*verify(world, "little.safetensors")).code == 13


def test_weights_that_are_not_finite_are_named(command, world, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(world["model"])
    with torch.no_grad():
        model.get_parameter(NORM)[3] = torch.nan
    model.save_pretrained(tmp_path / "broken")
    tiny.tokenizer().save_pretrained(tmp_path / "broken")
    done = command(*check(world, "broken"))
    assert done.code == 10
    (row,) = [line for line in done.out.splitlines() if line.startswith(NORM)]
    assert "not finite" in row
    assert "1 NaN/inf" in row


def test_what_cannot_be_compared_or_verified_is_one_sentence(command, world, tmp_path):
    tiny.folder(tmp_path / "other", "llama")
    spoilt = bytearray((tmp_path / "little.safetensors").read_bytes())
    spoilt[-3] ^= 1
    (tmp_path / "spoilt.safetensors").write_bytes(spoilt)
    handle = ModelHandle.load(world["model"])
    Edit("x", (), "0" * 64, (tiny.low_rank(handle.mlp_out(0)),)).save(tmp_path / "foreign.safetensors")
    for words, said in (
        (check(world, "other"), "other is a llama, tiny-model a gpt2"),
        (check(world, "./nowhere"), "there is no such folder"),
        (check(world, "spoilt.safetensors"), "was altered after it was written"),
        (verify(world, "spoilt.safetensors"), "was altered after it was written"),
        (verify(world, "foreign.safetensors"), "was made for a model with fingerprint 000000000000"),
        (verify(world, "nowhere.safetensors"), "there is no such file"),
        (verify(world, "other"), "For a whole model or an adapter use `check`"),
        (
            verify(world, "little.safetensors", "--out", "lenient.yaml"),
            "lenient.yaml: cannot be written",
        ),
        (check(world, "little.safetensors", "--requests", "nothing.jsonl"), "nothing.jsonl"),
        (check(world, "little.safetensors", "--policy", "strct", policy=False), "no policy named 'strct'"),
        (check(world, "little.safetensors", "--editor", "rom"), "did you mean 'rome'?"),
    ):
        done = command(*words)
        assert (done.code, said in done.err) == (4, True), done
        assert "Traceback" not in done.err


def test_apply_overwrites_nothing_and_holds_no_sidecars(command, world, tmp_path):
    words = ["apply", "little.safetensors", "--model", world["model"], "--device", "cpu", "--out"]
    assert command(*words, "new").code == 0
    done = command(*words, "new")
    assert done.code == 4
    assert "new: exists and is not an empty folder" in done.err
    assert command("apply", "foreign.safetensors", "--model", world["model"], "--out", "x").code == 4
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("words", [("verify",), ("apply", "-o", "out")])
def test_a_damaged_edit_is_refused_before_a_model_is_looked_for(command, tmp_path, words):
    Edit("by-hand", (), "f").save(tmp_path / "edit.safetensors")
    whole = (tmp_path / "edit.safetensors").read_bytes()
    (tmp_path / "edit.safetensors").write_bytes(whole[:-1])
    head, *more = words
    done = command(head, "edit.safetensors", "--model", "no/such/model", *more)
    assert done.code == 4
    assert "edit.safetensors: " in done.err
    assert "no/such/model" not in done.err


def test_two_models_are_made_an_edit_that_is_verified_and_written_as_an_adapter(command, world):
    assert (
        command("apply", "little.safetensors", "--model", world["model"], "--out", "new", "--device", "cpu").code == 0
    )
    made = command("diff", world["model"], "new", "-o", "found.safetensors", "--texts-from", world["texts"])
    assert made.code == 0, made.err
    assert "transformer.h.1.mlp.c_proj.weight: rank 1" in made.out
    assert "1 of " in made.out
    assert command(*verify(world, "found.safetensors")).code == 0
    written = command("apply", "found.safetensors", "--model", world["model"], "--out", "adapter", "--adapter")
    assert written.code == 0, written.err
    assert "written: adapter (an adapter for " in written.out
    same = command("diff", world["model"], world["model"], "-o", "none.safetensors", "--texts-from", world["texts"])
    assert same.code == 11
    assert "0 of " in same.out
