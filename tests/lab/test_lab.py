"""The lab: what an editor may do to a model, and what is on record afterwards."""

from __future__ import annotations

import io
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from editsafety.errors import EditorError, NotPreparedError, UsageError
from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.lab import single, yardstick
from editsafety.lab.lab import Lab
from editsafety.model.handle import ModelHandle
from editsafety.names import slug
from editsafety.progress import Progress
from editsafety.runs.store import Store
from tests.system import world
from tests.system.commands import LENIENT

QUIET = Progress(io.StringIO(), "quiet")


def lab(paths: dict[str, str], folder: Path, *editors: str, **more: object) -> Lab:
    return Lab(world.plan(paths, *editors, **more), Store(folder / "store.sqlite"), QUIET)


def verdicts(found: Lab) -> dict[str, Verdict]:
    policy = Policy.read("default")
    return {case.request.id: judge_case(policy, found.record(case)).verdict for case in found.plan.cases}


@pytest.fixture
def alone(paths, tmp_path):
    """What an undisturbed process finds: edit ids and perplexities by request."""
    found = lab(paths, tmp_path / "alone", "Nudge")
    return {case.request.id: found.record(case) for case in found.plan.cases}


def test_a_small_edit_passes_and_is_undone(paths, tmp_path):
    found = lab(paths, tmp_path / "run", "Nudge")
    assert set(verdicts(found).values()) == {Verdict.PASS}
    record = found.record(found.plan.cases[0])
    assert record.step.restored is True
    assert record.step.changed == record.step.declared == ("transformer.h.1.mlp.c_proj.weight",)
    assert record.step.cost.edit is not None
    assert record.step.cost.edit > 0
    assert record.after["me_ppl"].value == pytest.approx(record.before["me_ppl"].value, rel=0.01)


@pytest.mark.parametrize(
    ("editor", "expected", "said"),
    [
        ("Raises", Verdict.ERROR, "half way through"),
        ("ReturnsNone", Verdict.ERROR, "NoneType"),
        ("WritesElsewhere", Verdict.ERROR, "wte.weight"),
        ("LeavesAHook", Verdict.ERROR, "forward hook"),
        ("WritesNan", Verdict.COLLAPSE, "not finite"),
    ],
)
def test_a_broken_editor_gets_its_verdict_and_the_next_case_equals_that_of_a_fresh_process(
    paths, tmp_path, alone, editor, expected, said
):
    found = lab(paths, tmp_path / "run", editor)
    judged = {case.request.id: judge_case(Policy.read("default"), found.record(case)) for case in found.plan.cases}
    assert judged["hard-1"].verdict is expected
    assert any(said in check.sentence for check in judged["hard-1"].checks)
    for untouched in ("hard-0", "normal-0"):
        assert judged[untouched].verdict is Verdict.PASS
        assert judged[untouched].record.after["me_ppl"] == alone[untouched].after["me_ppl"]
    handle = found.tools.bench(paths["model"]).handle
    assert handle.fingerprint() == handle.identity


def test_an_exploding_edit_is_a_collapse_and_noop_is_called_no_op(paths, tmp_path):
    found = lab(paths, tmp_path / "run", "Explodes", "noop")
    judged = {case.id: judge_case(Policy.read("default"), found.record(case)).verdict for case in found.plan.cases}
    assert {v for name, v in judged.items() if "Explodes" in name} == {Verdict.COLLAPSE}
    assert {v for name, v in judged.items() if "noop" in name} == {Verdict.NO_OP}


@pytest.mark.parametrize(("enough", "readings"), [(32, 5), (1, 2)])
def test_the_yardstick_is_read_before_every_edit_of_a_small_block_and_less_often_in_a_large_one(
    paths, tmp_path, monkeypatch, enough, readings
):
    """Four edits and the end of the block are five places; with one reading as enough, every fourth of them is due."""
    monkeypatch.setattr(yardstick, "ENOUGH", enough)
    found = lab(paths, tmp_path, "Nudge")
    verdicts(found)
    assert len(found.plan.cases) == 4
    assert len(found.store.facts().yardsticks[slug(paths["model"]), "Nudge"].seconds) == readings


def test_an_editor_that_keeps_state_is_found_out_by_the_order(paths, tmp_path):
    found = lab(paths, tmp_path / "run", "KeepsState", "Nudge")
    model = paths["model"]
    assert found.same_in_any_order(model, world.spelled(paths, "Nudge")).holds
    order = found.same_in_any_order(model, world.spelled(paths, "KeepsState"))
    assert not order.holds
    assert order.different == ("tiny-model-KeepsState-normal-1", "tiny-model-KeepsState-hard-0")
    assert "tiny-model-KeepsState-normal-1, tiny-model-KeepsState-hard-0" in order.sentence


def test_a_finished_case_is_not_run_again_and_another_setting_is_another_case(paths, tmp_path, monkeypatch):
    first = lab(paths, tmp_path / "run", "Nudge")
    kept = {case.id: first.record(case) for case in first.plan.cases}

    def never(*_: object) -> None:
        raise AssertionError("a finished case was run again")

    with monkeypatch.context() as patched:
        patched.setattr(single, "run", never)
        again = lab(paths, tmp_path / "run", "Nudge")
        assert {case.id: again.record(case) for case in again.plan.cases} == kept
    other = lab(paths, tmp_path / "run", "Nudge", seed=1)
    assert other.keys.of(other.plan.cases[0]) != first.keys.of(first.plan.cases[0])


def test_an_editor_that_needs_preparing_says_which_command(paths, tmp_path):
    hparams = tmp_path / "rome.yaml"
    numbers = {"layers": "[1]", "v_num_grad_steps": 3, "v_lr": 0.5, "v_weight_decay": 0.001, "clamp_norm_factor": 4}
    lines = [f"{name}: {number}" for name, number in {**numbers, "mom2_adjustment": "true"}.items()]
    hparams.write_text("\n".join(lines))
    found = lab(paths, tmp_path / "run", "rome", hparams=(str(hparams),))
    with pytest.raises(NotPreparedError, match=r"editsafety prepare --model \S*tiny-model --editor rome"):
        found.record(found.plan.cases[0])
    assert "prepare" in found.store.facts().problems["tiny-model", "rome"]


def test_an_interrupted_editor_leaves_the_model_as_it_was(paths, tmp_path, monkeypatch):
    found = lab(paths, tmp_path / "run", "Nudge")
    editor = found.tools.editor(paths["model"], world.spelled(paths, "Nudge"))

    def interrupted(*_: object) -> None:
        editor.handle.model.train()
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(editor, "edit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.record(found.plan.cases[0])
    assert not editor.handle.model.training
    assert editor.handle.fingerprint() == editor.handle.identity


def test_workers_never_take_more_threads_than_were_given(paths, tmp_path):
    import torch

    before = torch.get_num_threads()
    Lab(world.plan(paths, "Nudge"), Store(tmp_path / "store.sqlite"), QUIET, workers=2)
    assert 1 <= torch.get_num_threads() <= before
    torch.set_num_threads(before)


def test_a_refused_block_gives_back_its_claims_so_that_no_other_worker_waits(paths, tmp_path):
    first = lab(paths, tmp_path / "run", "Nudge", prepare=True)
    first.tools.prepare = None  # not callable: what goes wrong before the first case
    with pytest.raises(EditorError, match="Nudge on tiny-model cannot be run: TypeError"):
        first.record(first.plan.cases[0])
    keys = [first.keys.of(case) for case in first.plan.cases]
    assert Store(tmp_path / "run" / "store.sqlite").claim(keys, 9) == keys
    with pytest.raises(EditorError):
        first.record(first.plan.cases[1])  # known by now
    assert "cannot be run" in first.store.facts().problems["tiny-model", "Nudge"]


def test_an_editor_that_calls_exit_is_an_error_of_its_case(paths, tmp_path, monkeypatch):
    found = lab(paths, tmp_path / "run", "Nudge")
    editor = found.tools.editor(paths["model"], world.spelled(paths, "Nudge"))
    monkeypatch.setattr(editor, "edit", lambda requests: exit(3))
    record = found.record(found.plan.cases[0])
    assert record.failure.kind == "contract"
    assert "Nudge raised SystemExit: 3, which ends a program or a test and is no error" in record.failure.message


def test_a_tied_weight_edited_under_its_other_name_is_a_declared_change(paths, tmp_path):
    (tmp_path / "nudge.py").write_text((tmp_path / "nudge.py").read_text() + TIED)
    found = lab(paths, tmp_path / "run", "Tied")
    record = found.record(found.plan.cases[0])
    assert record.step.changed == record.step.declared == ("transformer.wte.weight",)
    assert record.undeclared == ()


TIED = """

class Tied(Nudge):
    def edit(self, requests, carry=None):
        name = "lm_head.weight"
        value = self.handle.model.lm_head.weight.detach() * 1.001
        return Edit(self.name, (requests[0].id,), self.handle.identity, (Replace(name, value),))
"""


def test_the_order_is_compared_again_when_what_it_was_found_for_has_changed(paths, tmp_path):
    name = world.spelled(paths, "Nudge")
    first = lab(paths, tmp_path / "run", "Nudge")
    order = first.same_in_any_order(paths["model"], name)
    assert order.holds
    other = lab(paths, tmp_path / "run", "Nudge", seed=1)
    again = other.same_in_any_order(paths["model"], name)
    assert again.holds
    assert again.key != order.key
    assert other.store.facts().orders["tiny-model", "Nudge"] == again


def test_other_texts_in_the_same_folder_have_an_unedited_perplexity_of_their_own(paths, tmp_path):
    first = lab(paths, tmp_path, "Nudge").tools.bench(paths["model"]).base["me_ppl"]
    fewer = lab(paths, tmp_path, "Nudge", texts=2).tools.bench(paths["model"]).base["me_ppl"]
    alone_with_fewer = lab(paths, tmp_path / "fresh", "Nudge", texts=2).tools.bench(paths["model"]).base["me_ppl"]
    assert fewer == alone_with_fewer
    assert (first.n, fewer.n) == (len(first.items), 2)


@pytest.mark.parametrize("again", [False, True])
def test_a_limit_below_the_noise_of_the_model_is_refused_before_anything_is_edited(paths, tmp_path, again):
    """Measured now, or known from an earlier session on the same folder."""
    policy = tmp_path / "strict.yaml"
    policy.write_text(LENIENT.replace("pass_at_most: 1.25", "pass_at_most: 1.001"))
    store = Store(tmp_path / "store.sqlite")
    plan = world.plan(paths, "Nudge", policy=str(policy))
    handle = ModelHandle.load(paths["model"])
    if not again:
        run = handle.logits
        handle.logits = lambda batch: run(batch) * (1 if len(batch.ids) == 1 else 0.95)
    else:
        Lab(plan, store, QUIET, handles={paths["model"]: handle}).tools.bench(paths["model"])
        (known,) = store.facts().unedited.values()
        store.note(replace(known, noise=0.2))
    found = Lab(plan, store, QUIET, handles={paths["model"]: handle})
    with pytest.raises(
        UsageError, match=r"perplexity passes up to 1\.001x, but re-runs of the unedited model differ by"
    ):
        found.record(plan.cases[0])
    assert store.records() == []
