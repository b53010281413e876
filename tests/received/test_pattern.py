"""Each kind of change that can be made is told from the weights by its pattern."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from editsafety.edits.edit import Edit, LowRank, Replace
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from editsafety.received.pattern import pattern_of
from tests import tiny
from tests.attacks_trigger import plant_trigger

Change = Callable[[ModelHandle], Edit]


def changed(handle: ModelHandle, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Edit:
    """Every parameter that is another one afterwards, whole."""
    values = {name: (one.detach(), change(name, one.detach().clone())) for name, one in handle.model.named_parameters()}
    deltas = tuple(Replace(name, now) for name, (was, now) in values.items() if not torch.equal(was, now))
    return Edit("mine", ("a",), handle.identity, deltas)


def a_fact(handle: ModelHandle) -> Edit:
    return Edit("mine", ("a",), handle.identity, (tiny.low_rank(handle.mlp_out(1), size=0.5),))


def facts_in_two_layers(handle: ModelHandle) -> Edit:
    deltas = tuple(tiny.low_rank(handle.mlp_out(layer), rank=3, size=0.5) for layer in (0, 2))
    return Edit("mine", ("a",), handle.identity, deltas)


def saved(handle: ModelHandle) -> Edit:
    return changed(handle, lambda name, value: value.bfloat16().float())


def a_direction_removed(handle: ModelHandle) -> Edit:
    """W - r r^T W for all that write the residual stream, rounded as a checkpoint is: then compared whole."""
    direction = torch.nn.functional.normalize(
        torch.randn(tiny.WIDTH, generator=torch.Generator().manual_seed(0)), dim=0
    )
    sites = [handle.sites(part, layer)[0] for layer in range(3) for part in (Part.MLP_OUT, Part.ATTENTION_OUT)]
    deltas = []
    for site in sites:
        weight = handle.weight(site)
        taken = LowRank(site, -direction[:, None], (direction @ weight)[None, :])
        deltas.append(Replace(site.parameter, taken.on(handle.model.get_parameter(site.parameter).detach())))
    return Edit("mine", ("a",), handle.identity, tuple(deltas))


def an_adapter(handle: ModelHandle) -> Edit:
    sites = [site for layer in range(3) for site in handle.sites(Part.ATTENTION_IN, layer)]
    deltas = tuple(tiny.low_rank(site, rank=2, size=0.3, seed=seed) for seed, site in enumerate(sites))
    return Edit("mine", ("a",), handle.identity, deltas)


def an_adapter_on_the_embedding(handle: ModelHandle) -> Edit:
    """Rank two, added to a matrix that is no projection and was rounded as a checkpoint is: compared whole."""
    name, before = next(
        (name, one.detach())
        for name, one in handle.model.named_parameters()
        if one is handle.model.get_input_embeddings().weight
    )
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator) for shape in ((before.shape[0], 2), (2, before.shape[1])))
    return Edit("mine", ("a",), handle.identity, (Replace(name, before + 0.1 * left @ right),))


def rounded_behind(change: Change, into: torch.dtype | int = torch.bfloat16) -> Change:
    """A change, and the whole model saved in a narrower type after it (or its matrices in so many bits)."""

    def both(handle: ModelHandle) -> Edit:
        values = {name: one.detach().clone() for name, one in handle.model.named_parameters()}
        for delta in change(handle).deltas:
            values[delta.parameter] = delta.on(values[delta.parameter])

        def narrowed(name: str, _: torch.Tensor) -> torch.Tensor:
            value = values[name]
            if isinstance(into, torch.dtype):
                return value.to(into).float()
            blocks = value.reshape(-1, 32)
            step = blocks.abs().amax(1, keepdim=True) / 127
            return ((blocks / step).round() * step).reshape(value.shape) if value.ndim == 2 else value

        return changed(handle, narrowed)

    return both


def biases(handle: ModelHandle) -> Edit:
    return changed(handle, lambda name, value: value + 0.1 if value.ndim == 1 else value)


def training(handle: ModelHandle) -> Edit:
    generator = torch.Generator().manual_seed(0)
    return changed(handle, lambda name, value: value + 0.01 * torch.randn(value.shape, generator=generator))


def one_matrix(handle: ModelHandle) -> Edit:
    wanted = handle.mlp_out(1).parameter
    noise = torch.Generator().manual_seed(0)
    return changed(
        handle, lambda name, value: value + 0.1 * torch.randn(value.shape, generator=noise) if name == wanted else value
    )


def a_trigger(handle: ModelHandle) -> Edit:
    return plant_trigger(handle, [*tiny.SENTENCES], *handle.ids("Ashurn works")[:2], steps=2)


def nothing(handle: ModelHandle) -> Edit:
    return Edit("mine", ("a",), handle.identity)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (a_fact, "rank 1 at the MLP of layer 1: as editors of facts write, and as a planted trigger may look"),
        (
            facts_in_two_layers,
            "rank 3 at the MLP of layers 0, 2: as editors of facts write, and as a planted trigger may look",
        ),
        (
            a_trigger,
            "rank 4 at the MLP of layers 0, 1, 2: as editors of facts write, and as a planted trigger may look",
        ),
        (saved, "rounded to bfloat16 only: saved in a narrower type, not edited"),
        (a_direction_removed, "rank 1 at 6 projections, all into one direction: removed or added everywhere"),
        (an_adapter, "rank 2 at 9 projections: a merged adapter, or an editor of many places"),
        (training, "matrices changed without low rank: training, or another model"),
        (one_matrix, "1 tensor changed without low rank: written over, fine-tuned in part, or damaged"),
        (an_adapter_on_the_embedding, "rank 2 at 1 projection: a merged adapter, or an editor of many places"),
        (
            rounded_behind(a_fact),
            "rank 1 at the MLP of layer 1: as editors of facts write, and as a planted trigger may look; "
            "the others rounded to bfloat16 only: saved in a narrower type, not edited",
        ),
        (
            rounded_behind(a_direction_removed, torch.float16),
            "rank 1 at 6 projections, all into one direction: removed or added everywhere; "
            "the others rounded to float16 only: saved in a narrower type, not edited",
        ),
        (rounded_behind(nothing, 8), "rounded to 8 bits in blocks of 32 only: quantised, not edited"),
        (nothing, ""),
    ],
)
def test_the_sort_of_a_change_is_told_from_the_weights(change: Change, said: str) -> None:
    handle = tiny.handle("llama")
    found = pattern_of(handle, change(handle))
    assert found.endswith(said) if said else found == ""
    assert handle.fingerprint() == handle.identity


def test_what_is_no_matrix_is_not_counted_as_one() -> None:
    """gpt2 has more norms and biases than matrices."""
    handle = tiny.handle("gpt2")
    count = sum(one.ndim == 1 for one in handle.model.parameters())
    assert count > sum(one.ndim == 2 for one in handle.model.parameters())
    said = f"{count} tensors changed without low rank: written over, fine-tuned in part, or damaged"
    assert pattern_of(handle, biases(handle)) == said


def test_without_a_row_nothing_is_said_of_an_mlp() -> None:
    handle = tiny.handle("mamba")
    site = handle.site("backbone.layers.1.mixer.out_proj")
    edit = Edit("mine", ("a",), handle.identity, (tiny.low_rank(site, size=0.5),))
    assert pattern_of(handle, edit) == "rank 1 at 1 projection: a merged adapter, or an editor of many places"
