"""EMMET: what is its own; what it shares with MEMIT is tested there."""

from typing import Any

import pytest
import torch

from editsafety.editing import rank_one
from editsafety.editing.solve import Earlier
from editsafety.edits.edit import LowRank
from tests import tiny
from tests.editors.conftest import Make
from tests.editors.test_memit import BATCH, OTHER, REQUEST, factors, key


def test_one_request_gives_the_rank_one_update_of_rome_with_one_key_above_and_below(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make("emmet", handle)
    edit = editor.edit([REQUEST])
    (delta,) = factors(edit)
    site = delta.site
    mean = key(handle, site.module, REQUEST, editor.groups())
    expected = rank_one.update(
        site,
        direction_key=mean,
        key=mean,
        output=torch.zeros(site.d_out),
        value=delta.left[:, 0],
        solve=editor.moments.inverse(site, "emmet"),
    )
    torch.testing.assert_close(delta.matrix(), expected.delta.matrix(), rtol=1e-3, atol=1e-4)
    assert edit.notes["denominator"] == pytest.approx(expected.denominator, rel=1e-3)
    assert expected.denominator > 0


@pytest.mark.parametrize("weight", [1, 7])
@pytest.mark.parametrize(("ridge", "damping"), [(0.1, 0.0), (0.1, 0.5), (0.0, 0.0)])
def test_a_batch_solves_the_published_system(weight: float, ridge: float, damping: float, make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make("emmet", handle, mom2_update_weight=weight, emmet_lambda=ridge, update_norm_lambda=damping)
    (delta,) = factors(editor.edit(BATCH))
    site = delta.site
    keys = torch.stack([key(handle, site.module, request, editor.groups()) for request in BATCH], 1).double()
    inner = weight * editor.moments.of(site, "emmet").matrix.double() + damping * torch.eye(site.d_in)
    spread = torch.linalg.inv(inner) @ keys
    expected = torch.linalg.inv(keys.T @ spread + ridge * torch.eye(3)) @ spread.T
    torch.testing.assert_close(delta.right.double(), expected, rtol=1e-3, atol=1e-4)


def test_without_damping_every_key_of_a_batch_answers_exactly_whatever_lambda_is(make: Make) -> None:
    handle = tiny.handle("gpt2")
    found = []
    for weight in (1, 1000):
        editor: Any = make("emmet", handle, emmet_lambda=0, mom2_update_weight=weight)
        (delta,) = factors(editor.edit(BATCH))
        keys = torch.stack([key(handle, delta.site.module, request, editor.groups()) for request in BATCH], 1)
        torch.testing.assert_close(delta.right @ keys, torch.eye(3), rtol=0, atol=1e-3)
        found.append(delta.matrix())
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_a_request_given_twice_is_written_through_the_pseudo_inverse_and_noted(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make("emmet", handle, emmet_lambda=0)
    once, twice = editor.edit([OTHER]), editor.edit([OTHER, OTHER])
    assert (once.notes["1.pseudo_inverse"], twice.notes["1.pseudo_inverse"]) == (False, True)
    (first,), (both,) = factors(once), factors(twice)
    assert isinstance(both, LowRank)
    torch.testing.assert_close(both.matrix(), first.matrix(), rtol=1e-3, atol=1e-4)


def test_the_damping_of_a_batch_makes_it_memit_with_the_product_of_both_weights(make: Make) -> None:
    handle = tiny.handle("gpt2")
    emmet = make("emmet", handle, mom2_update_weight=5, emmet_lambda=0.4).edit(BATCH)
    memit = make("memit", handle, layers=[1], mom2_update_weight=2).edit(BATCH)
    for found, expected in zip(factors(emmet), factors(memit), strict=True):
        torch.testing.assert_close(found.matrix(), expected.matrix(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("count", "damped"), [(1, False), (2, True)])
def test_only_a_batch_is_damped_and_two_are_one(count: int, damped: bool, make: Make) -> None:
    handle = tiny.handle("gpt2")
    site, keys = handle.mlp_out(1), torch.randn(64, count, generator=torch.Generator().manual_seed(0))
    editor: Any = make("emmet", handle, emmet_lambda=5)
    spread = torch.linalg.inv(editor.moments.of(site, "emmet").matrix.double()) @ keys.double()
    ridge = 5.0 * damped * torch.eye(count)
    expected = torch.linalg.inv(spread.T @ keys.double() + ridge) @ spread.T
    torch.testing.assert_close(editor.answers(site, keys, Earlier())[0].T, expected, rtol=1e-4, atol=1e-6)
