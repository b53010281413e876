"""v* is found without the layers below it, and nobody can tell by its bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.editing.targets import Target, TargetHparams, optimise, optimise_many
from editsafety.engine import above
from editsafety.engine.above import Above
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.engine.test_continuing import FAMILIES
from tests.engine.test_layers import IN_FRONT_ONLY

CONTEXTS = ("{}", "A farmer grows wheat. {}")
SETTINGS = TargetHparams(v_num_grad_steps=5, v_lr=0.2, v_weight_decay=0.1, clamp_norm_factor=4)
REQUEST = tiny.request(prompt="The work of {} is that of a", target_new="farmer and baker")
OTHERS = (REQUEST, tiny.request("b", target_new="baker"), tiny.request("c", subject="Toren", target_new="teacher"))


def module_of(handle: ModelHandle, place: str) -> str:
    return handle.mlp_out(1).module if place == "projection" else handle.block(1)


def plainly(handle: ModelHandle, module: str, request: Any = REQUEST) -> Target:
    with handle.engine.switched_off():
        return optimise(handle, module, request, CONTEXTS, SETTINGS)


def counted(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the lowest block is run in every pass."""
    block, runs = handle.model.get_submodule(handle.block(0)), [0]
    own = block.forward

    def forward(*args: Any, **more: Any) -> Any:
        runs[0] += 1
        return own(*args, **more)

    monkeypatch.setattr(block, "forward", forward)
    return runs


@pytest.mark.parametrize("place", ["projection", "block"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_single_search_finds_the_same_bits(family: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle(family)
    module = module_of(handle, place)
    expected = plainly(handle, module)
    assert expected.steps == 4
    runs = counted(handle, monkeypatch)
    first = optimise(handle, module, REQUEST, CONTEXTS, SETTINGS)
    assert runs == [2]  # what stands before the subject, and the first pass
    again = optimise(handle, module, REQUEST, CONTEXTS, SETTINGS)
    assert runs == [4]
    for found in (first, again):
        assert torch.equal(found.value, expected.value)
        assert torch.equal(found.start, expected.start)
        assert (found.loss, found.nll, found.kl, found.steps) == (
            expected.loss, expected.nll, expected.kl, expected.steps,
        )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_requests_that_leave_a_batch_take_their_rows_along(family: str) -> None:
    handle = tiny.handle(family)
    module = handle.block(1)
    with handle.engine.switched_off():
        halfway = SETTINGS.model_copy(update={"v_num_grad_steps": 3})
        stop = min(optimise(handle, module, request, CONTEXTS, halfway).loss for request in OTHERS)
        settings = SETTINGS.model_copy(update={"v_stop_loss": stop + 1e-3})  # one of them has converged there
        expected = [optimise(handle, module, request, CONTEXTS, settings) for request in OTHERS]
    together = optimise_many(handle, module, OTHERS, CONTEXTS, settings)
    assert len({one.steps for one in expected}) > 1
    for found, one in zip(together, expected, strict=True):
        assert found.steps == one.steps
        assert float((found.value - one.value).norm()) <= 1e-5 * float((one.value - one.start).norm())


def test_in_front_of_the_lowest_block_there_is_nothing_to_leave_out() -> None:
    for family in IN_FRONT_ONLY:
        handle = tiny.handle(family)
        module = handle.mlp_out(0).module
        found = optimise(handle, module, REQUEST, CONTEXTS, SETTINGS)
        assert torch.equal(found.value, plainly(handle, module).value)
        assert not any(isinstance(key, above._Proven) for key in handle.engine.kept)


def test_it_is_proven_once(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    module = handle.block(1)
    compared: list[bool] = []
    real = above.same_bits
    monkeypatch.setattr(above, "same_bits", lambda one, other: (compared.append(real(one, other)), compared[-1])[1])
    for _ in range(3):
        optimise(handle, module, REQUEST, CONTEXTS, SETTINGS)
    assert compared == [True]


def test_a_model_that_hands_something_past_its_layers_is_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    first, last = (handle.model.get_submodule(handle.block(layer)) for layer in (0, 2))
    low, high, aside = first.forward, last.forward, list[Tensor]()

    def note(states: Tensor, *args: Any, **more: Any) -> Any:
        aside.append(states.mean(-1, keepdim=True))
        return low(states, *args, **more)

    def read(states: Tensor, *args: Any, **more: Any) -> Any:
        return high(states + (aside.pop() if aside else 0.0), *args, **more)

    monkeypatch.setattr(first, "forward", note)
    monkeypatch.setattr(last, "forward", read)
    module = handle.block(1)
    found = optimise(handle, module, REQUEST, CONTEXTS, SETTINGS)
    assert [value for key, value in handle.engine.kept.items() if isinstance(key, above._Proven)] == [False]
    assert torch.equal(found.value, plainly(handle, module).value)
    assert Above.of(handle, module).entrance is None


@pytest.mark.parametrize("why", ["plain", "hook", "elsewhere"])
def test_every_pass_is_whole_where_it_has_to_be(why: str) -> None:
    handle = tiny.handle("gpt2")
    handle.engine.plain = why == "plain"
    if why == "hook":
        handle.model.register_forward_hook(lambda module, args, output: None)
    module = handle.model.transformer.h[1].ln_1 if why == "elsewhere" else handle.model.get_submodule(handle.block(1))
    name = next(name for name, one in handle.model.named_modules() if one is module)
    assert Above.of(handle, name).entrance is None
    assert optimise(handle, name, REQUEST, CONTEXTS, SETTINGS).steps == 4
    assert not any(isinstance(key, above._Proven) for key in handle.engine.kept)


def test_what_was_kept_of_one_search_is_not_taken_for_another_state_of_the_weights() -> None:
    handle = tiny.handle("gpt2")
    module = handle.block(1)
    optimise(handle, module, REQUEST, CONTEXTS, SETTINGS)
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(0).parameter).mul_(2.0)
    assert torch.equal(optimise(handle, module, REQUEST, CONTEXTS, SETTINGS).value, plainly(handle, module).value)
