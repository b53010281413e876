"""Tokens that nobody reads are left out of a search, and what it finds is the same up to rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from editsafety.editing.targets import Target, optimise_many
from editsafety.edits.seal import Frame
from editsafety.engine import lean
from editsafety.engine.lean import Lean
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.engine.test_above import CONTEXTS, OTHERS, SETTINGS, plainly
from tests.engine.test_continuing import FAMILIES

PASSES = SETTINGS.v_num_grad_steps


def together(handle: ModelHandle, module: str) -> tuple[Target, ...]:
    return optimise_many(handle, module, OTHERS, CONTEXTS, SETTINGS)


def apart(found: Target, expected: Target) -> float:
    return float((found.value - expected.value).norm() / (expected.value - expected.start).norm())


def seen_by(handle: ModelHandle, name: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens a module is given, call by call."""
    module, tokens = handle.model.get_submodule(name), list[int]()
    own = module.forward

    def forward(states: Tensor, *args: Any, **more: Any) -> Any:
        tokens.append(states.numel() // states.shape[-1])
        return own(states, *args, **more)

    monkeypatch.setattr(module, "forward", forward)
    return tokens


@pytest.mark.parametrize("place", ["projection", "block"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_that_are_not_read_are_left_out_and_the_target_is_the_same(
    family: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = tiny.handle(family)
    # At the bottom, so that there is a block between it and the last one.
    module = handle.mlp_out(0).module if place == "projection" else handle.block(0)
    expected = [plainly(handle, module, request) for request in OTHERS]
    tokens = seen_by(handle, f"{handle.block(2)}.{handle.architecture.attention_out}", monkeypatch)
    found = together(handle, module)
    assert handle.engine.kept.get(lean._KnownExact(module)) is True
    read = sum(len(handle.target_ids(one.target_new)) * len(CONTEXTS) + 1 for one in OTHERS)
    assert tokens[-1] <= read < sum(tokens)
    assert tokens[-1] < max(tokens[1:])
    assert [one.steps for one in found] == [one.steps for one in expected] == [PASSES - 1] * len(OTHERS)
    assert max(map(apart, found, expected)) < 1e-5


def test_a_row_counts_up_to_the_last_token_that_is_read() -> None:
    handle = tiny.handle("gpt2")
    how = Lean.of(handle, handle.block(1), torch.zeros(3, 4), [(0, 1), (0, 2), (1, 3), (2, 0)])
    assert how is not None
    assert how.needed.tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert how.read.tolist() == [1, 2, 7, 8]


def test_a_part_that_looks_at_other_tokens_is_given_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    mlp = handle.model.transformer.h[2].mlp
    own = mlp.forward
    # The token in front: once some are left out, it is one of another row.
    monkeypatch.setattr(mlp, "forward", lambda states: own(states + 0.5 * functional.pad(states, (0, 0, 1, -1))))
    module = handle.block(1)
    with handle.engine.switched_off():
        expected = [plainly(handle, module, request) for request in OTHERS]
    found = together(handle, module)
    assert handle.engine.kept[lean._KnownExact(module)] is False
    assert max(map(apart, found, expected)) < 1e-5


@pytest.mark.parametrize("why", ["plain", "hook", "alone", "elsewhere"])
def test_every_token_is_run_where_it_has_to_be(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    handle.engine.plain = why == "plain"
    if why == "hook":
        handle.model.register_forward_hook(lambda module, args, output: None)
    module = "transformer.h.1.ln_1" if why == "elsewhere" else handle.block(1)
    requests = OTHERS[:1] if why == "alone" else OTHERS
    tokens = seen_by(handle, "transformer.h.2.mlp", monkeypatch)
    optimise_many(handle, module, requests, CONTEXTS, SETTINGS)
    assert len(set(tokens[-PASSES:])) == 1
    assert lean._KnownExact(module) not in handle.engine.kept


def test_a_broken_model_proves_nothing() -> None:
    handle = tiny.handle("gpt2")
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(2).parameter).fill_(float("nan"))
    assert [one.steps for one in together(handle, handle.block(1))] == [0] * len(OTHERS)
    assert lean._KnownExact(handle.block(1)) not in handle.engine.kept


def test_nothing_of_it_is_left_on_the_model() -> None:
    handle = tiny.handle("llama")
    frame = Frame.of(handle)
    together(handle, handle.block(1))
    assert frame.left_behind(handle) == ()
