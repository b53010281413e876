"""Behaviour: the same model gives the same bits, any change of what it computes shows, and the model is left alone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from editsafety.edits.behaviour import LENGTH, Behaviour, apart
from editsafety.edits.edit import Edit
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession, Proof
from editsafety.errors import UndoError
from editsafety.model.handle import ModelHandle
from tests import tiny


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_model_behaves_the_same_each_time_and_is_left_as_it_was(family: str) -> None:
    handle = tiny.handle(family)
    seal, frame = Seal.of(handle), Frame.of(handle)
    first = Behaviour.of(handle)
    assert isinstance(first.logits, torch.Tensor)
    assert isinstance(first.gradient, torch.Tensor)
    assert first.logits.shape == (LENGTH, tiny.VOCABULARY)
    assert first.gradient.count_nonzero()
    assert first.differences(Behaviour.of(handle)) == ()
    assert seal.changed(Seal.of(handle)) == ()
    assert frame.left_behind(handle) == ()


def test_logits_and_gradient_are_those_of_a_plain_run(handle: ModelHandle) -> None:
    found = Behaviour.of(handle)
    ids = torch.tensor([handle.tokenizer("Naïve 東京 x1: does it still split\tthis?\n  <s> ")["input_ids"][:8]])
    logits = handle.model(input_ids=ids).logits[0]
    parameter = min(handle.model.transformer.h[1].parameters(), key=lambda one: one.numel())
    (gradient,) = torch.autograd.grad(torch.log(torch.exp(logits).sum(-1)).sum(), parameter)
    assert torch.equal(torch.as_tensor(found.logits), logits)
    assert torch.allclose(torch.as_tensor(found.gradient), gradient, rtol=1e-4, atol=1e-6)


def test_a_frozen_model_has_a_gradient_and_stays_frozen(handle: ModelHandle) -> None:
    handle.model.requires_grad_(False)
    with torch.no_grad():
        found = Behaviour.of(handle)
    assert isinstance(found.gradient, torch.Tensor)
    assert not any(parameter.requires_grad for parameter in handle.model.parameters())


def test_one_changed_bit_of_a_weight_shows(handle: ModelHandle) -> None:
    before = Behaviour.of(handle)
    weight = handle.model.transformer.ln_f.weight.data
    weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    said = before.differences(Behaviour.of(handle))
    assert any("logits differ by up to" in one for one in said)


def test_a_gradient_that_is_another_one_shows_where_the_logits_are_the_same(handle: ModelHandle) -> None:
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return gradients[0] / 2

    before = Behaviour.of(handle)
    handle.model.transformer.ln_f.register_forward_hook(lambda module, args, output: Halved.apply(output))
    (said,) = before.differences(Behaviour.of(handle))
    assert said.startswith("the unedited model does not behave as before: on a fixed sentence its gradients differ by")


def test_numbers_that_are_none_are_bits_like_any_other(handle: ModelHandle) -> None:
    before = Behaviour.of(handle)
    handle.model.transformer.ln_f.weight.data[0] = float("nan")
    broken = Behaviour.of(handle)
    assert "not finite where they were" in before.differences(broken)[0]
    assert broken.differences(Behaviour.of(handle)) == ()


def test_an_error_is_a_behaviour_that_has_to_stay(handle: ModelHandle) -> None:
    before = Behaviour.of(handle)

    class Refuses(nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError("not today")

    handle.model.transformer.ln_f = Refuses()
    now = Behaviour.of(handle)
    assert now.logits == "ValueError: not today"
    assert now.differences(Behaviour.of(handle)) == ()
    assert "cannot be computed any more (ValueError: not today)" in before.differences(now)[0]
    assert "come, where there was ValueError" in now.differences(before)[0]


def test_another_vocabulary_is_another_behaviour(handle: ModelHandle) -> None:
    before = Behaviour.of(handle)
    handle.model.resize_token_embeddings(tiny.VOCABULARY + 8)
    assert f"[{LENGTH}, {tiny.VOCABULARY + 8}]" in before.differences(Behaviour.of(handle))[0]


def test_what_differs_from_run_to_run_is_allowed_to_differ_a_little() -> None:
    plain = torch.ones(3, 4)
    noisy = Behaviour(plain, plain, noise=(1e-3, 0.0))
    assert noisy.differences(Behaviour(plain + 2e-3, plain)) == ()
    assert len(noisy.differences(Behaviour(plain + 1, plain))) == 1
    (said,) = noisy.differences(Behaviour(plain, plain + 1e-6))
    assert "gradients differ by up to" in said


def test_the_first_place_that_differs_is_named() -> None:
    plain = torch.zeros(5, 4)
    other = plain.clone()
    other[2, 1] = 0.25
    (said,) = Behaviour(plain, plain).differences(Behaviour(other, plain))
    assert said.endswith("its logits differ by up to 0.25, first at token 3 of 5")


class Scaled(nn.Module):
    """A part whose number is kept where nobody looks: in a list."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.factor = inner, [1.0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = self.inner(x) * self.factor[0]
        return scaled


@pytest.mark.parametrize("prove", ["always", "in doubt", "never"])
def test_what_has_no_name_shows_in_behaviour_where_that_is_proved(handle: ModelHandle, prove: Proof) -> None:
    part = Scaled(handle.model.transformer.ln_f)
    handle.model.transformer.ln_f = part
    with EditSession(handle, prove=prove):
        pass
    proof = pytest.raises(UndoError) if prove != "never" else nullcontext()
    with proof as caught, EditSession(handle, prove=prove):
        part.factor[0] = 2.0
        if prove == "in doubt":
            handle.model.transformer.h[0].train()
    assert part.factor == [2.0]
    if caught is not None:
        assert caught.value.findings[0].startswith("the unedited model does not behave as before: on a fixed sentence")


def test_a_model_that_keeps_an_edit_is_proved_to_be_the_edited_one(handle: ModelHandle) -> None:
    part = Scaled(handle.model.transformer.ln_f)
    handle.model.transformer.ln_f = part
    delta = tiny.low_rank(handle.mlp_out(1))

    def keep(factor: float) -> None:
        with EditSession(handle) as session:
            session.apply(Edit("test", ("a",), handle.identity, (delta,)))
            session.commit()
            part.factor[0] = factor

    keep(1.0)
    with pytest.raises(UndoError, match="does not behave as before"):
        keep(2.0)


def test_how_far_logits_are_apart_is_a_share_of_the_largest_and_a_hole_in_one_only_is_no_small_thing() -> None:
    one = torch.tensor([[1.0, -4.0], [0.0, 2.0]])
    nan, inf = float("nan"), float("inf")
    assert apart(one, one) == 0.0
    assert apart(one + torch.tensor([[0.0, 0.0], [0.0, 1.0]]), one) == 0.25
    assert apart(one, torch.ones(2, 3)) == inf
    assert apart(torch.tensor([nan, inf, 1.0]), torch.tensor([nan, inf, 1.0])) == 0.0
    assert apart(torch.tensor([nan, 1.0]), torch.tensor([1.0, 1.0])) == inf
    assert apart(torch.tensor([0.0, 0.0]), torch.tensor([inf, 0.0])) == inf
    assert apart(torch.tensor([0.5]), torch.tensor([0.0])) == 0.5
