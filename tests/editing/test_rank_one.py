"""The rank-one update against the constraint that defines it."""

import pytest
import torch

from editsafety.editing.covariance import Covariance, Inverse
from editsafety.editing.rank_one import update
from editsafety.model.sites import Layout, Site

SITE = Site("m", Layout.OUT_IN, 5, 8)
DRAW = torch.Generator().manual_seed(0)
WEIGHT, BIAS = torch.randn(5, 8, generator=DRAW), torch.randn(5, generator=DRAW)
SAMPLES = torch.randn(100, 8, generator=DRAW)
SOLVE = Inverse(Covariance("m", SAMPLES.T @ SAMPLES / 100, 100))
KEY, OTHER, VALUE = torch.randn(8, generator=DRAW), torch.randn(8, generator=DRAW), torch.randn(5, generator=DRAW)


@pytest.mark.parametrize("direction", [KEY, OTHER])
def test_the_key_is_sent_to_the_value(direction: torch.Tensor) -> None:
    found = update(SITE, direction_key=direction, key=KEY, output=WEIGHT @ KEY + BIAS, value=VALUE, solve=SOLVE)
    torch.testing.assert_close((WEIGHT + found.delta.matrix()) @ KEY + BIAS, VALUE, rtol=1e-4, atol=1e-4)


def test_with_one_key_it_is_the_smallest_change_under_c() -> None:
    found = update(SITE, direction_key=KEY, key=KEY, output=WEIGHT @ KEY + BIAS, value=VALUE, solve=SOLVE)
    moment = SAMPLES.T @ SAMPLES / 100
    cost = torch.trace(found.delta.matrix() @ moment @ found.delta.matrix().T)
    for _ in range(20):  # any other solution is this one plus something that maps KEY to 0
        noise = torch.randn(5, 8, generator=DRAW)
        other = found.delta.matrix() + noise - torch.outer(noise @ KEY, KEY) / (KEY @ KEY)
        assert torch.trace(other @ moment @ other.T) > cost


def test_the_figures_are_what_they_are_called() -> None:
    output = WEIGHT @ KEY + BIAS
    found = update(SITE, direction_key=OTHER, key=KEY, output=output, value=VALUE, solve=SOLVE)
    direction = torch.linalg.inv(SAMPLES.T @ SAMPLES / 100) @ OTHER
    assert found.numerator == pytest.approx(float((VALUE - output).norm()), rel=1e-5)
    assert found.denominator == pytest.approx(float(KEY @ direction / direction.norm()), rel=1e-4)
    assert found.cosine == pytest.approx(float(KEY @ OTHER / KEY.norm() / OTHER.norm()), rel=1e-4)
    assert found.norm == pytest.approx(float(found.delta.matrix().norm()), rel=1e-5)
    assert found.norm == pytest.approx(abs(found.numerator / found.denominator), rel=1e-5)
