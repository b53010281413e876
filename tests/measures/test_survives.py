"""Survival: what is lost in fewer bits is called lost, what is kept is called kept, and the model comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety import measures
from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Edit, Replace, nothing
from editsafety.edits.seal import Seal
from editsafety.edits.session import EditSession
from editsafety.errors import MeasureError
from editsafety.measures import Inputs, _reloading, _rounding, _training
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny

HEAD = "lm_head.weight"
IN_PLACE = ("survives_bfloat16", "survives_int8", "survives_4bit", "survives_training")
# Behind a space nothing is put between prompt and answer, and a full stop ends every word: one token is the answer.
REQUEST = EditRequest("case-0", "{} works as a ", "Toren", ".")


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2", tied=False)


def found(handle: ModelHandle, name: str, edit: Edit) -> Measurement:
    """What a measure finds of the edited model."""
    with EditSession(handle, prove="never") as session:
        session.apply(edit)
        (measured,) = measures.load(name)(handle, Inputs((REQUEST,), tiny.SENTENCES, edit=edit))
    return measured


def stop(handle: ModelHandle) -> int:
    (token,) = handle.ids(".", special=False)
    return token


@torch.no_grad()
def state_and_answer(handle: ModelHandle) -> tuple[Tensor, int]:
    """What the head receives at the end of the prompt, and the most probable token."""
    with trace.watch(handle.model, ["lm_head"]) as seen:
        logits = handle.logits(handle.batch([handle.ids(REQUEST.filled)]))
    return seen.inputs["lm_head"][0, -1], int(logits[0, -1].argmax())


def loud(handle: ModelHandle, editor: str = "loud") -> Edit:
    """An edit of the head after which a full stop is by far the most probable answer."""
    state, _ = state_and_answer(handle)
    head = handle.model.get_parameter(HEAD).detach().clone()
    head[stop(handle)] = 10 * state
    return Edit(editor, ("case-0",), handle.identity, (Replace(HEAD, head),))


def below_half_a_step(handle: ModelHandle) -> Edit:
    """Every weight of a model in bfloat16; then an edit that is a fifth of a bfloat16 step in each entry of one row."""
    with torch.no_grad():
        for parameter in handle.model.parameters():
            parameter.copy_(parameter.bfloat16().float())
        state, answer = state_and_answer(handle)
        head = handle.model.get_parameter(HEAD)
        row = head[answer].clone()
        step = 2.0 ** (row.abs().log2().floor() - 7)  # a bfloat16 has 8 significant bits
        at = int((state.abs() * step).argsort()[len(row) // 2])
        row[at] -= step[at] * state[at].sign()  # a little less probable than the answer
        head[stop(handle)] = row
        handle.identity = handle.fingerprint()
        edited = head.clone()
        edited[stop(handle)] += 0.2 * step * state.sign()
    return Edit("quiet", ("case-0",), handle.identity, (Replace(HEAD, edited),))


def below_half_a_level(handle: ModelHandle) -> Edit:
    """Every projection of a model in 4 bits; then an edit that is a fifth of a level in each entry of one of them."""
    site = handle.mlp_out(handle.layers - 1)
    with torch.no_grad():
        for one in _rounding.projections(handle):
            weight = handle.model.get_parameter(one.parameter)
            weight.copy_(one.stored(_rounding.to_4bit(one.canonical(weight).clone())))
        state, answer = state_and_answer(handle)
        across = torch.randn(len(state), generator=torch.Generator().manual_seed(0))
        across -= state * (across @ state) / (state @ state)
        head = handle.model.get_parameter(HEAD)
        head[stop(handle)] = head[answer] + across - 0.01 * state / state.norm()
        handle.identity = handle.fingerprint()
    weight = handle.model.get_parameter(site.parameter)
    logits = handle.logits(handle.batch([handle.ids(REQUEST.filled)]))[0, -1]
    (slope,) = torch.autograd.grad(logits[stop(handle)] - logits[answer], [weight])
    before, slope = site.canonical(weight.detach()), site.canonical(slope)
    groups = before.reshape(len(before), -1, _rounding.GROUP)
    top = groups.abs().amax(-1, keepdim=True)
    change = (0.2 * top / 7 * slope.reshape(groups.shape).sign()).where(groups.abs() < 0.99 * top, torch.zeros(()))
    return Edit(
        "coarse",
        ("case-0",),
        handle.identity,
        (Replace(site.parameter, site.stored((groups + change).reshape(before.shape)).contiguous()),),
    )


@pytest.mark.parametrize("name", IN_PLACE)
def test_an_edit_that_is_far_above_any_rounding_is_kept(name: str, handle: ModelHandle) -> None:
    assert found(handle, name, loud(handle)).value == 1.0


def test_an_edit_below_half_a_step_of_bfloat16_is_lost_in_it(handle: ModelHandle) -> None:
    edit = below_half_a_step(handle)
    assert found(handle, "survives_bfloat16", edit).value == 0.0
    assert found(handle, "survives_int8", edit).n == 1  # it took before


def test_an_edit_below_half_a_level_of_4_bits_is_lost_in_them_and_kept_in_bfloat16(handle: ModelHandle) -> None:
    edit = below_half_a_level(handle)
    assert found(handle, "survives_4bit", edit).value == 0.0
    assert found(handle, "survives_bfloat16", edit).value == 1.0


@pytest.mark.parametrize("name", [*IN_PLACE, "survives_reload"])
def test_an_edit_that_does_nothing_has_nothing_to_keep_and_is_no_pass(name: str, handle: ModelHandle) -> None:
    measured = found(handle, name, nothing("noop", ("case-0",), handle.identity))
    assert measured.value is None
    assert "the edit did not take" in str(measured.reason)


@pytest.mark.parametrize("name", IN_PLACE)
def test_the_unedited_model_is_asked_for_its_own_fact(name: str, handle: ModelHandle) -> None:
    state, _ = state_and_answer(handle)
    with torch.no_grad():
        handle.model.get_parameter(HEAD)[stop(handle)] = 10 * state
    known = replace(REQUEST, target_new="teacher", target_true=".")
    (measured,) = measures.load(name)(handle, Inputs((known,), tiny.SENTENCES))
    assert measured.value == 1.0


@pytest.mark.parametrize("name", IN_PLACE)
def test_the_edited_model_comes_back_bit_for_bit(name: str, handle: ModelHandle) -> None:
    edit = loud(handle)
    with EditSession(handle, prove="never") as session:
        session.apply(edit)
        seal, touched = Seal.of(handle), handle.engine.touched
        measures.load(name)(handle, Inputs((REQUEST,), tiny.SENTENCES, edit=edit))
        assert not seal.changed(Seal.of(handle))
        assert handle.engine.touched == touched
    assert handle.fingerprint() == handle.identity


def test_the_unedited_model_is_trained_once_for_all_requests_and_an_edited_one_by_itself(
    handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[bool] = []
    train = _training._train

    def counted(handle: ModelHandle, rows: Sequence[Sequence[int]]) -> Any:
        trained.append(handle.open_sessions > 1)
        return train(handle, rows)

    def weights(texts: Sequence[str] = tiny.SENTENCES) -> dict[str, Tensor]:
        with _training.trained_on(handle, texts):
            return {name: tensor.clone() for name, tensor in handle.model.named_parameters()}

    monkeypatch.setattr(_training, "_train", counted)
    first, again = weights(), weights()
    assert len(trained) == 1
    with handle.engine.switched_off():
        plain = weights()
    assert len(trained) == 2
    assert all(torch.equal(first[name], again[name]) and torch.equal(first[name], plain[name]) for name in first)
    weights(tiny.SENTENCES[:2])
    assert len(trained) == 3, "other texts"
    with EditSession(handle) as session:
        session.apply(loud(handle))
        edited = weights()
    assert trained == [False, False, False, True]
    assert not all(torch.equal(first[name], edited[name]) for name in first)
    weights()
    assert len(trained) == 4, "it is the unedited model again"


def test_without_texts_nothing_is_trained_on(handle: ModelHandle) -> None:
    edit = loud(handle)
    with EditSession(handle, prove="never") as session:
        session.apply(edit)
        (measured,) = measures.load("survives_training")(handle, Inputs((REQUEST,), edit=edit))
    assert "no texts" in str(measured.reason)


@pytest.mark.thorough
def test_a_new_process_finds_the_edit_in_the_saved_shards_and_only_one_of_an_editor_is_asked(
    handle: ModelHandle,
) -> None:
    assert found(handle, "survives_reload", loud(handle)).value == 1.0
    again = found(handle, "survives_reload", loud(handle))
    assert again.value is None
    assert "another edit of loud was reloaded" in str(again.reason)


def test_a_process_that_ends_without_an_answer_is_an_error_of_the_measure(
    handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reloading, "ENTRY", "import sys; sys.exit('out of luck')")
    with pytest.raises(MeasureError, match="ended with 1 instead of measuring tiny-gpt2: out of luck"):
        found(handle, "survives_reload", loud(handle))


def test_a_checkpoint_that_cannot_be_loaded_is_a_finding(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reloading, "_ask", lambda spec, inputs: {"refused": "it lacks 3 weights"})
    measured = found(handle, "survives_reload", loud(handle))
    assert measured.broken
    assert "it lacks 3 weights" in str(measured.reason)
