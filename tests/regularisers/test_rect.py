"""RECT keeps the entries of an edit that change their weight the most, and leaves every other weight as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from editsafety.edits.edit import Replace
from editsafety.edits.seal import Seal
from editsafety.errors import UsageError
from tests import tiny
from tests.regularisers.conftest import REQUESTS, Make, originals, sequence, weights

EXPRESSIONS = ("rect(rome)", "rect(ft)")


def masked(before: Tensor, after: Tensor, keep: float) -> Tensor:
    """The published rule by sorting: int(n (1 - keep)) smallest ratios go, but for the last of them, which is kept."""
    old, new = before.double().numpy(), after.double().numpy()
    ratio = np.abs((new - old) / (old + 1e-8))
    smallest = int(ratio.size * (1 - keep))
    if smallest:
        new = np.where(ratio >= np.sort(ratio, axis=None)[smallest - 1], new, old)
    return torch.from_numpy(new)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("inner", ["rome", "ft"])
def test_the_largest_relative_changes_are_kept_and_the_rest_are_the_old_weights(
    inner: str, family: str, make: Make
) -> None:
    handle = tiny.handle(family)
    plain = weights(handle, make(inner, handle).edit([REQUESTS[0]]))
    before = originals(handle, plain)
    edit = make(f"rect({inner})", handle, rect_keep=0.3).edit([REQUESTS[0]])
    found = weights(handle, edit)
    for name, value in found.items():
        expected = masked(before[name], plain[name], 0.3)
        moved = value != before[name]
        # Ratios next to the threshold may change sides where the sum was rounded before it was compared.
        assert (moved != (expected != before[name].double())).double().mean() < 1e-3
        assert 0.28 < moved.double().mean() < 0.31
        assert torch.allclose(value[moved], plain[name][moved], rtol=1e-5, atol=1e-8)
    assert 0.3 <= edit.notes["rect_kept"] < 0.301
    assert edit.notes["update_norm"] < edit.notes["rect_inner_norm"]


def test_a_share_of_one_is_the_inner_edit(make: Make) -> None:
    handle = tiny.handle()
    plain, all_kept = (
        make(e, handle, **n).edit([REQUESTS[0]]) for e, n in (("ft", {}), ("rect(ft)", {"rect_keep": 1}))
    )
    assert all(torch.equal(weights(handle, plain)[name], value) for name, value in weights(handle, all_kept).items())
    assert all_kept.notes["rect_kept"] == 1.0


def test_several_deltas_of_a_parameter_are_summed_before_they_are_compared(make: Make, nudge: str) -> None:
    handle = tiny.handle()
    inner = make(f"{nudge}:Nudge", handle, size=0.01).edit([REQUESTS[0]])
    edit = make(f"rect({nudge}:Nudge)", handle, size=0.01, rect_keep=0.25).edit([REQUESTS[0]])
    assert len(inner.deltas) == 3
    assert len(edit.deltas) == len(edit.parameters) == 2
    name = handle.mlp_out(0).parameter
    before = handle.model.get_parameter(name).detach()
    total = inner.deltas[0].matrix().double() + inner.deltas[1].matrix().double()
    expected = masked(before, before.double() + handle.mlp_out(0).stored(total), 0.25)
    found = weights(handle, edit)[name]
    assert torch.allclose(found.double(), expected, atol=1e-7)
    assert edit.carry is not None
    assert set(edit.carry) == {"edits"}


def test_every_edit_of_a_sequence_is_masked_against_the_weights_as_they_are_then(make: Make, nudge: str) -> None:
    handle = tiny.handle()
    editor = make(f"rect({nudge}:Nudge)", handle, size=0.01, rect_keep=0.2)
    steps = sequence(editor)
    before = originals(handle, steps[0])
    for step in steps:
        for name, value in step.items():
            assert 0.19 < (value != before[name]).double().mean() < 0.21
        before = step
    name = handle.mlp_out(1).parameter
    moved = [(b[name] - a[name]).norm() for a, b in zip([originals(handle, steps[0]), *steps], steps, strict=False)]
    assert moved[2] > 2 * moved[0]  # the inner editor's carry came through: its third edit is three times as large


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_same_seed_gives_the_same_bytes_and_the_model_is_what_it_was(expression: str, make: Make) -> None:
    handle = tiny.handle()
    seal = Seal.of(handle)
    first = make(expression, handle).edit([REQUESTS[0]])
    editor = make(expression, handle)
    editor.edit([REQUESTS[1]])
    assert editor.edit([REQUESTS[0]]).id == first.id
    assert seal.changed(Seal.of(handle)) == ()
    assert all(isinstance(delta, Replace) for delta in first.deltas)
    assert first.editor == expression


def test_what_is_not_finite_is_never_masked_away(make: Make, nudge: str) -> None:
    handle = tiny.handle()
    found = weights(handle, make(f"rect({nudge}:Breaks)", handle, rect_keep=0.01).edit([REQUESTS[0]]))
    assert not torch.isfinite(found[handle.mlp_out(0).parameter]).all()


def test_bfloat16_weights_stay_bfloat16_and_the_unkept_ones_keep_their_bits(make: Make) -> None:
    handle = tiny.handle("llama", dtype="bfloat16")
    edit = make("rect(ft)", handle).edit([REQUESTS[0]])
    for name, value in weights(handle, edit).items():
        before = handle.model.get_parameter(name)
        assert value.dtype == torch.bfloat16
        assert 0.3 < (value != before).double().mean() <= 0.41


@pytest.mark.parametrize("keep", [0.0, 1.5, -1, "nan"])
def test_a_share_that_cannot_be_meant_is_refused(keep: object) -> None:
    from editsafety import editors, hyperparameters

    kind = editors.load("rect(noop)")
    with pytest.raises(UsageError, match="rect_keep"):
        hyperparameters.validate(kind.Hparams, {"rect_keep": keep}, "here")
