"""LoRA: what peft trained is what the edit holds, and nothing of peft stays on the model."""

import importlib.util
from typing import Any

import pytest
import torch

from editsafety.datasets.request import EditRequest
from editsafety.editing import gradients
from editsafety.editors import lora
from editsafety.edits.edit import LowRank
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, UsageError
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import Make

pytest.importorskip("peft")

REQUEST = tiny.request(target_new="farmer and baker")
OTHER = tiny.request("case-1", subject="Mirel", target_new="farmer")


def nll(handle: ModelHandle, request: EditRequest) -> Any:
    """Mean over target tokens, by the definition; with its graph."""
    prompt, target = handle.ids(request.filled), handle.target_ids(request.target_new)
    scores = handle.logits(handle.batch([[*prompt, *target]]))[0].log_softmax(-1)
    return -sum(scores[len(prompt) - 1 + i, t] for i, t in enumerate(target)) / len(target)


def delta_of(editor: Any, *requests: EditRequest) -> LowRank:
    (delta,) = editor.edit(list(requests) or [REQUEST]).deltas
    assert isinstance(delta, LowRank)
    return delta


@pytest.mark.parametrize("kind", ["lora", "adalora"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama"])
def test_the_targets_loss_falls(family: str, kind: str, make: Make) -> None:
    handle = tiny.handle(family)
    before = nll(handle, REQUEST).item()
    edit = make("lora", handle, lora_type=kind, num_steps=30).edit([REQUEST])
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        after = nll(handle, REQUEST).item()
    assert after < before - 0.5
    assert after == pytest.approx(edit.notes["nll_at_stop"], rel=1e-4)


def test_a_batch_is_trained_together(make: Make) -> None:
    handle = tiny.handle("gpt2")
    before = [nll(handle, request).item() for request in (REQUEST, OTHER)]
    edit = make("lora", handle, batch_size=2).edit([REQUEST, OTHER])
    assert edit.notes["steps"] == 8
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        assert all(nll(handle, r).item() < old - 0.5 for r, old in zip((REQUEST, OTHER), before, strict=True))


@pytest.mark.parametrize("kind", ["lora", "adalora"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_edit_does_what_pefts_layers_did(family: str, kind: str, make: Make) -> None:
    """peft's own forward pass, with all of its factors random and dropout off, against the delta that is read off."""
    handle = tiny.handle(family)
    editor: Any = make("lora", handle, lora_type=kind, target_modules=["attention_out", "mlp_out"], lora_dropout=0.5)
    batch = handle.batch([handle.ids(REQUEST.filled)])
    with torch.no_grad(), gradients.only(handle.model):
        plain = handle.logits(batch)
        with lora._adapted(handle, editor.sites, editor._config(1)) as layers:
            for layer in layers.values():
                layer.lora_dropout.eval()
                for parameter in layer.parameters():
                    if parameter.requires_grad:
                        parameter.data.normal_(0, 0.3)
            expected = handle.logits(batch)
            deltas = tuple(editor._delta(site, layers[site.module]) for site in editor.sites)
    edit = editor.edit([REQUEST])
    with EditSession(handle) as session, torch.no_grad():
        session.apply(type(edit)(edit.editor, edit.request_ids, edit.made_for, deltas))
        torch.testing.assert_close(handle.logits(batch), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, expected, atol=0.1)


def test_the_first_step_is_the_sign_of_the_gradient_of_the_loss(make: Make) -> None:
    """B begins at zero, so Adam's first step makes B = -lr sign(s dL/dW A^T) and leaves A; dL/dW by plain autograd."""
    handle = tiny.handle("gpt2")
    site = handle.mlp_out(1)
    changes = {"target_modules": ["mlp_out"], "num_steps": 1, "lora_dropout": 0.0}
    delta = delta_of(make("lora", handle, **changes))
    (slope,) = torch.autograd.grad(nll(handle, REQUEST), [handle.model.get_parameter(site.parameter)])
    to_b = site.canonical(slope) @ delta.right.T
    clear = to_b.abs() > 1e-6
    assert clear.float().mean() > 0.9
    expected = -0.02 * 4 * to_b.sign()  # lr, alpha / rank
    torch.testing.assert_close(delta.left[clear], expected[clear], rtol=1e-3, atol=0)


def test_adalora_is_trained_with_the_penalty_that_keeps_its_factors_orthogonal(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make("lora", handle, lora_type="adalora", orth_reg_weight=0.25)
    with gradients.only(handle.model), lora._adapted(handle, editor.sites, editor._config(1)) as layers:
        found = editor._penalty(list(layers.values())).item()
        distances = []
        for layer in layers.values():
            for rows in (layer.lora_A["default"].detach().double(), layer.lora_B["default"].detach().double().T):
                distances.append(float((rows @ rows.T - torch.eye(2).double()).square().sum().sqrt()))
    assert found == pytest.approx(0.25 * sum(distances) / len(distances), rel=1e-5)
    assert found > 0.1


def test_dropout_works_while_training_and_not_in_the_edited_model(make: Make) -> None:
    handle = tiny.handle("gpt2")
    dropped = make("lora", handle, lora_dropout=0.5).edit([REQUEST])
    assert dropped.id != make("lora", handle, lora_dropout=0.0).edit([REQUEST]).id
    batch = handle.batch([handle.ids(REQUEST.filled)])
    with EditSession(handle) as session, torch.no_grad():
        session.apply(dropped)
        assert torch.equal(handle.logits(batch), handle.logits(batch))


def test_what_is_drawn_depends_on_seed_and_request_and_on_nothing_else(make: Make) -> None:
    handle = tiny.handle("gpt2")
    ids = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        ids.append(make("lora", handle).edit([REQUEST]).id)
        assert torch.equal(before, torch.get_rng_state())
    assert ids[0] == ids[1]
    assert make("lora", handle, seed=1).edit([REQUEST]).id != ids[0]


@pytest.mark.parametrize(
    ("names", "layers", "modules"),
    [
        (["mlp_out"], [2], ["transformer.h.2.mlp.c_proj"]),
        (["c_attn"], [], [f"transformer.h.{layer}.attn.c_attn" for layer in range(3)]),
        (["attn.c_proj", "attention_out"], [0], ["transformer.h.0.attn.c_proj"]),
        (["c_proj"], [1], ["transformer.h.1.attn.c_proj", "transformer.h.1.mlp.c_proj"]),
    ],
)
def test_parts_and_the_models_own_names_are_understood(
    names: list[str], layers: list[int], modules: list[str], make: Make
) -> None:
    edit = make("lora", tiny.handle("gpt2"), target_modules=names, layers=layers, num_steps=1).edit([REQUEST])
    assert edit.parameters == tuple(f"{module}.weight" for module in modules)


def test_a_name_that_is_not_there_is_refused_with_the_known_ones(make: Make) -> None:
    with pytest.raises(UsageError, match=r"transformer.h.1 of tiny-gpt2 has no 'q_proj'. It has: mlp_in.*attn.c_attn"):
        make("lora", tiny.handle("gpt2"), target_modules=["q_proj"]).edit([REQUEST])


def test_training_stops_below_the_stop_loss(make: Make) -> None:
    notes = make("lora", tiny.handle("gpt2"), stop_loss=1e9).edit([REQUEST]).notes
    assert (notes["steps"], notes["update_norm"]) == (0, 0.0)


def test_the_noted_norm_is_that_of_all_deltas(make: Make) -> None:
    edit = make("lora", tiny.handle("gpt2")).edit([REQUEST])
    whole = sum(float(d.matrix().square().sum()) for d in edit.deltas if isinstance(d, LowRank)) ** 0.5
    assert edit.notes["update_norm"] == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("trouble", [None, RuntimeError, KeyboardInterrupt])
def test_nothing_of_peft_stays_on_the_model(trouble: Any, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    editor = make("lora", handle)
    frame, seal, attributes = Frame.of(handle), Seal.of(handle), set(vars(handle.model))
    if trouble is None:
        editor.edit([REQUEST])
    else:

        def fails(*_: Any) -> None:
            raise trouble

        monkeypatch.setattr(torch.optim.Adam, "step", fails)
        with pytest.raises(trouble):
            editor.edit([REQUEST])
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()
    assert set(vars(handle.model)) == attributes


def test_without_peft_one_sentence_says_what_to_install(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = make("lora", tiny.handle("gpt2"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"lora needs peft, .*pip install 'editsafety\[lora\]'"):
        editor.missing()
    with pytest.raises(UsageError, match="lora needs peft"):
        editor.edit([REQUEST])


def test_nothing_to_edit_is_refused(make: Make) -> None:
    with pytest.raises(EditorError, match="lora was given no request"):
        make("lora", tiny.handle("gpt2")).edit([])
