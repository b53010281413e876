"""The small systems against plain ones of the size of the layer, and what a sequence carries."""

import pytest
import torch
from torch import Tensor

from editsafety.editing.covariance import Covariance, Inverse
from editsafety.editing.solve import Earlier, constrained, regularised
from editsafety.errors import EditorError
from editsafety.model.sites import Layout, Site

SIZE = 24
SITE = Site("mlp", Layout.OUT_IN, 8, SIZE)


def drawn(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def moment() -> Tensor:
    keys = drawn(SIZE, 200, seed=9)
    return keys @ keys.T / 200


@pytest.mark.parametrize("earlier", [0, 5, 15, 30])
@pytest.mark.parametrize("count", [1, 7, 40])
def test_the_small_system_solves_the_plain_one(count: int, earlier: int, moment: Tensor) -> None:
    keys, known = drawn(SIZE, count, 1), drawn(SIZE, earlier, 2)
    told = Earlier().plus(known) if earlier else Earlier()
    inverse = Inverse(Covariance("mlp", moment, 200))
    found = regularised(
        keys.double(), told, solve=lambda columns: inverse.columns(columns) / 3, matrix=lambda: 3 * moment.double()
    )
    both = torch.cat([keys, known], 1).double()
    plain = torch.linalg.solve(3 * moment.double() + both @ both.T, keys.double())
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-7)


def test_the_large_matrix_is_asked_for_only_when_there_are_more_keys_than_dimensions() -> None:
    def never() -> Tensor:
        raise AssertionError("asked for")

    told = Earlier().plus(drawn(SIZE, SIZE - 4))
    regularised(drawn(SIZE, 4), told, solve=lambda columns: columns, matrix=never)
    with pytest.raises(AssertionError, match="asked for"):
        regularised(drawn(SIZE, 5), told, solve=lambda columns: columns, matrix=never)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_constrained_keys_answer_exactly_but_for_the_ridge(ridge: float, moment: Tensor) -> None:
    keys = drawn(SIZE, 6, 1)
    spread = torch.linalg.solve(moment.double(), keys.double())
    found, pseudo = constrained(keys, spread, ridge)
    gram = keys.double().T @ spread
    torch.testing.assert_close(found.T @ keys.double(), torch.linalg.solve(gram + ridge * torch.eye(6).double(), gram))
    assert not pseudo


def test_the_same_key_twice_takes_the_pseudo_inverse_and_says_so() -> None:
    keys = torch.eye(SIZE)[:, [0, 0]]
    found, pseudo = constrained(keys, keys.double(), 0.0)
    assert pseudo
    torch.testing.assert_close(found, keys.double() / 2)  # each says half, together they say it once


def test_keys_that_are_not_finite_give_updates_that_are_not() -> None:
    broken = drawn(SIZE, 3)
    broken[0, 0] = torch.nan
    assert regularised(broken, Earlier(), solve=lambda columns: columns, matrix=Tensor).isnan().any()
    assert constrained(broken, broken.double(), 0.1)[0].isnan().any()


def test_keys_are_kept_until_they_outgrow_the_layer_and_their_moment_afterwards() -> None:
    first, second, third = drawn(SIZE, 20, 1), drawn(SIZE, 4, 2), drawn(SIZE, 1, 3)
    few = Earlier().plus(first).plus(second)
    assert few.keys is not None
    assert torch.equal(few.keys, torch.cat([first, second], 1))
    many = few.plus(third).plus(first)
    assert many.keys is None
    assert many.moment is not None
    every = torch.cat([first, second, third, first], 1)
    torch.testing.assert_close(many.moment, every @ every.T)


def test_projecting_the_keys_and_projecting_their_moment_are_one() -> None:
    axes = torch.linalg.qr(drawn(SIZE, 10))[0]
    keys = drawn(SIZE, 5, 1)

    def project(columns: Tensor) -> Tensor:
        return axes @ (axes.T @ columns)

    few, many = Earlier(keys).projected(project), Earlier(moment=keys @ keys.T).projected(project)
    assert few.keys is not None
    assert many.moment is not None
    torch.testing.assert_close(few.keys @ few.keys.T, many.moment)


@pytest.mark.parametrize("known", [Earlier(), Earlier(drawn(SIZE, 3)), Earlier(moment=drawn(SIZE, SIZE))])
def test_what_is_written_into_carry_is_read_back_for_its_site_only(known: Earlier) -> None:
    carry = known.written(SITE)
    found = Earlier.read(carry, SITE)
    assert (found.keys is known.keys, found.moment is known.moment) == (True, True)
    assert Earlier.read(carry, Site("other", Layout.OUT_IN, 8, SIZE)).written(SITE) == {}
    assert Earlier.read(None, SITE).written(SITE) == {}


def test_the_carry_of_another_model_is_refused() -> None:
    with pytest.raises(EditorError, match=r"earlier keys of mlp are \[7, 2\], expected 24 rows"):
        Earlier.read({"mlp.keys": drawn(7, 2)}, SITE)
