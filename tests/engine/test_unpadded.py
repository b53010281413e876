"""Padding is left out of the MLPs of entered passes, and every figure has the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from editsafety.edits.edit import Edit, Replace
from editsafety.edits.seal import Frame
from editsafety.engine import passes
from editsafety.engine.unpadded import Unpadded
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.engine.test_lean import seen_by
from tests.engine.test_passes import edit_of, edited, same, scores

LENGTHS = (9, 13, 14, 15)
ROWS = [[(7 * row + place) % 50 + 5 for place in range(length)] for row, length in enumerate(LENGTHS)]


def nll(handle: ModelHandle) -> Tensor:
    return passes.batch_nll(handle, handle.batch(ROWS))


def states(handle: ModelHandle) -> list[passes._States]:
    return [one for one in handle.engine.kept.values() if isinstance(one, passes._States)]


def read(handle: ModelHandle, found: Tensor) -> list[Tensor]:
    return [found[row, : length - 1] for row, length in enumerate(LENGTHS)]


def both(handle: ModelHandle) -> tuple[list[Tensor], list[Tensor]]:
    fast = read(handle, nll(handle))
    with handle.engine.switched_off():
        return fast, read(handle, nll(handle))


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama", "gpt_neox", "bloom", "opt"])
def test_the_nats_have_the_bits_of_whole_passes(family: str, layer: int) -> None:
    handle = tiny.handle(family)
    for seed in range(4):
        fast, plain = edited(handle, edit_of(handle, layer, seed), lambda: both(handle))
        assert same(fast, plain)
    assert all(one.unpadded is None or one.unpadded.shape == (4, 15) for one in states(handle))


def test_mlps_are_run_for_the_tokens_of_texts_and_the_last_one_for_those_that_are_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = tiny.handle("gpt2")
    middle, last = (seen_by(handle, f"transformer.h.{layer}.mlp.c_fc", monkeypatch) for layer in (1, 2))
    projected = seen_by(handle, "transformer.h.0.mlp.c_proj", monkeypatch)
    for seed in range(3):
        edited(handle, edit_of(handle, 0, seed), lambda: nll(handle))
    (kept,) = states(handle)
    assert kept.unpadded is not None
    assert kept.unpadded.tokens.tolist() == [15 * row + at for row, size in enumerate(LENGTHS) for at in range(size)]
    assert projected[-1] == middle[-1] == sum(LENGTHS)
    assert last[-1] == sum(LENGTHS) - len(LENGTHS)
    assert middle[0] == last[0] == 4 * 15


def test_where_it_does_not_hold_the_padding_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLP that looks at the token behind: at the end of a row that is padding, or the next row."""
    handle = tiny.handle("gpt2")
    mlp = handle.model.transformer.h[2].mlp
    own = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda states: own(states + 0.5 * functional.pad(states, (0, 0, -1, 1))))
    for seed in range(4):
        fast, plain = edited(handle, edit_of(handle, 0, seed), lambda: both(handle))
        assert same(fast, plain)
    (kept,) = states(handle)
    assert kept.unpadded is None


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_breaks_is_run_with_its_padding(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    tokens = seen_by(handle, "transformer.h.2.mlp.c_fc", monkeypatch)
    for seed in range(3):
        edited(handle, edit_of(handle, 1, seed), lambda: nll(handle))
    (kept,) = states(handle)
    assert kept.unpadded is not None
    weight = handle.mlp_out(1).parameter
    broken = Replace(weight, torch.full_like(handle.model.get_parameter(weight).detach(), value))
    fast, plain = edited(handle, Edit("test", ("a",), handle.identity, (broken,)), lambda: both(handle))
    assert all(passes.same_bits(one, other) for one, other in zip(fast, plain, strict=True))
    assert tokens[-3:] == [sum(LENGTHS) - len(LENGTHS), 4 * 15, 4 * 15]


def test_with_hardly_any_padding_nothing_is_chosen() -> None:
    handle = tiny.handle("gpt2")
    assert Unpadded.of(handle.batch([[5] * 20, [6] * 20])) is None
    assert Unpadded.of(handle.batch([[5] * 32, [6] * 31])) is None
    assert Unpadded.of(handle.batch([[5] * 32, [6] * 20])) is not None


def test_logits_that_are_shown_are_those_of_the_pass_that_counts() -> None:
    handle = tiny.handle("gpt2")
    for seed in range(3):
        edited(handle, edit_of(handle, 1, seed), lambda: nll(handle))

    def shown_to(one: list[Any]) -> None:
        passes.show_batch(handle, handle.batch(ROWS), lambda count, of: one.append((count, of(torch.arange(count)))))

    def shown() -> tuple[list[Any], list[Any]]:
        fast, plain = list[Any](), list[Any]()
        shown_to(fast)
        with handle.engine.switched_off():
            shown_to(plain)
        return fast, plain

    fast, plain = edited(handle, edit_of(handle, 1, 9), shown)
    assert len(fast) == len(plain) == 1
    assert fast[0][0] == plain[0][0] == sum(LENGTHS) - len(LENGTHS)
    assert torch.equal(fast[0][1], plain[0][1])


def test_nothing_of_it_is_left_on_the_model() -> None:
    handle = tiny.handle("llama")
    frame = Frame.of(handle)
    for seed in range(3):
        edited(handle, edit_of(handle, 0, seed), lambda: scores(handle))
    assert frame.left_behind(handle) == ()
