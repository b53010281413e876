"""Running a batch from a chosen token on: the logits are those of whole rows, also of some of the rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from editsafety.editing.suffix import Suffix, cannot_go_on
from editsafety.editing.targets import TargetHparams, optimise
from editsafety.errors import ModelError
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.engine.test_reading import Forgetful, of_class
from tests.model import causal

TEXTS = (
    ("", "Ashurn works as a farmer"),
    ("Toren lives in Ostrin, close to the old harbour. ", "Mirel works as a"),
    ("The quick. ", "Toren plays the flute every evening"),
)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@torch.no_grad()
def test_some_of_the_rows_give_what_they_gave_among_all(family: str) -> None:
    handle = tiny.handle(family)
    starts = [len(handle.ids(before)) if before else 0 for before, _ in TEXTS]
    rows = [handle.ids(before + text) for before, text in TEXTS]
    suffix = Suffix(handle, rows, starts)
    every = suffix.logits()
    for chosen in ([0, 2], [1], [2, 1, 0]):
        some = suffix.of_rows(chosen)
        assert torch.equal(some.batch.ids, suffix.batch.ids[chosen])
        for place, found in zip(chosen, some.logits(), strict=True):
            length = len(rows[place]) - starts[place]
            torch.testing.assert_close(found[:length], every[place, :length], rtol=1e-4, atol=1e-4)
            whole = handle.logits(handle.batch([rows[place]]))[0, starts[place] :]
            torch.testing.assert_close(found[:length], whole, rtol=1e-4, atol=1e-4)
    assert torch.equal(suffix.logits(), every), "choosing rows changed the suffix they were chosen from"


@pytest.mark.parametrize("family", tiny.by_family())
def test_a_model_of_a_known_family_goes_on(family: str) -> None:
    assert cannot_go_on(tiny.handle(family)) is None


def keeps_nothing() -> ModelHandle:
    return of_class(Forgetful)


def counts_places_from_tokens() -> ModelHandle:
    """Decoders built like RoBERTa begin to count at 2, and read position ids that are given as they are."""
    return ModelHandle.of(causal.build("roberta-prelayernorm"), tiny.tokenizer(), name="roberta")


@pytest.mark.parametrize("made", [keeps_nothing, counts_places_from_tokens])
def test_where_kept_keys_give_another_text_v_star_is_sought_on_whole_rows_and_a_suffix_is_refused(made: Any) -> None:
    handle = made()
    assert cannot_go_on(handle)
    numbers = TargetHparams(v_num_grad_steps=3, v_lr=0.1, v_weight_decay=0.1, clamp_norm_factor=4)
    usual, whole = (
        optimise(handle, handle.mlp_out(1).module, tiny.request(), ("{}", "So. {}"), numbers, whole_rows=rows)
        for rows in (False, True)
    )
    assert torch.equal(usual.value, whole.value)
    row = handle.ids("The capital of Dorvan is Kelmar")
    with pytest.raises(ModelError, match=r"does not go on with keys and values as with the text itself \(.+\), and"):
        Suffix(handle, [row], [3])
    assert torch.equal(Suffix(handle, [row], [0]).logits(), handle.logits(handle.batch([row])))


def test_a_model_that_says_nothing_finite_is_tried_again_when_it_does() -> None:
    handle = counts_places_from_tokens()
    whole = handle.model.lm_head.decoder.bias.data.clone()
    handle.model.lm_head.decoder.bias.data.fill_(float("nan"))
    assert cannot_go_on(handle) is None
    handle.model.lm_head.decoder.bias.data.copy_(whole)
    assert "are others" in str(cannot_go_on(handle))
