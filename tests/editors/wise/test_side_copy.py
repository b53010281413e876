"""Distances that a side copy makes, and the margin between those it should make and those it should not."""

import pytest
import torch

from editsafety.editors.wise import side_copy
from tests import tiny


def test_a_distance_is_taken_behind_the_activation() -> None:
    output, moved = torch.tensor([[-1.0, -2.0], [0.0, 0.0]]), torch.tensor([[-5.0, -9.0], [3.0, 4.0]])
    assert side_copy.distances("relu", moved, output).tolist() == [0.0, 5.0]


def test_a_difference_of_nothing_has_a_gradient_of_nothing() -> None:
    output = torch.ones(2, 3)
    moved = output.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(side_copy.distances("gelu", moved, output).sum(), [moved])
    assert torch.equal(slope, torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("inside", "outside", "expected"),
    [
        ([20.0, 30.0], [5.0, 0.0], 0.0),
        ([18.0, 30.0], [5.0, 0.0], 1.0),  # one of two inside is 2 below beta
        ([20.0, 30.0], [9.0, 5.0], 2.0),  # one of two outside is 4 above alpha
        ([20.0, 40.0], [15.0, 15.0], 10.0 + 2.5),  # both outside by 10; the first inside is 5 short of gamma
    ],
)
def test_the_margin_asks_for_beta_inside_alpha_outside_and_gamma_between(
    inside: list[float], outside: list[float], expected: float
) -> None:
    found = side_copy.margin(torch.tensor(inside), torch.tensor(outside), (5.0, 20.0, 10.0))
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("family", "name"),
    [("gpt2", "gelu_new"), ("llama", "silu"), ("gemma2", "gelu_pytorch_tanh"), ("opt", "relu"), ("bloom", "gelu")],
)
def test_the_activation_is_the_models(family: str, name: str) -> None:
    assert side_copy.activation_of(tiny.handle(family)) == name
