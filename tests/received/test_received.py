"""An edited model that was handed over: what becomes of it, how it is judged, and what is refused."""

import json
import sys
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM

from editsafety import measures, received
from editsafety.edits.edit import Edit, Replace, Sidecar
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditError, EditSafetyError, ModelError, UsageError
from editsafety.judging.verdict import Verdict
from editsafety.measures import Inputs
from editsafety.model.handle import ModelHandle
from editsafety.received.receiving import Handed, receive, saved_edit
from editsafety.reporting import as_json
from tests import tiny
from tests.builders import default_without

TEXTS = tiny.SENTENCES
REQUESTS = (tiny.request(), tiny.request("case-1", subject="Toren"))


def nudge(handle, *, size=1e-3, rank=1):
    return Edit("nudge", ("case-0",), handle.identity, (tiny.low_rank(handle.mlp_out(1), size=size, rank=rank),))


def folder(tmp_path, change=None, family="gpt2", name="edited", **more):
    """A copy of the tiny model, with something done to it."""
    model = tiny.model(family, **more)
    if change is not None:
        with torch.no_grad():
            change(model)
    model.save_pretrained(tmp_path / name)
    tiny.tokenizer().save_pretrained(tmp_path / name)
    return str(tmp_path / name)


def judged(handle, place, policy, requests=()):
    given = place if isinstance(place, Handed) else receive(handle, str(place), TEXTS)
    return received.examine(received.unedited(handle, TEXTS, policy), given, requests, policy)


def by_name(handle, found):
    return {one.name: one for one in found}


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


class Louder(Sidecar):
    """Multiplies the last norm's output."""

    kind = "louder"
    target = "transformer.ln_f"

    def after(self, module, args, kwargs, output):
        return output * 100

    def tensors(self):
        return {}

    def settings(self):
        return {}

    @classmethod
    def rebuild(cls, target, tensors, settings):
        return cls()


class Fails(Louder):
    def after(self, module, args, kwargs, output):
        raise ValueError("no such codebook")


class Writes(Louder):
    def after(self, module, args, kwargs, output):
        with torch.no_grad():
            module.weight += 1
        return output


class Swaps(Louder):
    def after(self, module, args, kwargs, output):
        module.weight.data = module.weight.data * 1.01
        return output


def with_sidecar(handle, car):
    return Handed("car", "edit", Edit("somebody", (), handle.identity, sidecars=(car,)), 1)


def test_a_sidecar_is_judged_though_no_weight_changes(policy):
    handle = tiny.handle("gpt2")
    found = judged(handle, with_sidecar(handle, Louder()), policy)
    assert found.group.verdict is Verdict.COLLAPSE
    assert found.changes == ()


@pytest.mark.parametrize(("car", "said"), [(Fails(), "no such codebook"), (Writes(), "ln_f.weight differs")])
def test_a_sidecar_that_misbehaves_is_an_error_and_no_crash(car, said, policy):
    handle = tiny.handle("gpt2")
    found = judged(handle, with_sidecar(handle, car), policy, REQUESTS)
    assert found.group.verdict is Verdict.ERROR
    assert said in found.reasons[0].sentence
    assert found.group.verdict.exit_code == 13


def test_a_sidecar_that_changes_a_weight_it_did_not_declare_is_an_error(policy):
    handle = tiny.handle("gpt2")
    found = judged(handle, with_sidecar(handle, Swaps()), policy)
    assert "changed what it did not declare: transformer.ln_f.weight" in found.reasons[0].sentence
    assert found.records[0].step.leftovers
    assert handle.fingerprint() == handle.identity


def test_sidecars_are_rebuilt_by_the_editor_that_the_file_or_the_user_names(tmp_path):
    handle = tiny.handle("gpt2")
    edit = Edit("somebody", (), handle.identity, sidecars=(Louder(),))
    edit.save(tmp_path / "car.safetensors")
    with pytest.raises(EditError, match="needs the sidecar 'louder'"):
        saved_edit(tmp_path / "car.safetensors")
    (tmp_path / "mine.py").write_text(MINE)
    found = saved_edit(tmp_path / "car.safetensors", f"{tmp_path / 'mine.py'}:Mine")
    assert [car.kind for car in found.sidecars] == ["louder"]
    with pytest.raises(UsageError, match="no editor named 'mien'"):
        saved_edit(tmp_path / "car.safetensors", "mien")


MINE = """
from editsafety import Edit, Editor
from tests.received.test_received import Louder

class Mine(Editor):
    sidecars = {"louder": Louder}

    def edit(self, requests, carry=None):
        return Edit(self.name, (), self.handle.identity)
"""


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_checkpoint_with_the_edit_says_what_the_edited_model_says(family, tmp_path):
    handle = tiny.handle(family)
    edit = nudge(handle, size=0.05)
    received.write_checkpoint(handle, edit, tmp_path / "new" / "written")
    batch = handle.batch([handle.ids(TEXTS[0])])
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "written")(batch.ids).logits
        assert not torch.allclose(plain, handle.logits(batch), atol=1e-3)
        handle.model.get_parameter(handle.mlp_out(1).parameter).copy_(
            edit.deltas[0].on(handle.model.get_parameter(handle.mlp_out(1).parameter))
        )
        assert torch.allclose(plain, handle.logits(batch), atol=1e-5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["written"]


def test_what_no_checkpoint_can_hold_or_overwrite_is_refused(tmp_path):
    handle = tiny.handle("gpt2")
    with pytest.raises(EditError, match="acts by louder, code that runs beside the model"):
        received.write_checkpoint(handle, with_sidecar(handle, Louder()).edit, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for place in (tmp_path / "out", tmp_path / "out" / "mine.txt"):
        with pytest.raises(UsageError, match="is not an empty folder"):
            received.write_checkpoint(handle, nudge(handle), place)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    received.write_checkpoint(handle, nudge(handle), tmp_path / "empty")
    assert (tmp_path / "empty" / "config.json").is_file()


def test_nothing_is_left_of_a_checkpoint_that_could_not_be_written(tmp_path, monkeypatch):
    handle = tiny.handle("gpt2")
    seal = Seal.of(handle)

    def full(place):
        place.mkdir()
        (place / "half").write_text("a model")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handle.model, "save_pretrained", full)
    with pytest.raises(UsageError, match="No space left on device"):
        received.write_checkpoint(handle, nudge(handle), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert seal.changed(Seal.of(handle)) == ()
    with pytest.raises(EditError, match="fingerprint"):
        received.write_checkpoint(handle, Edit("x", (), "0" * 64), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


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
