"""What an edit looks like in the weights, on each kind of edit that can be made here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from editsafety.edits.edit import Delta, Edit, LowRank, Replace
from editsafety.edits.seal import Keepsake
from editsafety.lab.attempt import Made, attempt, compute
from editsafety.lab.bench import Bench
from editsafety.measures import weights
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from editsafety.runs.case_record import CaseRecord, Step
from editsafety.runs.weights_look import TensorLook, WeightsLook
from tests import tiny
from tests.editors.conftest import Make, make

__all__ = ["make"]
REQUEST = tiny.request()


def step_of(handle: ModelHandle, made: Made) -> Step:
    bench = Bench(handle, (), (), 8, Keepsake.of(handle), (weights.MEASURE,))
    return attempt(bench, made)[0]


def of_deltas(handle: ModelHandle, deltas: list[Delta]) -> Step:
    return step_of(handle, Made(Edit("mine", ("a",), handle.identity, tuple(deltas)), (REQUEST,)))


def differences(handle: ModelHandle, edit: Edit) -> dict[str, Tensor]:
    """dW by parameter, by applying the deltas by hand, in float64."""
    before = {name: handle.model.get_parameter(name).detach() for name in edit.parameters}
    after = dict(before)
    for delta in edit.deltas:
        after[delta.parameter] = delta.on(after[delta.parameter])
    return {name: after[name].double() - before[name].double() for name in before}


@pytest.mark.parametrize(
    ("editor", "said"),
    [
        ("rome", "rank 1 at the MLP of layer 1: as editors of facts write, and as a planted trigger may look"),
        ("memit", "rank 1 at the MLP of layers 0, 1: as editors of facts write, and as a planted trigger may look"),
        ("ft", "1 tensor changed without low rank: written over, fine-tuned in part, or damaged"),
        ("lora", "rank 2 at 2 projections: a merged adapter, or an editor of many places"),
        ("kn", "at the MLP of layer"),
        ("grace", "beside the weights: code that runs with the model"),
        ("noop", "no weight is changed"),
        pytest.param("mend", "at 4 projections: a merged adapter", marks=pytest.mark.thorough),
    ],
)
def test_each_editor_is_known_by_what_it_writes(editor: str, said: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    made = compute(handle, make(editor, handle), [REQUEST])
    look = step_of(handle, made).look
    assert said in look.pattern
    assert [one.name for one in look.tensors] == list(made.edit.parameters)
    for one, (_, change) in zip(look.tensors, sorted(differences(handle, made.edit).items()), strict=True):
        assert one.norm == pytest.approx(float(change.norm()), rel=1e-3)
        values = torch.linalg.svdvals(change)  # rounding W + dW to float32 adds a full rank of 1e-7 of W
        assert one.rank == int((values > 3e-6 * values.max()).sum())


def removed(handle: ModelHandle, factor: Callable[[Tensor, Tensor], Tensor]) -> list[Delta]:
    """One direction taken out of everything that is written into the residual stream."""
    direction = torch.nn.functional.normalize(
        torch.randn(tiny.WIDTH, generator=torch.Generator().manual_seed(3)), dim=0
    )
    sites = [
        site for layer in range(handle.layers) for part in (Part.ATTENTION_OUT, Part.MLP_OUT)
        for site in handle.sites(part, layer)
    ]  # fmt: skip
    return [LowRank(site, -direction[:, None], factor(direction, handle.weight(site))[None]) for site in sites]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("whole", [False, True], ids=["factors", "whole"])
def test_a_direction_that_is_removed_everywhere_is_told(family: str, whole: bool) -> None:
    handle = tiny.handle(family)
    deltas = removed(handle, lambda direction, weight: direction @ weight)
    if whole:  # as a saved checkpoint holds it
        deltas = [Replace(one.parameter, one.on(handle.model.get_parameter(one.parameter).detach())) for one in deltas]
    look = of_deltas(handle, deltas).look
    assert look.pattern == "rank 1 at 6 projections, all into one direction: removed or added everywhere"
    assert {one.rank for one in look.tensors} == {1}


def test_rank_one_changes_into_as_many_directions_are_no_direction_removed() -> None:
    handle = tiny.handle("gpt2")
    sites = [handle.sites(part, layer)[0] for layer in range(3) for part in (Part.ATTENTION_OUT, Part.MLP_OUT)]
    look = of_deltas(handle, [tiny.low_rank(site, seed=i) for i, site in enumerate(sites)]).look
    assert look.pattern == "rank 1 at 6 projections: a merged adapter, or an editor of many places"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_that_was_only_rounded_is_not_edited(dtype: str) -> None:
    handle = tiny.handle("llama")
    narrow = getattr(torch, dtype)
    values = {name: one.detach() for name, one in handle.model.named_parameters()}
    look = of_deltas(handle, [Replace(name, one.to(narrow).to(one.dtype)) for name, one in values.items()]).look
    assert look.pattern == f"rounded to {dtype} only: saved in a narrower type, not edited"


def test_training_is_told_by_its_full_rank_everywhere() -> None:
    handle = tiny.handle("gpt2")
    noise = torch.Generator().manual_seed(0)
    deltas: list[Delta] = [
        Replace(name, one.detach() + 0.01 * torch.randn(one.shape, generator=noise))
        for name, one in handle.model.named_parameters()
        if one.ndim == 2
    ]
    assert "changed without low rank: training, or another model" in of_deltas(handle, deltas).look.pattern


def test_what_is_too_small_for_the_weights_or_not_finite_is_said() -> None:
    handle = tiny.handle("gpt2", dtype="bfloat16")
    site = handle.mlp_out(1)
    look = of_deltas(handle, [tiny.low_rank(site, size=1e-9)]).look
    assert look.pattern == "too small to change a number of the weights"
    assert look.tensors[0].rank == 1
    broken = of_deltas(
        handle, [Replace(site.parameter, torch.full_like(handle.model.get_parameter(site.parameter), torch.nan))]
    )
    assert broken.look.tensors == (TensorLook(site.parameter, None, None),)
    assert broken.look.pattern.startswith("1 tensor changed without low rank")


def test_it_is_kept_with_the_record_and_one_from_before_it_has_none() -> None:
    step = Step(
        1, ("a",), {}, look=WeightsLook("rank 1", (TensorLook("x.weight", 0.5, 1), TensorLook("y", None, None)))
    )
    record = CaseRecord("c", "m", "e", "normal", (REQUEST,), steps=(step,), ended="complete")
    text = record.to_text()
    assert CaseRecord.from_text(text).step.look == step.look
    import json

    body = json.loads(text)
    del body["steps"][0]["look"]
    assert CaseRecord.from_text(json.dumps(body)).step.look == WeightsLook()
