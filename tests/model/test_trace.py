"""watch(): what modules received and returned, changed on request, and no hook left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from editsafety.model.handle import ModelHandle
from editsafety.model.trace import watch
from tests import tiny


def run(handle: ModelHandle) -> Tensor:
    with torch.no_grad():
        return handle.logits(handle.batch([handle.ids("Toren plays the flute")]))


def hooks(handle: ModelHandle) -> int:
    return sum(len(module._forward_hooks) for module in handle.model.modules())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_inputs_and_outputs_of_a_projection_belong_together(family: str) -> None:
    """Expected: the module's own arithmetic on the recorded input."""
    handle = tiny.handle(family)
    site = handle.mlp_out(1)
    with watch(handle.model, [site.module]) as seen:
        run(handle)
    module = handle.model.get_submodule(site.module)
    with torch.no_grad():
        torch.testing.assert_close(module(seen.inputs[site.module]), seen.outputs[site.module])
    assert seen.inputs[site.module].shape[-1] == site.d_in
    assert hooks(handle) == 0


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_input_of_a_block_is_the_output_of_the_one_before(family: str) -> None:
    handle = tiny.handle(family)
    with watch(handle.model, [handle.block(0), handle.block(1)]) as seen:
        run(handle)
    assert seen.inputs[handle.block(1)].ndim == 3
    assert torch.equal(seen.inputs[handle.block(1)], seen.outputs[handle.block(0)])


def test_a_change_is_what_the_rest_of_the_model_sees() -> None:
    handle = tiny.handle("gpt2")
    name, plain = handle.block(1), run(handle)
    with watch(handle.model, [handle.block(2)], change={name: lambda x: x * 2}) as seen:
        changed = run(handle)
    assert not torch.equal(changed, plain)
    assert torch.equal(seen.inputs[handle.block(2)], seen.outputs[name])
    assert torch.equal(run(handle), plain)


def test_the_first_element_of_a_tuple_is_recorded_and_changed() -> None:
    handle = tiny.handle("gpt2")
    name = "transformer.h.0.attn"  # returns (output, weights)
    with watch(handle.model, [name], change={name: lambda x: torch.zeros_like(x)}) as seen:
        run(handle)
    assert isinstance(seen.outputs[name], Tensor)
    assert not seen.outputs[name].any()


def test_stopping_ends_the_pass_once_everything_was_seen() -> None:
    handle = tiny.handle("gpt2")
    later: list[str] = []
    handle.model.get_submodule(handle.block(2)).register_forward_hook(lambda *_: later.append("ran"))
    reached = False
    with watch(handle.model, [handle.block(0), handle.block(1)], stop=True) as seen:
        run(handle)
        reached = True
    assert set(seen.outputs) == {handle.block(0), handle.block(1)}
    assert later == []
    assert not reached


def test_an_outer_watch_that_stops_is_not_swallowed_by_an_inner_one() -> None:
    handle = tiny.handle("gpt2")
    reached = False
    with watch(handle.model, [handle.block(0)], stop=True):
        with watch(handle.model, [handle.block(2)], stop=True):
            run(handle)
        reached = True
    assert not reached
    assert hooks(handle) == 0


def test_an_unknown_module_is_refused_before_any_hook_is_set() -> None:
    handle = tiny.handle("gpt2")
    with pytest.raises(AttributeError), watch(handle.model, [handle.block(0), "no.such"]):
        pass
    assert hooks(handle) == 0


def test_no_hook_is_left_after_an_exception() -> None:
    def fails(_: Tensor) -> Tensor:
        raise ZeroDivisionError

    handle = tiny.handle("gpt2")
    with pytest.raises(ZeroDivisionError), watch(handle.model, [handle.block(0)], change={handle.block(1): fails}):
        run(handle)
    assert hooks(handle) == 0
