"""AlphaEdit: what is its own; what it shares with MEMIT is tested there."""

from typing import Any

import pytest
import torch

from editsafety.editing.solve import Earlier
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError
from tests import tiny
from tests.editors.conftest import Make
from tests.editors.test_memit import BATCH, OTHER, REQUEST, THIRD, factors, key


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("sequence", [False, True])
def test_a_batch_solves_the_published_system(family: str, sequence: bool, make: Make) -> None:
    """The published equation itself: not symmetric, of the size of the layer, with P from an SVD."""
    handle = tiny.handle(family)
    editor: Any = make("alphaedit", handle, layers=[1])
    site = handle.mlp_out(1)
    first = editor.edit([THIRD, tiny.request("case-3", subject="Kelmar")])
    with EditSession(handle) as session:
        if sequence:
            session.apply(first)
        (delta,) = factors(editor.edit(BATCH[:2], first.carry if sequence else None))
        keys = torch.stack([key(handle, site.module, request, editor.groups()) for request in BATCH[:2]], 1).double()
    known = first.carry[f"{site.module}.keys"].double() if sequence else torch.zeros(site.d_in, 1).double()
    vectors, values, _ = torch.linalg.svd(editor.moments.of(site, "alphaedit").matrix.double())
    kept = vectors[:, values < 0.02]
    projection = kept @ kept.T
    moment = projection @ (keys @ keys.T + known @ known.T) + 0.01 * torch.eye(site.d_in)
    expected = torch.linalg.solve(moment, projection @ keys @ delta.left.double().T)
    torch.testing.assert_close(delta.matrix().double(), expected.T, rtol=1e-4, atol=1e-5)


def test_a_key_outside_of_the_null_space_keeps_its_answer(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make("alphaedit", handle)
    for delta in factors(editor.edit(BATCH)):
        ordinary = torch.linalg.eigh(editor.moments.of(delta.site, "alphaedit").matrix.double())[1][:, -1]
        assert float((delta.matrix().double() @ ordinary).norm()) < 1e-5 * float(delta.matrix().norm())


def test_earlier_keys_keep_their_answers_and_without_the_carry_they_do_not(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make("alphaedit", handle, layers=[1], L2=1e-6)
    first = editor.edit([REQUEST])
    known = first.carry[f"{handle.mlp_out(1).module}.keys"][:, 0]
    with EditSession(handle) as session:
        session.apply(first)
        moved = [
            float((factors(editor.edit([OTHER], carry))[0].matrix() @ known).norm()) for carry in (first.carry, None)
        ]
    assert moved[0] < 0.05 * moved[1]


def test_the_carry_grows_by_every_batch_and_the_given_one_is_left_alone(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make("alphaedit", handle)
    first = editor.edit(BATCH[:2])
    before = {name: tensor.clone() for name, tensor in first.carry.items()}
    second = editor.edit([THIRD], first.carry)
    assert {tuple(tensor.shape) for tensor in second.carry.values()} == {(64, 3)}
    assert all(torch.equal(before[name], first.carry[name]) for name in before)
    assert all(torch.equal(second.carry[name][:, :2], before[name]) for name in before)


def test_the_notes_tell_the_size_of_the_null_space_and_how_much_of_the_keys_lies_in_it(make: Make) -> None:
    handle = tiny.handle("gpt2")
    notes: Any = make("alphaedit", handle).edit([REQUEST]).notes
    for layer in (0, 1):
        assert 0 < notes[f"{layer}.null_space"] < 64
        assert 0 < notes[f"{layer}.key_in_null_space"] < 1


def test_a_threshold_that_would_change_nothing_is_refused_while_preparing(make: Make) -> None:
    with pytest.raises(EditorError, match="no eigenvalue below nullspace_threshold = 1e-09"):
        make("alphaedit", tiny.handle("gpt2"), nullspace_threshold=1e-9)


def test_more_keys_than_the_layer_has_dimensions_solve_the_published_system_too(make: Make) -> None:
    handle = tiny.handle("gpt2")
    site, keys = handle.mlp_out(1), torch.randn(64, 70, generator=torch.Generator().manual_seed(0))
    editor: Any = make("alphaedit", handle, layers=[1], L2=0.5)
    vectors, values, _ = torch.linalg.svd(editor.moments.of(site, "alphaedit").matrix.double())
    projection = vectors[:, values < 0.02] @ vectors[:, values < 0.02].T
    system = projection @ keys.double() @ keys.double().T + 0.5 * torch.eye(64)
    found, notes = editor.answers(site, keys, Earlier())
    torch.testing.assert_close(found, torch.linalg.solve(system, projection @ keys.double()), rtol=1e-4, atol=1e-5)
    shares = (projection @ keys.double()).norm(dim=0) / keys.double().norm(dim=0)
    assert notes == {"null_space": int((values < 0.02).sum()), "key_in_null_space": pytest.approx(float(shares.min()))}
