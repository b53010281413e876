"""A function that changes a model, run as an editor: what it changed is its edit, and nothing stays behind."""

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.editors._function import FunctionEditor
from editsafety.editors.as_published import TargetText, as_dictionary
from editsafety.edits.edit import LowRank, Replace
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, UsageError
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from tests import tiny
from tests.editors.functions import WEIGHT, made


def write(model: Any, size: float = 0.1) -> None:
    """A rank-one change of one matrix."""
    weight = model.get_parameter(WEIGHT)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight += size * torch.outer(
            torch.randn(weight.shape[0], generator=generator), torch.randn(weight.shape[1], generator=generator)
        )


def in_place(model: Any, tokenizer: Any, requests: list[dict[str, Any]]) -> None:
    write(model)


def another(model: Any, tokenizer: Any, requests: list[dict[str, Any]]) -> nn.Module:
    other = copy.deepcopy(model)
    write(other)
    return other


def apply_mine_to_model(
    model: Any, tok: Any, requests: Any, hparams: Any, copy: bool = True, return_orig_weights: bool = True
) -> Any:
    assert not copy
    assert not return_orig_weights
    write(model, hparams.size)
    assert hparams["size"] == hparams.size
    return model, {}


@pytest.mark.parametrize(("function", "numbers"), [(in_place, {}), (another, {}), (apply_mine_to_model, {"size": 0.1})])
def test_what_a_function_changes_is_an_edit_in_factors_and_the_model_is_left_as_it_was(
    function: Any, numbers: dict[str, Any], tmp_path: Path
) -> None:
    handle = tiny.handle("gpt2")
    expected = copy.deepcopy(handle.model)
    write(expected)
    with EditSession(handle) as session:
        edit = made(function, handle, tmp_path, **numbers).edit([tiny.request()])
    assert session.leftovers == ()
    assert handle.fingerprint() == handle.identity
    (delta,) = edit.deltas
    assert isinstance(delta, LowRank)
    assert delta.left.shape[1] == 1
    with EditSession(handle) as session:
        session.apply(edit)
        there = dict(expected.named_parameters())
        for name, parameter in handle.model.named_parameters():
            torch.testing.assert_close(parameter, there[name], rtol=0, atol=1e-6)


def test_a_change_without_thin_factors_is_kept_bit_for_bit(tmp_path: Path) -> None:
    def dense(model: Any, tokenizer: Any, requests: Any) -> None:
        with torch.no_grad():
            model.get_parameter(WEIGHT).mul_(1.5)
            model.get_input_embeddings().weight[3] += 1.0

    handle = tiny.handle("gpt2")
    expected = copy.deepcopy(handle.model)
    dense(expected, None, [])
    edit = made(dense, handle, tmp_path).edit([tiny.request()])
    found = {delta.parameter: delta for delta in edit.deltas}
    assert found.keys() == {WEIGHT, "transformer.wte.weight"}
    for name, delta in found.items():
        assert isinstance(delta, Replace)
        assert torch.equal(delta.value, expected.get_parameter(name))


def test_it_edits_a_mixture_of_experts_which_has_no_row(tmp_path: Path) -> None:
    handle = tiny.handle("mixtral")
    inside = (
        "mlp.experts.down_proj",
        "block_sparse_moe.experts.0.w2.weight",
    )  # all experts in one; in transformers 4 not
    names = [name for name, _ in handle.model.named_parameters()]
    (expert,) = (name for part in inside if (name := f"model.layers.1.{part}") in names)

    def scaling(model: Any, tokenizer: Any, requests: Any) -> None:
        with torch.no_grad():
            model.get_parameter(expert)[0] *= 2.0

    with EditSession(handle) as session:
        edit = made(scaling, handle, tmp_path).edit([tiny.request()])
    assert session.leftovers == ()
    assert [delta.parameter for delta in edit.deltas] == [expert]


def other_activation(model: Any) -> None:
    model.transformer.h[1].mlp.act = nn.ReLU()


def silent(model: Any) -> None:
    class Silent(type(model)):  # type: ignore[misc]
        def forward(self, *given: Any, **named: Any) -> Any:
            found = super().forward(*given, **named)
            found.logits = found.logits * 0
            return found

    model.__class__ = Silent


def own_head(model: Any) -> None:
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach() * 1.5)


def hooked(model: Any) -> None:
    model.transformer.h[1].register_forward_hook(lambda module, given, output: (output[0] * 2, *output[1:]))


def deaf(model: Any) -> None:
    model.forward = None


BESIDE = {
    "another module": (other_activation, "computes something else than its weights do in .*logits are [0-9.e+-]+ of"),
    "a forward of its own": (silent, "computes something else than its weights do"),
    "a head of its own": (own_head, "computes something else than its weights do"),
    "a hook": (hooked, "(computes something else than its weights do|cannot be run)"),
    "no forward": (deaf, "returned a model that cannot be run: TypeError"),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_a_returned_model_that_is_more_than_its_weights_is_refused(tmp_path: Path, kind: str) -> None:
    deed, said = BESIDE[kind]

    def function(model: Any, tokenizer: Any, requests: list[dict[str, Any]]) -> nn.Module:
        other = another(model, tokenizer, requests)
        deed(other)
        return other

    with pytest.raises(EditorError, match=said):
        made(function, tiny.handle("gpt2"), tmp_path).edit([tiny.request()])


def test_a_model_that_is_returned_in_half_precision_is_its_weights_all_the_same(tmp_path: Path) -> None:
    def function(model: Any, tokenizer: Any, requests: list[dict[str, Any]]) -> nn.Module:
        return copy.deepcopy(model).half()

    assert WEIGHT in made(function, tiny.handle("gpt2"), tmp_path).edit([tiny.request()]).parameters


def test_a_returned_model_may_be_in_training_mode_and_stays_in_it(tmp_path: Path) -> None:
    kept: list[nn.Module] = []

    def function(model: Any, tokenizer: Any, requests: list[dict[str, Any]]) -> nn.Module:
        kept.append(another(model, tokenizer, requests).train())
        return kept[0]

    assert made(function, tiny.handle("gpt2"), tmp_path).edit([tiny.request()]).parameters == (WEIGHT,)
    assert all(module.training for module in kept[0].modules())


def test_nothing_changed_is_an_edit_without_deltas(tmp_path: Path) -> None:
    def nothing(model: Any, tokenizer: Any, requests: Any) -> None:
        return None

    assert made(nothing, tiny.handle("gpt2"), tmp_path).edit([tiny.request()]).deltas == ()


def test_an_adapter_that_is_returned_is_merged(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="adapters need peft")

    def adapted(model: Any, tokenizer: Any, requests: Any) -> nn.Module:
        config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["gate_proj"], layers_to_transform=[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft asks transformers for what goes away
            served: nn.Module = peft.get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in served.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        return served

    handle = tiny.handle("llama")
    with EditSession(handle) as session:
        edit = made(adapted, handle, tmp_path).edit([tiny.request()])
    assert session.leftovers == ()
    (delta,) = edit.deltas
    assert delta.parameter == "model.layers.1.mlp.gate_proj.weight"
    assert isinstance(delta, LowRank)
    assert delta.left.shape[1] == 2


def test_the_second_edit_of_a_sequence_is_made_on_the_model_that_holds_the_first(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    seen: list[float] = []

    def doubling(model: Any, tokenizer: Any, requests: Any) -> None:
        seen.append(model.get_parameter(WEIGHT).norm().item())
        with torch.no_grad():
            model.get_parameter(WEIGHT).mul_(2.0)

    editor = made(doubling, handle, tmp_path)
    with EditSession(handle) as session:
        for _ in range(2):
            session.apply(editor.edit([tiny.request()]))
    assert seen[1] == pytest.approx(2 * seen[0])


def test_random_numbers_are_those_of_the_seed(tmp_path: Path) -> None:
    def drawing(model: Any, tokenizer: Any, requests: Any) -> None:
        with torch.no_grad():
            model.get_parameter(WEIGHT).add_(torch.randn(model.get_parameter(WEIGHT).shape))

    handle = tiny.handle("gpt2")
    first, second = (made(drawing, handle, tmp_path).edit([tiny.request()]) for _ in range(2))
    assert first.id == second.id


@pytest.mark.parametrize(
    ("came", "said"),
    [
        ({"a": 1}, "returned dict, expected the edited model"),
        ((1, 2), "returned tuple, expected the edited model"),
        (nn.Linear(2, 2), "returned a model of other parameters: transformer.wte.weight is"),
    ],
)
def test_what_is_no_model_is_refused_in_a_sentence(came: Any, said: str, tmp_path: Path) -> None:
    def wrong(model: Any, tokenizer: Any, requests: Any) -> Any:
        return came

    with pytest.raises(EditorError, match=said):
        made(wrong, tiny.handle("gpt2"), tmp_path).edit([tiny.request()])


def test_what_a_function_leaves_behind_is_named(tmp_path: Path) -> None:
    def hooking(model: Any, tokenizer: Any, requests: Any) -> None:
        model.register_forward_hook(lambda *_: None)

    with pytest.raises(EditorError, match=r"left something behind: .*hook"):
        made(hooking, tiny.handle("gpt2"), tmp_path).edit([tiny.request()])


def test_requests_are_the_fields_dictionaries_with_targets_that_may_be_read_and_written_either_way() -> None:
    request = tiny.request(target_new="farmer", target_true="baker", rephrasings=("Ashurn is a",))
    row = copy.deepcopy(as_dictionary(request))
    target = row["target_new"]
    assert row["prompt"].format(row["subject"]) == request.filled
    assert target == target["str"] == "farmer"
    assert target[0] == "f"
    target["str"] = " " + target["str"]  # as rome/rome_main.py has it
    assert target["str"] == " farmer"
    assert (row["target_true"]["str"], row["rephrase_prompt"]) == ("baker", "Ashurn is a")
    with pytest.raises(KeyError):
        TargetText("a")["id"] = "b"


def test_a_function_that_cannot_be_called_so_or_lacks_its_numbers_is_refused_before_anything_is_run(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def two(model, requests): pass\n\n\ndef four(model, tok, requests, hparams): pass\n")
    with pytest.raises(UsageError, match=r"takes \(model, tokenizer, requests\).*found \(model, requests\)"):
        editors.load(f"{file}:two")
    with pytest.raises(UsageError, match="four takes hyperparameters and was given none: give --hparams FILE"):
        editors.make(f"{file}:four", tiny.handle("gpt2"), ArtifactStore(tmp_path))
    numbers = tmp_path / "numbers.json"
    numbers.write_text('{"rewrite_module_tmp": "transformer.h.{}.mlp.c_proj", "layers": [1], "device": 0}')
    editor = editors.make(f"{file}:four", tiny.handle("gpt2"), ArtifactStore(tmp_path), path=numbers)
    assert isinstance(editor, FunctionEditor)
    assert editor.given == {"rewrite_module_tmp": "transformer.h.{}.mlp.c_proj", "layers": [1], "device": 0}
    assert editors.code_version(f"{file}:four") != editors.code_version("noop")


def test_a_neighbour_of_a_functions_file_is_a_part_of_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    package = tmp_path / "method_of_two_files"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "formula.py").write_text("SIZE = 1\n")
    (package / "main.py").write_text("from .formula import SIZE\n\n\ndef edit(model, tok, requests): pass\n")
    name = f"{package / 'main.py'}:edit"
    settings = Settings(("pocket-neo",), (name,), limit=1)
    before = editors.code_version(name), RunPlan.of(settings).digest()
    (package / "formula.py").write_text("SIZE = 2\n")
    after = editors.code_version(name), RunPlan.of(settings).digest()
    assert before[0] != after[0]
    assert before[1] != after[1]
