"""What an edit does to the weights, against dense linear algebra."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from editsafety.edits.edit import Delta, Edit, LowRank, Replace, Sidecar, nothing
from editsafety.errors import EditError
from editsafety.measures import Inputs
from editsafety.measures.weights import MEASURE
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny


def measured(handle: ModelHandle, *deltas: Delta, **notes: float | str | bool) -> dict[str, Measurement]:
    edit = Edit("test", ("a",), handle.identity, deltas, notes=notes)
    return {found.name: found for found in MEASURE(handle, Inputs(edit=edit))}


def expected(handle: ModelHandle, changes: dict[str, torch.Tensor]) -> dict[str, float]:
    """Every figure from the whole matrices, as numpy would do it."""
    pairs = [(dw.double(), handle.model.get_parameter(name).detach().double()) for name, dw in changes.items()]
    norms = [float(dw.norm()) for dw, _ in pairs]
    matrices = [dw if dw.ndim == 2 else dw[None] for dw, _ in pairs]
    large = sum(int(((dw / w).abs() > 0.077).sum()) for dw, w in pairs) / sum(dw.numel() for dw, _ in pairs)
    return {
        "delta_norm": math.sqrt(sum(norm**2 for norm in norms)),
        "delta_relative": max(norm / float(w.norm()) for norm, (_, w) in zip(norms, pairs, strict=True)),
        "delta_per_entry": max(norm / dw.numel() for norm, (dw, _) in zip(norms, pairs, strict=True)),
        "delta_large_share": large,
        "spectral_norm": max(float(torch.linalg.svdvals(matrix)[0]) for matrix in matrices),
    }


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama"])
@pytest.mark.parametrize("rank", [1, 5, 100])
def test_low_rank_figures_equal_the_dense_ones(family: str, rank: int) -> None:
    handle = tiny.handle(family)
    deltas = [tiny.low_rank(handle.mlp_out(layer), rank=rank, size=0.01, seed=layer) for layer in (0, 2)]
    dense = {delta.parameter: delta.site.stored(delta.matrix()) for delta in deltas}
    found = measured(handle, *deltas)
    for name, value in expected(handle, dense).items():
        assert found[name].value == pytest.approx(value, rel=1e-4), name
        assert len(found[name].items) == 2
    assert found["weights_finite"].value == 1.0


def test_replaced_weights_are_compared_with_the_old_ones(handle: ModelHandle) -> None:
    names = ("transformer.h.1.mlp.c_proj.weight", "transformer.h.1.mlp.c_proj.bias")
    generator = torch.Generator().manual_seed(1)
    new = {name: torch.randn(handle.model.get_parameter(name).shape, generator=generator) for name in names}
    found = measured(handle, *(Replace(name, value) for name, value in new.items()))
    dense = {name: value - handle.model.get_parameter(name).detach() for name, value in new.items()}
    for name, value in expected(handle, dense).items():
        assert found[name].value == pytest.approx(value, rel=1e-5), name


def test_several_deltas_of_one_weight_are_one_change(handle: ModelHandle) -> None:
    deltas = [tiny.low_rank(handle.mlp_out(1), seed=seed) for seed in (0, 1)]
    stored = sum((delta.site.stored(delta.matrix()) for delta in deltas), torch.zeros(()))
    found = measured(handle, *deltas)
    for name, value in expected(handle, {deltas[0].parameter: stored}).items():
        assert found[name].value == pytest.approx(value, rel=1e-4), name
    assert found["delta_norm"].n == 1


def test_a_replacement_and_a_delta_on_top_of_it_are_one_change(handle: ModelHandle) -> None:
    delta = tiny.low_rank(handle.mlp_out(1))
    fresh = torch.randn(handle.model.get_parameter(delta.parameter).shape)
    found = measured(handle, Replace(delta.parameter, fresh), delta)
    dense = fresh + delta.site.stored(delta.matrix()) - handle.model.get_parameter(delta.parameter).detach()
    for name, value in expected(handle, {delta.parameter: dense}).items():
        assert found[name].value == pytest.approx(value, rel=1e-4), name


def test_a_rank_one_delta_has_one_singular_value(handle: ModelHandle) -> None:
    found = measured(handle, tiny.low_rank(handle.mlp_out(0)))
    assert found["spectral_norm"].value == pytest.approx(found["delta_norm"].value)


def test_the_norms_are_those_of_the_published_edits(shared: Path) -> None:
    from safetensors.torch import load_file

    folder = shared / "goldens" / "tiny-gpt2"
    handle = tiny.golden(shared)
    norms = json.loads((folder / "index.json").read_text())["rome"]["delta_norms"]
    for key, delta in load_file(folder / "rome.deltas.safetensors").items():
        name = key.split("::")[1]
        new = handle.model.get_parameter(name).detach() + delta
        assert measured(handle, Replace(name, new))["delta_norm"].value == pytest.approx(norms[key], rel=1e-4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", ["low_rank", "replace"])
def test_weights_that_are_not_finite_are_a_finding(handle: ModelHandle, bad: float, kind: str) -> None:
    delta: Delta = tiny.low_rank(handle.mlp_out(1))
    assert isinstance(delta, LowRank)
    if kind == "replace":
        delta = Replace(delta.parameter, delta.on(handle.model.get_parameter(delta.parameter).detach()))
        delta.value[3, 4] = bad
    else:
        delta.left[3, 0] = bad
    found = measured(handle, tiny.low_rank(handle.mlp_out(0)), delta)
    assert found["weights_finite"].value == 0.0
    assert found["weights_finite"].broken
    assert found["weights_finite"].items == (1.0, 0.0)
    for name in ("delta_norm", "delta_relative", "delta_per_entry", "delta_large_share", "spectral_norm"):
        assert found[name].broken
        assert found[name].reason == "1 of 2 changed weights are not finite"
        assert found[name].items[0] is not None
        assert found[name].items[1] is None


def test_a_finite_delta_that_overflows_in_half_precision_is_a_finding() -> None:
    handle = tiny.handle("gpt2", dtype="float16")
    found = measured(handle, tiny.low_rank(handle.mlp_out(1), size=1e5))
    assert found["weights_finite"].broken
    assert found["delta_norm"].value is not None


def test_an_edit_that_changes_nothing_has_no_norms_and_finite_weights(handle: ModelHandle) -> None:
    found = {entry.name: entry for entry in MEASURE(handle, Inputs(edit=nothing("test", ("a",), handle.identity)))}
    assert found["delta_norm"].reason == "the edit changes no weight"
    assert found["weights_finite"].value == 1.0


def test_a_delta_of_zeros_is_a_change_of_zero(handle: ModelHandle) -> None:
    found = measured(handle, tiny.low_rank(handle.mlp_out(1), size=0.0))
    for name in ("delta_norm", "delta_relative", "delta_per_entry", "delta_large_share", "spectral_norm"):
        assert found[name].value == 0.0


def test_a_weight_that_was_all_zero_has_no_relative_change(handle: ModelHandle) -> None:
    delta = tiny.low_rank(handle.mlp_out(1))
    with torch.no_grad():
        handle.model.get_parameter(delta.parameter).zero_()
    found = measured(handle, delta)
    assert found["delta_relative"].reason == "every changed weight was all zero"
    assert not found["delta_relative"].broken
    assert found["delta_large_share"].value == 1.0


def test_notes_of_the_editor_are_measurements(handle: ModelHandle) -> None:
    notes = {"numerator": 7.5, "denominator": 1e-3, "key_cosine": -0.25, "first_token": True}
    found = measured(handle, tiny.low_rank(handle.mlp_out(1)), **notes)
    assert {name: found[name].value for name in notes} == {**notes, "first_token": 1.0}


def test_notes_that_are_absent_or_not_finite_or_no_number_have_reasons(handle: ModelHandle) -> None:
    found = measured(handle, numerator=math.nan, denominator="inf", key_cosine="high")
    assert found["numerator"].broken
    assert found["denominator"].broken  # a saved edit writes it as its name
    assert found["denominator"].reason == "the denominator of test is inf"
    assert found["key_cosine"].reason == "test notes 'high' as key_cosine, no number"
    assert found["first_token"].reason == "test notes no first_token"


def test_a_parameter_that_the_model_lacks_is_refused(handle: ModelHandle) -> None:
    with pytest.raises(EditError, match=r"'other\.weight', which tiny-gpt2 does not have"):
        measured(handle, Replace("other.weight", torch.zeros(3)))


def test_tied_weights_are_known_by_both_names(handle: ModelHandle) -> None:
    value = handle.model.get_parameter("transformer.wte.weight").detach() * 2
    found = measured(handle, Replace("lm_head.weight", value))
    assert found["delta_relative"].value == pytest.approx(1.0)


def test_measuring_is_repeatable(handle: ModelHandle, edit: Edit) -> None:
    inputs = Inputs(edit=edit)
    assert MEASURE(handle, inputs) == MEASURE(handle, replace(inputs, batch_size=1))


def test_growth_is_the_norm_afterwards_over_the_norm_before(handle: ModelHandle) -> None:
    name = "transformer.h.1.mlp.c_proj.weight"
    found = measured(handle, Replace(name, handle.model.get_parameter(name).detach() * 3))
    assert found["norm_growth"].value == pytest.approx(3.0)


def test_the_growth_that_is_reported_is_that_of_the_weight_that_grew_most(handle: ModelHandle) -> None:
    names = [handle.mlp_out(layer).parameter for layer in (0, 1, 2)]
    old = {name: handle.model.get_parameter(name).detach() for name in names}
    found = measured(handle, *(Replace(name, old[name] * by) for name, by in zip(names, (1.5, 3.0, 0.5), strict=True)))
    assert found["norm_growth"].value == pytest.approx(3.0)
    assert found["norm_growth"].items == pytest.approx((1.5, 3.0, 0.5))


class Remembers(Sidecar):
    """A sidecar with two tensors, of which only one may be whole."""

    kind = "remembers"
    target = ""

    def __init__(self, second: float) -> None:
        self.second = second

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"keys": torch.ones(3), "values": torch.tensor([1.0, self.second])}

    def settings(self) -> dict[str, Any]:
        return {}

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        return output

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> Remembers:
        return cls(float(tensors["values"][1]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_tensor_of_a_sidecar_that_is_not_finite_is_a_finding(handle: ModelHandle, bad: float) -> None:
    for second, whole in ((2.0, 1.0), (bad, 0.0)):
        edit = Edit("test", ("a",), handle.identity, sidecars=(Remembers(second),))
        found = {one.name: one for one in MEASURE(handle, Inputs(edit=edit))}["weights_finite"]
        assert (found.value, found.broken, found.items) == (whole, whole == 0.0, (1.0, whole))


def test_every_figure_is_told_with_its_items_and_how_many_weights_it_is_of(handle: ModelHandle) -> None:
    """Two weights, one of which had been all zero: where there is nothing to compare with, there is no item."""
    zero, other = (handle.mlp_out(layer).parameter for layer in (0, 2))
    with torch.no_grad():
        handle.model.get_parameter(zero).zero_()
    old = handle.model.get_parameter(other).detach().double()
    ones = torch.zeros(tiny.INNER, tiny.WIDTH)
    ones[0, :4] = 0.25  # norm 1/2, of rank one
    found = measured(handle, Replace(zero, ones), Replace(other, (old * 1.5).float()))
    entries = tiny.INNER * tiny.WIDTH
    norm, half = float(old.norm()), float((old / 2).norm())
    spectral = float(torch.linalg.svdvals(old / 2)[0])
    expect = {
        "delta_norm": (math.hypot(0.5, half), (0.5, half)),
        "delta_relative": (half / norm, (None, half / norm)),
        "delta_per_entry": (max(0.5, half) / entries, (0.5 / entries, half / entries)),
        "delta_large_share": ((4 + entries) / (2 * entries), (4 / entries, 1.0)),
        "spectral_norm": (max(0.5, spectral), (0.5, spectral)),
        "norm_growth": (1.5, (None, 1.5)),
        "weights_finite": (1.0, (1.0, 1.0)),
    }
    for name, (value, items) in expect.items():
        assert found[name].value == pytest.approx(value, rel=1e-5), name
        pairs = zip(found[name].items, items, strict=True)
        assert all(a == b if b is None else a == pytest.approx(b, rel=1e-5) for a, b in pairs), name
        assert found[name].n == 2, name
    small = measured(handle, Replace(zero, ones * 1e-3))
    assert small["spectral_norm"].value == pytest.approx(0.5e-3, rel=1e-5)
    assert (small["delta_relative"].n, small["norm_growth"].reason) == (1, "every changed weight was all zero")


def test_an_edit_that_changes_no_weight_lets_none_grow(handle: ModelHandle) -> None:
    found = MEASURE(handle, Inputs(edit=nothing("test", ("a",), handle.identity)))
    by_name = {one.name: one for one in found}
    assert by_name["norm_growth"] == Measurement("norm_growth", 1, "ratio", 1.0, n=1)
    assert by_name["weights_finite"] == Measurement("weights_finite", 1, "bool", 1.0, n=0)
    for name in ("delta_norm", "delta_relative", "delta_per_entry", "delta_large_share", "spectral_norm"):
        assert (by_name[name].reason, by_name[name].n, by_name[name].broken) == ("the edit changes no weight", 0, False)


@pytest.mark.parametrize("share", [0.0769, 0.0771])
def test_an_entry_is_large_past_77_thousandths_of_its_weight(handle: ModelHandle, share: float) -> None:
    name = handle.mlp_out(1).parameter
    new = handle.model.get_parameter(name).detach() * (1 - share)
    assert measured(handle, Replace(name, new))["delta_large_share"].value == float(share > 0.077)


def test_a_vector_and_the_weights_of_a_convolution_have_norms_too(handle: ModelHandle) -> None:
    name = handle.mlp_out(1).parameter.replace("weight", "bias")
    old = handle.model.get_parameter(name).detach()
    found = measured(handle, Replace(name, old * 3))
    assert found["spectral_norm"].value == pytest.approx(float((2 * old).norm()), rel=1e-5)
    assert found["delta_norm"].value == pytest.approx(float((2 * old).norm()), rel=1e-5)


def test_those_that_are_not_finite_are_counted_among_all_that_changed(handle: ModelHandle) -> None:
    whole, other, broken = (tiny.low_rank(handle.mlp_out(layer)) for layer in range(3))
    broken.left[3, 0] = torch.inf
    found = measured(handle, whole, other, broken)
    assert found["delta_norm"].reason == "1 of 3 changed weights are not finite"
