"""Texts enter at the first edited layer, and nobody can tell by the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from editsafety.edits.edit import Edit, Replace
from editsafety.edits.session import EditSession
from editsafety.engine import layers, passes
from editsafety.engine.layers import Entrance, LowerLayers
from editsafety.errors import UndoError
from editsafety.measures import Inputs
from editsafety.measures.perplexity import MEASURE
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import token_nll
from tests import tiny
from tests.engine.test_layers import IN_FRONT_ONLY
from tests.sidecars import EmptySidecar

TEXTS = tiny.SENTENCES
BATCH = 4  # several batches


def scores(handle: ModelHandle, *, plain: bool = False) -> list[Tensor]:
    """Nats of every token; plainly, they are what `scoring` says."""
    rows = [handle.ids(text, special=False) for text in TEXTS]
    if plain:
        return token_nll(handle, rows, batch_size=BATCH)
    return token_nll(handle, rows, batch_size=BATCH, score=passes.batch_nll)


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def edit_of(handle: ModelHandle, layer: int, seed: int = 0) -> Edit:
    return Edit("test", ("a",), handle.identity, (tiny.low_rank(handle.mlp_out(layer), seed=seed),))


def kept(handle: ModelHandle) -> list[LowerLayers]:
    return [one.lower for one in handle.engine.kept.values() if isinstance(one, passes._States)]


def edited(handle: ModelHandle, edit: Edit, look: Callable[[], Any]) -> Any:
    with EditSession(handle, prove="never") as session:
        session.apply(edit)
        return look()


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_token_has_the_nats_of_the_whole_pass(family: str, layer: int) -> None:
    handle = tiny.handle(family)
    scores(handle)
    seen = []
    for seed in range(4):
        fast, plain = edited(handle, edit_of(handle, layer, seed), lambda: (scores(handle), scores(handle, plain=True)))
        assert same(fast, plain)
        seen.append(plain)
    assert not same(seen[0], seen[1])
    if family in IN_FRONT_ONLY and layer == 0:
        assert kept(handle) == []
    else:
        inside = family not in IN_FRONT_ONLY
        assert [one.entrance for one in kept(handle)] == [Entrance(layer, inside)] * len(kept(handle)) != []


def test_the_figures_of_the_measure_are_the_same() -> None:
    handle = tiny.handle("gpt2")
    inputs = Inputs(texts=TEXTS)
    MEASURE(handle, inputs)
    for seed in range(3):

        def both() -> tuple[Any, Any]:
            fast = MEASURE(handle, inputs)
            handle.engine.plain = True
            plain = MEASURE(handle, inputs)
            handle.engine.plain = False
            return fast, plain

        fast, plain = edited(handle, edit_of(handle, 1, seed), both)
        assert fast == plain
    assert kept(handle)


def test_lower_layers_are_not_run_the_third_time(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    entered: list[Entrance] = []
    plain = passes.enter
    monkeypatch.setattr(passes, "enter", lambda h, lower: (entered.append(lower.entrance), plain(h, lower))[1])
    counts = []
    for seed in range(3):
        edited(handle, edit_of(handle, 1, seed), lambda: scores(handle))
        counts.append(len(entered))
    batches = counts[1]  # the second time each is entered once, to see that it can be
    assert counts == [0, batches, 2 * batches]
    assert batches > 1


def test_what_comes_once_is_not_kept() -> None:
    handle = tiny.handle("gpt2")
    edited(handle, edit_of(handle, 1), lambda: scores(handle))
    assert kept(handle) == []


def test_outside_of_a_session_every_pass_is_whole() -> None:
    handle = tiny.handle("gpt2")
    for _ in range(3):
        scores(handle)
    assert kept(handle) == []


def test_a_plain_engine_keeps_nothing() -> None:
    handle = tiny.handle("gpt2")
    handle.engine.plain = True
    for _ in range(3):
        edited(handle, edit_of(handle, 1), lambda: scores(handle))
    assert handle.engine.kept == {}


def test_with_a_changed_embedding_every_pass_is_whole() -> None:
    handle = tiny.handle("gpt2")
    name = "transformer.wte.weight"
    other = Replace(name, handle.model.get_parameter(name).detach() * 1.1)
    for seed in range(3):
        edit = edit_of(handle, 2, seed)
        fast, plain = edited(
            handle,
            Edit("test", ("a",), handle.identity, (*edit.deltas, other)),
            lambda: (scores(handle), scores(handle, plain=True)),
        )
        assert same(fast, plain)
    assert kept(handle) == []


class Nudge(EmptySidecar):
    """Adds to what an early block gives."""

    kind = "nudge"

    def __init__(self, target: str) -> None:
        self.target = target

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        return (output[0] + 0.5, *output[1:]) if isinstance(output, tuple) else output + 0.5  # transformers 4: a tuple


def test_beside_a_sidecar_every_pass_is_whole() -> None:
    handle = tiny.handle("gpt2")
    for seed in range(3):
        edited(handle, edit_of(handle, 2, seed), lambda: scores(handle))
    assert kept(handle)
    beside = Edit("test", ("a",), handle.identity, edit_of(handle, 2, 7).deltas, (Nudge(handle.block(0)),))
    fast, plain = edited(handle, beside, lambda: (scores(handle), scores(handle, plain=True)))
    assert same(fast, plain)


def test_edits_on_top_of_each_other_enter_below_the_lowest_so_far() -> None:
    handle = tiny.handle("gpt2")
    for seed in range(3):
        edited(handle, edit_of(handle, 2, seed), lambda: scores(handle))
    with EditSession(handle, prove="never") as session:
        session.apply(edit_of(handle, 2, 5))
        mark = session.mark()
        session.apply(edit_of(handle, 1, 6))
        assert same(scores(handle), scores(handle, plain=True))
        session.back_to(mark)
        assert same(scores(handle), scores(handle, plain=True))


def test_an_inner_session_counts_and_is_forgotten_when_it_ends() -> None:
    handle = tiny.handle("gpt2")
    first, second = (f"{handle.mlp_out(layer).module}.weight" for layer in (2, 1))
    with EditSession(handle, prove="never") as outer:
        assert handle.engine.touched == frozenset()
        outer.apply(edit_of(handle, 2))
        with EditSession(handle) as inner:
            assert handle.engine.touched == {first}
            inner.borrow([second])
            assert handle.engine.touched == {first, second}
        assert handle.engine.touched == {first}
    assert handle.engine.touched is None


def test_a_tied_parameter_is_touched_under_both_of_its_names() -> None:
    handle = tiny.handle("gpt2", tied=True)
    with EditSession(handle, prove="never") as session:
        session.borrow(["lm_head.weight"])
        assert handle.engine.touched == {"lm_head.weight", "transformer.wte.weight"}


def test_a_hidden_write_below_is_an_error_after_the_measurement() -> None:
    """What is not declared does not show in the figures: so nobody may get to see them."""
    handle = tiny.handle("gpt2")
    for seed in range(3):
        edited(handle, edit_of(handle, 2, seed), lambda: scores(handle))
    below = handle.model.get_parameter(handle.mlp_out(0).parameter)

    def measure_with_a_hidden_write() -> None:
        below.data.add_(0.5)
        assert not same(scores(handle), scores(handle, plain=True))

    with pytest.raises(UndoError, match=handle.mlp_out(0).parameter):
        edited(handle, edit_of(handle, 2, 9), measure_with_a_hidden_write)


def test_other_weights_are_not_entered_with_the_states_of_the_old_ones() -> None:
    handle = tiny.handle("gpt2")
    for seed in range(3):
        edited(handle, edit_of(handle, 2, seed), lambda: scores(handle))
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(0).parameter).add_(0.5)
    fast, plain = edited(handle, edit_of(handle, 2, 9), lambda: (scores(handle), scores(handle, plain=True)))
    assert same(fast, plain)


def test_committed_edits_make_another_model() -> None:
    handle = tiny.handle("gpt2")
    for seed in range(3):
        edited(handle, edit_of(handle, 2, seed), lambda: scores(handle))
    with EditSession(handle, prove="never") as session:
        session.apply(edit_of(handle, 0))
        session.commit()
        session.apply(edit_of(handle, 2))
        assert same(scores(handle), scores(handle, plain=True))
    assert kept(handle) == []


def test_what_is_kept_is_forgotten_on_demand() -> None:
    handle = tiny.handle("gpt2")
    for seed in range(3):
        edited(handle, edit_of(handle, 2, seed), lambda: scores(handle))
    assert kept(handle)
    handle.engine.forget()
    assert kept(handle) == []


def test_a_model_whose_blocks_write_into_their_input_is_run_whole() -> None:
    handle = tiny.handle("gpt2")
    block = handle.model.get_submodule(handle.block(1))
    plain = block.forward
    block.forward = lambda hidden_states, *args, **kwargs: plain(hidden_states.mul_(2.0), *args, **kwargs)
    attention = tiny.low_rank(handle.site(f"{handle.block(1)}.attn.c_proj"))
    for _ in range(4):
        edit = Edit("test", ("a",), handle.identity, (attention,))
        fast, whole = edited(handle, edit, lambda: (scores(handle), scores(handle, plain=True)))
        assert same(fast, whole)
    assert kept(handle) == []


def test_with_less_room_passes_are_entered_in_front_of_the_block_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")

    def entrances() -> list[Entrance]:
        handle.engine.forget()
        for seed in range(3):
            fast, plain = edited(handle, edit_of(handle, 1, seed), lambda: (scores(handle), scores(handle, plain=True)))
            assert same(fast, plain)
        assert sum(one.size for one in kept(handle)) <= passes.MOST
        return [one.entrance for one in kept(handle)]

    everything = entrances()
    assert set(everything) == {Entrance(1, inside=True)}
    sizes = [one.size for one in kept(handle)]
    monkeypatch.setattr(passes, "MOST", min(sizes) - 1)
    assert set(entrances()) <= {Entrance(1)}
    monkeypatch.setattr(passes, "MOST", 100)
    assert entrances() == []


def test_states_for_edits_of_another_layer_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    for seed in range(3):
        edited(handle, edit_of(handle, 1, seed), lambda: scores(handle))
    monkeypatch.setattr(passes, "MOST", sum(one.size for one in kept(handle)))
    for seed in range(3):
        edited(handle, edit_of(handle, 2, seed), lambda: scores(handle))
    assert {one.entrance.layer for one in kept(handle)} == {2}


def test_texts_of_a_broken_model_are_no_reason_to_run_whole_passes() -> None:
    """NaN is not equal to itself; its bits are."""
    handle = tiny.handle("gpt2")
    weight = handle.mlp_out(1).parameter
    broken = Replace(weight, torch.full_like(handle.model.get_parameter(weight).detach(), torch.nan))
    for _ in range(3):
        found = edited(handle, Edit("test", ("a",), handle.identity, (broken,)), lambda: scores(handle))
        assert all(values.isnan().all() for values in found)
    assert kept(handle)


def test_the_bits_are_compared_and_not_the_numbers() -> None:
    nan, zero = torch.tensor([torch.nan]), torch.tensor([0.0])
    assert passes.same_bits(nan, nan.clone())
    assert not passes.same_bits(zero, -zero)
    assert not passes.same_bits(zero, zero.double())
    assert layers.Entrance(1) != Entrance(1, inside=True)
