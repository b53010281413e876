"""A pass that is entered further up gives the bits of the whole pass, on every family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from editsafety.engine.layers import Entrance, LowerLayers, enter, record
from editsafety.model.handle import Batch, ModelHandle
from tests import tiny

# Their MLP is more than its down-projection (bloom), or no module (opt).
IN_FRONT_ONLY = ("bloom", "opt")
PLACES = [Entrance(0, inside=True), Entrance(1), Entrance(1, inside=True), Entrance(2), Entrance(2, inside=True)]


def batch_of(handle: ModelHandle) -> Batch:
    return handle.batch([handle.ids(text) for text in tiny.SENTENCES])


@torch.no_grad()
def recorded(handle: ModelHandle, entrance: Entrance) -> tuple[Tensor, LowerLayers | None]:
    with record(handle, entrance) as recording:
        logits = handle.logits(batch_of(handle))
    return logits, recording.lower


def nudge(handle: ModelHandle, layer: int) -> None:
    weight = handle.model.get_parameter(handle.mlp_out(layer).parameter)
    weight.data = weight.data + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).to(weight)


@pytest.mark.parametrize("entrance", PLACES, ids=str)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_rest_of_a_pass_gives_the_bits_of_the_whole_pass(family: str, entrance: Entrance) -> None:
    handle = tiny.handle(family)
    unedited, lower = recorded(handle, entrance)
    if family in IN_FRONT_ONLY and entrance.layer == 0:
        assert lower is None
        return
    assert lower is not None
    assert lower.entrance == (Entrance(entrance.layer) if family in IN_FRONT_ONLY else entrance)
    nudge(handle, entrance.layer)
    with torch.no_grad():
        whole = handle.logits(batch_of(handle))
        with enter(handle, lower):
            rest = handle.logits(batch_of(handle))
    assert torch.equal(rest, whole)
    assert not torch.equal(rest, unedited)
    assert lower.whole


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_so_do_passes_in_half_precision(dtype: str) -> None:
    handle = tiny.handle("llama", dtype=dtype)
    _, lower = recorded(handle, Entrance(1, inside=True))
    assert lower is not None
    nudge(handle, 1)
    with torch.no_grad():
        whole = handle.logits(batch_of(handle))
        with enter(handle, lower):
            assert torch.equal(handle.logits(batch_of(handle)), whole)


def test_lower_layers_are_not_run() -> None:
    handle = tiny.handle("gpt2")
    _, lower = recorded(handle, Entrance(2, inside=True))
    assert lower is not None
    ran: list[str] = []
    for name, module in handle.model.named_modules():
        if name.endswith(("c_attn", "c_fc", "mlp.c_proj")):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad(), enter(handle, lower):
        handle.logits(batch_of(handle))
    assert ran == ["transformer.h.2.mlp.c_proj"]


def test_no_stand_in_stays_after_an_error() -> None:
    handle = tiny.handle("gpt2")
    _, lower = recorded(handle, Entrance(1, inside=True))
    assert lower is not None
    block = handle.model.get_submodule(handle.block(0))
    own = block.forward
    block.forward = own  # a module may have a `forward` of its own: accelerate gives it one
    with pytest.raises(ZeroDivisionError), enter(handle, lower):
        raise ZeroDivisionError
    assert [name for name, module in handle.model.named_modules() if "forward" in vars(module)] == [handle.block(0)]
    assert vars(block)["forward"] is own


def test_a_block_that_writes_into_what_it_receives_is_noticed() -> None:
    handle = tiny.handle("gpt2")
    block = handle.model.get_submodule(handle.block(1))
    plain = block.forward
    block.forward = lambda hidden_states, *args, **kwargs: plain(hidden_states.mul_(2.0), *args, **kwargs)
    _, lower = recorded(handle, Entrance(1))
    assert lower is not None
    assert lower.whole
    with torch.no_grad(), enter(handle, lower):
        handle.logits(batch_of(handle))
    assert not lower.whole


def test_a_pass_that_was_ended_early_is_not_entered() -> None:
    handle = tiny.handle("gpt2")
    with record(handle, Entrance(2)) as recording:
        pass
    assert recording.lower is None


def test_the_size_is_that_of_the_kept_tensors() -> None:
    handle = tiny.handle("gpt2")
    tokens = batch_of(handle).ids.numel()
    _, front = recorded(handle, Entrance(1))
    _, inside = recorded(handle, Entrance(1, inside=True))
    assert front is not None
    assert inside is not None
    assert front.size == tokens * tiny.WIDTH * 4
    assert inside.size == tokens * (2 * tiny.WIDTH + tiny.INNER) * 4


# ------------------------------------------------------------------------------------------- where to enter


def names(handle: ModelHandle, *tails: str) -> frozenset[str]:
    return frozenset(f"transformer.{tail}" for tail in tails)


@pytest.mark.parametrize(
    ("tails", "entrance"),
    [
        (["h.0.mlp.c_proj.weight"], Entrance(0, inside=True)),
        (["h.1.mlp.c_proj.weight", "h.1.mlp.c_proj.bias"], Entrance(1, inside=True)),
        (["h.1.mlp.c_proj.weight", "h.2.attn.c_attn.weight"], Entrance(1, inside=True)),
        (["h.1.mlp.c_proj.weight", "h.1.mlp.c_fc.weight"], Entrance(1)),
        (["h.2.attn.c_proj.weight"], Entrance(2)),
        (["h.0.mlp.c_fc.weight"], None),
        (["h.2.mlp.c_proj.weight", "wte.weight"], None),
        (["h.2.mlp.c_proj.weight", "ln_f.weight"], None),
        ([], None),
    ],
)
def test_a_pass_is_entered_below_the_lowest_change(tails: list[str], entrance: Entrance | None) -> None:
    handle = tiny.handle("gpt2")
    assert Entrance.below(handle, names(handle, *tails)) == entrance


def test_a_number_is_compared_as_a_whole() -> None:
    handle = tiny.handle("gpt2", layers=12)
    assert Entrance.below(handle, names(handle, "h.10.attn.c_proj.weight")) == Entrance(10)
    assert Entrance.below(handle, names(handle, "h.1x.attn.c_proj.weight")) is None


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_change_of_an_output_is_entered_right_at_it(family: str) -> None:
    handle = tiny.handle(family)
    assert Entrance.at(handle, handle.block(1)) == Entrance(2)
    assert Entrance.at(handle, handle.mlp_out(1).module) == Entrance(1, inside=True)
    assert Entrance.at(handle, f"{handle.block(1)}.nothing") is None


@torch.no_grad()
def test_some_of_the_rows_can_be_entered_in_another_order_and_more_than_once() -> None:
    handle = tiny.handle("llama")
    whole, lower = recorded(handle, Entrance(2))
    assert lower is not None
    rows = torch.tensor([3, 0, 3])
    ids, mask = batch_of(handle).ids[rows], batch_of(handle).mask[rows]
    with enter(handle, lower.taken(rows)):
        assert torch.allclose(handle.logits(Batch(ids, mask)), whole[rows], rtol=1e-5, atol=1e-5)
    _, inside = recorded(handle, Entrance(1, inside=True))
    assert inside is not None
    with pytest.raises(ValueError, match="this is inside of block 1"):
        inside.taken(rows)
