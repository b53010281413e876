"""A file of EasyEdit on the command line and in pytest: it works, and what it said in vain is said once."""

from __future__ import annotations

from pathlib import Path

import pytest

from editsafety.shipped import shipped
from tests.system import world
from tests.system.commands import given, report

FILE = """\
alg_name: FT
model_name: ./hugging_cache/tiny
device: 0
layers: [1]
num_steps: 5
batch_size: 1
max_length: 40
lr: 1e-2
weight_decay: 0
kl_factor: 0
norm_constraint: false
objective_optimization: target_new
rewrite_module_tmp: "transformer.h.{}.mlp.c_proj.weight"
layer_module_tmp: "transformer.h.{}"
model_parallel: false
"""
ASIDE = (
    "alg_name",
    "model_name",
    "device",
    "max_length",
    "kl_factor",
    "rewrite_module_tmp",
    "layer_module_tmp",
    "model_parallel",
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gpt2-xl.yaml"
    path.write_text(FILE)
    return str(path)


def test_a_run_uses_the_numbers_and_says_once_what_it_set_aside(command, paths, file):
    done = command("run", *given(paths, "ft", hparams=f"ft={file}", out="out", controls=0, limit=2))
    body = report("out")
    (facts,) = body["editors"].values()
    assert (facts["hparams"]["loss"], facts["hparams"]["norm_constraint"], facts["hparams"]["lr"]) == (
        "target_new",
        None,
        0.01,
    )
    assert [line.split(" = ")[0] for line in facts["set_aside"]] == list(ASIDE)
    for key in ASIDE:
        assert sum(line.startswith(f"ft: {key} = ") for line in done.out.splitlines()) == 1
    assert "ft: device = 0 is set aside: the device is an option, --device" in done.out
    assert Path("out/report.md").read_text().count("- ft: device = 0 is set aside") == 1


def test_pytest_says_it_under_its_results(pytester, paths, file):
    where = [str(shipped("suites") / "collapse"), "-c", str(shipped("suites") / "pytest.ini"), "-p", "no:cacheprovider"]
    result = pytester.runpytest_inprocess(*where, *world.options(paths, "ft"), f"--editsafety-hparams={file}")
    assert sum(line.startswith("ft: device = 0 is set aside: ") for line in result.outlines) == 1
    assert not any("warning" in line for line in result.outlines)


def test_edit_and_prepare_say_it_on_the_side(command, paths, file):
    about = ["--model", paths["model"], "--device", "cpu", "--editor", "ft", "--hparams", file]
    fact = ["--prompt", "{} works as a", "--subject", "Ashurn", "--target", "teacher", "--texts-from", paths["texts"]]
    for done in (command("edit", *about, *fact), command("prepare", *about)):
        assert done.code == 0
        assert done.err.count("ft: device = 0 is set aside") == 1
        assert "set aside" not in done.out


def test_a_file_for_another_method_stops_that_editor_with_a_sentence(command, paths, file):
    done = command("run", *given(paths, "rome", hparams=f"rome={file}", out="out", controls=0, limit=1))
    assert done.code == 13
    said = " ".join(done.out.split())  # the terminal folds it
    assert "alg_name = 'FT', but the editor is rome. Ask for --editor ft, or drop the line." in said
