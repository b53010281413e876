"""Flags of gradients: changed inside the block, put back after it."""

import pytest
import torch

from editsafety.editing import gradients


def test_only_the_wanted_parameter_asks_for_gradients_and_every_flag_comes_back() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    with torch.no_grad(), gradients.only(model, [model.bias]):
        assert (model.weight.requires_grad, model.bias.requires_grad, torch.is_grad_enabled()) == (False, True, True)
    assert (model.weight.requires_grad, model.bias.requires_grad) == (True, False)


def test_flags_come_back_after_an_error() -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(KeyboardInterrupt), gradients.only(model):
        raise KeyboardInterrupt
    assert model.weight.requires_grad
