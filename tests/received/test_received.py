"""An edited model that was handed over: what becomes of it, how it is judged, and what is refused."""

import json
import sys
import warnings

import pytest
import torch

from editsafety import measures, received
from editsafety.edits.edit import Edit, Replace
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditError, EditSafetyError, ModelError, UsageError
from editsafety.judging.verdict import Verdict
from editsafety.measures import Inputs
from editsafety.model.handle import ModelHandle
from editsafety.received.receiving import receive, saved_edit
from editsafety.reporting import as_json
from tests import tiny
from tests.builders import default_without
from tests.received.given import REQUESTS, TEXTS, by_name, folder, judged, nudge


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_is_measured_is_what_the_model_handed_over_measures(family, tmp_path, policy):
    """Against the same measures on that model itself, loaded on its own."""

    def change(model):
        model.get_parameter(tiny.handle(family).mlp_out(1).parameter).mul_(1.7)

    place = folder(tmp_path, change, family)
    found = judged(tiny.handle(family), place, policy, REQUESTS)
    alone = ModelHandle.load(place)
    whole, *asked = found.records
    for one in measures.load("perplexity")(alone, Inputs(texts=TEXTS)):
        assert whole.after[one.name].value == pytest.approx(one.value, rel=1e-6)
    for record, request in zip(asked, REQUESTS, strict=True):
        efficacy = by_name(alone, measures.load("efficacy")(alone, Inputs((request,))))
        assert record.after["efficacy"].answers == efficacy["efficacy"].answers
        assert record.after["target_probability"].value == pytest.approx(efficacy["target_probability"].value)
        said, _ = measures.load("locality")(alone, Inputs((request,)))
        kept = [now == was for now, was in zip(said.answers, record.before["locality"].answers, strict=True)]
        assert record.after["locality"].answers == said.answers
        assert record.after["locality"].value == sum(kept) / len(kept)
    assert [change.name for change in found.changes] == [tiny.handle(family).mlp_out(1).parameter]
    assert whole.step.changed == whole.step.declared == (found.changes[0].name,)


@pytest.mark.parametrize("family", tiny.ROWLESS)
def test_a_model_of_a_family_without_a_row_is_examined_like_any_other(family, tmp_path, policy):
    changed = next(name for name, one in tiny.model(family).named_parameters() if ".1." in name and one.ndim >= 2)
    place = folder(tmp_path, lambda model: model.get_parameter(changed).mul_(1.01), family)
    found = judged(tiny.handle(family), place, policy, REQUESTS)
    assert [change.name for change in found.changes] == [changed]
    assert found.changes[0].relative == pytest.approx(0.01, rel=1e-3)
    alone = ModelHandle.load(place)
    for one in measures.load("perplexity")(alone, Inputs(texts=TEXTS)):
        assert found.records[0].after[one.name].value == pytest.approx(one.value, rel=1e-6)
    assert all(record.failure is None for record in found.records)


def test_a_saved_edit_and_the_checkpoint_it_was_applied_to_come_to_the_same(tmp_path, policy):
    handle = tiny.handle("gpt2")
    edit = nudge(handle, size=0.05, rank=2)
    edit.save(tmp_path / "edit.safetensors")
    received.write_checkpoint(handle, edit, tmp_path / "written")
    delta, model = (judged(handle, tmp_path / name, policy, REQUESTS) for name in ("edit.safetensors", "written"))
    assert (delta.handed.kind, model.handed.kind) == ("edit", "model")
    assert delta.changes == model.changes
    assert [change.rank for change in delta.changes] == [2]
    for one, other in zip(delta.records, model.records, strict=True):
        assert {n: m.value for n, m in one.after.items() if "norm" not in n and "delta" not in n} == {
            n: m.value for n, m in other.after.items() if "norm" not in n and "delta" not in n
        }
    assert delta.records[0].after["delta_norm"].value == pytest.approx(model.records[0].after["delta_norm"].value)


def test_the_unedited_model_is_what_it_was(tmp_path, policy):
    handle = tiny.handle("gpt2")
    frame, seal = Frame.of(handle), Seal.of(handle)
    nudge(handle).save(tmp_path / "edit.safetensors")
    judged(handle, tmp_path / "edit.safetensors", policy, REQUESTS)
    judged(handle, folder(tmp_path, lambda model: model.transformer.ln_f.weight.mul_(2)), policy, REQUESTS)
    received.write_checkpoint(handle, nudge(handle), tmp_path / "written")
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()


def test_a_model_that_stopped_working_is_a_collapse(tmp_path, policy):
    found = judged(tiny.handle("gpt2"), folder(tmp_path, lambda m: m.transformer.ln_f.weight.mul_(100)), policy)
    assert found.group.verdict is Verdict.COLLAPSE
    (reason,) = found.reasons
    assert reason.sentence.startswith("perplexity ")
    assert "expected at most 1.25x" in reason.sentence


def test_a_weight_that_is_not_finite_is_a_finding_and_no_crash(tmp_path):
    def spoil(model):
        model.transformer.h[1].mlp.c_proj.weight[0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])

    found = judged(tiny.handle("gpt2"), folder(tmp_path, spoil), default_without("base_perplexity"), REQUESTS)
    assert found.group.verdict is Verdict.COLLAPSE
    assert "weights_finite" in {reason.name for reason in found.reasons}
    (change,) = found.edited
    assert (change.not_finite, change.norm) == (3, None)
    json.dumps([found.as_json(), as_json.document(found.report)], allow_nan=False)


def test_a_copy_changes_nothing(tmp_path, policy):
    found = judged(tiny.handle("gpt2"), folder(tmp_path), policy)
    assert found.group.verdict is Verdict.NO_OP
    assert found.changes == ()


def test_what_was_only_saved_in_bfloat16_is_told_from_what_was_edited(tmp_path, policy):
    name = "transformer.h.1.mlp.c_proj.weight"

    def change(model):
        left, right = torch.randn(64, 1), torch.randn(1, 32)
        model.get_parameter(name).add_(0.1 * left @ right)
        model.to(torch.bfloat16)

    found = judged(tiny.handle("gpt2"), folder(tmp_path, change), policy)
    assert [(change.name, change.rank) for change in found.edited] == [(name, 1)]
    assert {change.rounded_to for change in found.rounded} == {"bfloat16"}
    assert len(found.rounded) > 20


def test_rates_are_over_requests_and_perplexity_is_judged_once(tmp_path):
    handle = tiny.handle("gpt2")
    nudge(handle).save(tmp_path / "edit.safetensors")
    found = judged(handle, tmp_path / "edit.safetensors", default_without("base_perplexity"), REQUESTS)
    whole, *asked = found.group.cases
    assert [check.name for check in whole.checks].count("perplexity") == 1
    assert [case.checks for case in asked] == [(), ()]
    (efficacy,) = [check for check in found.group.checks[received.REQUESTS] if check.name == "efficacy"]
    assert "over 2 cases" in efficacy.sentence
    assert found.group.verdict in (Verdict.INEFFECTIVE, Verdict.DAMAGED)
    severities = [reason.verdict.severity for reason in found.reasons]
    assert severities == sorted(severities, reverse=True)
    assert all(reason.verdict is not Verdict.PASS for reason in found.reasons)


def test_every_question_is_answered_in_one_attempt_and_its_report_is_like_that_of_a_run(tmp_path, policy, monkeypatch):
    handle = tiny.handle("gpt2")
    nudge(handle, size=0.05).save(tmp_path / "edit.safetensors")
    given, applied, apply = receive(handle, str(tmp_path / "edit.safetensors"), TEXTS), [], EditSession.apply
    monkeypatch.setattr(EditSession, "apply", lambda self, edit: applied.append(edit.id) or apply(self, edit))
    found = judged(handle, given, policy, REQUESTS)
    assert applied == [given.edit.id]
    assert [record.stream for record in found.records] == ["model", "requests", "requests"]
    assert [record.requests for record in found.records] == [(), (REQUESTS[0],), (REQUESTS[1],)]
    assert "efficacy" not in found.records[0].after
    assert all("me_ppl" not in record.after for record in found.records[1:])
    report = found.report
    assert (report.verdict, report.exit_code) == (found.group.verdict, found.group.verdict.exit_code)
    (group,) = as_json.document(report)["groups"]
    assert [case["case"] for case in group["cases"]] == [record.case for record in found.records]
    assert report.facts.models[handle.name].fingerprint == handle.identity


def test_requests_are_asked_behind_a_prefix_when_there_are_prefixes(tmp_path, policy):
    handle = tiny.handle("gpt2")
    nudge(handle).save(tmp_path / "edit.safetensors")
    bench = received.unedited(handle, TEXTS, policy, prefixed=True)
    found = received.examine(bench, receive(handle, str(tmp_path / "edit.safetensors"), TEXTS), REQUESTS, policy)
    assert found.records[1].after["efficacy_prefixed"].value is not None


def test_equal_weights_behind_another_config_are_refused(tmp_path, policy):
    place = folder(tmp_path, family="llama", rms_norm_eps=0.1)
    with pytest.raises(ModelError, match="computes something else than its weights do in tiny-llama"):
        judged(tiny.handle("llama"), place, policy)
    place = folder(tmp_path, activation_function="relu", name="relu")
    with pytest.raises(ModelError, match="relu computes something else"):
        judged(tiny.handle("gpt2"), place, policy)


def test_another_architecture_is_refused(tmp_path, policy):
    with pytest.raises(ModelError, match="edited is a llama, tiny-gpt2 a gpt2"):
        judged(tiny.handle("gpt2"), folder(tmp_path, family="llama"), policy)


def test_an_edit_of_another_model_is_refused(tmp_path, policy):
    nudge(tiny.handle("gpt2", seed=1)).save(tmp_path / "edit.safetensors")
    with pytest.raises(EditError, match="was made for a model with fingerprint"):
        judged(tiny.handle("gpt2"), tmp_path / "edit.safetensors", policy)


def test_an_altered_edit_is_refused(tmp_path, policy):
    handle = tiny.handle("gpt2")
    path = tmp_path / "edit.safetensors"
    nudge(handle).save(path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(EditError, match="was altered after it was written"):
        judged(handle, path, policy)
    with pytest.raises(EditError, match="there is no such file"):
        judged(handle, tmp_path / "nowhere.safetensors", policy)


def adapter(tmp_path, family="llama"):
    """A LoRA adapter with random factors, as peft saves it; and what it adds, by the formula s B A."""
    peft = pytest.importorskip("peft")
    names = {"llama": ["down_proj"], "gpt_neo": ["c_proj"]}[family]
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=names, lora_dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for what it calls deprecated
        adapted = peft.get_peft_model(tiny.model(family), config)
    added = {}
    for name, module in adapted.named_modules():
        if hasattr(module, "lora_A"):
            torch.nn.init.normal_(module.lora_B["default"].weight, std=0.05)
            delta = 3 * module.lora_B["default"].weight @ module.lora_A["default"].weight
            added[f"{name.removeprefix('base_model.model.')}.weight"] = delta.detach()
    adapted.save_pretrained(tmp_path / "adapter")
    return str(tmp_path / "adapter"), added


@pytest.mark.parametrize("family", ["llama", "gpt_neo"])
def test_an_adapter_becomes_the_weights_it_is_worth(family, tmp_path, policy):
    place, added = adapter(tmp_path, family)
    handle = tiny.handle(family)
    given = receive(handle, place, TEXTS)
    assert given.kind == "adapter"
    found = {delta.parameter: delta.value for delta in given.edit.deltas if isinstance(delta, Replace)}
    assert found.keys() == added.keys()
    for name, value in found.items():
        assert torch.allclose(value - handle.model.get_parameter(name).detach(), added[name], atol=1e-5)
    examined = judged(handle, given, policy)
    assert {change.rank for change in examined.changes} == {2}


def test_an_adapter_without_peft_names_what_to_install(tmp_path, monkeypatch):
    place, _ = adapter(tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"peft is not installed here. Install it: pip install 'editsafety\[lora\]'"):
        receive(tiny.handle("llama"), place, TEXTS)


def test_an_adapter_for_another_model_or_in_pickles_is_refused(tmp_path):
    place, _ = adapter(tmp_path)
    with pytest.raises(ModelError, match="this adapter cannot be merged into tiny-gpt2"):
        receive(tiny.handle("gpt2"), place, TEXTS)
    with pytest.raises(ModelError, match="missing adapter keys"):
        receive(tiny.handle("llama", layers=4), place, TEXTS)
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickled weights are not loaded"):
        receive(tiny.handle("llama"), place, TEXTS)


def test_a_place_where_nothing_is_says_so(tmp_path):
    with pytest.raises(EditSafetyError, match="nowhere"):
        receive(tiny.handle("gpt2"), str(tmp_path / "nowhere"), TEXTS)


def test_a_saved_edit_does_not_decide_which_file_is_run(tmp_path):
    """Its header may name any editor; one that is a file is run when whoever gives the command names it."""
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w').close()\n")
    Edit(f"{tmp_path / 'mine.py'}:Mine", (), "f").save(tmp_path / "edit.safetensors")
    assert saved_edit(tmp_path / "edit.safetensors").editor.endswith("mine.py:Mine")
    assert not (tmp_path / "was-run").exists()
