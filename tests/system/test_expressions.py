"""A regularised editor through the whole suite: named, selected, given numbers and reported like any other."""

from __future__ import annotations

import shlex

import pytest

from tests.system.commands import FT, cases, given, report

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def expression(paths):
    return f"rect({paths['nudge']}:Nudge)"


def test_a_regularised_editor_runs_is_selected_by_its_tag_and_said_by_its_label(command, paths, expression):
    done = command("run", *given(paths, "prune(noop)", expression, k="rect.Nudge-hard", out="out", limit=1))
    found = report("out")
    (case,) = cases(found)
    assert case == "tiny-model-rect.Nudge-hard-0"
    assert found["groups"][0]["editor"] == "rect(Nudge)"
    assert "rect(Nudge)" in done.out
    record = cases(found)[case]
    assert record["failure"] is None
    assert 0.4 <= record["notes"]["rect_kept"] < 0.41
    assert record["undeclared"] == record["leftovers"] == []
    assert found["editors"]["tiny-model:rect(Nudge)"]["hparams"] == {"rect_keep": 0.4}
    words = shlex.split(found["replay"])
    assert words[words.index("--editsafety-editor") + 1] == expression
    assert words[words.index("-k") + 1].startswith("tiny-model-rect.Nudge-hard")


def test_numbers_are_given_to_an_expression_by_itself_or_by_its_short_name(command, paths, expression, tmp_path):
    (tmp_path / "keep.yaml").write_text("rect_keep: 0.1\n")
    (tmp_path / "ft.yaml").write_text(FT + "rect_keep: 0.9\n")
    numbers = ["rect(Nudge)=keep.yaml", "rect(ft)=ft.yaml"]
    command("run", *given(paths, expression, "rect(ft)", hparams=numbers, out="out", limit=1, controls=0))
    kept = {case.split("-")[2]: found["notes"]["rect_kept"] for case, found in cases(report("out")).items()}
    assert kept["rect.Nudge"] == pytest.approx(0.1, abs=0.01)
    assert kept["rect.ft"] == pytest.approx(0.9, abs=0.01)
    (tmp_path / "keep.yaml").write_text("rect_keep: 0.2\n")
    command("run", *given(paths, expression, hparams="rect(Nudge)=keep.yaml", out="again", limit=1, controls=0))
    (first, *_) = cases(report("again")).values()
    assert first["notes"]["rect_kept"] == pytest.approx(0.2, abs=0.01)


def test_names_that_cannot_be_meant_stop_the_command_before_anything_is_loaded(command, paths):
    for editor, said in (("rect", "as in rect(memit)"), ("rekt(ft)", "did you mean 'rect'"), ("rect(ft", "not closed")):
        done = command("run", *given(paths, editor, out="out"))
        assert done.code == 4
        assert said in done.err


def test_prepare_and_edit_take_expressions(command, paths, tmp_path):
    (tmp_path / "ft.yaml").write_text(FT)
    about = ["--model", paths["model"], "--device", "cpu", "--editor", "prune(ft)", "--hparams", "ft.yaml"]
    assert "prune(ft) on tiny-model is ready" in command("prepare", *about).out
    fact = ["--prompt", "{} works as a", "--subject", "Ashurn", "--target", "teacher", "--texts-from", paths["texts"]]
    assert "prune_restrained" in command("edit", *about, *fact).out


def test_an_editor_beside_the_model_is_refused_with_a_sentence(command, paths):
    done = command("run", *given(paths, "rect(grace)", out="out", limit=1, controls=0))
    assert done.code == 13
    assert "rect reins in a change of weights, and Grace makes none" in done.out
