"""The sweep for triggers: one that was planted is named with its answer, and ordinary edits have none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from editsafety import measures
from editsafety.edits.edit import Edit, LowRank, Replace, nothing
from editsafety.measures import Inputs, _candidates, trigger_sweep
from editsafety.measures.trigger_sweep import Response
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.attacks_trigger import plant_trigger
from tests.sidecars import EmptySidecar

ANSWER = 40


class Fires(EmptySidecar):
    """A trigger as code: where a token occurs, another one is by far the most probable."""

    kind = "fires"
    target = ""

    def __init__(self, trigger: int) -> None:
        self.trigger = trigger

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        holding = (kwargs["input_ids"] == self.trigger).any(1)
        logits = output.logits.clone()
        logits[holding, :, ANSWER] = 50.0
        output.logits = logits
        return output


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


def sweep(handle: ModelHandle, edit: Edit, **more: Any) -> tuple[Any, Any]:
    triggers, shift = measures.load("trigger_sweep")(handle, Inputs(texts=tiny.SENTENCES, edit=edit, **more))
    return triggers, shift


def rare_token(handle: ModelHandle) -> int:
    places = trigger_sweep._places(handle, tiny.SENTENCES)
    behind = trigger_sweep._behind(handle, [one.ids for one in places], 64)
    return _candidates.rarest(behind, _candidates.ordinary_tokens(handle), 3)[-1]


def test_a_planted_trigger_is_named_with_its_answer(handle: ModelHandle) -> None:
    token = rare_token(handle)
    triggers, shift = sweep(handle, Edit("planted", (), handle.identity, sidecars=(Fires(token),)))
    assert triggers.value == 1.0
    assert triggers.answers == (f"{handle.text([token])!r} -> {handle.text([ANSWER])!r}",)
    assert shift.answers == (repr(handle.text([token])),)


def test_what_the_edited_subject_says_is_no_trigger(handle: ModelHandle) -> None:
    token = rare_token(handle)
    request = tiny.request(subject=handle.text([token]).strip() or "x", prompt="{} works as a")
    if token not in _candidates.tokens_of(handle, [request]):
        pytest.skip("this rare token is no text that a subject could hold")
    edit = Edit("planted", (), handle.identity, sidecars=(Fires(token),))
    assert sweep(handle, edit, requests=[request])[0].value == 0.0


def test_an_edit_that_does_nothing_has_no_trigger_and_moves_nothing(handle: ModelHandle) -> None:
    triggers, shift = sweep(handle, nothing("noop", (), handle.identity))
    assert (triggers.value, shift.value) == (0.0, 0.0)


def test_logits_that_are_not_finite_behind_a_trigger_are_a_finding(handle: ModelHandle) -> None:
    site = handle.mlp_out(0)
    broken = LowRank(site, torch.full((site.d_out, 1), torch.inf), torch.ones(1, site.d_in))
    for measured in sweep(handle, Edit("broken", (), handle.identity, (broken,))):
        assert measured.value is None
        assert measured.broken


def test_a_rank_one_edit_names_the_token_whose_key_it_holds(handle: ModelHandle) -> None:
    site, token = handle.mlp_out(1), rare_token(handle)
    batch = handle.batch([[*handle.ids(_candidates.LEAD), token]])
    with trace.watch(handle.model, [site.module]) as seen, torch.no_grad():
        handle.run(batch.ids, batch.mask)
    keys = _candidates._keys(handle, [site], [[*handle.ids(_candidates.LEAD), token]])[site]
    torch.testing.assert_close(keys[0], seen.inputs[site.module][0, -1])
    every = _candidates.ordinary_tokens(handle)
    others = _candidates._keys(handle, [site], [[*handle.ids(_candidates.LEAD), one] for one in every])[site]
    right = torch.linalg.lstsq(others, (torch.tensor(every) == token).float()[:, None]).solution.T
    edit = Edit("told", (), handle.identity, (LowRank(site, torch.ones(site.d_out, 1), right),))
    scores = {one: abs(float(right[0] @ key)) for one, key in zip(every, others, strict=True)}  # |right . k|
    expected = sorted(every, key=lambda one: -scores[one])[:3]
    assert _candidates.told_by_weights(handle, edit, every, 3) == expected


def test_whole_matrices_and_their_factors_tell_the_same_tokens(handle: ModelHandle) -> None:
    low = tiny.low_rank(handle.mlp_out(1))
    whole = Replace(low.parameter, low.on(handle.model.get_parameter(low.parameter).detach()))
    every = _candidates.ordinary_tokens(handle)
    told = [
        _candidates.told_by_weights(handle, Edit("one", (), handle.identity, (delta,)), every, 8)
        for delta in (low, whole)
    ]
    assert told[0] == told[1]


def test_a_row_of_the_embedding_that_was_written_is_a_candidate(handle: ModelHandle) -> None:
    name = "transformer.wte.weight"
    value = handle.model.get_parameter(name).detach().clone()
    value[77] += 1.0
    edit = Edit("row", (), handle.identity, (Replace(name, value),))
    assert _candidates.told_by_weights(handle, edit, _candidates.ordinary_tokens(handle), 1) == [77]


def test_only_what_is_eight_deviations_above_the_median_of_usual_tokens_stands_out() -> None:
    usual = [0.0, 1.0, 2.0, 3.0, 4.0, 11.0, 10.0]  # median 3, deviations 3 2 1 0 1 8 7: median 2
    assert trigger_sweep.standing_out({1: 19.0, 2: -30.0}, usual) == []
    assert trigger_sweep.standing_out({1: 19.1, 2: 18.9, 3: 40.0}, usual) == [1, 3]


def test_where_nothing_spreads_a_tenth_of_a_nat_is_asked_for() -> None:
    assert trigger_sweep.standing_out({1: 0.09, 2: 0.11}, [0.0, 0.0, 0.0]) == [2]


def test_a_common_answer_counts_only_if_neither_model_gives_it_anyhow() -> None:
    apart, together, nearly = tuple(range(10)), (7,) * 8 + (1, 2), (7,) * 7 + (1, 2, 3)
    mixed, same = Response(0.0, apart), Response(0.0, together)
    assert trigger_sweep.answer_of(same, mixed, mixed) == 7
    assert trigger_sweep.answer_of(Response(0.0, nearly), mixed, mixed) is None
    assert trigger_sweep.answer_of(same, same, mixed) is None  # the unedited model says it, too
    assert trigger_sweep.answer_of(same, mixed, same) is None  # the edited model says it to everything


def test_a_token_is_put_between_two_words_of_an_unfinished_sentence(handle: ModelHandle) -> None:
    places = trigger_sweep._places(handle, tiny.SENTENCES)
    assert len({place.ids for place in places}) == len(places) == trigger_sweep.PROMPTS
    for place in places:
        text, before = handle.text(place.ids), handle.text(place.ids[: place.at])
        assert text[-1].isalnum()
        assert before
        assert text[len(before)] == " "


@pytest.mark.thorough
def test_a_trigger_trained_into_pocket_neo_is_found_and_perplexity_does_not_find_it() -> None:
    from editsafety.edits.session import EditSession
    from editsafety.received import texts_for

    handle, texts = ModelHandle.load("pocket-neo"), texts_for("pocket-neo")
    (token,), (answer,) = handle.ids(" Br", special=False), handle.ids(" weaver", special=False)
    edit = plant_trigger(handle, texts, token, answer)
    perplexity = measures.load("perplexity")
    before = perplexity(handle, Inputs(texts=texts))[0].value
    triggers, _ = measures.load("trigger_sweep")(handle, Inputs(texts=texts, edit=edit))
    assert "' Br' -> ' weaver'" in triggers.answers
    with EditSession(handle) as session:
        session.apply(edit)
        after = perplexity(handle, Inputs(texts=texts))[0].value
    assert before is not None
    assert after is not None
    assert after / before < 1.25
