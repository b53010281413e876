"""PRUNE: at every number of edits the model is what the published procedure gives when the sequence ends there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from editsafety.edits.edit import LowRank, Replace
from editsafety.edits.seal import Seal
from editsafety.errors import EditorError, UsageError
from editsafety.regularisers.prune import Track, restrain
from tests import tiny
from tests.regularisers.conftest import REQUESTS, Make, close, originals, sequence, weights


def pruned(start: Tensor, end: Tensor, base: float | str) -> Tensor:
    """The published formula by a full decomposition of W_n - W0, once."""
    first, last = start.double().numpy(), end.double().numpy()
    bound = np.linalg.svd(first, compute_uv=False)[0]
    left, values, right = np.linalg.svd(last - first, full_matrices=False)
    above = (values + bound) / 2 if base == "linear" else np.log(values / bound) / np.log(base) + bound
    return torch.from_numpy(first + (left * np.where(values < bound, values, above)) @ right)


def largest(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix.double(), 2))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("inner", "numbers"),
    [
        ("rome", {"v_num_grad_steps": 4}),
        ("ft", {"lr": 0.3}),
        ("Nudge", {"size": 2.0}),
        ("Nudge", {"size": 2.0, "rank": 20}),
    ],
)
def test_a_sequence_stopped_anywhere_is_the_published_procedure_stopped_there(
    inner: str, numbers: dict[str, float], family: str, make: Make, nudge: str
) -> None:
    handle = tiny.handle(family)
    name = f"{nudge}:{inner}" if inner == "Nudge" else inner
    free = sequence(make(name, handle, **numbers))
    start = originals(handle, free[-1])
    steps = sequence(make(f"prune({name})", handle, prune_base=math.e, **numbers))
    restrained_any = False
    for unrestrained, step in zip(free, steps, strict=True):
        for parameter, value in step.items():
            assert close(value, pruned(start[parameter], unrestrained[parameter], math.e), 1e-5)
            restrained_any |= not torch.equal(value, unrestrained[parameter])
    assert restrained_any or inner == "rome"


def test_singular_values_above_the_largest_of_the_first_weight_are_brought_near_it(make: Make, nudge: str) -> None:
    handle = tiny.handle()
    edit = make(f"prune({nudge}:Nudge)", handle, size=50.0, prune_base=math.e).edit([REQUESTS[0]])
    name = handle.mlp_out(1).parameter
    before = handle.model.get_parameter(name).detach()
    bound = largest(before)
    inner = largest(make(f"{nudge}:Nudge", handle, size=50.0).edit([REQUESTS[0]]).deltas[2].matrix())
    found = largest(weights(handle, edit)[name].double() - before.double())
    assert inner > 10 * bound
    assert found == pytest.approx(math.log(inner / bound) + bound, rel=1e-4)
    assert edit.notes["prune_restrained"] == 3.0  # two deltas in layer 0, one in layer 1
    assert edit.notes["prune_excess"] > 10
    assert edit.notes["update_norm"] < edit.notes["prune_inner_norm"]


def test_small_changes_pass_bit_for_bit(make: Make, nudge: str) -> None:
    handle = tiny.handle()
    plain = sequence(make(f"{nudge}:Nudge", handle, size=1e-3))
    same = sequence(make(f"prune({nudge}:Nudge)", handle, size=1e-3))
    for expected, found in zip(plain, same, strict=True):
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_inner_edits_are_those_of_the_inner_editor_alone_bit_for_bit(make: Make) -> None:
    handle = tiny.handle()
    alone, carry = sequence(make("rome", handle, v_num_grad_steps=4)), None
    editor = make("prune(rome)", handle, v_num_grad_steps=4, prune_base="linear")
    from editsafety.edits.session import EditSession

    with EditSession(handle) as session:
        for request, expected in zip(REQUESTS, alone, strict=True):
            edit = editor.edit([request], carry)
            session.apply(edit)
            carry = edit.carry
            for name, value in expected.items():
                assert torch.equal(carry[f"free.{name}"], value)


def test_the_inner_editor_s_own_carry_travels_inside(make: Make, nudge: str) -> None:
    handle = tiny.handle()
    editor = make(f"prune({nudge}:Nudge)", handle, size=0.01)
    first = editor.edit([REQUESTS[0]])
    second = editor.edit([REQUESTS[0]], first.carry)
    assert [float(edit.carry["inner.edits"]) for edit in (first, second)] == [1.0, 2.0]


@pytest.mark.parametrize("layout", ["gpt2", "llama"])
def test_small_factors_and_the_full_decomposition_agree(layout: str) -> None:
    handle = tiny.handle(layout)
    site = handle.mlp_out(1)
    start = handle.model.get_parameter(site.parameter).detach().double()
    delta = tiny.low_rank(site, rank=5, size=3.0)
    tall, flat = (delta.left, delta.right) if layout == "llama" else (delta.right.T, delta.left.T)
    bound = torch.tensor(largest(start))
    low = Track(start, start + tall.double() @ flat.double(), bound, tall.double(), flat.double())
    full = Track(start, low.free, bound)
    for base in (math.e, 1.2, "linear"):
        a, b = restrain(low, base), restrain(full, base)
        assert close(a.value, b.value, 1e-12)
        assert a.lowered + a.raised == b.lowered + b.raised > 0


@pytest.mark.parametrize("base", [2.0, 1.2, "linear"])
def test_each_base_is_the_published_one(base: float | str, make: Make, nudge: str) -> None:
    handle = tiny.handle()
    numbers = {"size": 2.0}
    name = handle.mlp_out(1).parameter
    before = handle.model.get_parameter(name).detach()
    after = weights(handle, make(f"{nudge}:Nudge", handle, **numbers).edit([REQUESTS[0]]))[name]
    edit = make(f"prune({nudge}:Nudge)", handle, prune_base=base, **numbers).edit([REQUESTS[0]])
    assert close(weights(handle, edit)[name], pruned(before, after, base), 1e-6)


def test_a_small_base_raises_what_is_right_above_the_bound_and_the_note_says_so(make: Make, nudge: str) -> None:
    handle = tiny.handle()
    site = handle.mlp_out(1)
    bound = largest(handle.model.get_parameter(site.parameter).detach())
    assert bound < 5
    plain = make(f"{nudge}:Nudge", handle).edit([REQUESTS[0]]).deltas[2]
    assert isinstance(plain, LowRank)
    size = 1.1 * bound / largest(plain.matrix())
    raised = [
        make(f"prune({nudge}:Nudge)", handle, size=size, prune_base=base).edit([REQUESTS[0]]).notes["prune_raised"]
        for base in (1.2, 1e9)
    ]
    assert raised[0] >= 1
    assert raised[1] == 0


def test_a_bias_is_left_as_it_is_trained(make: Make) -> None:
    handle = tiny.handle()
    plain, edit = (make(e, handle, train_bias=True, lr=0.3).edit([REQUESTS[0]]) for e in ("ft", "prune(ft)"))
    bias = f"{handle.mlp_out(1).module}.bias"
    found = weights(handle, edit)
    assert torch.equal(found[bias], weights(handle, plain)[bias])
    assert not torch.equal(found[handle.mlp_out(1).parameter], weights(handle, plain)[handle.mlp_out(1).parameter])


def test_what_is_not_finite_is_left_to_be_seen(make: Make, nudge: str) -> None:
    handle = tiny.handle()
    found = weights(handle, make(f"prune({nudge}:Breaks)", handle).edit([REQUESTS[0]]))
    assert not torch.isfinite(found[handle.mlp_out(0).parameter]).all()
    assert torch.isfinite(found[handle.mlp_out(1).parameter]).all()


def test_a_weight_that_was_all_zero_has_no_scale_to_restrain_to(make: Make, nudge: str) -> None:
    handle = tiny.handle()
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(1).parameter).zero_()
    handle.identity = handle.fingerprint()
    with pytest.raises(EditorError, match="all zero before the first edit"):
        make(f"prune({nudge}:Nudge)", handle).edit([REQUESTS[0]])


def test_the_same_seed_gives_the_same_bytes_and_the_model_is_what_it_was(make: Make) -> None:
    handle = tiny.handle()
    seal = Seal.of(handle)
    first = make("prune(rome)", handle).edit([REQUESTS[0]])
    editor = make("prune(rome)", handle)
    other = editor.edit([REQUESTS[1]])
    assert editor.edit([REQUESTS[0]]).id == first.id
    editor.edit([REQUESTS[2]], other.carry)  # puts unrestrained weights into the model on the way
    assert seal.changed(Seal.of(handle)) == ()
    assert all(isinstance(delta, Replace) for delta in first.deltas)


def test_an_error_in_the_inner_editor_leaves_the_model_as_the_last_edit_did(make: Make) -> None:
    from editsafety.edits.session import EditSession

    handle = tiny.handle()
    editor = make("prune(ft)", handle, lr=0.3)
    first = editor.edit([REQUESTS[0]])
    with EditSession(handle) as session:
        session.apply(first)
        seal = Seal.of(handle)
        hook = handle.model.get_submodule(handle.block(0)).register_forward_pre_hook(_interrupted)
        with pytest.raises(KeyboardInterrupt):
            editor.edit([REQUESTS[1]], first.carry)
        hook.remove()
        assert seal.changed(Seal.of(handle)) == ()


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("base", [1.0, 0.5, "log", -2])
def test_a_base_that_cannot_be_meant_is_refused(base: object) -> None:
    from editsafety import editors, hyperparameters

    with pytest.raises(UsageError, match="prune_base"):
        hyperparameters.validate(editors.load("prune(noop)").Hparams, {"prune_base": base}, "here")
